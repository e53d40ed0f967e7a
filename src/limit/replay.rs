//! The limiter on a clock that somebody else holds: what `tollgate test`, `simulate` and `advise` ask.
//! Nothing is decided here in another way than in the proxy: a [`Replay`] is the same plan over the same
//! memory store, a [`Lane`] the same algorithm over one state.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use super::algorithm::{Algorithm, Bucket, Settlement, State};
use super::bill::difference;
pub use super::cost::Answered;
use super::decision::{Outcome, Source, Verdict};
use super::key::{Facts, Hashing};
use super::limiter::outcome_of;
use super::plan::{Clock, Plan, Reading, Situation};
use super::policy::Policy;
use super::store::memory::MemoryStore;
use super::store::settings::StoreSettings;
use super::store::{Ask, Reply, Settle};
use crate::units::Rate;

/// A limiter with a memory store of its own, whatever store is configured.
#[derive(Debug)]
pub struct Replay {
    memory: MemoryStore,
    hashing: Hashing,
}

/// How a request was answered that its limits admitted.
#[derive(Debug, Clone, Copy)]
pub struct Told<'r> {
    /// The answer's status.
    pub status: StatusCode,
    /// Its fields, as far as they are known.
    pub headers: &'r HeaderMap,
    /// By whom.
    pub answered: Answered,
}

impl Replay {
    /// Nothing has been counted yet. Values that clients choose stand in subjects as in the store's
    /// keys, hashed, so that they may be shown.
    #[must_use]
    pub fn new(settings: &StoreSettings) -> Self {
        Self { memory: MemoryStore::new(settings.max_keys), hashing: settings.shown_hashing() }
    }

    /// What the proxy decides on a request at this instant, microseconds since 1970. No instant may
    /// be earlier than the one before. An admitted request is answered as `told` at once, which settles what
    /// it was charged; where nothing is told, charges stay.
    pub fn decide<'a>(
        &self,
        now_us: i64,
        policies: &'a [Arc<Policy>],
        facts: &Facts<'_>,
        told: Option<Told<'_>>,
    ) -> Verdict<'a> {
        let Ok(mut plan) = Plan::new(policies, facts, self.situation(now_us)) else {
            return Verdict::new(Outcome::AmbiguousKey, SmallVec::new());
        };
        if let Some((outcome, decisions)) = plan.decided_already() {
            return Verdict::new(outcome, decisions);
        }
        let asks: SmallVec<[Ask<'_>; 2]> = plan.counted.iter().map(|planned| planned.ask(SLOT)).collect();
        let reply = self.memory.decide_on(now_us, &asks);
        self.end(now_us, &asks);
        if let Some(told) = told.filter(|_| reply.granted) {
            self.settle(now_us, &plan, &reply, told);
        }
        Verdict::new(outcome_of(&reply), plan.decisions(&reply, Source::Store)).at(now_us)
    }

    fn situation<'a>(&self, now_us: i64) -> Situation<'_, 'a> {
        Situation { hashing: &self.hashing, overrides: None, clock: Clock::At(now_us), control: None }
    }

    /// How long requests take is not known here: each ends as soon as it was admitted.
    fn end(&self, now_us: i64, asks: &[Ask<'_>]) {
        let settlement = Settlement { amount: -1, charged_at_us: now_us, slot: SLOT };
        for ask in asks.iter().filter(|ask| matches!(ask.algorithm, Algorithm::InFlight(_))) {
            let Ask { state_id, algorithm, subject, .. } = *ask;
            self.memory.settle_at(now_us, &[Settle { state_id, algorithm, subject, settlement }]);
        }
    }

    /// The answer gives back or charges on top what it would in the proxy.
    fn settle(&self, now_us: i64, plan: &Plan<'_>, reply: &Reply, told: Told<'_>) {
        for planned in plan.counted.iter().filter(|planned| planned.is_settled() && plan.is_charged(planned, reply)) {
            let cost = planned.policy.true_cost(told.status, told.headers, told.answered);
            let amount = cost.map_or(0, |cost| difference(planned.cost, cost));
            if amount != 0 {
                let Ask { state_id, algorithm, subject, .. } = planned.ask("");
                let settlement = Settlement { amount, charged_at_us: now_us, slot: "" };
                self.memory.settle_at(now_us, &[Settle { state_id, algorithm, subject, settlement }]);
            }
        }
    }

    /// What one policy makes of a request before anything is counted; `None` when a part of its key
    /// occurs twice.
    #[must_use]
    pub fn reading<'a>(&self, now_us: i64, policy: &'a Policy, facts: &Facts<'_>) -> Option<Reading<'a>> {
        Reading::of(policy, facts, self.situation(now_us)).ok()
    }

    /// States dropped for want of room (`store.max_keys`) while they still meant something.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.memory.evictions()
    }
}

/// The place of the only request that is ever under way.
const SLOT: &str = "replay";

/// One token bucket and the arrivals of one key.
#[derive(Debug, Clone)]
pub struct Lane {
    algorithm: Algorithm,
    burst: u64,
}

impl Lane {
    /// A bucket of this rate and burst; `None` when they cannot be counted exactly.
    #[must_use]
    pub fn new(rate: Rate, burst: u64) -> Option<Self> {
        let algorithm = Algorithm::TokenBucket(Bucket::new(rate, burst).ok()?);
        Some(Self { algorithm, burst })
    }

    /// How many of these arrivals (microseconds since 1970, ascending, cost 1 each) are refused, and the
    /// most tokens that were ever out at once.
    #[must_use]
    pub fn run(&self, arrivals: &[i64]) -> Passage {
        let mut state: Option<State> = None;
        let mut passage = Passage { refused: 0, drawn: 0 };
        for &now_us in arrivals {
            let evaluation = self.algorithm.evaluate(state.as_ref(), 1, now_us);
            if !evaluation.allowed {
                passage.refused += 1;
                continue;
            }
            state = self.algorithm.written(&evaluation, true, "").map(|change| change.applied(None)).or(state);
            passage.drawn = passage.drawn.max(self.burst - self.algorithm.answer(&evaluation, true).remaining);
        }
        passage
    }

    /// How long an empty bucket takes to be full again.
    #[must_use]
    pub fn refill(&self) -> Duration {
        Duration::from_micros(self.algorithm.fill_us())
    }
}

/// What became of arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// Refused ones.
    pub refused: u64,
    /// The largest part of the burst that was out at one time, in whole tokens, rounded up.
    pub drawn: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(rate: &str, burst: u64) -> Lane {
        Lane::new(rate.parse().unwrap(), burst).unwrap()
    }

    #[test]
    fn what_is_drawn_is_the_least_burst_without_a_refusal() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..200 {
            let mut arrivals: Vec<i64> = (0..50).map(|_| random.i64(0..20_000_000)).collect();
            arrivals.sort_unstable();
            let need = lane("3/s", 50).run(&arrivals).drawn;
            assert_eq!(lane("3/s", need).run(&arrivals).refused, 0);
            assert!(need == 1 || lane("3/s", need - 1).run(&arrivals).refused > 0, "{need} is not the least");
        }
    }

    #[test]
    fn a_larger_burst_never_refuses_more() {
        let mut random = fastrand::Rng::with_seed(6);
        for _ in 0..200 {
            let mut arrivals: Vec<i64> = (0..80).map(|_| random.i64(0..10_000_000)).collect();
            arrivals.sort_unstable();
            let refused: Vec<u64> = (1..40).map(|burst| lane("2/s", burst).run(&arrivals).refused).collect();
            assert!(refused.is_sorted_by(|a, b| a >= b), "{refused:?}");
        }
    }
}
