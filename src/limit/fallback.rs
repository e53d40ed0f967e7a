//! What holds while the store is away (`on_store_error: local`): each process counts by itself, within
//! its share of every limit.
//!
//! It starts from what the store last answered of a key, and keeps an account of what it admitted
//! (`owed.rs`); when the store is back that is charged there. When there is no room for another key, keys that
//! nothing is known of share one state per limit.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::task::JoinHandle;

use super::algorithm::{Algorithm, Settlement};
use super::bill::Account;
use super::key::Subject;
use super::owed::Owed;
use super::store::memory::MemoryStore;
use super::store::redis::RedisStore;
use super::store::{Answer, Ask, Reply, Settle};

/// What the workers of a process share for the time without a store.
#[derive(Debug)]
pub struct Fallback {
    /// The states of this process.
    pub memory: Arc<MemoryStore>,
    /// Proxies last seen at the store, at least 1.
    proxies: AtomicU64,
    /// This process' name at the store.
    process: Box<str>,
    started: Instant,
    /// When the last heartbeat began, milliseconds since the start, and 1.
    beaten_ms: AtomicU64,
    owed: Mutex<HashMap<(Box<str>, Subject), Owed, ahash::RandomState>>,
}

/// What a process' memory was charged in place of the store.
#[derive(Debug, Clone)]
pub(super) struct Local {
    /// The state that was charged.
    pub(super) account: Account,
    /// When, microseconds since 1970.
    pub(super) at_us: i64,
    /// Whether the store is told later.
    pub(super) is_owed: bool,
}

/// Keys whose consumption is settled; that of more keys is forgotten.
const MOST_OWED: usize = 65_536;
/// A process tells that it lives once in this time.
const BEAT_MS: u64 = 1_000;
/// How often a worker looks whether there is something to do.
const IDLE: Duration = Duration::from_millis(250);
/// The same while there is something to settle.
const BUSY: Duration = Duration::from_millis(25);
/// States settled in one call.
const SETTLED_AT_ONCE: usize = 64;
/// When whoever cannot be told better is to come again.
const SOON_US: i64 = 1_000_000;
/// The subject of all keys that there is no room for.
const OTHERS: &[u8] = b"~others";

impl Fallback {
    /// Over this process' states.
    #[must_use]
    pub fn new(memory: Arc<MemoryStore>) -> Self {
        Self {
            memory,
            proxies: AtomicU64::new(1),
            process: format!("{:016x}", fastrand::u64(..)).into(),
            started: Instant::now(),
            beaten_ms: AtomicU64::new(0),
            owed: Mutex::default(),
        }
    }

    /// Proxies last seen at the store, this one included.
    #[must_use]
    pub fn proxies(&self) -> u64 {
        self.proxies.load(Ordering::Relaxed)
    }

    /// Keeps what the store said of a state.
    pub(super) fn remember(&self, ask: &Ask<'_>, answer: &Answer) {
        if ask.cost > 0 {
            self.memory.remember(ask, answer);
        }
    }

    /// Decides within this process' share. `is_owed`: whether nothing of the ask at this position was sent to
    /// the store, which is to be told later.
    pub(super) fn decide(&self, asks: &[Ask<'_>], is_owed: impl Fn(usize) -> IsOwed) -> (Reply, SmallVec<[Local; 2]>) {
        let proxies = self.proxies();
        let shares: SmallVec<[Algorithm; 2]> = asks.iter().map(|ask| ask.algorithm.share(proxies)).collect();
        let others = Subject::from_slice(OTHERS);
        let asked: SmallVec<[Ask<'_>; 2]> = asks
            .iter()
            .zip(&shares)
            .map(|(ask, share)| {
                let mut local = Ask { algorithm: share, ..*ask };
                if !self.memory.prepare(&local, proxies) {
                    local.subject = &others;
                }
                local
            })
            .collect();
        let mut reply = self.memory.decide(&asked);
        come_again(asks, &mut reply);
        let mut charged = SmallVec::new();
        for (position, (ask, local)) in asks.iter().zip(&asked).enumerate() {
            let counts = reply.granted && ask.cost > 0 && !ask.is_shadow() && local.subject == ask.subject;
            let is_owed = counts && is_owed(position) == IsOwed::Yes;
            if is_owed {
                self.owe((ask, local.algorithm), &reply.answers[position], reply.now_us);
            }
            charged.push(Local { account: Account::of(local), at_us: reply.now_us, is_owed });
        }
        (reply, charged)
    }

    /// Adds an admission to the account of its key.
    fn owe(&self, (ask, share): (&Ask<'_>, &Algorithm), answer: &Answer, now_us: i64) {
        let ends_us = now_us.saturating_add(i64::try_from(answer.reset_us).unwrap_or(i64::MAX));
        let mut owed = self.owed.lock();
        let key = (Box::from(ask.state_id), ask.subject.clone());
        if owed.len() >= MOST_OWED && !owed.contains_key(&key) {
            owed.retain(|_, owed| owed.amount(now_us) > 0);
            if owed.len() >= MOST_OWED {
                return;
            }
        }
        let Some(fresh) = Owed::open(ask.algorithm, share, ask.cost, (now_us, ends_us)) else { return };
        owed.entry(key).or_insert(fresh).add(ask.cost, (now_us, ends_us));
    }

    /// What is owed for an admission turned out to be another amount; false when the store was told already.
    pub(super) fn change(&self, account: &Account, amount: i64, charged_at_us: i64) -> bool {
        let key = (Box::from(&*account.state_id), account.subject.clone());
        let now_us = self.memory.now_us();
        let mut owed = self.owed.lock();
        let entry = owed.get_mut(&key);
        entry.map(|owed| owed.change(amount, charged_at_us, now_us)).is_some()
    }

    /// Takes all accounts.
    fn take_owed(&self) -> Vec<((Box<str>, Subject), Owed)> {
        self.owed.lock().drain().collect()
    }

    /// Charges at the store what was admitted without it. A call whose fate is unknown is not repeated.
    async fn settle(&self, store: &RedisStore) {
        let (owed, now_us) = (self.take_owed(), self.memory.now_us());
        let settles: Vec<Settle<'_>> = owed
            .iter()
            .map(|((state_id, subject), owed)| Settle {
                state_id,
                algorithm: &owed.algorithm,
                subject,
                settlement: Settlement { amount: owed.amount(now_us), charged_at_us: now_us, slot: "" },
            })
            .filter(|settle| settle.settlement.amount > 0)
            .collect();
        let (mut lost, mut cause) = (0, None);
        for chunk in settles.chunks(SETTLED_AT_ONCE) {
            let failed = store.settle(chunk).await.err();
            let cost = chunk.iter().map(|settle| settle.settlement.amount.unsigned_abs()).sum();
            store.stats().made_up[usize::from(failed.is_some())].add(cost);
            if failed.is_some() {
                (lost, cause) = (lost + chunk.len(), failed);
            }
        }
        if let Some(cause) = cause {
            let (keys, cause, help) = (lost, cause.label(), cause.advice());
            tracing::warn!(
                keys,
                cause,
                help,
                "what was admitted while redis was away could not be charged to these keys"
            );
        }
    }

    /// Whether this worker is to send the process' heartbeat now.
    fn claims_beat(&self) -> bool {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX) + 1;
        let last = self.beaten_ms.load(Ordering::Relaxed);
        let is_due = last == 0 || now_ms.saturating_sub(last) >= BEAT_MS;
        is_due && self.beaten_ms.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Whether the store is to be told of an admission that it did not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsOwed {
    /// It was not asked.
    Yes,
    /// It may have been charged: what became of the call is unknown.
    No,
}

/// A cost that fits the limit and not this process' part of it is not denied for ever, only until the store is
/// back, which nobody knows.
fn come_again(asks: &[Ask<'_>], reply: &mut Reply) {
    for (ask, answer) in asks.iter().zip(&mut reply.answers) {
        if answer.retry_us < 0 && ask.cost <= ask.algorithm.capacity() {
            answer.retry_us = SOON_US;
        }
    }
    let denied = || asks.iter().zip(&reply.answers).filter(|(ask, answer)| !ask.is_shadow() && !answer.allowed);
    let never = denied().any(|(_, answer)| answer.retry_us < 0);
    let longest = denied().map(|(_, answer)| answer.retry_us).max().unwrap_or(0);
    reply.retry_us = if never { -1 } else { longest };
}

/// A worker's task that tells the store that the process lives, and settles what is owed. Ends when dropped.
#[derive(Debug)]
pub(super) struct Tending(JoinHandle<()>);

impl Tending {
    /// Starts on the current runtime.
    pub(super) fn start(fallback: Arc<Fallback>, store: Rc<RedisStore>) -> Self {
        Self(tokio::task::spawn_local(tend(fallback, store)))
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn tend(fallback: Arc<Fallback>, store: Rc<RedisStore>) {
    loop {
        let is_owed = !fallback.owed.lock().is_empty();
        if store.up() {
            if is_owed {
                fallback.settle(&store).await;
            }
            if fallback.claims_beat()
                && let Ok(proxies) = store.beat(&fallback.process).await
            {
                fallback.proxies.store(proxies.max(1), Ordering::Relaxed);
            }
        }
        tokio::time::sleep(if is_owed || !store.up() { BUSY } else { IDLE }).await;
    }
}
