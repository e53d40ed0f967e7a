//! What was decided: one [`Decision`] per policy, one [`Verdict`] per request.

use std::time::Duration;

use smallvec::SmallVec;

use super::policy::{Limit, Policy};

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
#[derive(Debug, Clone)]
pub struct Verdict<'a> {
    /// The outcome.
    pub outcome: Outcome,
    /// One per policy that applied, in the route's order (global limits first).
    pub decisions: SmallVec<[Decision<'a>; 2]>,
}
