//! Rates and bursts: from the file's words to a bucket that counts exactly.

use std::time::Duration;

use super::Check;
use super::limits::Scope;
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{Setting, Spanned};
use crate::config::values::{Allowance, KeyChoice};
use crate::limit::algorithm::{Algorithm, Bucket};
use crate::limit::key::KeyPart;
use crate::limit::policy::{Cost, DEFAULT_MAX_WAIT, Limit, Override, OverrideMatch, Terms};
use crate::units::{DurationText, Rate};

/// A rate and a burst as written, and where.
struct Written {
    rate: Rate,
    burst: u64,
    /// Where the burst stands, or the rate that implies it.
    span: Span,
}

impl Check<'_> {
    /// What holds unless an override matches.
    pub(super) fn terms(
        &mut self,
        limit: &Spanned<file::Limit>,
        name: &str,
        cost: &Cost,
        scope: &Scope<'_>,
    ) -> Option<Terms> {
        if limit.rate.is_absent() {
            self.error(limit.span, "this limit has no rate", "write `rate: 100/s`, for example");
        }
        let leaky = limit.algorithm.or(file::AlgorithmName::TokenBucket) == file::AlgorithmName::LeakyBucket;
        for (key, what) in [(limit.delay_after.key(), "delay_after"), (limit.max_wait.key(), "max_wait")] {
            if let Some(key) = key
                && !leaky
                && !matches!(limit.algorithm, Setting::Invalid)
            {
                self.error(key, format!("`{what}` belongs to leaky_bucket"), "add `algorithm: leaky_bucket`");
            }
        }
        self.terms_of(&limit.rate, &limit.burst, limit, (name, cost, scope))
    }

    pub(super) fn overrides(
        &mut self,
        limit: &Spanned<file::Limit>,
        name: &str,
        cost: &Cost,
        scope: &Scope<'_>,
    ) -> Option<Vec<Override>> {
        let listed = limit.overrides.get().map(|list| list.0.as_slice()).unwrap_or_default();
        let mut overrides = Vec::new();
        for (position, given) in listed.iter().enumerate() {
            if given.key.is_absent() {
                self.error(given.span, "this override has no key", "write `key: VALUE` or a list of values");
            }
            if given.rate.is_absent() {
                self.error(given.span, "this override has no rate", "write a rate, `0/s` or `unlimited`");
            }
            let id = format!("{name}@{}", position + 1);
            let terms = self.terms_of(&given.rate, &given.burst, limit, (&id, cost, scope));
            let matches = self.override_keys(given, limit);
            overrides.push(terms.map(|terms| Override { matches, terms }));
        }
        overrides.into_iter().collect()
    }

    /// What an override's keys stand for: address blocks where the limit counts by address, values where it
    /// counts by anything else, both where it may count by either.
    fn override_keys(&mut self, given: &Spanned<file::Override>, limit: &Spanned<file::Limit>) -> Vec<OverrideMatch> {
        let choices = || limit.key.get().into_iter().flat_map(|key| &key.0).map(|choice| &choice.value);
        let parts = || choices().flat_map(|choice| &choice.0);
        let is_address = |part: &KeyPart| matches!(part, KeyPart::ClientIp { .. });
        let by_value = !parts().all(is_address);
        let missing = limit.missing.or(file::Missing::ClientIp) == file::Missing::ClientIp;
        let by_address = parts().any(is_address) || (missing && choices().any(KeyChoice::may_be_missing));
        let mut matches = Vec::new();
        for key in given.key.get().into_iter().flat_map(|list| &list.0) {
            if !by_value && key.network.is_none() && parts().next().is_some() {
                self.error(
                    key.span,
                    format!("`{}` is not an address, and this limit counts by client address", key.text),
                    "write addresses or blocks, such as 10.20.0.0/16",
                );
            }
            matches.extend(key.network.filter(|_| by_address).map(OverrideMatch::Network));
            if by_value {
                matches.push(OverrideMatch::Value(key.text.as_str().into()));
            }
        }
        matches
    }

    fn terms_of(
        &mut self,
        rate: &Setting<Allowance>,
        burst: &Setting<u64>,
        limit: &Spanned<file::Limit>,
        (state_id, cost, scope): (&str, &Cost, &Scope<'_>),
    ) -> Option<Terms> {
        let given = rate.spanned()?;
        let Allowance::Rate(rate) = given.value else { return Some(self.without_burst(burst, Terms::Unlimited)) };
        if rate.count == 0 {
            return Some(self.without_burst(burst, Terms::Deny));
        }
        let burst = match burst {
            Setting::Given { value, .. } => Some((value.value, value.span)),
            Setting::Absent => Some((rate.count, given.span)),
            Setting::Invalid => None,
        };
        let (burst, span) = burst?;
        let written = Written { rate, burst, span };
        let bucket = self.bucket(&written, cost)?;
        let algorithm = match limit.algorithm.or(file::AlgorithmName::TokenBucket) {
            file::AlgorithmName::TokenBucket => Algorithm::TokenBucket(bucket),
            file::AlgorithmName::LeakyBucket => {
                Algorithm::LeakyBucket { bucket, delay_after: self.delay_after(limit, &written, scope) }
            }
        };
        Some(Terms::Limited(Limit { state_id: state_id.into(), rate, algorithm }))
    }

    fn without_burst(&mut self, burst: &Setting<u64>, terms: Terms) -> Terms {
        if let Some(key) = burst.key() {
            self.error(key, "a burst has no meaning beside this rate", "leave `burst` out");
        }
        terms
    }

    fn bucket(&mut self, written: &Written, cost: &Cost) -> Option<Bucket> {
        if written.burst == 0 {
            self.error(written.span, "a burst of 0 admits nothing", "write 1 or more, or `rate: 0/s` to deny");
            return None;
        }
        if written.burst < cost.largest() {
            self.error(
                written.span,
                format!("a burst of {} never admits a request that costs {}", written.burst, cost.largest()),
                format!("write `burst: {}` or more", cost.largest()),
            );
            return None;
        }
        match Bucket::new(written.rate, written.burst) {
            Ok(bucket) => Some(bucket),
            Err(error) => {
                self.reader.error(written.span, error.into());
                None
            }
        }
    }

    /// How many requests go through without delay, once it is sure that the rest of the burst can be
    /// held for as long as its turn takes.
    fn delay_after(&mut self, limit: &Spanned<file::Limit>, written: &Written, scope: &Scope<'_>) -> u64 {
        let delay_after = limit.delay_after.or(1);
        if let Some(given) = limit.delay_after.spanned()
            && !(1..=written.burst).contains(&given.value)
        {
            self.error(given.span, "`delay_after` is at least 1 and at most the burst", "write 1, for example");
            return 1;
        }
        let timeout = scope.timeout;
        let max_wait = self.time(&limit.max_wait, DEFAULT_MAX_WAIT.min(timeout));
        if let Some(given) = limit.max_wait.spanned()
            && given.value > timeout
        {
            self.error(
                given.span,
                format!("a request cannot be held longer than its route's timeout, {}", DurationText(timeout)),
                format!("write {} or less", DurationText(timeout)),
            );
            return delay_after;
        }
        let reachable = reachable_burst(written.rate, delay_after, max_wait);
        if written.burst > reachable {
            let message = format!(
                "the last of a burst of {} would be held longer than max_wait, {}",
                written.burst,
                DurationText(max_wait)
            );
            let help =
                format!("write `burst: {reachable}` or less, or a longer `max_wait` (never above the route's timeout)");
            self.error(written.span, message, help);
        }
        delay_after
    }
}

/// The largest burst whose last request waits `max_wait` at most: request k waits (k − D)·P/R, D being `delay_after`.
fn reachable_burst(rate: Rate, delay_after: u64, max_wait: Duration) -> u64 {
    let held = max_wait.as_micros() * u128::from(rate.count) / rate.period.as_micros().max(1);
    u64::try_from(held).unwrap_or(u64::MAX).saturating_add(delay_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reachable_burst_counts_from_the_first_that_is_held() {
        let rate = "10/s".parse().unwrap();
        assert_eq!(reachable_burst(rate, 1, Duration::from_secs(1)), 11);
        assert_eq!(reachable_burst(rate, 5, Duration::from_millis(250)), 7);
    }
}
