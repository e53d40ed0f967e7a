//! One worker's limiter: from the policies of a route and the facts of a request to a verdict.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::task::JoinHandle;

use super::algorithm::Algorithm;
use super::bill::{Account, Bill, ChargedBy};
use super::books::Books;
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
    /// What requests have open until they end.
    books: Rc<Books>,
    keeping: JoinHandle<()>,
}

/// The shared store and what is remembered of its denials.
#[derive(Debug)]
struct Remote {
    store: Rc<RedisStore>,
    denials: Denials,
    timeout: Duration,
    /// When the latest answer came, and the store's clock in it.
    answered: Cell<Option<(Instant, i64)>>,
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
                let remote =
                    Remote { store, denials: Denials::new(), timeout: redis.timeout, answered: Cell::default() };
                (Some(remote), redis.hashing.clone())
            }
        };
        let holds = HoldSpace::new(HELD, Arc::clone(&stats));
        let store = remote.as_ref().map(|remote| Rc::clone(&remote.store));
        let books = Books::new(Arc::clone(&memory), store, Arc::clone(&stats));
        let keeping = tokio::task::spawn_local(Rc::clone(&books).keep());
        Rc::new(Self { memory, stats, remote, hashing, holds, books, keeping })
    }

    /// Decides all `policies` for one request, at once.
    pub async fn check<'a>(&self, policies: &'a [Arc<Policy>], facts: &Facts<'_>) -> Verdict<'a> {
        let Ok(mut plan) = Plan::new(policies, facts, &self.hashing) else {
            return Verdict::new(Outcome::AmbiguousKey, SmallVec::new());
        };
        if let Some((outcome, decisions)) = plan.decided_already() {
            return self.conclude(outcome, decisions);
        }
        match &self.remote {
            None => self.decide_in_memory(&plan),
            Some(remote) => self.decide_remotely(remote, &plan).await,
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
        let bill = Self::settled(bill, plan.counted.iter(), &reply, ChargedBy::Store);
        self.conclude(outcome_of(&reply), plan.decisions(&reply, Source::Store))
            .at(reply.now_us)
            .held(hold)
            .billed(bill)
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

    /// The bill once it is known what was decided about these.
    fn settled<'p, 'a: 'p>(
        bill: Option<Bill>,
        asked: impl Iterator<Item = &'p Planned<'a>>,
        reply: &Reply,
        charged_by: ChargedBy,
    ) -> Option<Bill> {
        let mut bill = bill?;
        if !reply.granted {
            bill.denied();
            return None;
        }
        bill.granted(reply.now_us, charged_by);
        for (planned, answer) in asked.zip(&reply.answers) {
            if planned.stays_open(answer) {
                let account = Account::new(planned.limit, &planned.subject);
                bill.charge(planned.policy, account, planned.cost, planned.body);
            }
        }
        Some(bill)
    }

    async fn decide_remotely<'a>(&self, remote: &Remote, plan: &Plan<'a>) -> Verdict<'a> {
        let slot = self.slot(plan);
        let asks: Asks<'_> = plan.counted.iter().map(|planned| planned.ask(slot.as_deref().unwrap_or(""))).collect();
        let asks = asks.as_slice();
        remote.denials.follow(remote.store.epoch());
        let deadline = Instant::now() + remote.timeout;
        let recalled = remote.denials.recall(asks, deadline).await;
        if let Ok(Recall::Denied(answers)) = recalled {
            let verdict = self.deny_again(plan, &answers);
            return match remote.clock_us() {
                Some(now_us) => verdict.at(now_us),
                None => verdict,
            };
        }
        let Ok(hold) = self.reserve(plan) else { return overflow() };
        let Ok(Recall::Ask(permit)) = recalled else { return self.decide_without_store(plan, slot.clone(), hold) };
        let sent = Instant::now();
        // From here on the store may grant, whether we hear of it or not.
        let bill = self.bill(plan, slot.clone());
        let result = remote.store.decide_before(deadline, asks).await;
        remote.denials.follow(remote.store.epoch());
        permit.settle(asks, &result);
        let Ok(reply) = result else {
            drop(bill);
            return self.decide_without_store(plan, slot.clone(), hold);
        };
        self.measure(sent.elapsed());
        remote.answered.set(Some((Instant::now(), reply.now_us)));
        let bill = Self::settled(bill, plan.counted.iter(), &reply, ChargedBy::Store);
        self.conclude(outcome_of(&reply), plan.decisions(&reply, Source::Store))
            .at(reply.now_us)
            .held(hold)
            .billed(bill)
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
    fn decide_without_store<'a>(&self, plan: &Plan<'a>, slot: Option<Arc<str>>, hold: Option<Hold>) -> Verdict<'a> {
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
        let local = || plan.counted.iter().filter(|planned| is_local(planned));
        let asks: Asks<'_> = local().map(|planned| planned.ask(slot.as_deref().unwrap_or(""))).collect();
        let reply = self.memory.decide(&asks);
        let bill = if reply.granted { self.bill(plan, slot.clone()) } else { None };
        let bill = Self::settled(bill, local(), &reply, ChargedBy::Local);
        let mut answers = reply.answers.iter();
        let counted = plan.counted.iter().map(|planned| match is_local(planned).then(|| answers.next()).flatten() {
            Some(answer) => planned.decision(answer, Source::Local),
            None => Decision::uncounted(planned.policy, Some(planned.limit), Allowed::Yes, Source::AllowedOnError),
        });
        let decisions = with_denied(counted.collect(), &plan.denied);
        self.conclude(outcome_of(&reply), decisions).at(reply.now_us).held(hold).billed(bill)
    }

    /// Counts the decisions and makes the verdict.
    fn conclude<'a>(&self, outcome: Outcome, decisions: SmallVec<[Decision<'a>; 2]>) -> Verdict<'a> {
        let waits = matches!(outcome, Outcome::Allowed { wait } if !wait.is_zero());
        // The rates of one limit are one decision.
        for rates in decisions.chunk_by(|a, b| std::ptr::eq(a.policy, b.policy)) {
            if let Some(decision) = rates.iter().find(|decision| !decision.allowed).or(rates.first()) {
                self.stats.decided(decision.policy.index, kind_of(decision, waits));
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

impl Remote {
    /// The store's clock, as far behind as its latest answer was on its way. So a denial that is still
    /// remembered is one at this instant, too: it came before that answer or with it.
    fn clock_us(&self) -> Option<i64> {
        let (answered, now_us) = self.answered.get()?;
        Some(now_us.saturating_add(i64::try_from(answered.elapsed().as_micros()).unwrap_or(i64::MAX)))
    }
}

/// All places to wait in are taken.
struct NoPlace;

fn overflow<'a>() -> Verdict<'a> {
    Verdict::new(Outcome::Overflow, SmallVec::new())
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
