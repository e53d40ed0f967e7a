//! Overrides that may be set while the proxy runs: what the file allows.

use std::time::Duration;

use super::limits::Scope;
use super::terms::Place;
use super::{Check, Reported};
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::Setting;
use crate::config::values::Allowance;
use crate::limit::algorithm::fixed_window::Align;
use crate::limit::algorithm::{Algorithm, Penalty};
use crate::limit::dynamic::{Counting, Debt, Naming, Rules};
use crate::limit::key::{Key, KeyPart};
use crate::limit::policy::{DEFAULT_MAX_WAIT, Missing, Terms};
use crate::units::Rate;

/// The longest an override lasts, unless the file says otherwise.
const MAX_TTL: Duration = Duration::from_hours(7 * 24);

/// The caps as written.
struct Caps {
    rate: Option<Rate>,
    burst: Option<u64>,
    ttl: Duration,
}

impl Check<'_> {
    /// What may be set for keys of a limit, if anything.
    pub(super) fn dynamic(
        &mut self,
        place: Place<'_>,
        key: Option<&Key>,
        missing: Missing,
        terms: Option<&Terms>,
    ) -> Result<Option<Rules>, Reported> {
        let (given, span) = match &place.limit.dynamic_overrides {
            Setting::Absent => return Ok(None),
            Setting::Invalid => return Err(Reported),
            Setting::Given { value, key } => (&value.value, *key),
        };
        let caps = self.caps(given, span, place);
        self.can_have_overrides(place, span, key).ok_or(Reported)?;
        let caps = caps.ok_or(Reported)?;
        Ok(Some(Rules {
            state_id: format!("{}@dynamic", place.state_id).into(),
            max_rate: caps.rate,
            max_burst: caps.burst,
            max_ttl: caps.ttl,
            counting: counting(place.limit, place.scope),
            penalty: terms.and_then(penalty),
            debt: debt(place),
            largest_cost: place.cost.largest(),
            naming: naming(key.ok_or(Reported)?, missing),
        }))
    }

    fn caps(&mut self, given: &file::DynamicOverrides, span: Span, place: Place<'_>) -> Option<Caps> {
        if given.max_rate.is_absent() {
            self.error(span, "nothing caps these overrides", "write `max_rate: 10000/m`, for example, or `unlimited`");
        }
        let max_ttl = self.time(&given.max_ttl, MAX_TTL);
        let written = given.max_rate.spanned()?;
        let max_rate = match written.value {
            Allowance::Unlimited => None,
            Allowance::Rate(rate) if rate.count == 0 => {
                self.error(written.span, "a cap of 0/s allows nothing", "write the highest rate that may be set");
                return None;
            }
            Allowance::Rate(rate) => Some(rate),
        };
        let max_burst = given.max_burst.get().copied().or_else(|| max_rate.map(|rate| rate.count));
        if max_burst.is_some_and(|max| max < place.cost.largest()) {
            let at = given.max_burst.spanned().map_or(written.span, |burst| burst.span);
            let message = format!("no override admits a request that costs {}", place.cost.largest());
            self.error(at, message, format!("write `max_burst: {}` or more", place.cost.largest()));
            return None;
        }
        Some(Caps { rate: max_rate, burst: max_burst, ttl: max_ttl })
    }

    /// Whether the admin API can call the limit and its keys by their names.
    fn can_have_overrides(&mut self, place: Place<'_>, span: Span, key: Option<&Key>) -> Option<()> {
        if place.limit.name.is_absent() {
            self.error(span, "a limit with dynamic overrides needs a name", "add `name: …`: the admin API calls it so");
            return None;
        }
        if !place.limit.in_flight.is_absent() {
            self.error(span, "dynamic overrides change rates, and this limit has none", "leave them out");
            return None;
        }
        let parts = || key.into_iter().flat_map(|key| &key.parts).flatten();
        if key.is_some() && parts().all(|part| *part == KeyPart::Global) {
            self.error(span, "all requests are one key here", "change the limit's own rate instead");
            return None;
        }
        Some(())
    }
}

/// How the limit counts.
fn counting(limit: &file::Limit, scope: &Scope<'_>) -> Counting {
    match limit.algorithm.or(file::AlgorithmName::TokenBucket) {
        file::AlgorithmName::TokenBucket => Counting::TokenBucket,
        file::AlgorithmName::LeakyBucket => Counting::LeakyBucket {
            delay_after: limit.delay_after.or(1),
            max_wait: limit.max_wait.or(DEFAULT_MAX_WAIT.min(scope.timeout)),
        },
        file::AlgorithmName::FixedWindow => {
            Counting::FixedWindow(limit.align.get().map_or(Align::Utc, |align| align.0.clone()))
        }
        file::AlgorithmName::SlidingWindow => Counting::SlidingWindow,
        file::AlgorithmName::SlidingLog => Counting::SlidingLog,
    }
}

/// The limit's own debt.
fn debt(place: Place<'_>) -> Debt {
    match place.limit.max_debt.get() {
        _ if !place.cost.may_grow() => Debt::None,
        Some(&units) => Debt::Units(units),
        None => Debt::Burst,
    }
}

/// The limit's own penalty.
fn penalty(terms: &Terms) -> Option<Penalty> {
    let Terms::Limited(limits) = terms else { return None };
    limits.iter().find_map(|limit| match limit.algorithm {
        Algorithm::Penalty(penalty) => Some(penalty),
        _ => None,
    })
}

/// What the limit's keys are called.
fn naming(key: &Key, missing: Missing) -> Naming {
    let parts = || key.parts.iter().flatten();
    let own_prefix = parts().find_map(|part| match part {
        KeyPart::ClientIp { ipv6_prefix } => Some(*ipv6_prefix),
        _ => None,
    });
    let for_want_of_a_key = match missing {
        Missing::ClientIp { ipv6_prefix } if key.may_be_missing() => Some(ipv6_prefix),
        _ => None,
    };
    Naming { parts: key.named_parts(), ipv6_prefix: own_prefix.or(for_want_of_a_key) }
}
