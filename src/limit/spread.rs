//! Spread Retry-After (`spread_retry`): requests denied on one key are told the times of different tokens, the
//! i-th waiting one that of the i-th, so that they do not all come back for the first.
//!
//! What a client is told is never sooner than the exact time, so T2 holds; it may be later by as much as the
//! limit allows, and then the first token is given out again. Each worker counts the clients it has told itself.
//! Nothing is reserved: who comes sooner may take another's token.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::decision::{Decision, Outcome};
use super::fingerprint::Fingerprints;
use super::plan::Planned;

/// One worker's memory of what it has told.
#[derive(Debug, Default)]
pub(super) struct Spread {
    fingerprints: Fingerprints,
    /// The time of the token after the last that was told, by state.
    next: RefCell<HashMap<u128, Instant, ahash::RandomState>>,
}

/// The most keys remembered; beyond that all are forgotten, and told exact times again.
const MOST: usize = 8192;

impl Spread {
    /// Moves what a denied request is told to tokens of its own, where its limits ask for that.
    pub(super) fn apply<'p, 'a: 'p>(
        &self,
        outcome: Outcome,
        told: impl Iterator<Item = (&'p Planned<'a>, &'p mut Decision<'a>)>,
    ) -> Outcome {
        let Outcome::Denied { retry_after: Some(mut longest) } = outcome else { return outcome };
        let mut now = None;
        for (planned, decision) in told {
            let Some((over, exact)) = spreading(decision) else { continue };
            let step = Duration::from_micros(planned.limit.algorithm.spend_us(planned.cost));
            let name = self.fingerprints.of(&planned.limit.state_id, &planned.limit.algorithm, &planned.subject);
            let later = self.tell(name, *now.get_or_insert_with(Instant::now), exact, (step, over));
            decision.retry_after = Some(later);
            longest = longest.max(later);
        }
        Outcome::Denied { retry_after: Some(longest) }
    }

    /// How long until this one's token, `exact` being the time until the first; one is earned each `step`,
    /// and nobody is told more than `over` beyond the exact time.
    fn tell(&self, name: u128, now: Instant, exact: Duration, (step, over): (Duration, Duration)) -> Duration {
        let first = now + exact;
        let mut next = self.next.borrow_mut();
        // In whole seconds, as it is told: the exact time is known to a fraction of one only.
        let waits = |token: &Instant| *token >= first && (*token - first).as_secs() <= over.as_secs();
        let token = next.get(&name).copied().filter(waits).unwrap_or(first);
        if next.len() >= MOST && !next.contains_key(&name) {
            next.retain(|_, token| *token > now);
            if next.len() > MOST / 2 {
                next.clear();
            }
        }
        next.insert(name, token + step);
        token - now
    }
}

/// Over how long a denial is to be spread, and the exact time it tells.
fn spreading(decision: &Decision<'_>) -> Option<(Duration, Duration)> {
    let over = decision.policy.spread_retry?;
    let denies = !decision.allowed && decision.is_enforced() && decision.is_quota();
    Some(over).filter(|_| denies).zip(decision.retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_is_told_the_next_token_and_after_the_longest_the_first_again() {
        let (spread, now) = (Spread::default(), Instant::now());
        let tell = |at: Duration, exact: Duration| spread.tell(1, now + at, exact, (SECOND, 3 * SECOND));
        let told: Vec<_> = (0..6).map(|_| tell(Duration::ZERO, SECOND / 2).as_millis()).collect();
        assert_eq!(told, [500, 1500, 2500, 3500, 500, 1500]);
        // A second later the first token was taken: the exact time is that of the second.
        assert_eq!(tell(SECOND, SECOND / 2).as_millis(), 1500, "the third, counted from now");
        // Long after, nobody waits any more.
        assert_eq!(tell(60 * SECOND, SECOND / 4).as_millis(), 250);
    }

    #[test]
    fn nothing_is_told_too_soon_nor_later_than_allowed_and_memory_is_bounded() {
        let (spread, now) = (Spread::default(), Instant::now());
        let mut random = fastrand::Rng::with_seed(3);
        let mut at = Duration::ZERO;
        for _ in 0..50_000 {
            at += Duration::from_micros(random.u64(0..20_000));
            let exact = Duration::from_micros(random.u64(1..5_000_000));
            let told = spread.tell(random.u128(0..20_000), now + at, exact, (SECOND, 9 * SECOND));
            assert!(told >= exact && told < exact + 10 * SECOND, "{told:?} for {exact:?}");
            assert!(spread.next.borrow().len() <= MOST);
        }
    }
}
