//! A decision that the store did not make: every limit by its own `on_store_error`.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Asks, Limiter, outcome_of, settled};
use crate::limit::bill::Stands;
use crate::limit::books::owed;
use crate::limit::decision::{Allowed, Outcome, Source, Verdict};
use crate::limit::fallback::IsOwed;
use crate::limit::hold::Hold;
use crate::limit::plan::{Plan, Planned, with_denied};
use crate::limit::policy::{Mode, OnStoreError};
use crate::limit::remote::{Outset, Remote};
use crate::limit::store::Stray;

/// What is known of a decision that failed.
pub(super) struct Failed<'r> {
    pub(super) remote: &'r Remote,
    pub(super) outset: Outset,
    /// What was charged in the store all the same.
    pub(super) stray: Stray,
    /// Whether nothing of it was sent.
    pub(super) is_unasked: bool,
}

impl Failed<'_> {
    /// Whether the store is to be told what this process admits of an ask: only when nothing of it was sent.
    fn is_owed(&self, position: usize, planned: &Planned<'_>) -> IsOwed {
        if self.stray.at(position).is_some() {
            IsOwed::No
        } else if self.is_unasked {
            IsOwed::Yes
        } else {
            self.remote.is_owed(&planned.ask(""), self.outset)
        }
    }
}

impl Limiter {
    /// Every limit by its own `on_store_error`; those that say `local` are decided together.
    pub(super) fn decide_without_store<'a>(
        &self,
        failed: &Failed<'_>,
        plan: &Plan<'a>,
        slot: Option<&Arc<str>>,
        hold: Option<Hold>,
    ) -> Verdict<'a> {
        let refuses = |planned: &&Planned<'_>| {
            planned.mode == Mode::Enforce && planned.policy.on_store_error == OnStoreError::Deny
        };
        if plan.counted.iter().any(|planned| refuses(&planned)) {
            self.take_back(failed, plan);
            let refusing = plan.counted.iter().filter(refuses);
            let denied = |planned: &Planned<'a>| planned.uncounted(Allowed::No, Source::DeniedOnError);
            return self.conclude(Outcome::Unavailable, refusing.map(denied).collect());
        }
        let is_local = |planned: &Planned<'_>| planned.policy.on_store_error == OnStoreError::Local;
        let local: SmallVec<[(usize, &Planned<'a>); 2]> =
            plan.counted.iter().enumerate().filter(|(_, planned)| is_local(planned)).collect();
        let asks: Asks<'_> = local.iter().map(|(_, planned)| planned.ask(slot.map_or("", |slot| slot))).collect();
        let (reply, charged) = self.fallback.decide(&asks, |place| failed.is_owed(local[place].0, local[place].1));
        if !reply.granted {
            self.take_back(failed, plan);
        }
        let bill = if reply.granted { self.bill(plan, slot.cloned()) } else { None };
        let stands =
            |place: usize| Stands { store_at_us: failed.stray.at(local[place].0), local: charged.get(place).cloned() };
        let mut bill = settled(bill, local.iter().map(|(_, planned)| *planned), &reply, stands);
        for (position, planned) in plan.counted.iter().enumerate().filter(|(_, planned)| !is_local(planned)) {
            if let (Some(at_us), Some(bill), true) = (failed.stray.at(position), &mut bill, planned.is_settled()) {
                bill.charge(planned, Stands::in_store(at_us));
            }
        }
        let mut answers = reply.answers.iter();
        let counted = plan.counted.iter().map(|planned| match is_local(planned).then(|| answers.next()).flatten() {
            Some(answer) => planned.decision(answer, Source::Local),
            None => planned.uncounted(Allowed::Yes, Source::AllowedOnError),
        });
        let mut decisions = with_denied(counted.collect(), &plan.denied);
        let outcome = self.spread.apply(outcome_of(&reply), plan.counted.iter().zip(&mut decisions));
        self.conclude(outcome, decisions).at(reply.now_us).held(hold).billed(bill)
    }

    /// A request that is denied after all takes nothing: what servers that answered have charged goes back.
    fn take_back(&self, failed: &Failed<'_>, plan: &Plan<'_>) {
        for (position, planned) in plan.counted.iter().enumerate() {
            if let (Some(at_us), true) = (failed.stray.at(position), planned.is_charged()) {
                self.books.owe(owed(&planned.account(), -planned.cost.cast_signed(), at_us));
            }
        }
    }
}
