//! What is to be asked for one request: which limits count it, under which subjects, at what cost.

use std::sync::Arc;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::algorithm::Algorithm;
use super::bill::Account;
use super::control::Control;
use super::decision::{Allowed, Decision, Outcome, Source};
use super::dynamic::Snapshot;
use super::key::{self, AmbiguousKey, Facts, Found, Hashing, KeyPart, KeyValue, Subject, value_of};
use super::policy::{Limit, Missing, Mode, Policy, Terms};
use super::schedule::Schedules;
use super::store::{Ask, Reply};

/// The limits of one request, sorted into those a store counts and those that need no store.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// To be counted, in the route's order.
    pub(super) counted: SmallVec<[Planned<'a>; 2]>,
    /// Denied at once: `0/s`, or a key missing under `missing: deny`.
    pub(super) denied: SmallVec<[Decision<'a>; 2]>,
}

/// What those are counted by that carry no part of the key.
const CLIENT: &KeyPart = &KeyPart::ClientIp { ipv6_prefix: 128 };

/// One limit that a store is to count.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) policy: &'a Arc<Policy>,
    pub(super) limit: &'a Limit,
    pub(super) cost: u64,
    pub(super) subject: Subject,
    /// Whether it denies this subject.
    pub(super) mode: Mode,
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
        /// Whether no part of its key is present (`missing: client_ip` or `deny`).
        without_key: bool,
        /// The networks around an IPv6 client, when a penalty watches them: counted by, in the policy's order.
        networks: Vec<Subject>,
    },
}

/// Why the terms of a [`Reading`] hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// They are the policy's own.
    Own,
    /// No part of the key is present: `missing: deny`.
    Missing,
    /// It was set for the key while the proxy runs.
    Dynamic,
    /// An override names the key; its position in the policy.
    Override(usize),
    /// The request is of a tier; its position in the policy.
    Tier(usize),
    /// A schedule holds at this hour; its position in the policy.
    Schedule(usize),
}

/// What a reading depends on beside policy and request.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'s, 'a> {
    /// How values enter subjects.
    pub hashing: &'s Hashing,
    /// What was set while the proxy runs.
    pub overrides: Option<&'a Snapshot>,
    /// Which hour it is.
    pub clock: Clock,
    /// What else was changed while the proxy runs.
    pub control: Option<&'s Control>,
}

/// By which clock schedules go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// This process' wall clock.
    Wall,
    /// An instant, microseconds since 1970 (explanations, simulations, tests).
    At(i64),
}

impl Situation<'_, '_> {
    /// Whether a policy denies at all: what was switched while the proxy runs, else what the file says.
    #[must_use]
    pub fn mode_of(&self, policy: &Policy) -> Mode {
        self.control.and_then(|control| control.switched(&policy.name)).unwrap_or(policy.mode)
    }

    /// Whether a policy denies whom it counts this request by.
    #[must_use]
    pub fn mode_for(&self, policy: &Policy, facts: &Facts<'_>) -> Mode {
        let switched = self.control.and_then(|control| control.switched(&policy.name));
        switched.unwrap_or_else(|| policy.mode_for(facts))
    }
}

impl Clock {
    /// The position of the schedule that holds.
    fn among(self, schedules: &Schedules) -> Option<usize> {
        match self {
            Self::Wall => schedules.now(),
            Self::At(now_us) => schedules.at(now_us),
        }
    }
}

impl<'a> Reading<'a> {
    /// Reads a request under a policy.
    ///
    /// # Errors
    /// When a part of the key, or of what tells its tiers apart, occurs twice in the request.
    pub fn of(policy: &'a Policy, facts: &Facts<'_>, situation: Situation<'_, 'a>) -> Result<Self, AmbiguousKey> {
        if !policy.applies.to(facts.path) {
            return Ok(Self::Elsewhere);
        }
        let (mut subject, values, without_key) = match policy.key.subject(facts, situation.hashing)? {
            Found::Present { subject, values } => (subject, values, false),
            Found::Missing => match policy.missing {
                Missing::Skip => return Ok(Self::Skipped),
                Missing::Deny => return Ok(Self::without_key()),
                Missing::ClientIp { ipv6_prefix } => {
                    (key::client_subject(facts, ipv6_prefix), smallvec![(CLIENT, KeyValue::client(facts))], true)
                }
            },
        };
        let (terms, because) = terms_for(policy, &values, facts, situation)?;
        let is_ipv6 = || values.iter().any(|(_, value)| value.address.is_some_and(|address| address.is_ipv6()));
        let networks = match policy.networks.as_slice() {
            networks @ [_, ..] if is_ipv6() => key::enter(&mut subject, networks, facts, situation.hashing)?,
            _ => Vec::new(),
        };
        Ok(Self::Keyed { subject, terms, because, without_key, networks })
    }

    /// Of a request that is denied for want of a key.
    fn without_key() -> Self {
        let (because, networks) = (Because::Missing, Vec::new());
        Self::Keyed { subject: Subject::new(), terms: &Terms::Deny, because, without_key: true, networks }
    }
}

/// What holds for a key: what was set while the proxy runs before an override of the file before a tier before a schedule before the policy's own terms.
fn terms_for<'a>(
    policy: &'a Policy,
    values: &[(&KeyPart, KeyValue<'_>)],
    facts: &Facts<'_>,
    situation: Situation<'_, 'a>,
) -> Result<(&'a Terms, Because), AmbiguousKey> {
    if let Some(terms) = situation.overrides.and_then(|set| set.find(policy, values, situation.hashing)) {
        return Ok((terms, Because::Dynamic));
    }
    if let Some(position) = override_for(policy, values) {
        return Ok((&policy.overrides[position].terms, Because::Override(position)));
    }
    if let Some(tiers) = &policy.tiers
        && let Some(value) = value_of(&tiers.by, facts)?
        && let Some(position) = tiers.find(&value.bytes)
    {
        return Ok((&tiers.values[position].terms, Because::Tier(position)));
    }
    if let Some(schedules) = &policy.schedules
        && let Some(position) = situation.clock.among(schedules)
    {
        return Ok((&schedules.list[position].terms, Because::Schedule(position)));
    }
    Ok((&policy.terms, Because::Own))
}

impl<'a> Plan<'a> {
    /// Reads the request under every policy that counts it. A shadow limit whose key is ambiguous
    /// is left out: it never affects the answer.
    pub(super) fn new(
        policies: &'a [Arc<Policy>],
        facts: &Facts<'_>,
        situation: Situation<'_, 'a>,
    ) -> Result<Self, AmbiguousKey> {
        let mut plan = Self { counted: SmallVec::new(), denied: SmallVec::new() };
        for policy in policies {
            match plan.add(policy, facts, situation) {
                Err(AmbiguousKey) if situation.mode_of(policy) == Mode::Enforce => return Err(AmbiguousKey),
                _ => {}
            }
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        policy: &'a Arc<Policy>,
        facts: &Facts<'_>,
        situation: Situation<'_, 'a>,
    ) -> Result<(), AmbiguousKey> {
        let Reading::Keyed { subject, terms, networks, .. } = Reading::of(policy, facts, situation)? else {
            return Ok(());
        };
        match terms {
            Terms::Unlimited => {}
            Terms::Deny => {
                let denied = Decision::uncounted(policy, None, Allowed::No, Source::Store);
                self.denied.push(Decision { mode: situation.mode_for(policy, facts), ..denied });
            }
            Terms::Limited(limits) => {
                let mode = situation.mode_for(policy, facts);
                self.count((policy, mode), limits, facts, (&subject, &networks));
            }
        }
        Ok(())
    }

    /// Adds every limit of a policy: by its subject or, where there is one, by a network around that.
    fn count(
        &mut self,
        (policy, mode): (&'a Arc<Policy>, Mode),
        limits: &'a [Limit],
        facts: &Facts<'_>,
        (subject, networks): (&Subject, &[Subject]),
    ) {
        let (cost, body) = (policy.cost.of(facts), policy.cost.in_advance(facts));
        let shadows = self.counted.iter().map(|planned| planned.shadow).max().unwrap_or(0);
        let shadow = if mode == Mode::Shadow { shadows.saturating_add(1) } else { 0 };
        for limit in limits {
            let Some(subject) = limit.network.map_or(Some(subject), |network| networks.get(network)) else { continue };
            let cost = match limit.algorithm {
                Algorithm::Penalty(_) | Algorithm::InFlight(_) => cost.min(1),
                _ if policy.cost.is_dynamic() => cost.min(limit.algorithm.capacity()),
                _ => cost,
            };
            self.counted.push(Planned { policy, limit, cost, subject: subject.clone(), mode, shadow, body });
        }
    }

    /// Whom each policy counts the request by, the networks around it left out.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'a Policy, &Subject)> + Clone {
        let own = self.counted.iter().filter(|planned| planned.limit.network.is_none());
        own.map(|planned| (&**planned.policy, &planned.subject))
    }

    /// The questions to a store.
    pub(super) fn asks<'x>(&'x self, slot: &'x str) -> SmallVec<[Ask<'x>; 2]> {
        self.counted.iter().map(|planned| planned.ask(slot)).collect()
    }

    /// Takes the limits out whose tokens are taken in advance, to be decided before the others.
    pub(super) fn take_leased(&mut self) -> SmallVec<[(Planned<'a>, Duration); 1]> {
        let mut leased = SmallVec::new();
        let mut others = SmallVec::new();
        for planned in self.counted.drain(..) {
            match planned.limit.lease {
                Some(length) if planned.cost > 0 => leased.push((planned, length)),
                _ => others.push(planned),
            }
        }
        self.counted = others;
        leased
    }

    /// Whether tokens of any limit are taken in advance.
    pub(super) fn is_leased(&self) -> bool {
        self.counted.iter().any(|planned| planned.limit.lease.is_some())
    }

    /// Where the request would count among those in flight.
    pub(super) fn slots(&self) -> SmallVec<[Account; 1]> {
        let takes =
            |planned: &&Planned<'_>| planned.cost > 0 && matches!(planned.limit.algorithm, Algorithm::InFlight(_));
        self.counted.iter().filter(takes).map(|planned| Account::new(planned.limit, &planned.subject)).collect()
    }

    /// Whether the request's end changes anything that it is charged.
    pub(super) fn settles(&self) -> bool {
        self.counted.iter().any(Planned::is_settled)
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

    /// The name of the first enforced leaky bucket that may make the request wait.
    pub(super) fn waits_under(&self) -> Option<&'a Arc<str>> {
        let may_wait = |planned: &&Planned<'_>| {
            planned.cost > 0
                && planned.mode == Mode::Enforce
                && matches!(planned.limit.algorithm, Algorithm::LeakyBucket { .. })
        };
        self.counted.iter().find(may_wait).map(|planned| &planned.policy.name)
    }

    /// Whether a granted request was charged to this: the rates of a shadow limit are charged together or not at all.
    pub(super) fn is_charged(&self, planned: &Planned<'_>, reply: &Reply) -> bool {
        let mut together = self.counted.iter().zip(&reply.answers).filter(|(other, _)| other.shadow == planned.shadow);
        together.all(|(_, answer)| answer.allowed)
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

    /// The state that it is charged to.
    pub(super) fn account(&self) -> Account {
        Account::new(self.limit, &self.subject)
    }

    /// Whether this is its state.
    pub(super) fn is_of(&self, account: &Account) -> bool {
        self.limit.state_id == account.state_id && self.subject == account.subject
    }

    /// Whether an admission is charged to it at all, and not a strike.
    pub(super) fn is_charged(&self) -> bool {
        self.cost > 0 && !matches!(self.limit.algorithm, Algorithm::Penalty(_))
    }

    /// Whether what it is charged may change once the request is answered: never a strike or a slot.
    pub(super) fn is_settled(&self) -> bool {
        let counts = !matches!(self.limit.algorithm, Algorithm::Penalty(_) | Algorithm::InFlight(_));
        counts && self.policy.settles() && (self.cost > 0 || self.policy.cost.may_grow())
    }

    /// What an answer means.
    pub(super) fn decision(&self, answer: &super::store::Answer, source: Source) -> Decision<'a> {
        Decision { mode: self.mode, ..Decision::of(self.policy, self.limit, self.cost, answer, source) }
    }

    /// What holds when no store counted.
    pub(super) fn uncounted(&self, allowed: Allowed, source: Source) -> Decision<'a> {
        Decision { mode: self.mode, ..Decision::uncounted(self.policy, Some(self.limit), allowed, source) }
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
fn override_for(policy: &Policy, values: &[(&KeyPart, KeyValue<'_>)]) -> Option<usize> {
    policy.overrides.iter().position(|entry| {
        entry.matches.iter().any(|matches| values.iter().any(|(part, value)| matches.matches(part, value)))
    })
}
