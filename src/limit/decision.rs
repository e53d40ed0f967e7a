//! What was decided: one [`Decision`] per policy, one [`Verdict`] per request.

use std::time::Duration;

use smallvec::SmallVec;

use super::algorithm::Algorithm;
use super::bill::Bill;
use super::hold::Hold;
use super::policy::{Limit, Mode, Policy};
use super::store::Answer;

/// Who made a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The store (memory or Redis).
    Store,
    /// A denial remembered from the store; exact.
    Remembered,
    /// The memory store in place of an absent Redis.
    Local,
    /// Nobody: `on_store_error: allow`.
    AllowedOnError,
    /// Nobody: `on_store_error: deny`.
    DeniedOnError,
}

/// What one policy says of one request.
#[derive(Debug, Clone)]
pub struct Decision<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The limit that was read (the policy's own or an override's); `None` for `0/s` and for a
    /// missing key under `missing: deny`.
    pub limit: Option<&'a Limit>,
    /// Whether it denies this key what it does not allow.
    pub mode: Mode,
    /// What it costs here.
    pub cost: u64,
    /// Whether this policy by itself would admit the request.
    pub allowed: bool,
    /// Whole cost units left.
    pub remaining: u64,
    /// How long until the same request would be admitted; `None` when allowed or when never.
    pub retry_after: Option<Duration>,
    /// How long until the key has its full burst again.
    pub reset_after: Duration,
    /// Who decided.
    pub source: Source,
}

/// The outcome for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Forward it, after this wait (zero but for leaky buckets).
    Allowed {
        /// How long the request is to be held.
        wait: Duration,
    },
    /// 429.
    Denied {
        /// The longest of the denying limits; `None`: never.
        retry_after: Option<Duration>,
    },
    /// The store is away and a policy says `on_store_error: deny`: 503.
    Unavailable,
    /// No room to hold another request for its turn: 503.
    Overflow,
    /// A key part occurs twice in the request: 400.
    AmbiguousKey,
}

/// All decisions of a request.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// The outcome.
    pub outcome: Outcome,
    /// One per policy that applied, in the route's order (global limits first). A remembered denial
    /// stands alone: nothing is known of the request's other limits then.
    pub decisions: SmallVec<[Decision<'a>; 2]>,
    /// When a store decided, by the store's clock: microseconds since 1970. Fed with these instants, a
    /// replay comes to the same verdicts.
    pub decided_at_us: Option<i64>,
    /// The request's place while it is held.
    hold: Option<Hold>,
    /// What it has open with its limits until it ends.
    bill: Option<Bill>,
}

impl<'a> Verdict<'a> {
    /// Whether the request passes although a limit that enforces did not decide (`on_store_error: allow`).
    #[must_use]
    pub fn passed_undecided(&self) -> bool {
        let undecided = |decision: &Decision<'_>| decision.source == Source::AllowedOnError && decision.is_enforced();
        matches!(self.outcome, Outcome::Allowed { .. }) && self.decisions.iter().any(undecided)
    }

    /// A verdict over these decisions, without a place to be held in.
    #[must_use]
    pub fn new(outcome: Outcome, decisions: SmallVec<[Decision<'a>; 2]>) -> Self {
        Self { outcome, decisions, decided_at_us: None, hold: None, bill: None }
    }

    /// The same, decided at this instant of the store's clock.
    pub(super) fn at(mut self, now_us: i64) -> Self {
        self.decided_at_us = Some(now_us);
        self
    }

    /// The same with a place, kept only as long as there is something to wait for.
    pub(super) fn held(mut self, hold: Option<Hold>) -> Self {
        self.hold = hold.filter(|_| matches!(self.outcome, Outcome::Allowed { wait } if !wait.is_zero()));
        self
    }

    /// The same with what the request has open until it ends.
    pub(super) fn billed(mut self, bill: Option<Bill>) -> Self {
        self.bill = bill;
        self
    }

    /// What an admitted request has open with its limits; to be kept until it ends.
    #[must_use]
    pub fn take_bill(&mut self) -> Option<Bill> {
        self.bill.take()
    }

    /// Holds the request until its turn (leaky buckets), then gives its place back; at once
    /// when there is nothing to wait for. A dropped wait gives the place back too, not the turn.
    pub async fn wait(&mut self) {
        if let Outcome::Allowed { wait } = self.outcome
            && let Some(_place) = self.hold.take()
        {
            tokio::time::sleep(wait).await;
        }
    }

    /// The limits that denied the request, in order; shadow limits deny nothing.
    pub fn denying(&self) -> impl Iterator<Item = &Decision<'a>> {
        self.decisions.iter().filter(|decision| decision.is_enforced() && !decision.allowed)
    }

    /// The limit that decided: of the denying ones the one that denies longest (the first of equals).
    #[must_use]
    pub fn deciding(&self) -> Option<&Decision<'a>> {
        let longer = |a: &'_ Decision<'a>, b: &'_ Decision<'a>| match (a.retry_after, b.retry_after) {
            (Some(a), Some(b)) => a >= b,
            (a, _) => a.is_none(),
        };
        self.denying().reduce(|a, b| if longer(a, b) { a } else { b })
    }

    /// The counted, enforced limit with the least share of its burst left (the first of equals).
    #[must_use]
    pub fn tightest(&self) -> Option<&Decision<'a>> {
        let counted =
            |decision: &&Decision<'a>| decision.is_enforced() && decision.is_quota() && decision.capacity() > 0;
        // a/b < c/d without division: a·d < c·b.
        let share = |a: &Decision<'a>, b: &Decision<'a>| u128::from(a.remaining) * u128::from(b.capacity());
        self.decisions.iter().filter(counted).reduce(|a, b| if share(b, a) < share(a, b) { b } else { a })
    }
}

impl<'a> Decision<'a> {
    /// What a store or a remembered denial answered.
    #[must_use]
    pub fn of(policy: &'a Policy, limit: &'a Limit, cost: u64, answer: &Answer, source: Source) -> Self {
        let retry_after = (!answer.allowed).then(|| u64::try_from(answer.retry_us).ok()).flatten();
        Self {
            policy,
            limit: Some(limit),
            mode: policy.mode,
            cost,
            allowed: answer.allowed,
            remaining: answer.remaining,
            retry_after: retry_after.map(Duration::from_micros),
            reset_after: Duration::from_micros(answer.reset_us),
            source,
        }
    }

    /// What nobody counted: `0/s`, a key missing under `missing: deny`, or a store error.
    #[must_use]
    pub fn uncounted(policy: &'a Policy, limit: Option<&'a Limit>, allowed: Allowed, source: Source) -> Self {
        Self {
            policy,
            limit,
            mode: policy.mode,
            cost: 0,
            allowed: allowed == Allowed::Yes,
            remaining: 0,
            retry_after: None,
            reset_after: Duration::ZERO,
            source,
        }
    }

    /// Whether the policy denies what it does not allow.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.mode == Mode::Enforce
    }

    /// Whether clients are told of it.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.is_counted() && self.is_quota() && (self.is_enforced() || self.policy.shadow_headers)
    }

    /// Used per cent of the capacity, where that calls for a warning (`warn_at`).
    #[must_use]
    pub fn warning(&self) -> Option<u64> {
        let warn_at = self.policy.warn_at.filter(|_| self.allowed && self.is_told())?;
        let capacity = self.capacity();
        let used = capacity.saturating_sub(self.remaining);
        let due = capacity > 0 && warn_at.reached_by(used, capacity);
        due.then(|| u64::try_from(u128::from(used) * 100 / u128::from(capacity)).unwrap_or(100))
    }

    /// Whether a store counted, so that `remaining` and `reset_after` mean something.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.limit.is_some() && !matches!(self.source, Source::AllowedOnError | Source::DeniedOnError)
    }

    /// Whether admitted requests of this limit are held for their turn.
    #[must_use]
    pub fn is_queue(&self) -> bool {
        self.limit.is_some_and(|limit| matches!(limit.algorithm, Algorithm::LeakyBucket { .. }))
    }

    /// Whether a penalty denies.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.allowed && self.limit.is_some_and(|limit| matches!(limit.algorithm, Algorithm::Penalty(_)))
    }

    /// Whether it tells of a quota; a penalty tells of none.
    #[must_use]
    pub fn is_quota(&self) -> bool {
        self.limit.is_some_and(|limit| !matches!(limit.algorithm, Algorithm::Penalty(_)))
    }

    /// The burst of the limit that was counted; 0 when none was.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.limit.filter(|_| self.is_counted()).map_or(0, |limit| limit.algorithm.capacity())
    }
}

/// Whether a policy lets a request pass that nobody counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// It does.
    Yes,
    /// It does not.
    No,
}
