//! What holds for the keys of a limit, expanded.

use std::time::Duration;

use super::Lines;
use crate::limit::algorithm::fixed_window::Align;
use crate::limit::algorithm::penalty::Watches;
use crate::limit::algorithm::{Algorithm, Penalty};
use crate::limit::policy::{Limit, Terms};
use crate::units::DurationText;

/// `max_wait` is the limit's own, as written.
pub(super) fn terms(out: &mut Lines, indent: usize, terms: &Terms, max_wait: Option<Duration>) {
    match terms {
        Terms::Unlimited => out.pair(indent, "rate", "unlimited"),
        Terms::Deny => out.pair(indent, "rate", "0/s"),
        Terms::Limited(limits) => {
            allowance(out, indent, limits);
            for limit in limits.iter().filter(|limit| limit.rate.is_some()).take(1) {
                algorithm(out, indent, limit, max_wait);
            }
            for limit in limits {
                beside(out, indent, &limit.algorithm);
            }
            if limits.iter().any(|limit| matches!(limit.algorithm, Algorithm::Penalty(_))) {
                let network = limits.iter().find(|limit| limit.network.is_some());
                out.pair(indent + 2, "widen_after", network.map_or(0, |limit| limit.algorithm.capacity()));
            }
        }
    }
}

/// Rates and burst, or the number of requests in flight.
fn allowance(out: &mut Lines, indent: usize, limits: &[Limit]) {
    let rates: Vec<_> = limits.iter().filter_map(|limit| limit.rate).collect();
    // A penalty stands behind what it watches.
    match (rates.as_slice(), limits.first()) {
        ([rate], Some(limit)) => {
            out.pair(indent, "rate", rate);
            if limit.algorithm.bucket().is_some() {
                out.pair(indent, "burst", limit.burst());
            }
            if let Some(lease) = limit.lease {
                out.pair(indent, "lease", DurationText(lease));
            }
        }
        ([], Some(limit)) => out.pair(indent, "in_flight", limit.algorithm.capacity()),
        (rates, _) => {
            let rates: Vec<_> = rates.iter().map(ToString::to_string).collect();
            out.pair(indent, "rate", format_args!("[{}]", rates.join(", ")));
        }
    }
}

fn algorithm(out: &mut Lines, indent: usize, limit: &Limit, max_wait: Option<Duration>) {
    match &limit.algorithm {
        Algorithm::TokenBucket(_) => out.pair(indent, "algorithm", "token_bucket"),
        Algorithm::LeakyBucket { delay_after, .. } => {
            out.pair(indent, "algorithm", "leaky_bucket");
            out.pair(indent, "delay_after", delay_after);
            if let Some(max_wait) = max_wait {
                out.pair(indent, "max_wait", DurationText(max_wait));
            }
        }
        Algorithm::FixedWindow(window) => {
            out.pair(indent, "algorithm", "fixed_window");
            let align = match &window.align {
                Align::Utc => "clock",
                Align::FirstRequest => "first_request",
                Align::Zone(zone) => zone.name(),
            };
            out.pair(indent, "align", align);
        }
        Algorithm::SlidingWindow(_) => out.pair(indent, "algorithm", "sliding_window"),
        Algorithm::SlidingLog(_) => out.pair(indent, "algorithm", "sliding_log"),
        Algorithm::InFlight(_) | Algorithm::Penalty(_) => {}
    }
}

/// What stands beside a rate or instead of it.
fn beside(out: &mut Lines, indent: usize, algorithm: &Algorithm) {
    match algorithm {
        Algorithm::InFlight(slots) => {
            out.pair(indent, "slot_ttl", DurationText(Duration::from_micros(slots.slot_us)));
        }
        Algorithm::Penalty(Penalty { watches: Watches::Parts, .. }) => {}
        Algorithm::Penalty(penalty) => {
            out.line(indent, "penalty:");
            out.pair(indent + 2, "after", penalty.after);
            out.pair(indent + 2, "block", DurationText(Duration::from_micros(penalty.block_us)));
            out.pair(indent + 2, "max", DurationText(Duration::from_micros(penalty.max_us)));
        }
        _ => {}
    }
}

/// Terms beside those of the limit: what both share is written once.
pub(super) fn only(out: &mut Lines, indent: usize, given: &Terms) {
    match given {
        Terms::Limited(limits) => {
            let counted = |limit: &&Limit| !matches!(limit.algorithm, Algorithm::Penalty(_));
            allowance(out, indent, &limits.iter().filter(counted).cloned().collect::<Vec<_>>());
        }
        other => terms(out, indent, other, None),
    }
}
