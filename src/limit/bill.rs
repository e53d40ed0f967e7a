//! What an admitted request still has with its limits until it ends: a slot among those in flight, and
//! charges that its answer may change. Each is settled at most once, by whoever drops the bill at the latest.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use super::algorithm::{Algorithm, Settlement};
use super::books::Books;
pub use super::cost::Answered;
use super::fallback::Local;
use super::key::Subject;
use super::plan::Planned;
use super::policy::{Limit, Policy};
use super::store::{Ask, Settle};

/// One state that something is owed to or by.
#[derive(Debug, Clone)]
pub struct Account {
    pub(super) state_id: Arc<str>,
    pub(super) algorithm: Algorithm,
    pub(super) subject: Subject,
}

/// What is to happen to one state.
#[derive(Debug)]
pub struct Owed {
    pub(super) account: Account,
    pub(super) amount: i64,
    pub(super) charged_at_us: i64,
    pub(super) slot: Arc<str>,
}

/// Where a charge stands, and so where it is settled.
#[derive(Debug)]
pub(super) struct Stands {
    /// In the store, since this instant of its server's clock.
    pub(super) store_at_us: Option<i64>,
    /// In this process' memory, in place of an absent Redis.
    pub(super) local: Option<Local>,
}

/// A charge that may change.
#[derive(Debug)]
struct Charge {
    policy: Arc<Policy>,
    account: Account,
    /// What was charged.
    cost: u64,
    /// What of that is for the body, in parts.
    body: u64,
    stands: Stands,
    open: bool,
}

/// Everything that one request has open.
#[derive(Debug)]
pub struct Bill {
    books: Rc<Books>,
    /// Where it counts among those in flight, and under which id.
    slots: SmallVec<[Account; 1]>,
    slot: Arc<str>,
    charges: SmallVec<[Charge; 1]>,
}

impl Account {
    pub(super) fn new(limit: &Limit, subject: &Subject) -> Self {
        Self { state_id: Arc::clone(&limit.state_id), algorithm: limit.algorithm.clone(), subject: subject.clone() }
    }

    /// That of an ask.
    pub(super) fn of(ask: &Ask<'_>) -> Self {
        Self { state_id: ask.state_id.into(), algorithm: ask.algorithm.clone(), subject: ask.subject.clone() }
    }
}

impl Stands {
    /// In the store alone.
    pub(super) fn in_store(at_us: i64) -> Self {
        Self { store_at_us: Some(at_us), local: None }
    }
}

impl Owed {
    /// Whether something is to be charged on top, and not given back or ended.
    pub(super) fn is_charge(&self) -> bool {
        self.amount > 0 && self.slot.is_empty()
    }

    /// A look at its state.
    pub(super) fn ask(&self) -> Ask<'_> {
        Ask::new(&self.account.state_id, &self.account.algorithm, &self.account.subject, 0)
    }

    /// The question to a store.
    pub(super) fn settle(&self) -> Settle<'_> {
        Settle {
            state_id: &self.account.state_id,
            algorithm: &self.account.algorithm,
            subject: &self.account.subject,
            settlement: Settlement { amount: self.amount, charged_at_us: self.charged_at_us, slot: &self.slot },
        }
    }
}

impl Bill {
    /// A bill of a request that takes a slot, before it is known whether it gets one: dropped now, the
    /// slot is given back all the same, for the store may have granted it.
    pub(super) fn open(books: &Rc<Books>, slot: Arc<str>, slots: SmallVec<[Account; 1]>) -> Self {
        Self { books: Rc::clone(books), slots, slot, charges: SmallVec::new() }
    }

    /// The request was granted: the slots that it was given are renewed from now on.
    pub(super) fn granted(&mut self, was_given: impl Fn(&Account) -> bool) {
        self.slots.retain(|account| was_given(account));
        if !self.slots.is_empty() {
            self.books.hold(&self.slot, &self.slots);
        }
    }

    /// The request was denied: nothing was taken.
    pub(super) fn denied(mut self) {
        self.slots.clear();
        self.charges.clear();
    }

    /// Adds a charge that the answer may change.
    pub(super) fn charge(&mut self, planned: &Planned<'_>, stands: Stands) {
        self.charges.push(Charge {
            policy: Arc::clone(planned.policy),
            account: planned.account(),
            cost: planned.cost,
            body: planned.body,
            stands,
            open: true,
        });
    }

    /// The request has a status: what is to be given back is given back, what an upstream's field tells is
    /// charged.
    pub fn answered(&mut self, status: StatusCode, headers: &HeaderMap, answered: Answered) {
        self.settle_open(|charge| charge.policy.true_cost(status, headers, answered));
    }

    /// The request's body had this many bytes in all.
    pub fn received(&mut self, bytes: u64) {
        self.settle_open(|charge| {
            let cost = &charge.policy.cost;
            let grown = cost.of_body(bytes).saturating_sub(charge.body);
            (grown > 0).then(|| charge.cost.saturating_add(grown).min(cost.most))
        });
    }

    /// Settles each charge once whose true cost is known now.
    fn settle_open(&mut self, true_cost: impl Fn(&Charge) -> Option<u64>) {
        for charge in self.charges.iter_mut().filter(|charge| charge.open) {
            let Some(cost) = true_cost(charge) else { continue };
            charge.open = false;
            let amount = difference(charge.cost, cost);
            if amount != 0 {
                self.books.settled(&charge.policy, amount);
                self.books.change(&charge.account, &charge.stands, amount);
            }
        }
    }
}

/// What is to be charged on top of a charge, or, below 0, given back.
pub(super) fn difference(charged: u64, cost: u64) -> i64 {
    let most = i64::MAX.unsigned_abs() >> 16;
    cost.min(most).cast_signed() - charged.min(most).cast_signed()
}

impl Drop for Bill {
    fn drop(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        self.books.release(&self.slot);
        for account in self.slots.drain(..) {
            self.books.end(Owed { account, amount: -1, charged_at_us: 0, slot: Arc::clone(&self.slot) });
        }
    }
}
