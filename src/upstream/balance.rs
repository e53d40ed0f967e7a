//! Which of several endpoints takes a request.

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::{Endpoint, Upstream};
use crate::limit::key::Key;

/// How requests are spread.
#[derive(Debug, Clone, PartialEq)]
pub enum Balance {
    /// One after the other, in proportion to their weights.
    RoundRobin,
    /// The one with fewer requests of two that are drawn by lot, weights considered (the power of two random
    /// choices, Mitzenmacher 2001).
    LeastRequests,
    /// By lot, in proportion to their weights.
    Random,
    /// The same value, the same endpoint, as long as it is there (rendezvous hashing, Thaler and Ravishankar
    /// 1998): when an endpoint comes or goes, only its own share moves. Requests without the value are spread
    /// in turn.
    Hash(Key),
}

/// Steps of the golden ratio, in units of 2^-64: they fall everywhere equally often, and never close together.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// What several processes understand by the same bytes.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(bytes);
    hasher.finish()
}

impl Upstream {
    /// One of `candidates`; `hash` is that of the value which a consistent hash goes by, `turns` counts them.
    pub(super) fn pick<'a>(
        &self,
        candidates: &[&'a Arc<Endpoint>],
        hash: Option<u64>,
        turns: &AtomicUsize,
    ) -> Option<&'a Arc<Endpoint>> {
        match (candidates, &self.settings.balance, hash) {
            ([], ..) => None,
            ([only], ..) => Some(only),
            (_, Balance::Hash(_), Some(value)) => highest(candidates, value),
            (_, Balance::RoundRobin | Balance::Hash(_), _) => self.in_turn(candidates, turns),
            (_, Balance::Random, _) => self.at(candidates, fastrand::u64(..)),
            (_, Balance::LeastRequests, _) => self.less_busy(candidates),
        }
    }

    /// The next one; where weights differ, so that each is met as evenly as they allow.
    fn in_turn<'a>(&self, candidates: &[&'a Arc<Endpoint>], turns: &AtomicUsize) -> Option<&'a Arc<Endpoint>> {
        let turn = turns.fetch_add(1, Ordering::Relaxed);
        let slow_start = self.settings.health.slow_start;
        let mut weights = candidates.iter().map(|endpoint| weight(endpoint, slow_start));
        let first = weights.next();
        if weights.all(|weight| Some(weight) == first) {
            return candidates.get(turn % candidates.len()).copied();
        }
        self.at(candidates, GOLDEN.wrapping_mul(turn as u64))
    }

    /// The endpoint at this point of a line on which each has a piece as long as its weight.
    fn at<'a>(&self, candidates: &[&'a Arc<Endpoint>], point: u64) -> Option<&'a Arc<Endpoint>> {
        let weight = |endpoint: &Endpoint| weight(endpoint, self.settings.health.slow_start);
        let total: u64 = candidates.iter().map(|endpoint| weight(endpoint)).sum();
        let mut left = (u128::from(point) * u128::from(total)) >> 64;
        candidates.iter().copied().find(|endpoint| {
            let piece = u128::from(weight(endpoint));
            let found = left < piece;
            left = left.saturating_sub(piece);
            found
        })
    }

    fn less_busy<'a>(&self, candidates: &[&'a Arc<Endpoint>]) -> Option<&'a Arc<Endpoint>> {
        let first = fastrand::usize(..candidates.len());
        let second = (first + fastrand::usize(1..candidates.len())) % candidates.len();
        let (one, other) = (candidates.get(first)?, candidates.get(second)?);
        // Compared as fractions, requests by weight, without dividing.
        let busy = |endpoint: &Endpoint, rival: &Endpoint| {
            (endpoint.load.requests() as u64 + 1).saturating_mul(weight(rival, self.settings.health.slow_start))
        };
        Some(if busy(one, other) <= busy(other, one) { one } else { other })
    }
}

/// An endpoint's weight in hundredths, smaller while it warms up.
fn weight(endpoint: &Endpoint, slow_start: Duration) -> u64 {
    u64::from(endpoint.weight) * endpoint.health.share(slow_start)
}

/// The endpoint that this value scores highest with. Weights are those of the configuration: a server that
/// warms up keeps its values.
fn highest<'a>(candidates: &[&'a Arc<Endpoint>], value: u64) -> Option<&'a Arc<Endpoint>> {
    let score = |endpoint: &Endpoint| {
        let mut hasher = SipHasher13::new_with_keys(value, endpoint.hash);
        hasher.write_u64(value);
        // 53 bits make a number between 0 and 1, both excluded.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let point = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(endpoint.weight) / -point.ln()
    };
    candidates.iter().copied().max_by(|one, other| score(one).total_cmp(&score(other)))
}

#[cfg(test)]
mod tests;
