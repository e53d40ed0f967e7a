//! Limits whose tokens are taken in advance, a worker at a time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use smallvec::{SmallVec, smallvec};

use super::{Failed, Limiter, kind_of, overflow};
use crate::limit::books::owed;
use crate::limit::decision::{Decision, Outcome, Source, Verdict};
use crate::limit::lease::Token;
use crate::limit::plan::{Plan, Planned};
use crate::limit::policy::OnStoreError;
use crate::limit::remote::{Remote, Taken, Unanswered};
use crate::limit::store::Stray;

/// A token that a request holds, and of which limit.
type Held<'p, 'a, 'l> = (&'p Planned<'a>, Token<'l>);

impl Limiter {
    /// First the limits whose tokens are taken in advance, each by itself, then all others at once. Tokens of
    /// a request that is not admitted go back to the store.
    pub(super) async fn decide_with_leases<'a>(&self, remote: &Rc<Remote>, mut plan: Plan<'a>) -> Verdict<'a> {
        let deadline = Instant::now() + remote.timeout;
        let outset = remote.outset();
        let leased = plan.take_leased();
        remote.follow();
        if !plan.counted.is_empty() && remote.denials.answers(&plan.asks("")) {
            return self.decide_remotely(remote, &plan, deadline).await;
        }
        let mut tokens: SmallVec<[Held<'_, 'a, '_>; 1]> = SmallVec::new();
        let mut decisions: SmallVec<[Decision<'a>; 2]> = SmallVec::new();
        for (planned, length) in &leased {
            let ask = planned.ask("");
            match remote.take(&ask, *length, deadline).await {
                Ok(Taken::Tokens(token, answer)) => {
                    if planned.policy.on_store_error == OnStoreError::Local {
                        self.fallback.remember(&ask, &answer);
                    }
                    tokens.push((planned, token));
                    decisions.push(planned.decision(&answer, Source::Store));
                }
                Ok(Taken::Denied(answer, source)) => {
                    self.give_back(tokens);
                    return self.denied_by_lease(planned, planned.decision(&answer, source));
                }
                Err(Unanswered { is_unasked }) => {
                    // They go back to their leases: nothing is charged for this request.
                    drop(tokens);
                    plan.counted.insert_many(0, leased.into_iter().map(|(planned, _)| planned));
                    let Ok(hold) = self.reserve(&plan) else { return overflow() };
                    let slot = self.slot(&plan);
                    let failed = Failed { remote, outset, stray: Stray::default(), is_unasked };
                    return self.decide_without_store(&failed, &plan, slot.as_ref(), hold);
                }
            }
        }
        let verdict = if plan.counted.is_empty() {
            self.conclude(Outcome::Allowed { wait: Duration::ZERO }, plan.denied)
        } else {
            self.decide_remotely(remote, &plan, deadline).await
        };
        self.add_leased(verdict, decisions, tokens)
    }

    /// A leased limit has nothing left. The others are not asked.
    fn denied_by_lease<'a>(&self, planned: &Planned<'a>, decision: Decision<'a>) -> Verdict<'a> {
        self.count_remembered(&decision);
        let outcome = Outcome::Denied { retry_after: decision.retry_after };
        let mut decisions: SmallVec<[Decision<'a>; 2]> = smallvec![decision];
        let outcome = self.spread.apply(outcome, std::iter::once(planned).zip(&mut decisions));
        self.conclude(outcome, decisions)
    }

    /// Spends the tokens of an admitted request; those of another go back.
    fn add_leased<'a>(
        &self,
        mut verdict: Verdict<'a>,
        mut leased: SmallVec<[Decision<'a>; 2]>,
        tokens: SmallVec<[Held<'_, 'a, '_>; 1]>,
    ) -> Verdict<'a> {
        if matches!(verdict.outcome, Outcome::Allowed { .. }) {
            tokens.into_iter().for_each(|(_, token)| token.keep());
        } else {
            self.give_back(tokens);
            for decision in &mut leased {
                decision.remaining += decision.cost;
            }
        }
        for decision in &leased {
            self.stats.decided(decision.policy.ordinal, kind_of(decision, verdict.outcome));
        }
        verdict.decisions.insert_many(0, leased);
        verdict
    }

    /// Not into the lease, which may end before anybody spends them: a denial is charged nowhere.
    fn give_back(&self, tokens: SmallVec<[Held<'_, '_, '_>; 1]>) {
        for (planned, token) in tokens {
            token.keep();
            self.books.owe(owed(&planned.account(), -planned.cost.cast_signed(), 0));
        }
    }
}
