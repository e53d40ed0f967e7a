//! From a rate and what stands beside it to an algorithm that counts exactly.

use std::time::Duration;

use super::Check;
use super::limits::Scope;
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{Setting, Spanned};
use crate::limit::algorithm::fixed_window::Align;
use crate::limit::algorithm::sliding_log::MOST_COST;
use crate::limit::algorithm::zone::Zone;
use crate::limit::algorithm::{Algorithm, Bucket, FixedWindow, InFlight, SlidingLog, SlidingWindow};
use crate::limit::policy::{Cost, DEFAULT_MAX_WAIT};
use crate::units::{DurationText, Rate};

/// A rate and a burst as written, and where.
pub(super) struct Written {
    pub(super) rate: Rate,
    pub(super) burst: u64,
    /// Where the burst stands, or the rate that implies it.
    pub(super) span: Span,
}

/// How long a slot lasts that nobody renews, unless the file says otherwise.
const SLOT_TTL: Duration = Duration::from_secs(30);

impl Check<'_> {
    /// The limit's algorithm with these numbers.
    pub(super) fn algorithm(
        &mut self,
        limit: &Spanned<file::Limit>,
        written: &Written,
        cost: &Cost,
        scope: &Scope<'_>,
    ) -> Option<Algorithm> {
        self.room_for_cost(written, cost)?;
        let Written { rate, span, .. } = *written;
        let debt = Self::debt(limit, cost, written.burst);
        let window = match limit.algorithm.or(file::AlgorithmName::TokenBucket) {
            file::AlgorithmName::TokenBucket => return self.bucket(written, debt).map(Algorithm::TokenBucket),
            file::AlgorithmName::LeakyBucket => {
                let bucket = self.bucket(written, debt)?;
                let delay_after = self.delay_after(limit, written, scope);
                return Some(Algorithm::LeakyBucket { bucket, delay_after });
            }
            file::AlgorithmName::FixedWindow => {
                let align = self.align(limit, written)?;
                FixedWindow::new(rate, align, debt).map(Algorithm::FixedWindow)
            }
            file::AlgorithmName::SlidingWindow => SlidingWindow::new(rate, debt).map(Algorithm::SlidingWindow),
            file::AlgorithmName::SlidingLog => {
                if cost.largest() > MOST_COST {
                    self.error(span, format!("a sliding_log takes costs up to {MOST_COST}"), "use another algorithm");
                }
                SlidingLog::new(rate, debt).map(Algorithm::SlidingLog)
            }
        };
        match window {
            Ok(algorithm) => Some(algorithm),
            Err(error) => {
                self.reader.error(span, error.into());
                None
            }
        }
    }

    /// How many requests may be under way at once.
    pub(super) fn in_flight(&mut self, limit: &Spanned<file::Limit>, given: &Spanned<u64>, cost: &Cost) -> Algorithm {
        if given.value == 0 {
            self.error(given.span, "`in_flight: 0` admits nothing", "write 1 or more, or `rate: 0/s` to deny");
        }
        if cost.largest() > 1
            && let Some(key) = limit.cost.key()
        {
            self.error(key, "each request in flight takes one place", "write costs of 0 or 1");
        }
        let slot_ttl = self.time(&limit.slot_ttl, SLOT_TTL);
        if let Some(given) = limit.slot_ttl.spanned()
            && !(Duration::from_secs(1)..=Duration::from_hours(1)).contains(&given.value)
        {
            self.error(given.span, "`slot_ttl` is out of bounds", "write 1s to 1h");
        }
        let slot_us = u64::try_from(slot_ttl.as_micros()).unwrap_or(u64::MAX);
        Algorithm::InFlight(InFlight { limit: given.value, slot_us })
    }

    /// Every cost must fit into the burst.
    fn room_for_cost(&mut self, written: &Written, cost: &Cost) -> Option<()> {
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
        Some(())
    }

    fn bucket(&mut self, written: &Written, debt: u64) -> Option<Bucket> {
        match Bucket::with_debt(written.rate, written.burst, debt) {
            Ok(bucket) => Some(bucket),
            Err(error) => {
                self.reader.error(written.span, error.into());
                None
            }
        }
    }

    /// Where windows begin; marks of a time zone must be the same every day.
    fn align(&mut self, limit: &Spanned<file::Limit>, written: &Written) -> Option<Align> {
        let align = limit.align.get().map_or(Align::Utc, |align| align.0.clone());
        let window_us = u64::try_from(written.rate.period.as_micros()).unwrap_or(0);
        if let (Align::Zone(zone), false) = (&align, Zone::suits(window_us)) {
            let message = format!(
                "windows of {} have no fixed place in the days of {}",
                DurationText(written.rate.period),
                zone.name()
            );
            self.error(written.span, message, "write whole days, or a part of a day such as 6h, 1h or 15m");
            return None;
        }
        Some(align)
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
            let or_less = if reachable > 1 { " or less" } else { "" };
            let help = format!(
                "write `burst: {reachable}`{or_less}, or a longer `max_wait` (never above the route's timeout)"
            );
            self.error(written.span, message, help);
        }
        delay_after
    }

    /// Keys that mean nothing beside the limit's algorithm.
    pub(super) fn misplaced_keys(&mut self, limit: &Spanned<file::Limit>) {
        if matches!(limit.algorithm, Setting::Invalid) {
            return;
        }
        let algorithm = limit.algorithm.or(file::AlgorithmName::TokenBucket);
        let in_flight = !limit.in_flight.is_absent();
        let leaky = algorithm == file::AlgorithmName::LeakyBucket && !in_flight;
        let fixed = algorithm == file::AlgorithmName::FixedWindow && !in_flight;
        for (key, name, belongs, to, help) in [
            (limit.delay_after.key(), "delay_after", leaky, "leaky_bucket", "add `algorithm: leaky_bucket`"),
            (limit.max_wait.key(), "max_wait", leaky, "leaky_bucket", "add `algorithm: leaky_bucket`"),
            (limit.align.key(), "align", fixed, "fixed_window", "add `algorithm: fixed_window`"),
            (limit.slot_ttl.key(), "slot_ttl", in_flight, "in_flight", "leave it out: only `in_flight` takes places"),
        ] {
            if let (Some(key), false) = (key, belongs) {
                self.error(key, format!("`{name}` belongs to {to}"), help);
            }
        }
        if let (Some(key), true) = (limit.algorithm.key(), in_flight) {
            self.error(key, "requests in flight are counted in one way", "leave `algorithm` out");
        }
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
