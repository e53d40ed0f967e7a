//! Each limit in words: "at most 200 at once, then one each 10 ms, per client address (IPv6: /64)".

use std::fmt::Write as _;
use std::time::Duration;

use crate::limit::algorithm::fixed_window::Align;
use crate::limit::algorithm::penalty::Watches;
use crate::limit::algorithm::{Algorithm, FixedWindow, Penalty};
use crate::limit::key::{Key, KeyPart};
use crate::limit::policy::{Limit, Missing, Mode, PathPattern, Policy, Share, Statuses, Terms};
use crate::units::{Rate, Size};

/// What a limit does, in one sentence without a full stop.
#[must_use]
pub fn sentence(policy: &Policy) -> String {
    let mut text = format!("{}, {}", terms(&policy.terms), key(&policy.key));
    match policy.missing {
        Missing::ClientIp { .. } if policy.key.may_be_missing() => text.push_str(" (without one: per client address)"),
        Missing::Deny if policy.key.may_be_missing() => text.push_str(" (without one: denied)"),
        Missing::Skip if policy.key.may_be_missing() => text.push_str(" (without one: not counted)"),
        _ => {}
    }
    let costs: Vec<_> = policy.cost.by_method.iter().map(|(method, cost)| format!("{method} costs {cost}")).collect();
    if policy.cost.default != 1 || !costs.is_empty() {
        let default =
            (policy.cost.default != 1 || costs.is_empty()).then(|| format!("a request costs {}", policy.cost.default));
        text.push_str("; ");
        text.push_str(&default.into_iter().chain(costs).collect::<Vec<_>>().join(", "));
    }
    afterwards(&mut text, policy);
    for (patterns, word) in [(&policy.applies.path, "only"), (&policy.applies.not_path, "not")] {
        if !patterns.is_empty() {
            let listed: Vec<_> = patterns.iter().map(pattern).collect();
            let _ = write!(text, "; {word} {}", listed.join(", "));
        }
    }
    if !policy.overrides.is_empty() {
        let plural = if policy.overrides.len() == 1 { "" } else { "s" };
        let _ = write!(text, "; {} override{plural}", policy.overrides.len());
    }
    if let Some(tiers) = &policy.tiers {
        let by: Vec<_> = tiers.by.iter().map(part).collect();
        let listed: Vec<_> = tiers.values.iter().map(|tier| format!("{}: {}", tier.name, terms(&tier.terms))).collect();
        let _ = write!(text, "; tiers by {} ({})", by.join(", else "), listed.join("; "));
    }
    if let Some(schedules) = &policy.schedules {
        let listed = schedules.list.iter();
        let listed: Vec<_> = listed.map(|one| format!("{} {}: {}", one.name, one.hours, terms(&one.terms))).collect();
        let _ = write!(text, "; by the clock of {} ({})", schedules.zone.name(), listed.join("; "));
    }
    if let Some(rules) = &policy.dynamic {
        let cap = rules.max_rate.map_or_else(|| "unlimited".to_owned(), |rate| rate.to_string());
        let _ = write!(text, "; the admin API may set others for a key, up to {cap}");
    }
    if let Some(share) = policy.warn_at {
        let _ = write!(text, "; warns from {share} on");
    }
    if let Some(over) = policy.spread_retry {
        let _ = write!(text, "; spreads Retry-After over {}", spoken(over));
    }
    if policy.mode == Mode::Shadow {
        text.push_str("; only watches");
        if policy.enforced_share > Share::default() {
            let _ = write!(text, ", but denies {} of the keys", policy.enforced_share);
        }
    }
    text
}

/// What the answer changes.
fn afterwards(text: &mut String, policy: &Policy) {
    let list = |ranges: &[Statuses]| {
        let range = |range: &Statuses| match *range {
            Statuses { first, last } if first == last => first.to_string(),
            Statuses { first, last } => format!("{first}-{last}"),
        };
        ranges.iter().map(range).collect::<Vec<_>>().join(", ")
    };
    if let Some(name) = &policy.cost.header {
        let _ = write!(text, "; the field {name} tells the cost");
    }
    if let Some(part) = policy.cost.body {
        let _ = write!(text, "; one more for each {} of the body", Size(part));
    }
    if let Some(name) = &policy.cost.response_header {
        let _ = write!(text, "; the answer's field {name} tells the true cost");
    }
    if let Some(count) = &policy.settling.count {
        let _ = write!(text, "; only answers {} count", list(count));
    }
    if !policy.settling.refund.is_empty() {
        let _ = write!(text, "; answers {} are given back", list(&policy.settling.refund));
    }
    if policy.settling.refund_failures {
        text.push_str("; given back when the upstream fails");
    }
}

/// What is allowed, in words: `at most 200 at once, then one each 10 ms`.
#[must_use]
pub fn terms(terms: &Terms) -> String {
    match terms {
        Terms::Unlimited => "unlimited".into(),
        Terms::Deny => "denied".into(),
        Terms::Limited(limits) => limits.iter().map(counted).collect::<Vec<_>>().join(", and "),
    }
}

fn counted(limit: &Limit) -> String {
    let most = limit.algorithm.capacity();
    let pace = limit.rate.map(pace).unwrap_or_default();
    match &limit.algorithm {
        Algorithm::TokenBucket(_) if limit.lease.is_some() => {
            let lease = limit.lease.unwrap_or_default();
            format!("at most {} at once, then {pace}, taken up to {} in advance", limit.burst(), spoken(lease))
        }
        Algorithm::TokenBucket(_) => format!("at most {most} at once, then {pace}"),
        Algorithm::LeakyBucket { delay_after: 1, .. } => {
            format!("{pace}, each held for its turn, at most {most} at once")
        }
        Algorithm::LeakyBucket { delay_after, .. } => {
            format!("{delay_after} without delay, then {pace}, each held for its turn, at most {most} at once")
        }
        Algorithm::FixedWindow(window) => format!("at most {most} per {}", aligned(window)),
        Algorithm::SlidingWindow(window) => {
            format!("about {most} in every {}, by two weighted counts", micros(window.window_us()))
        }
        Algorithm::SlidingLog(log) => format!("at most {most} in every {}", micros(log.window_us)),
        Algorithm::InFlight(_) => format!("at most {most} under way at once"),
        Algorithm::Penalty(Penalty { after, watches: Watches::Parts, .. }) => {
            let network = limit.suffix.trim_start_matches("~penalty");
            format!("{after} blocked parts of a {network} block all of it")
        }
        Algorithm::Penalty(penalty) => {
            let Penalty { after, block_us, max_us, .. } = *penalty;
            format!("{after} denials block for {}, doubling up to {}", micros(block_us), micros(max_us))
        }
    }
}

fn aligned(window: &FixedWindow) -> String {
    let length = micros(window.window_us);
    match &window.align {
        Align::Utc => format!("{length} of the clock (UTC)"),
        Align::Zone(zone) => format!("{length} of the clock ({})", zone.name()),
        Align::FirstRequest => format!("{length} from the first request"),
    }
}

fn micros(micros: u64) -> String {
    spoken(Duration::from_micros(micros))
}

/// `one each 10 ms`, `5 each 7 s` where the quotient is not whole.
fn pace(rate: Rate) -> String {
    let micros = rate.period.as_micros();
    let count = u128::from(rate.count.max(1));
    if micros.is_multiple_of(count) {
        let each = Duration::from_micros(u64::try_from(micros / count).unwrap_or(u64::MAX));
        return format!("one each {}", spoken(each));
    }
    format!("{} each {}", rate.count, spoken(rate.period))
}

/// A duration in its largest whole unit: `10 ms`, `1 min`, `90 s`.
#[must_use]
pub fn spoken(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units = [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];
    let (unit, size) = units.into_iter().find(|(_, size)| micros.is_multiple_of(*size)).unwrap_or(("µs", 1));
    format!("{} {unit}", micros / size)
}

fn key(key: &Key) -> String {
    let parts: Vec<_> =
        key.parts.iter().map(|choice| choice.iter().map(part).collect::<Vec<_>>().join(", else ")).collect();
    if parts == ["all requests"] { "for all requests together".into() } else { format!("per {}", parts.join(" and ")) }
}

fn part(part: &KeyPart) -> String {
    match part {
        KeyPart::ClientIp { ipv6_prefix: 128 } => "client address".into(),
        KeyPart::ClientIp { ipv6_prefix } => format!("client address (IPv6: /{ipv6_prefix})"),
        KeyPart::Header(name) => format!("value of the field {name}"),
        KeyPart::Cookie(name) => format!("value of the cookie {name}"),
        KeyPart::Query(name) => format!("value of the query parameter {name}"),
        KeyPart::Path(name) => format!("{{{name}}} of the path"),
        KeyPart::TlsSubject => "subject of the client's certificate".into(),
        KeyPart::Jwt(path) => format!("claim {path} of the verified token"),
        KeyPart::Host => "host".into(),
        KeyPart::Method => "method".into(),
        KeyPart::Route => "route".into(),
        KeyPart::Global => "all requests".into(),
    }
}

fn pattern(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.to_string(),
        PathPattern::Prefix(prefix) => format!("{prefix}*"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_said_in_the_largest_whole_unit() {
        for (rate, words) in [
            ("100/s", "one each 10 ms"),
            ("5/m", "one each 12 s"),
            ("60/h", "one each 1 min"),
            ("3/s", "3 each 1 s"),
            ("1/90s", "one each 90 s"),
            ("1/d", "one each 1 d"),
        ] {
            assert_eq!(pace(rate.parse().unwrap()), words);
        }
    }
}
