//! Where state lives: this process' memory, or Redis. Both give the same answers.

pub mod breaker;
pub mod memory;
pub mod redis;
pub mod settings;

use smallvec::SmallVec;

use super::algorithm::{Algorithm, Evaluation};
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
    /// A shadow limit never affects what is granted.
    pub shadow: bool,
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
}

impl Reply {
    /// The reply that these evaluations of these asks make: granted when every enforced limit allowed.
    #[must_use]
    pub fn of(asks: &[Ask<'_>], evaluations: &[Evaluation], now_us: i64) -> Self {
        let enforced = || asks.iter().zip(evaluations).filter(|(ask, _)| !ask.shadow).map(|(_, evaluation)| evaluation);
        let granted = enforced().all(|evaluation| evaluation.allowed);
        let never = enforced().any(|evaluation| evaluation.retry_us < 0);
        let retry_us = enforced().map(|evaluation| evaluation.retry_us).max().unwrap_or(0);
        let wait_us = enforced().map(|evaluation| evaluation.wait_us).max().unwrap_or(0);
        Self {
            granted,
            now_us,
            wait_us: if granted { wait_us } else { 0 },
            retry_us: if never { -1 } else { retry_us },
            answers: asks
                .iter()
                .zip(evaluations)
                .map(|(ask, evaluation)| ask.algorithm.answer(evaluation, granted))
                .collect(),
        }
    }
}
