//! Leases: tokens of a limit that a worker takes in advance and spends without asking, for a short while.
//!
//! A lease lasts L from the instant at which the call that took it was *sent*, so each of its tokens is
//! spent at most L after the store charged it; what is left then is dropped. In any interval of length Δ
//! so many tokens are spent as were charged in `Δ + L` at most: the store's bucket holds `ceil(R·L/P)` less than
//! the limit promises, and T1 holds as it stands. How many are taken follows what was spent last, at
//! most twice as many as before, and never more than an eighth of what the store had left: near empty
//! every token is asked for by itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::fingerprint::Fingerprints;
use super::store::{Answer, Ask};

/// One worker's leases.
#[derive(Debug)]
pub(super) struct Leases {
    by_state: RefCell<HashMap<u128, Lease, ahash::RandomState>>,
    fingerprints: Fingerprints,
}

/// Tokens of one state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    /// Not yet spent.
    left: u64,
    /// When they end.
    until: Instant,
    /// When the last call was sent.
    sent: Instant,
    /// What that call took, for requests that waited too.
    taken: u64,
    /// What was spent of it.
    spent: u64,
    /// What the store had left then, and when it would be full.
    remaining: u64,
    reset_us: u64,
}

/// Tokens that a request holds. Where that ends before it is decided, they go back into the lease.
#[derive(Debug)]
pub(super) struct Token<'l> {
    leases: &'l Leases,
    name: u128,
    cost: u64,
    until: Instant,
    is_kept: bool,
}

/// States that a worker holds leases of.
const MOST_LEASES: usize = 16_384;
/// What the store has left is shared with other proxies: the part of it that one call takes in advance.
const PART: u64 = 8;

impl Lease {
    /// Takes tokens out of the lease, if there are enough of them: what is left in all.
    pub(super) fn spend(&mut self, cost: u64, now: Instant) -> Option<Answer> {
        if now >= self.until || self.left < cost {
            return None;
        }
        self.left -= cost;
        self.spent += cost;
        Some(Answer {
            allowed: true,
            remaining: self.remaining + self.left,
            retry_us: 0,
            reset_us: self.reset_us.saturating_sub(micros(now.saturating_duration_since(self.sent))),
        })
    }

    /// How many tokens beside those that requests wait for are worth taking now.
    pub(super) fn worth(&self, waited_for: u64, now: Instant, length: Duration) -> u64 {
        let since = micros(now.saturating_duration_since(self.sent)).max(1);
        // A quarter more: a lease that is used up too early costs another call.
        let demand = u128::from(self.spent) * length.as_micros() * 5 / (u128::from(since) * 4);
        let demand = u64::try_from(demand).unwrap_or(u64::MAX);
        let most = self.taken.saturating_mul(2).saturating_add(waited_for);
        demand.min(most).saturating_sub(waited_for).min(self.remaining / PART)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What a call for a lease brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Brought {
    /// Tokens that no waiting request gets.
    pub(super) spare: u64,
    /// Tokens in all.
    pub(super) taken: u64,
    /// What the store has left.
    pub(super) next: Answer,
    /// When the call was sent.
    pub(super) sent: Instant,
}

impl Lease {
    /// The lease that a call brought.
    pub(super) fn new(brought: &Brought, length: Duration) -> Self {
        let Brought { spare, taken, next, sent } = *brought;
        Self {
            left: spare,
            until: sent + length,
            sent,
            taken,
            spent: taken.saturating_sub(spare),
            remaining: next.remaining,
            reset_us: next.reset_us,
        }
    }
}

impl Leases {
    /// None.
    pub(super) fn new() -> Self {
        Self { by_state: RefCell::default(), fingerprints: Fingerprints::new() }
    }

    /// The name of the state that an ask asks for.
    pub(super) fn name_of(&self, ask: &Ask<'_>) -> u128 {
        self.fingerprints.of(ask.state_id, ask.algorithm, ask.subject)
    }

    /// Takes tokens out of the lease of this state, if there are enough of them.
    pub(super) fn spend(&self, name: u128, cost: u64, now: Instant) -> Option<(Token<'_>, Answer)> {
        let mut leases = self.by_state.borrow_mut();
        let lease = leases.get_mut(&name)?;
        let answer = lease.spend(cost, now)?;
        Some((Token { leases: self, name, cost, until: lease.until, is_kept: false }, answer))
    }

    /// The tokens that a call brought for a request itself.
    pub(super) fn token(&self, name: u128, cost: u64, until: Instant) -> Token<'_> {
        Token { leases: self, name, cost, until, is_kept: false }
    }

    /// How many tokens beside those that requests wait for are worth taking now.
    pub(super) fn worth(&self, name: u128, waited_for: u64, now: Instant, length: Duration) -> u64 {
        self.by_state.borrow().get(&name).map_or(0, |lease| lease.worth(waited_for, now, length))
    }

    /// Keeps what a call brought; what was left of an earlier one is dropped.
    pub(super) fn keep(&self, name: u128, brought: &Brought, length: Duration) {
        let mut leases = self.by_state.borrow_mut();
        if leases.len() >= MOST_LEASES && !leases.contains_key(&name) {
            // Of what was not asked for since, the demand is not worth remembering either.
            leases.retain(|_, lease| brought.sent.saturating_duration_since(lease.until) < length);
            if leases.len() >= MOST_LEASES {
                return;
            }
        }
        leases.insert(name, Lease::new(brought, length));
    }
}

impl Token<'_> {
    /// It does not go back into the lease.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // Not into a later lease: the token would outlive its own.
        if let Some(lease) = self.leases.by_state.borrow_mut().get_mut(&self.name)
            && lease.until == self.until
        {
            lease.left += self.cost;
            lease.spent = lease.spent.saturating_sub(self.cost);
        }
    }
}

#[cfg(test)]
#[path = "lease/tests.rs"]
mod tests;
