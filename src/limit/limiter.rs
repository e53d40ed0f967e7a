//! One worker's limiter: from the policies of a route and the facts of a request to a verdict.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::decision::{Allowed, Decision, Outcome, Source, Verdict};
use super::denials::{Denials, Recall};
use super::hold::{Hold, HoldSpace};
use super::key::{Facts, Hashing};
use super::plan::{Plan, Planned, with_denied};
use super::policy::{Mode, OnStoreError, Policy};
use super::stats::{CHECK_BUCKETS, DecisionKind, LimitStats};
use super::store::memory::MemoryStore;
use super::store::redis::RedisStore;
use super::store::settings::{Backend, StoreSettings};
use super::store::{Answer, Ask, Reply};

/// One worker's limiter. Not `Send`: it owns the worker's connection to the store.
#[derive(Debug)]
pub struct Limiter {
    /// Shared by all workers: the store itself with `store: memory`, the fallback otherwise.
    memory: Arc<MemoryStore>,
    /// Read by the admin listener.
    stats: Arc<LimitStats>,
    /// The shared store, if there is one.
    remote: Option<Remote>,
    /// How values enter subjects.
    hashing: Hashing,
    /// Where requests wait for their turn.
    holds: HoldSpace,
}

/// The shared store and what is remembered of its denials.
#[derive(Debug)]
struct Remote {
    store: Rc<RedisStore>,
    denials: Denials,
    timeout: Duration,
}

/// The asks of one request.
type Asks<'p> = SmallVec<[Ask<'p>; 2]>;

/// The most requests a worker holds at once.
const HELD: usize = 10_000;

impl Limiter {
    /// Starts a worker's limiter on the current runtime; with Redis this spawns the task that
    /// connects (at once, in the background: a Redis that is away is not an error).
    #[must_use]
    pub fn start(settings: &StoreSettings, memory: Arc<MemoryStore>, stats: Arc<LimitStats>) -> Rc<Self> {
        let (remote, hashing) = match &settings.backend {
            Backend::Memory => (None, Hashing::Raw),
            Backend::Redis(redis) => {
                let store = RedisStore::start(redis, Arc::clone(&stats));
                let remote = Remote { store, denials: Denials::new(), timeout: redis.timeout };
                (Some(remote), redis.hashing.clone())
            }
        };
        let holds = HoldSpace::new(HELD, Arc::clone(&stats));
        Rc::new(Self { memory, stats, remote, hashing, holds })
    }

    /// Decides all `policies` for one request, at once.
    pub async fn check<'a>(&self, policies: &'a [Arc<Policy>], facts: &Facts<'_>) -> Verdict<'a> {
        let Ok(plan) = Plan::new(policies, facts, &self.hashing) else {
            return Verdict::new(Outcome::AmbiguousKey, SmallVec::new());
        };
        if plan.denied.iter().any(Decision::is_enforced) {
            return self.conclude(Outcome::Denied { retry_after: None }, plan.denied);
        }
        if plan.counted.is_empty() {
            return self.conclude(Outcome::Allowed { wait: Duration::ZERO }, plan.denied);
        }
        let asks: Asks<'_> = plan.counted.iter().map(Planned::ask).collect();
        match &self.remote {
            None => self.decide_in_memory(&plan, &asks),
            Some(remote) => self.decide_remotely(remote, &plan, &asks).await,
        }
    }

    fn decide_in_memory<'a>(&self, plan: &Plan<'a>, asks: &[Ask<'_>]) -> Verdict<'a> {
        let Ok(hold) = self.reserve(plan) else { return overflow() };
        let reply = self.memory.decide(asks);
        self.conclude(outcome_of(&reply), plan.decisions(&reply, Source::Store)).held(hold)
    }

    async fn decide_remotely<'a>(&self, remote: &Remote, plan: &Plan<'a>, asks: &[Ask<'_>]) -> Verdict<'a> {
        remote.denials.follow(remote.store.epoch());
        let deadline = Instant::now() + remote.timeout;
        let recalled = remote.denials.recall(asks, deadline).await;
        if let Ok(Recall::Denied(answers)) = recalled {
            return self.deny_again(plan, &answers);
        }
        let Ok(hold) = self.reserve(plan) else { return overflow() };
        let Ok(Recall::Ask(permit)) = recalled else { return self.decide_without_store(plan, hold) };
        let sent = Instant::now();
        let result = remote.store.decide_before(deadline, asks).await;
        remote.denials.follow(remote.store.epoch());
        permit.at_most(remote.store.proof_lasts(asks)).settle(asks, &result);
        let Ok(reply) = result else { return self.decide_without_store(plan, hold) };
        self.measure(sent.elapsed());
        self.conclude(outcome_of(&reply), plan.decisions(&reply, Source::Store)).held(hold)
    }

    /// Takes a place to wait in, when the request may have to.
    fn reserve(&self, plan: &Plan<'_>) -> Result<Option<Hold>, NoPlace> {
        if plan.may_wait() { self.holds.reserve().map(Some).ok_or(NoPlace) } else { Ok(None) }
    }

    /// The verdict from remembered denials alone; nothing is charged anywhere.
    fn deny_again<'a>(&self, plan: &Plan<'a>, answers: &[(usize, Answer)]) -> Verdict<'a> {
        let decisions: SmallVec<[Decision<'a>; 2]> = answers
            .iter()
            .filter_map(|(position, answer)| Some(plan.counted.get(*position)?.decision(answer, Source::Remembered)))
            .collect();
        for decision in &decisions {
            if let Some(counter) = self.stats.remembered.get(decision.policy.index) {
                counter.increment();
            }
        }
        let never = decisions.iter().any(|decision| decision.retry_after.is_none());
        let longest = decisions.iter().filter_map(|decision| decision.retry_after).max();
        self.conclude(Outcome::Denied { retry_after: longest.filter(|_| !never) }, decisions)
    }

    /// Every limit by its own `on_store_error`; those that say `local` are decided together.
    fn decide_without_store<'a>(&self, plan: &Plan<'a>, hold: Option<Hold>) -> Verdict<'a> {
        let refuses = |planned: &&Planned<'_>| {
            planned.policy.mode == Mode::Enforce && planned.policy.on_store_error == OnStoreError::Deny
        };
        if plan.counted.iter().any(|planned| refuses(&planned)) {
            let refusing = plan.counted.iter().filter(refuses);
            let denied = |planned: &Planned<'a>| {
                Decision::uncounted(planned.policy, Some(planned.limit), Allowed::No, Source::DeniedOnError)
            };
            return self.conclude(Outcome::Unavailable, refusing.map(denied).collect());
        }
        let is_local = |planned: &Planned<'_>| planned.policy.on_store_error == OnStoreError::Local;
        let asks: Asks<'_> = plan.counted.iter().filter(|planned| is_local(planned)).map(Planned::ask).collect();
        let reply = self.memory.decide(&asks);
        let mut answers = reply.answers.iter();
        let counted = plan.counted.iter().map(|planned| match is_local(planned).then(|| answers.next()).flatten() {
            Some(answer) => planned.decision(answer, Source::Local),
            None => Decision::uncounted(planned.policy, Some(planned.limit), Allowed::Yes, Source::AllowedOnError),
        });
        let decisions = with_denied(counted.collect(), &plan.denied);
        self.conclude(outcome_of(&reply), decisions).held(hold)
    }

    /// Counts the decisions and makes the verdict.
    fn conclude<'a>(&self, outcome: Outcome, decisions: SmallVec<[Decision<'a>; 2]>) -> Verdict<'a> {
        let waits = matches!(outcome, Outcome::Allowed { wait } if !wait.is_zero());
        for decision in &decisions {
            self.stats.decided(decision.policy.index, kind_of(decision, waits));
        }
        Verdict::new(outcome, decisions)
    }

    /// Adds a round trip to the histogram.
    fn measure(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let bucket = CHECK_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(CHECK_BUCKETS.len());
        self.stats.check_buckets[bucket].increment();
        self.stats.check_nanos.add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// All places to wait in are taken.
struct NoPlace;

fn overflow<'a>() -> Verdict<'a> {
    Verdict::new(Outcome::Overflow, SmallVec::new())
}

/// The outcome a reply makes.
fn outcome_of(reply: &Reply) -> Outcome {
    if reply.granted {
        Outcome::Allowed { wait: Duration::from_micros(reply.wait_us) }
    } else {
        Outcome::Denied { retry_after: u64::try_from(reply.retry_us).ok().map(Duration::from_micros) }
    }
}

/// How a decision is counted.
fn kind_of(decision: &Decision<'_>, waits: bool) -> DecisionKind {
    match (decision.source, decision.allowed) {
        (Source::AllowedOnError, _) => DecisionKind::ErrorAllow,
        (Source::DeniedOnError, _) => DecisionKind::ErrorDeny,
        (_, false) if !decision.is_enforced() => DecisionKind::ShadowDeny,
        (Source::Local, true) => DecisionKind::LocalAllow,
        (Source::Local, false) => DecisionKind::LocalDeny,
        (_, true) if waits && decision.is_enforced() && decision.is_queue() => DecisionKind::Delay,
        (_, true) => DecisionKind::Allow,
        (_, false) => DecisionKind::Deny,
    }
}

#[cfg(test)]
#[path = "limiter/tests.rs"]
pub(super) mod tests;
