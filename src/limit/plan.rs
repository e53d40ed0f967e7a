//! What is to be asked for one request: which limits count it, under which subjects, at what cost.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::algorithm::Algorithm;
use super::bill::Account;
use super::decision::{Allowed, Decision, Outcome, Source};
use super::key::{self, AmbiguousKey, Facts, Found, Hashing, KeyValue, Subject};
use super::policy::{Limit, Missing, Mode, Policy, Terms};
use super::store::{Ask, Reply};

/// The limits of one request, sorted into those a store counts and those that need no store.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// To be counted, in the route's order.
    pub(super) counted: SmallVec<[Planned<'a>; 2]>,
    /// Denied at once: `0/s`, or a key missing under `missing: deny`.
    pub(super) denied: SmallVec<[Decision<'a>; 2]>,
}

/// One limit that a store is to count.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) policy: &'a Arc<Policy>,
    pub(super) limit: &'a Limit,
    pub(super) cost: u64,
    pub(super) subject: Subject,
    /// 0 enforces; see [`Ask::shadow`].
    pub(super) shadow: u8,
    /// The part of the cost that the announced body makes.
    pub(super) body: u64,
}

/// What a policy makes of a request, before anything is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading<'a> {
    /// Its `match` leaves the path out.
    Elsewhere,
    /// No part of its key is present, and `missing: skip`.
    Skipped,
    /// The request is counted, denied or let through.
    Keyed {
        /// Counted by; empty under `missing: deny`.
        subject: Subject,
        /// What holds.
        terms: &'a Terms,
        /// Why these terms.
        because: Because,
    },
}

/// Why the terms of a [`Reading`] hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// They are the policy's own.
    Own,
    /// An override names the key; its position in the policy.
    Override(usize),
    /// No part of the key is present: `missing` says so.
    Missing,
}

impl<'a> Reading<'a> {
    /// Reads a request under a policy.
    ///
    /// # Errors
    /// When a part of the key occurs twice in the request.
    pub fn of(policy: &'a Policy, facts: &Facts<'_>, hashing: &Hashing) -> Result<Self, AmbiguousKey> {
        if !policy.applies.to(facts.path) {
            return Ok(Self::Elsewhere);
        }
        let (subject, terms, because) = match policy.key.subject(facts, hashing)? {
            Found::Present { subject, values } => match override_for(policy, &values) {
                Some(position) => (subject, &policy.overrides[position].terms, Because::Override(position)),
                None => (subject, &policy.terms, Because::Own),
            },
            Found::Missing => match policy.missing {
                Missing::Skip => return Ok(Self::Skipped),
                Missing::Deny => (Subject::new(), &Terms::Deny, Because::Missing),
                Missing::ClientIp { ipv6_prefix } => {
                    (key::client_subject(facts, ipv6_prefix), &policy.terms, Because::Missing)
                }
            },
        };
        Ok(Self::Keyed { subject, terms, because })
    }
}

impl<'a> Plan<'a> {
    /// Reads the request under every policy that counts it. A shadow limit whose key is ambiguous
    /// is left out: it never affects the answer.
    pub(super) fn new(policies: &'a [Arc<Policy>], facts: &Facts<'_>, hashing: &Hashing) -> Result<Self, AmbiguousKey> {
        let mut plan = Self { counted: SmallVec::new(), denied: SmallVec::new() };
        for policy in policies {
            match plan.add(policy, facts, hashing) {
                Err(AmbiguousKey) if policy.mode == Mode::Enforce => return Err(AmbiguousKey),
                _ => {}
            }
        }
        Ok(plan)
    }

    fn add(&mut self, policy: &'a Arc<Policy>, facts: &Facts<'_>, hashing: &Hashing) -> Result<(), AmbiguousKey> {
        let Reading::Keyed { subject, terms, .. } = Reading::of(policy, facts, hashing)? else { return Ok(()) };
        match terms {
            Terms::Unlimited => {}
            Terms::Deny => self.denied.push(Decision::uncounted(policy, None, Allowed::No, Source::Store)),
            Terms::Limited(limits) => self.count(policy, limits, facts, &subject),
        }
        Ok(())
    }

    /// Adds every limit of a policy.
    fn count(&mut self, policy: &'a Arc<Policy>, limits: &'a [Limit], facts: &Facts<'_>, subject: &Subject) {
        let (cost, body) = (policy.cost.of(facts), policy.cost.announced(facts));
        let shadows = self.counted.iter().map(|planned| planned.shadow).max().unwrap_or(0);
        let shadow = if policy.mode == Mode::Shadow { shadows.saturating_add(1) } else { 0 };
        for limit in limits {
            let cost = match limit.algorithm {
                Algorithm::Penalty(_) | Algorithm::InFlight(_) => cost.min(1),
                _ if policy.cost.is_dynamic() => cost.min(limit.algorithm.capacity()),
                _ => cost,
            };
            self.counted.push(Planned { policy, limit, cost, subject: subject.clone(), shadow, body });
        }
    }

    /// Where the request would count among those in flight.
    pub(super) fn slots(&self) -> SmallVec<[Account; 1]> {
        let takes =
            |planned: &&Planned<'_>| planned.cost > 0 && matches!(planned.limit.algorithm, Algorithm::InFlight(_));
        self.counted.iter().filter(takes).map(|planned| Account::new(planned.limit, &planned.subject)).collect()
    }

    /// Whether the request's end changes anything that it is charged.
    pub(super) fn settles(&self) -> bool {
        self.counted.iter().any(|planned| planned.cost > 0 && planned.policy.settles())
    }

    /// The outcome that needs no store: denied already, or nothing to count.
    pub(super) fn decided_already(&mut self) -> Option<(Outcome, SmallVec<[Decision<'a>; 2]>)> {
        let outcome = if self.denied.iter().any(Decision::is_enforced) {
            Outcome::Denied { retry_after: None }
        } else if self.counted.is_empty() {
            Outcome::Allowed { wait: Duration::ZERO }
        } else {
            return None;
        };
        Some((outcome, std::mem::take(&mut self.denied)))
    }

    /// Whether an enforced leaky bucket may make the request wait.
    pub(super) fn may_wait(&self) -> bool {
        self.counted.iter().any(|planned| {
            planned.cost > 0
                && planned.policy.mode == Mode::Enforce
                && matches!(planned.limit.algorithm, Algorithm::LeakyBucket { .. })
        })
    }

    /// The decisions a reply makes, in the route's order; those that needed no store come last.
    pub(super) fn decisions(&self, reply: &Reply, source: Source) -> SmallVec<[Decision<'a>; 2]> {
        let counted = self.counted.iter().zip(&reply.answers).map(|(planned, answer)| planned.decision(answer, source));
        with_denied(counted.collect(), &self.denied)
    }
}

impl<'a> Planned<'a> {
    /// The question to a store.
    pub(super) fn ask<'x>(&'x self, slot: &'x str) -> Ask<'x> {
        Ask {
            state_id: &self.limit.state_id,
            algorithm: &self.limit.algorithm,
            subject: &self.subject,
            cost: self.cost,
            least_cost: self.policy.cost.least().min(self.cost.max(1)),
            shadow: self.shadow,
            refundable: self.policy.settles(),
            slot,
        }
    }

    /// Whether what this answer charged may change once the request is answered.
    pub(super) fn stays_open(&self, answer: &super::store::Answer) -> bool {
        answer.allowed && self.cost > 0 && self.policy.settles()
    }

    /// What an answer means.
    pub(super) fn decision(&self, answer: &super::store::Answer, source: Source) -> Decision<'a> {
        Decision::of(self.policy, self.limit, self.cost, answer, source)
    }
}

/// Adds the decisions made without a store (of shadow limits, when the others count at all).
pub(super) fn with_denied<'a>(
    mut decisions: SmallVec<[Decision<'a>; 2]>,
    denied: &[Decision<'a>],
) -> SmallVec<[Decision<'a>; 2]> {
    decisions.extend(denied.iter().cloned());
    decisions
}

/// The first override that names one of the key's values.
fn override_for(policy: &Policy, values: &[KeyValue<'_>]) -> Option<usize> {
    policy.overrides.iter().position(|entry| {
        entry.matches.iter().any(|matches| values.iter().any(|value| matches.matches(&value.bytes, value.address)))
    })
}
