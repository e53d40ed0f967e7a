//! Where state lives: this process' memory, or Redis. Both give the same answers.

pub mod breaker;
pub mod grant;
pub mod memory;
pub mod redis;
pub mod settings;

use std::cell::RefCell;

use smallvec::SmallVec;

use super::algorithm::penalty::Watches;
use super::algorithm::{Algorithm, Evaluation, Settlement};
use super::key::Subject;

/// One limit of one decision, as a store is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// State id of the limit (see [`super::policy::Limit::state_id`]).
    pub state_id: &'a str,
    /// How to count.
    pub algorithm: &'a Algorithm,
    /// Whose state.
    pub subject: &'a Subject,
    /// Cost; 0 only looks. At most 2^31.
    pub cost: u64,
    /// The least cost above 0 that any request of this limit has: whoever is denied that is denied all.
    pub least_cost: u64,
    /// 0 enforces. A shadow limit never affects what is granted: its states, those that have the same
    /// number here, are charged together, when the request is granted and all of them would admit it.
    pub shadow: u8,
    /// Whether what is charged may be given back later: then a denial may end before its retry.
    pub refundable: bool,
    /// The slot to take, unique over all proxies; empty where nothing counts requests in flight.
    pub slot: &'a str,
}

/// One state of a decision that is settled after it.
#[derive(Debug)]
pub struct Settle<'a> {
    /// State id of the limit.
    pub state_id: &'a str,
    /// How it counts.
    pub algorithm: &'a Algorithm,
    /// Whose state.
    pub subject: &'a Subject,
    /// What happens to it.
    pub settlement: Settlement<'a>,
}

impl<'a> Ask<'a> {
    /// An enforced limit without refunds.
    #[must_use]
    pub fn new(state_id: &'a str, algorithm: &'a Algorithm, subject: &'a Subject, cost: u64) -> Self {
        Self { state_id, algorithm, subject, cost, least_cost: 1, shadow: 0, refundable: false, slot: "" }
    }

    /// Whether it never affects what is granted.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.shadow != 0
    }

    /// Whether the memory of its denials may stand for the store.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        !self.is_shadow() && self.cost > 0 && !self.refundable && self.algorithm.denial_lasts()
    }

    /// Whether many such requests may be decided by one call: where nothing but the state's room tells one
    /// of them from the next. Not where each has a turn, a slot or a strike of its own, or may be refunded.
    #[must_use]
    pub fn is_coalesced(&self) -> bool {
        !self.refundable && self.algorithm.has_room()
    }
}

/// What the store says of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Whether this limit by itself admits.
    pub allowed: bool,
    /// Whole cost units left after the decision.
    pub remaining: u64,
    /// Microseconds until the same cost is admitted; 0 when allowed, -1 for never.
    pub retry_us: i64,
    /// Microseconds until the state equals "never seen".
    pub reset_us: u64,
}

/// What the store says of one decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Whether every enforced limit admitted; then, and only then, they were charged.
    pub granted: bool,
    /// The store's clock at the decision, microseconds since 1970.
    pub now_us: i64,
    /// How long the request is to be held (leaky buckets), microseconds.
    pub wait_us: u64,
    /// The longest retry of the enforced limits that denied, microseconds; -1 never; 0 when granted.
    pub retry_us: i64,
    /// One per [`Ask`], in order.
    pub answers: SmallVec<[Answer; 2]>,
    /// Where several servers had a part in it: each answer's instant by its own server's clock. Else empty.
    pub instants: SmallVec<[i64; 2]>,
}

impl Reply {
    /// The instant of this answer by its server's clock, microseconds since 1970.
    #[must_use]
    pub fn instant_of(&self, position: usize) -> i64 {
        self.instants.get(position).copied().unwrap_or(self.now_us)
    }

    /// The reply that these evaluations of these asks make: granted when every enforced limit allowed.
    /// Penalties are told of denials first.
    #[must_use]
    pub fn of(asks: &[Ask<'_>], evaluations: &mut [Evaluation], now_us: i64) -> Self {
        strike(asks, evaluations);
        let enforced =
            || asks.iter().zip(&*evaluations).filter(|(ask, _)| !ask.is_shadow()).map(|(_, evaluation)| evaluation);
        let granted = enforced().all(|evaluation| evaluation.allowed);
        let never = enforced().any(|evaluation| evaluation.retry_us < 0);
        let retry_us = enforced().map(|evaluation| evaluation.retry_us).max().unwrap_or(0);
        let wait_us = enforced().map(|evaluation| evaluation.wait_us).max().unwrap_or(0);
        let answers = (0..asks.len())
            .map(|index| {
                asks[index].algorithm.answer(&evaluations[index], is_charged(asks, evaluations, index, granted))
            })
            .collect();
        Self {
            granted,
            now_us,
            wait_us: if granted { wait_us } else { 0 },
            retry_us: if never { -1 } else { retry_us },
            answers,
            instants: SmallVec::new(),
        }
    }
}

/// Charges that stand in the store although the decision failed: in a Cluster, those of the servers that granted.
#[derive(Debug, Default)]
pub struct Stray(RefCell<SmallVec<[(usize, i64); 2]>>);

impl Stray {
    /// The ask at this position was charged, at this instant of its server's clock.
    pub fn note(&self, position: usize, at_us: i64) {
        self.0.borrow_mut().push((position, at_us));
    }

    /// When the ask at this position was charged, if it was.
    #[must_use]
    pub fn at(&self, position: usize) -> Option<i64> {
        self.0.borrow().iter().find(|(noted, _)| *noted == position).map(|&(_, at_us)| at_us)
    }
}

/// Tells every penalty of the denials among the limits that it watches, and of the blocks inside its network.
fn strike(asks: &[Ask<'_>], evaluations: &mut [Evaluation]) {
    for (index, ask) in asks.iter().enumerate() {
        let Algorithm::Penalty(penalty) = ask.algorithm else { continue };
        let Watches::Denials(limits) = penalty.watches else {
            if index > 0 && evaluations[index - 1].blocks_anew() {
                evaluations[index].strike(penalty, 0);
            }
            continue;
        };
        let watched = &evaluations[index.saturating_sub(limits)..index];
        let denied = watched.iter().filter(|evaluation| !evaluation.allowed).map(|evaluation| evaluation.retry_us);
        let never = denied.clone().any(|retry_us| retry_us < 0);
        if let Some(longest) = denied.max() {
            evaluations[index].strike(penalty, if never { -1 } else { longest });
        }
    }
}

/// Whether the limit at this place is charged: an enforced one when the request is granted, a shadow
/// one when all of its states would admit it too.
#[must_use]
pub fn is_charged(asks: &[Ask<'_>], evaluations: &[Evaluation], index: usize, granted: bool) -> bool {
    let shadow = asks[index].shadow;
    let together = || asks.iter().zip(evaluations).filter(|(ask, _)| ask.shadow == shadow);
    granted && (shadow == 0 || together().all(|(_, evaluation)| evaluation.allowed))
}
