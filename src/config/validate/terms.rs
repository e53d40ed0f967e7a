//! What holds for keys: rates, places for requests in flight, penalties.

use super::Check;
use super::limits::Scope;
use super::rates::Written;
use crate::config::file;
use crate::config::shape::{OneOrMany, Setting, Spanned};
use crate::config::values::Allowance;
use crate::limit::algorithm::penalty::Watches;
use crate::limit::algorithm::{Algorithm, Penalty};
use crate::limit::key::{Key, Network};
use crate::limit::policy::{Cost, Limit, Missing, Terms};
use crate::units::DurationText;

/// What the file states for some keys.
#[derive(Clone, Copy)]
pub(super) struct Stated<'a> {
    pub(super) rate: &'a Setting<OneOrMany<Allowance>>,
    pub(super) burst: &'a Setting<u64>,
    pub(super) in_flight: &'a Setting<u64>,
}

/// What all terms of a limit share.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) limit: &'a Spanned<file::Limit>,
    pub(super) state_id: &'a str,
    pub(super) cost: &'a Cost,
    pub(super) scope: &'a Scope<'a>,
    /// The networks that its penalties watch.
    pub(super) networks: &'a [Network],
}

impl Check<'_> {
    /// What holds unless an override matches.
    pub(super) fn terms(&mut self, place: Place<'_>) -> Option<Terms> {
        let limit = place.limit;
        if limit.rate.is_absent() && limit.in_flight.is_absent() {
            self.error(limit.span, "this limit has no rate", "write `rate: 100/s`, for example");
        }
        self.misplaced_keys(limit);
        self.misplaced_lease(limit, place.cost);
        let stated = Stated { rate: &limit.rate, burst: &limit.burst, in_flight: &limit.in_flight };
        let terms = self.terms_of(stated, place);
        if let (Some(Terms::Unlimited | Terms::Deny), Some(key)) = (&terms, limit.penalty.key()) {
            self.error(key, "a penalty needs a limit that denies", "write a rate such as 5/m beside it");
        }
        if let (file::Mode::Shadow, Some(key)) = (limit.mode.or(file::Mode::Enforce), limit.penalty.key()) {
            self.error(key, "a limit that only watches blocks nobody", "leave `penalty` out, or `mode: shadow`");
        }
        terms
    }

    pub(super) fn terms_of(&mut self, stated: Stated<'_>, place: Place<'_>) -> Option<Terms> {
        let limits = match stated.in_flight {
            Setting::Absent => match self.rates(stated, place)? {
                Terms::Limited(limits) => limits,
                uncounted => return Some(uncounted),
            },
            Setting::Invalid => return None,
            Setting::Given { value, .. } => self.slots(stated, value, place)?,
        };
        Some(Terms::Limited(self.with_penalty(limits, place)))
    }

    /// `in_flight` stands instead of a rate.
    fn slots(&mut self, stated: Stated<'_>, given: &Spanned<u64>, place: Place<'_>) -> Option<Vec<Limit>> {
        for (key, name) in [(stated.rate.key(), "rate"), (stated.burst.key(), "burst")] {
            if let Some(key) = key {
                self.error(
                    key,
                    format!("`{name}` has no meaning beside `in_flight`"),
                    "write two limits, one for each",
                );
                return None;
            }
        }
        let algorithm = self.in_flight(place.limit, given, place.cost);
        Some(vec![Limit {
            state_id: place.state_id.into(),
            suffix: "".into(),
            rate: None,
            algorithm,
            lease: None,
            network: None,
        }])
    }

    fn rates(&mut self, stated: Stated<'_>, place: Place<'_>) -> Option<Terms> {
        let given = stated.rate.get()?;
        match given.0.as_slice() {
            [] => {
                if let Some(key) = stated.rate.key() {
                    self.error(key, "this list has no rate", "write `rate: 100/s`, for example");
                }
                None
            }
            [one] => self.one_rate(one, stated, place),
            several => self.several_rates(several, stated, place),
        }
    }

    fn one_rate(&mut self, given: &Spanned<Allowance>, stated: Stated<'_>, place: Place<'_>) -> Option<Terms> {
        let Allowance::Rate(rate) = given.value else {
            return Some(self.without_burst(stated.burst, Terms::Unlimited));
        };
        if rate.count == 0 {
            return Some(self.without_burst(stated.burst, Terms::Deny));
        }
        let (burst, span) = match stated.burst {
            Setting::Given { value, key } => {
                self.burst_of_bucket(place.limit, *key)?;
                (value.value, value.span)
            }
            Setting::Absent => (rate.count, given.span),
            Setting::Invalid => return None,
        };
        let written = Written { rate, burst, span };
        let (lease, burst) = self.leased(place.limit, &written, place.cost)?;
        let written = Written { burst, ..written };
        let algorithm = self.algorithm(place.limit, &written, place.cost, place.scope)?;
        let (state_id, suffix) = (place.state_id.into(), "".into());
        let limit = Limit { state_id, suffix, rate: Some(rate), algorithm, lease, network: None };
        Some(Terms::Limited(vec![limit]))
    }

    /// Several rates are several states, told apart by their periods, and one decision.
    fn several_rates(&mut self, given: &[Spanned<Allowance>], stated: Stated<'_>, place: Place<'_>) -> Option<Terms> {
        if let Some(key) = stated.burst.key() {
            self.error(
                key,
                "a burst beside several rates belongs to none of them",
                "write one limit for each rate and burst",
            );
            return None;
        }
        if let Some(key) = place.limit.lease.key() {
            self.error(key, "a lease beside several rates belongs to none of them", "write one limit for each rate");
            return None;
        }
        let mut limits: Vec<Limit> = Vec::new();
        for one in given {
            let Allowance::Rate(rate) = one.value else {
                self.error(one.span, "`unlimited` stands alone", "leave the other rates out, or this one");
                return None;
            };
            if rate.count == 0 {
                self.error(one.span, "`0/s` stands alone", "leave the other rates out, or this one");
                return None;
            }
            let suffix = format!("~{}", DurationText(rate.period));
            if limits.iter().any(|limit| *limit.suffix == *suffix) {
                self.error(one.span, "two of these rates have the same period", "keep the smaller one");
                return None;
            }
            let written = Written { rate, burst: rate.count, span: one.span };
            let algorithm = self.algorithm(place.limit, &written, place.cost, place.scope)?;
            let state_id = format!("{}{suffix}", place.state_id).into();
            let (suffix, rate) = (suffix.into(), Some(rate));
            limits.push(Limit { state_id, suffix, rate, algorithm, lease: None, network: None });
        }
        Some(Terms::Limited(limits))
    }

    /// Windows have a count, no burst.
    fn burst_of_bucket(&mut self, limit: &Spanned<file::Limit>, key: crate::config::frames::Span) -> Option<()> {
        use file::AlgorithmName::{LeakyBucket, TokenBucket};
        if matches!(limit.algorithm.or(TokenBucket), TokenBucket | LeakyBucket) {
            return Some(());
        }
        self.error(key, "a window has no burst: its count is the most at once", "leave `burst` out");
        None
    }

    fn without_burst(&mut self, burst: &Setting<u64>, terms: Terms) -> Terms {
        if let Some(key) = burst.key() {
            self.error(key, "a burst has no meaning beside this rate", "leave `burst` out");
        }
        terms
    }

    /// Adds the penalty behind the limits that it watches, and behind it those of the networks around the key.
    fn with_penalty(&mut self, mut limits: Vec<Limit>, place: Place<'_>) -> Vec<Limit> {
        let Some(given) = place.limit.penalty.get() else { return limits };
        let (block, max) = self.penalty_times(given);
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let after = self.number(&given.after, 3, 1..=1_000_000) as u64;
        let watches = Watches::Denials(limits.len());
        let penalty = Penalty { after, block_us: micros(block), max_us: micros(max), watches, round_us: micros(max) };
        let penalty = penalty.of(limits.iter().map(|limit| &limit.algorithm));
        let parts = widen_after(given);
        let limit = |suffix: String, penalty, network| Limit {
            state_id: format!("{}{suffix}", place.state_id).into(),
            suffix: suffix.into(),
            rate: None,
            algorithm: Algorithm::Penalty(penalty),
            lease: None,
            network,
        };
        limits.push(limit("~penalty".to_owned(), penalty, None));
        limits.extend(place.networks.iter().enumerate().map(|(position, network)| {
            limit(format!("~penalty/{}", network.ipv6_prefix), penalty.of_network(parts), Some(position))
        }));
        limits
    }

    /// The networks around IPv6 keys that the limit's penalty watches.
    pub(super) fn networks(&mut self, limit: &file::Limit, key: Option<&Key>, missing: Missing) -> Vec<Network> {
        let Some((given, key)) = limit.penalty.get().zip(key) else { return Vec::new() };
        let missing = if let Missing::ClientIp { ipv6_prefix } = missing { Some(ipv6_prefix) } else { None };
        let networks = Network::around(key, missing.filter(|_| key.may_be_missing()));
        let parts = widen_after(given);
        if let Some(written) = given.widen_after.spanned() {
            if networks.is_empty() && parts > 0 {
                self.error(
                    written.span,
                    "this limit counts no addresses in a network that is wider",
                    "leave `widen_after` out, or add `client_ip` to the key",
                );
            } else if !(parts == 0 || (2..=1_000_000).contains(&parts)) {
                self.error(
                    written.span,
                    "a network is blocked by 2 to 1000000 of its parts",
                    "write 8, or 0 for never",
                );
            }
        }
        if parts == 0 { Vec::new() } else { networks }
    }

    fn penalty_times(&mut self, given: &file::Penalty) -> (std::time::Duration, std::time::Duration) {
        let block = self.time(&given.block, std::time::Duration::from_mins(10));
        let max = self.time(&given.max, std::time::Duration::from_hours(24).max(block));
        if max < block
            && let Some(span) = given.max.key().or_else(|| given.block.key())
        {
            self.error(span, "the longest block is shorter than the first", "write a `max` of at least `block`");
        }
        (block, max)
    }
}

/// How many parts of a network block it.
fn widen_after(given: &file::Penalty) -> u64 {
    given.widen_after.or(8)
}
