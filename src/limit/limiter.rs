//! One worker's limiter: from the policies of a route and the facts of a request to a verdict.

mod absent;
mod leased;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::task::JoinHandle;

use super::algorithm::Algorithm;
use super::bill::{Bill, Stands};
use super::books::Books;
use super::control::Control;
use super::decision::{Decision, Outcome, Source, Verdict};
use super::denials::Recall;
use super::dynamic::Snapshot;
use super::fallback::{Fallback, Tending};
use super::hold::{Hold, HoldSpace};
use super::key::{Facts, Hashing};
use super::plan::{Clock, Plan, Planned, Situation};
use super::policy::{OnStoreError, Policy};
use super::remote::{Asked, Remote, Unanswered};
use super::spread::Spread;
use super::stats::{CHECK_BUCKETS, DecisionKind, LimitStats};
use super::store::memory::MemoryStore;
use super::store::redis::RedisStore;
use super::store::settings::{Backend, StoreSettings};
use super::store::{Answer, Ask, Reply, Stray};
use absent::Failed;

/// One worker's limiter. Not `Send`: it owns the worker's connection to the store.
#[derive(Debug)]
pub struct Limiter {
    /// Shared by all workers: the store itself with `store: memory`, the fallback otherwise.
    memory: Arc<MemoryStore>,
    /// What holds while the store is away.
    fallback: Arc<Fallback>,
    /// Keeps the fallback's knowledge of the store.
    _tending: Option<Tending>,
    /// Read by the admin listener.
    stats: Arc<LimitStats>,
    /// The shared store, if there is one.
    remote: Option<Rc<Remote>>,
    /// How values enter subjects.
    hashing: Hashing,
    /// Where requests wait for their turn.
    holds: HoldSpace,
    /// What requests have open until they end.
    books: Rc<Books>,
    keeping: JoinHandle<()>,
    /// What is changed while the proxy runs.
    control: Arc<Control>,
    /// Which tokens were told to whom.
    spread: Spread,
}

/// The asks of one request.
type Asks<'p> = SmallVec<[Ask<'p>; 2]>;

/// The most requests a worker holds at once.
const HELD: usize = 10_000;

impl Limiter {
    /// Starts a worker's limiter on the current runtime; with Redis this spawns the task that
    /// connects (at once, in the background: a Redis that is away is not an error).
    #[must_use]
    pub fn start(
        settings: &StoreSettings,
        fallback: Arc<Fallback>,
        stats: Arc<LimitStats>,
        control: Arc<Control>,
    ) -> Rc<Self> {
        let mut tending = None;
        let (remote, hashing) = match &settings.backend {
            Backend::Memory => (None, Hashing::Raw),
            Backend::Redis(redis) => {
                let store = RedisStore::start(redis, Arc::clone(&stats));
                tending = Some(Tending::start(Arc::clone(&fallback), Rc::clone(&store)));
                (Some(Remote::new(store, redis.timeout)), redis.hashing.clone())
            }
        };
        let holds = HoldSpace::new(HELD, Arc::clone(&stats));
        let memory = Arc::clone(&fallback.memory);
        let store = remote.as_ref().map(|remote| Rc::clone(&remote.store));
        let books = Books::new(Arc::clone(&fallback), store, Arc::clone(&stats));
        let keeping = tokio::task::spawn_local(Rc::clone(&books).keep());
        let spread = Spread::default();
        Rc::new(Self {
            memory,
            fallback,
            _tending: tending,
            stats,
            remote,
            hashing,
            holds,
            books,
            keeping,
            control,
            spread,
        })
    }

    /// Decides all `policies` for one request, at once, under the overrides that were set meanwhile.
    pub async fn check<'a>(
        &self,
        policies: &'a [Arc<Policy>],
        overrides: Option<&'a Snapshot>,
        facts: &Facts<'_>,
    ) -> Verdict<'a> {
        if let Some(remote) = &self.remote {
            remote.denials.follow_changes(overrides.map_or(0, Snapshot::number), self.control.resets());
        }
        let situation =
            Situation { hashing: &self.hashing, overrides, clock: Clock::Wall, control: Some(&self.control) };
        let Ok(mut plan) = Plan::new(policies, facts, situation) else {
            return Verdict::new(Outcome::AmbiguousKey, SmallVec::new());
        };
        if let Some((outcome, decisions)) = plan.decided_already() {
            return self.conclude(outcome, decisions);
        }
        let verdict = match &self.remote {
            None => self.decide_in_memory(&plan),
            Some(remote) if plan.is_leased() => {
                let keys: SmallVec<[_; 2]> =
                    plan.keys().filter(|_| self.stats.top.is_on()).map(|(policy, key)| (policy, key.clone())).collect();
                let verdict = self.decide_with_leases(remote, plan).await;
                self.stats.top.note(&keys.iter().map(|(policy, key)| (*policy, key)), &verdict.decisions);
                return verdict;
            }
            Some(remote) => self.decide_remotely(remote, &plan, Instant::now() + remote.timeout).await,
        };
        self.stats.top.note(&plan.keys(), &verdict.decisions);
        verdict
    }

    /// Denials that are remembered count no more.
    pub fn forget_denials(&self) {
        if let Some(remote) = &self.remote {
            remote.denials.clear();
        }
    }

    /// Waits until all that ended requests owe is settled.
    pub async fn close(&self) {
        self.books.close().await;
    }

    fn decide_in_memory<'a>(&self, plan: &Plan<'a>) -> Verdict<'a> {
        let Ok(hold) = self.reserve(plan) else { return overflow() };
        let slot = self.slot(plan);
        let asks: Asks<'_> = plan.counted.iter().map(|planned| planned.ask(slot.as_deref().unwrap_or(""))).collect();
        let reply = self.memory.decide(&asks);
        let bill = if reply.granted { self.bill(plan, slot.clone()) } else { None };
        let bill = settled(bill, plan.counted.iter(), &reply, |_| Stands::in_store(reply.now_us));
        self.answered(plan, &reply).held(hold).billed(bill)
    }

    /// The id of the request's slots, if it takes any.
    fn slot(&self, plan: &Plan<'_>) -> Option<Arc<str>> {
        let takes = plan.counted.iter().any(|planned| matches!(planned.limit.algorithm, Algorithm::InFlight(_)));
        takes.then(|| self.books.slot())
    }

    /// A bill for a request that may have something open once it is admitted.
    fn bill(&self, plan: &Plan<'_>, slot: Option<Arc<str>>) -> Option<Bill> {
        let slots = if slot.is_some() { plan.slots() } else { SmallVec::new() };
        let needed = !slots.is_empty() || plan.settles();
        needed.then(|| Bill::open(&self.books, slot.unwrap_or_else(|| Arc::from("")), slots))
    }

    async fn decide_remotely<'a>(&self, remote: &Rc<Remote>, plan: &Plan<'a>, deadline: Instant) -> Verdict<'a> {
        remote.follow();
        let slot = self.slot(plan);
        let (asks, outset) = (plan.asks(slot.as_deref().unwrap_or("")), remote.outset());
        let stray = Stray::default();
        loop {
            let recalled = remote.recall(&asks, deadline).await;
            if let Ok(Recall::Denied(answers, looked)) = recalled {
                let verdict = self.deny_again(plan, &answers);
                return match remote.clock_us(looked) {
                    Some(now_us) => verdict.at(now_us),
                    None => verdict,
                };
            }
            let Ok(hold) = self.reserve(plan) else { return overflow() };
            let Ok(Recall::Ask(permit)) = recalled else {
                let failed = Failed { remote, outset, stray, is_unasked: true };
                return self.decide_without_store(&failed, plan, slot.as_ref(), hold);
            };
            let began = Instant::now();
            // From here on the store may grant, whether we hear of it or not.
            let bill = self.bill(plan, slot.clone());
            let reply = match remote.ask((&asks, &stray), deadline, permit).await {
                Asked::Remembered => continue,
                Asked::Alone(Err(Unanswered { is_unasked })) => {
                    drop(bill);
                    let failed = Failed { remote, outset, stray, is_unasked };
                    return self.decide_without_store(&failed, plan, slot.as_ref(), hold);
                }
                Asked::Alone(Ok(reply)) => reply,
                Asked::Shared(reply) => {
                    self.count_coalesced(plan);
                    reply
                }
            };
            self.measure(began.elapsed());
            self.remember(plan, &asks, &reply);
            let at = |position| Stands::in_store(reply.instant_of(position));
            let bill = settled(bill, plan.counted.iter(), &reply, at);
            return self.answered(plan, &reply).held(hold).billed(bill);
        }
    }

    /// Keeps what the store said of limits that this process may have to count by itself.
    fn remember(&self, plan: &Plan<'_>, asks: &[Ask<'_>], reply: &Reply) {
        for ((planned, ask), answer) in plan.counted.iter().zip(asks).zip(&reply.answers) {
            if planned.policy.on_store_error == OnStoreError::Local {
                self.fallback.remember(ask, answer);
            }
        }
    }

    /// Counts a denial that needed no call.
    fn count_remembered(&self, decision: &Decision<'_>) {
        if decision.source == Source::Remembered {
            self.stats.remembered.at(decision.policy.ordinal).increment();
        }
    }

    /// Another request's call has answered this one: each of its limits counts that once.
    fn count_coalesced(&self, plan: &Plan<'_>) {
        let mut last = None;
        for planned in &plan.counted {
            let limit = planned.policy.ordinal;
            if last.replace(limit) != Some(limit) {
                self.stats.coalesced.at(limit).increment();
            }
        }
    }

    /// The verdict from a store's reply.
    fn answered<'a>(&self, plan: &Plan<'a>, reply: &Reply) -> Verdict<'a> {
        let mut decisions = plan.decisions(reply, Source::Store);
        let outcome = self.spread.apply(outcome_of(reply), plan.counted.iter().zip(&mut decisions));
        self.conclude(outcome, decisions).at(reply.now_us)
    }

    /// Takes a place to wait in, when the request may have to.
    fn reserve(&self, plan: &Plan<'_>) -> Result<Option<Hold>, NoPlace> {
        plan.waits_under().map(|limit| self.holds.reserve(limit).ok_or(NoPlace)).transpose()
    }

    /// The verdict from remembered denials alone; nothing is charged anywhere.
    fn deny_again<'a>(&self, plan: &Plan<'a>, answers: &[(usize, Answer)]) -> Verdict<'a> {
        let denied = || answers.iter().filter_map(|(position, answer)| Some((plan.counted.get(*position)?, answer)));
        let mut decisions: SmallVec<[Decision<'a>; 2]> =
            denied().map(|(planned, answer)| planned.decision(answer, Source::Remembered)).collect();
        for decision in &decisions {
            self.count_remembered(decision);
        }
        let never = decisions.iter().any(|decision| decision.retry_after.is_none());
        let longest = decisions.iter().filter_map(|decision| decision.retry_after).max();
        let outcome = Outcome::Denied { retry_after: longest.filter(|_| !never) };
        let outcome = self.spread.apply(outcome, denied().map(|(planned, _)| planned).zip(&mut decisions));
        self.conclude(outcome, decisions)
    }

    /// Counts the decisions and makes the verdict.
    fn conclude<'a>(&self, outcome: Outcome, decisions: SmallVec<[Decision<'a>; 2]>) -> Verdict<'a> {
        // The rates of one limit are one decision.
        for rates in decisions.chunk_by(|a, b| std::ptr::eq(a.policy, b.policy)) {
            if let Some(decision) = rates.iter().find(|decision| !decision.allowed).or(rates.first()) {
                self.stats.decided(decision.policy.ordinal, kind_of(decision, outcome));
                if !decision.allowed && rates.iter().any(Decision::is_blocked) {
                    self.stats.blocked(decision.policy.ordinal);
                }
            }
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

impl Drop for Limiter {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// No place to wait in is left for the limit.
struct NoPlace;

fn overflow<'a>() -> Verdict<'a> {
    Verdict::new(Outcome::Overflow, SmallVec::new())
}

/// The bill once it is known what was decided about these, and where their charges stand.
fn settled<'p, 'a: 'p>(
    bill: Option<Bill>,
    asked: impl Iterator<Item = &'p Planned<'a>>,
    reply: &Reply,
    mut stands: impl FnMut(usize) -> Stands,
) -> Option<Bill> {
    let mut bill = bill?;
    if !reply.granted {
        bill.denied();
        return None;
    }
    let asked: SmallVec<[_; 2]> = asked.zip(&reply.answers).collect();
    // The rates of a shadow limit are charged together or not at all.
    let denied = |shadow: u8| asked.iter().any(|(planned, answer)| planned.shadow == shadow && !answer.allowed);
    bill.granted(|account| asked.iter().any(|(planned, _)| planned.is_of(account) && !denied(planned.shadow)));
    for (position, (planned, _)) in asked.iter().enumerate().filter(|(_, (planned, _))| planned.is_settled()) {
        if !denied(planned.shadow) {
            bill.charge(planned, stands(position));
        }
    }
    Some(bill)
}

/// The outcome a reply makes.
pub(super) fn outcome_of(reply: &Reply) -> Outcome {
    if reply.granted {
        Outcome::Allowed { wait: Duration::from_micros(reply.wait_us) }
    } else {
        Outcome::Denied { retry_after: u64::try_from(reply.retry_us).ok().map(Duration::from_micros) }
    }
}

/// How a decision is counted.
fn kind_of(decision: &Decision<'_>, outcome: Outcome) -> DecisionKind {
    let passes = matches!(outcome, Outcome::Allowed { .. });
    let waits = matches!(outcome, Outcome::Allowed { wait } if !wait.is_zero());
    match (decision.source, decision.allowed) {
        (Source::AllowedOnError, _) => DecisionKind::ErrorAllow,
        (Source::DeniedOnError, _) => DecisionKind::ErrorDeny,
        (_, false) if !decision.is_enforced() => DecisionKind::ShadowDeny,
        (Source::Local, true) => DecisionKind::LocalAllow,
        (Source::Local, false) => DecisionKind::LocalDeny,
        (_, true) if waits && decision.is_enforced() && decision.is_queue() => DecisionKind::Delay,
        (_, true) if passes && decision.warning().is_some() => DecisionKind::Warn,
        (_, true) => DecisionKind::Allow,
        (_, false) => DecisionKind::Deny,
    }
}

#[cfg(test)]
#[path = "limiter/tests.rs"]
pub(super) mod tests;
