//! One worker's books: which slots its requests hold, and what is still to be settled with the store.
//!
//! With the memory store everything is settled at once. With Redis a task of its own sends what is owed,
//! many at a time and off the requests' path; nothing is sent twice. What is to be charged on top waits while its
//! server is away; a refund does not, for it could give back later what was refilled long ago. Slots are renewed long before they
//! end, and are kept in this process as well, so that limits of requests in flight go on where they
//! stood when the store goes away, and are there again when it comes back.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::algorithm::Algorithm;
use super::bill::{Account, Owed, Stands};
use super::fallback::{Fallback, Local};
use super::policy::Policy;
use super::stats::LimitStats;
use super::store::Settle;
use super::store::memory::MemoryStore;
use super::store::redis::RedisStore;

/// The books.
#[derive(Debug)]
pub struct Books {
    memory: Arc<MemoryStore>,
    fallback: Arc<Fallback>,
    store: Option<Rc<RedisStore>>,
    stats: Arc<LimitStats>,
    /// First part of every slot's id: no other worker of any proxy has it.
    instance: Box<str>,
    taken: Cell<u64>,
    held: RefCell<HashMap<Arc<str>, Held>>,
    owed: RefCell<VecDeque<Owed>>,
    work: Notify,
    sending: Cell<bool>,
    idle: Notify,
}

/// The slots of one request.
#[derive(Debug)]
struct Held {
    accounts: SmallVec<[Account; 1]>,
    renew_at: Instant,
}

/// The most settlements that wait to be sent; further ones are lost: charges stay, slots end by themselves.
const MOST_OWED: usize = 65_536;
/// Settlements sent in one call.
const BATCH: usize = 64;
/// How often held slots are looked at.
const LOOK: Duration = Duration::from_millis(250);

impl Books {
    /// Empty books over the memory store, or over Redis.
    #[must_use]
    pub fn new(fallback: Arc<Fallback>, store: Option<Rc<RedisStore>>, stats: Arc<LimitStats>) -> Rc<Self> {
        Rc::new(Self {
            memory: Arc::clone(&fallback.memory),
            fallback,
            store,
            stats,
            instance: format!("{:016x}{:016x}", random(), random()).into(),
            taken: Cell::new(0),
            held: RefCell::default(),
            owed: RefCell::default(),
            work: Notify::new(),
            sending: Cell::new(false),
            idle: Notify::new(),
        })
    }

    /// An id for a slot that no other request of any proxy has.
    pub(super) fn slot(&self) -> Arc<str> {
        self.taken.set(self.taken.get() + 1);
        format!("{}:{}", self.instance, self.taken.get()).into()
    }

    /// A request holds its slots until it is released.
    pub(super) fn hold(&self, slot: &Arc<str>, accounts: &SmallVec<[Account; 1]>) {
        let renew_at = Instant::now() + renewal(accounts);
        let held = Held { accounts: accounts.clone(), renew_at };
        if self.held.borrow_mut().insert(Arc::clone(slot), held).is_none() {
            self.stats.in_flight.fetch_add(1, Ordering::Relaxed);
        }
        if self.store.is_some() {
            self.remember(slot, accounts);
        }
        self.work.notify_one();
    }

    /// The request has ended, or never got its slots.
    pub(super) fn release(&self, slot: &str) {
        if self.held.borrow_mut().remove(slot).is_some() {
            self.stats.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        self.idle.notify_waiters();
    }

    /// Counts a settlement.
    pub(super) fn settled(&self, policy: &Policy, amount: i64) {
        self.stats.settled.at(policy.ordinal)[usize::from(amount > 0)].add(amount.unsigned_abs());
    }

    /// A slot ends: at once in this process, soon in Redis, where it may have been renewed by now.
    pub(super) fn end(&self, owed: Owed) {
        self.memory.settle(&[owed.settle()]);
        if self.store.is_some() {
            self.queue(owed);
        }
    }

    /// A charge turned out to be another amount: that is settled where it stands.
    pub(super) fn change(&self, account: &Account, stands: &Stands, amount: i64) {
        if let Some(Local { account: here, at_us, is_owed }) = &stands.local {
            self.memory.settle(&[owed(here, amount, *at_us).settle()]);
            // Of a call whose fate is unknown the estimate may stand in the store. What is beyond it surely does not.
            let is_beyond = !*is_owed && stands.store_at_us.is_none() && amount > 0;
            if is_beyond || (*is_owed && !self.fallback.change(account, amount, *at_us)) {
                self.queue(owed(account, amount, *at_us));
            }
        }
        if let Some(at_us) = stands.store_at_us {
            self.owe(owed(account, amount, at_us));
        }
    }

    /// Something is to be settled with the store: at once in memory, soon in Redis.
    pub(super) fn owe(&self, owed: Owed) {
        if self.store.is_none() {
            self.memory.settle(&[owed.settle()]);
        } else {
            self.queue(owed);
        }
    }

    fn queue(&self, owed: Owed) {
        let mut queue = self.owed.borrow_mut();
        if queue.len() < MOST_OWED {
            queue.push_back(owed);
            self.work.notify_one();
        }
    }

    /// Keeps slots in this process that Redis holds.
    fn remember(&self, slot: &Arc<str>, accounts: &[Account]) {
        for account in accounts {
            self.memory.settle(&[renewing(account, slot).settle()]);
        }
    }

    /// Sends what is owed and renews what is held, until it is dropped.
    pub async fn keep(self: Rc<Self>) {
        loop {
            let holds = !self.held.borrow().is_empty();
            // What is still owed waits for a server that is away: it is not looked at for each request.
            let waits = !self.owed.borrow().is_empty();
            tokio::select! {
                () = self.work.notified(), if !waits => {}
                () = tokio::time::sleep(LOOK), if holds || waits => {}
            }
            self.renew().await;
            self.sending.set(true);
            self.send().await;
            self.sending.set(false);
            self.idle.notify_waiters();
        }
    }

    /// Waits until no request holds a slot and nothing is owed any more.
    pub async fn close(&self) {
        loop {
            let idle = self.idle.notified();
            if self.held.borrow().is_empty() && self.owed.borrow().is_empty() && !self.sending.get() {
                return;
            }
            idle.await;
        }
    }

    async fn send(&self) {
        let Some(store) = &self.store else { return };
        let mut waiting = VecDeque::new();
        loop {
            let batch: Vec<Owed> = {
                let mut queue = self.owed.borrow_mut();
                let len = queue.len().min(BATCH);
                queue.drain(..len).collect()
            };
            if batch.is_empty() {
                let mut queue = self.owed.borrow_mut();
                let room = MOST_OWED.saturating_sub(queue.len());
                return queue.extend(waiting.into_iter().take(room));
            }
            // Of what is not sent at all nothing can have arrived.
            let is_kept = |owed: &Owed| owed.is_charge() && store.is_away_for(&owed.ask());
            let (kept, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_kept);
            waiting.extend(kept);
            let settles: Vec<Settle<'_>> = batch.iter().map(Owed::settle).collect();
            // What fails is counted by the store, and lost: a charge stays, a slot ends by itself.
            if !settles.is_empty() {
                let _ = store.settle(&settles).await;
            }
        }
    }

    /// Renews every slot that is due.
    async fn renew(&self) {
        let due = self.due(Instant::now());
        for batch in due.chunks(BATCH) {
            let settles: Vec<Settle<'_>> = batch.iter().map(Owed::settle).collect();
            self.memory.settle(&settles);
            if let Some(store) = &self.store {
                let _ = store.settle(&settles).await;
            }
        }
    }

    fn due(&self, now: Instant) -> Vec<Owed> {
        let mut held = self.held.borrow_mut();
        let due = held.iter_mut().filter(|(_, held)| held.renew_at <= now);
        due.flat_map(|(slot, held)| {
            held.renew_at = now + renewal(&held.accounts);
            held.accounts.iter().map(|account| renewing(account, slot)).collect::<SmallVec<[_; 1]>>()
        })
        .collect()
    }
}

/// A number that no other process draws.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A slot lasts longer.
fn renewing(account: &Account, slot: &Arc<str>) -> Owed {
    Owed { account: account.clone(), amount: 1, charged_at_us: 0, slot: Arc::clone(slot) }
}

/// A charge that is to be changed by this amount.
pub(super) fn owed(account: &Account, amount: i64, charged_at_us: i64) -> Owed {
    Owed { account: account.clone(), amount, charged_at_us, slot: Arc::from("") }
}

/// How long after taking or renewing slots they are renewed: a third of the shortest lifetime.
fn renewal(accounts: &[Account]) -> Duration {
    let lifetimes = accounts.iter().filter_map(|account| match &account.algorithm {
        Algorithm::InFlight(slots) => Some(slots.slot_us),
        _ => None,
    });
    Duration::from_micros(lifetimes.min().unwrap_or(30_000_000) / 3)
}
