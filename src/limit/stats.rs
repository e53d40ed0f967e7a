//! What the limiter counts about itself: per worker, summed by whoever reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::store::redis::log::StoreLog;
use super::top::TopKeys;
use crate::slots::Slots;

/// A counter that one worker writes and anyone may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The `decision` label of `tollgate_limit_decisions_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum DecisionKind {
    /// Admitted by the store.
    Allow,
    /// Denied by the store or by a remembered denial.
    Deny,
    /// Admitted, and held for its turn.
    Delay,
    /// Admitted, with a warning that little is left.
    Warn,
    /// Would have been denied by a shadow limit.
    ShadowDeny,
    /// Admitted because the store failed.
    ErrorAllow,
    /// Refused (503) because the store failed.
    ErrorDeny,
    /// Admitted by the local fallback.
    LocalAllow,
    /// Denied by the local fallback.
    LocalDeny,
}

impl DecisionKind {
    /// Every kind, in label order.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Allow, "allow"),
        (Self::Deny, "deny"),
        (Self::Delay, "delay"),
        (Self::Warn, "warn"),
        (Self::ShadowDeny, "shadow_deny"),
        (Self::ErrorAllow, "error_allow"),
        (Self::ErrorDeny, "error_deny"),
        (Self::LocalAllow, "local_allow"),
        (Self::LocalDeny, "local_deny"),
    ];
}

/// The `kind` label of `tollgate_store_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum StoreErrorKind {
    /// Connection refused or never made.
    Refused,
    /// Connection lost.
    Reset,
    /// No answer within the deadline.
    Timeout,
    /// LOADING or MASTERDOWN.
    Loading,
    /// READONLY.
    Readonly,
    /// OOM.
    Oom,
    /// NOSCRIPT.
    Noscript,
    /// MOVED, ASK, TRYAGAIN or CROSSSLOT.
    Moved,
    /// CLUSTERDOWN.
    Clusterdown,
    /// NOAUTH or WRONGPASS.
    Noauth,
    /// NOPERM.
    Noperm,
    /// MISCONF or NOREPLICAS.
    Misconf,
    /// BUSY.
    Busy,
    /// Anything that is not an answer we know.
    Protocol,
    /// One side does not trust the other's certificate, or does not speak TLS.
    Tls,
}

impl StoreErrorKind {
    /// Every kind, in label order.
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::Refused, "refused"),
        (Self::Reset, "reset"),
        (Self::Timeout, "timeout"),
        (Self::Loading, "loading"),
        (Self::Readonly, "readonly"),
        (Self::Oom, "oom"),
        (Self::Noscript, "noscript"),
        (Self::Moved, "moved"),
        (Self::Clusterdown, "clusterdown"),
        (Self::Noauth, "noauth"),
        (Self::Noperm, "noperm"),
        (Self::Misconf, "misconf"),
        (Self::Busy, "busy"),
        (Self::Protocol, "protocol"),
        (Self::Tls, "tls"),
    ];

    /// What whoever runs the proxy can do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Refused => "start redis, or correct store.redis: its address, its tls",
            Self::Reset => "look at redis' own log: it closed the connection, or died, or wants rediss://",
            Self::Timeout => {
                "look at redis' SLOWLOG and the network, raise store.redis.timeout, or write redis:// where it has no TLS"
            }
            Self::Loading => "wait until redis has read its data or reached its primary",
            Self::Readonly => {
                "a replica answers: let store.redis.url lead to the primary, or write store.redis.sentinel"
            }
            Self::Oom => "raise redis' maxmemory, or set maxmemory-policy to volatile-ttl",
            Self::Noscript => "nothing: the scripts are loaded again",
            Self::Moved => "a node of a cluster answers: write store.redis.cluster instead of its url",
            Self::Clusterdown => {
                "look at CLUSTER INFO and CLUSTER NODES: slots have no node, or this node sees too few others"
            }
            Self::Noauth => "correct store.redis.username and its password",
            Self::Noperm => "give the user the commands and keys of deploy/redis/users.acl",
            Self::Misconf => "look at redis' own log: it refuses writes while it cannot save or replicate",
            Self::Busy => "a slow script blocks redis: SCRIPT KILL ends it",
            Self::Protocol => "check that store.redis leads to a redis of version 6.2 or newer, with or without TLS",
            Self::Tls => {
                "let store.redis.tls.ca name the authority of redis' certificate, show redis one that it trusts \
                 (store.redis.tls.cert and key), or write redis:// where it has no TLS"
            }
        }
    }

    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Upper bounds, in seconds, of the store round-trip histogram.
pub const CHECK_BUCKETS: [f64; 11] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1];

/// Everything one worker's limiter counts.
#[derive(Debug, Default)]
pub struct LimitStats {
    /// Decisions, by [`Policy::ordinal`](super::policy::Policy::ordinal) and [`DecisionKind`].
    pub decisions: Slots<[Counter; 9]>,
    /// Denials answered from memory of an earlier one, by ordinal.
    pub remembered: Slots<Counter>,
    /// Cost units given back and charged on top after answers, by ordinal.
    pub settled: Slots<[Counter; 2]>,
    /// Requests denied by a penalty that blocks, by ordinal.
    pub blocked: Slots<Counter>,
    /// Requests answered by a call that another request of the same kind made, by ordinal.
    pub coalesced: Slots<Counter>,
    /// Calls that took leases.
    pub lease_calls: Counter,
    /// Tokens that these took for requests to come.
    pub lease_tokens: Counter,
    /// Cost admitted while the store was away that was charged there afterwards, and that could not be.
    pub made_up: [Counter; 2],
    /// Requests that have a place of a limit of requests in flight.
    pub in_flight: AtomicU64,
    /// Store errors by [`StoreErrorKind`].
    pub errors: [Counter; 15],
    /// Script calls sent to the store.
    pub store_calls: Counter,
    /// Store round trips per bucket of [`CHECK_BUCKETS`], the last for slower ones (not cumulative).
    pub check_buckets: [Counter; 12],
    /// Sum of store round trips, nanoseconds.
    pub check_nanos: Counter,
    /// 1 when the store answers, 0 when the breaker is open (always 1 with the memory store).
    pub store_up: AtomicU64,
    /// Redis servers whose scripts are given this process' clock, because they keep their own from them.
    pub own_clock: AtomicU64,
    /// 1 when a sentinel answers; of no meaning without sentinels.
    pub sentinel_up: AtomicU64,
    /// Requests being held for their turn.
    pub held: AtomicU64,
    /// The keys that are met most, where somebody may ask for them.
    pub top: TopKeys,
    /// What was logged of the store, shared by the workers of a process.
    pub store_log: Arc<StoreLog>,
}

impl LimitStats {
    /// Nothing counted yet, and the store as good as there.
    #[must_use]
    pub fn new() -> Self {
        Self { store_up: AtomicU64::new(1), ..Self::default() }
    }

    /// Counts a decision.
    pub fn decided(&self, policy: usize, kind: DecisionKind) {
        self.decisions.at(policy)[kind as usize].increment();
    }

    /// Counts a request that a penalty blocks.
    pub fn blocked(&self, policy: usize) {
        self.blocked.at(policy).increment();
    }
}
