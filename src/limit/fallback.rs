//! What holds while the store is away (`on_store_error: local`): each process counts by itself, within
//! its share of every limit.
//!
//! It starts from what the store last answered of a key, and keeps an account of what it admitted; when the
//! store is back that is charged there. The account of a bucket holds two instants: when the key would have
//! been full without this process' own admissions, and when it is with them. The shares of all processes
//! add up to the whole bucket, so what lies between the two, at the rate of the share, is what this process owes.
//! When there is no room for another key, keys that nothing is known of share one state per limit.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::task::JoinHandle;

use super::algorithm::{Algorithm, Settlement};
use super::key::Subject;
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

/// What this process admitted of one key without the store.
#[derive(Debug)]
struct Owed {
    algorithm: Algorithm,
    proxies: u64,
    /// Of a bucket: when it is full but for what was admitted here. Of a window: its begin.
    base_us: i64,
    /// Of a bucket: when it is full. Of a window: when it is over.
    until_us: i64,
    /// Of a window: what was admitted in it.
    spent: u64,
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

    /// Decides within this process' share. `is_owed`: whether nothing of this ask was sent to the store, which
    /// is to be told later.
    pub(super) fn decide(&self, asks: &[Ask<'_>], is_owed: impl Fn(&Ask<'_>) -> IsOwed) -> Reply {
        let proxies = self.proxies();
        let shares: SmallVec<[Algorithm; 2]> = asks.iter().map(|ask| ask.algorithm.share(proxies)).collect();
        let others = Subject::from_slice(OTHERS);
        let local: SmallVec<[Ask<'_>; 2]> = asks
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
        let reply = self.memory.decide(&local);
        if reply.granted {
            for ((ask, local), answer) in asks.iter().zip(&local).zip(&reply.answers) {
                let counts = ask.cost > 0 && !ask.is_shadow() && local.subject == ask.subject;
                if counts && is_owed(ask) == IsOwed::Yes {
                    self.owe((ask, local.algorithm), answer, (reply.now_us, proxies));
                }
            }
        }
        reply
    }

    /// Adds an admission to the account of its key.
    fn owe(&self, (ask, share): (&Ask<'_>, &Algorithm), answer: &Answer, (now_us, proxies): (i64, u64)) {
        if matches!(share, Algorithm::InFlight(_) | Algorithm::Penalty(_)) {
            return;
        }
        let ends_us = now_us.saturating_add(i64::try_from(answer.reset_us).unwrap_or(i64::MAX));
        let mut owed = self.owed.lock();
        let key = (Box::from(ask.state_id), ask.subject.clone());
        if owed.len() >= MOST_OWED && !owed.contains_key(&key) {
            owed.retain(|_, owed| owed.amount(now_us) > 0);
            if owed.len() >= MOST_OWED {
                return;
            }
        }
        let price_us = price_us(share, ask.cost);
        let base_us = (ends_us - price_us).max(now_us);
        let fresh = || Owed { algorithm: ask.algorithm.clone(), proxies, base_us, until_us: base_us, spent: 0 };
        let entry = owed.entry(key).or_insert_with(fresh);
        if share.bucket().is_some() {
            entry.until_us = entry.until_us.max(now_us) + price_us;
        } else {
            entry.spent = ask.cost + if now_us < entry.until_us { entry.spent } else { 0 };
            entry.until_us = ends_us;
        }
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

/// How much longer a cost makes a bucket take until it is full.
fn price_us(share: &Algorithm, cost: u64) -> i64 {
    let Some(bucket) = share.bucket() else { return 0 };
    let price = u128::from(cost) * u128::from(bucket.period) * u128::from(bucket.tick) / u128::from(bucket.rate);
    i64::try_from(price).unwrap_or(i64::MAX / 4)
}

impl Owed {
    /// What is to be charged, in whole units, rounded up.
    fn amount(&self, now_us: i64) -> i64 {
        let (Algorithm::TokenBucket(bucket) | Algorithm::LeakyBucket { bucket, .. }) =
            self.algorithm.share(self.proxies)
        else {
            return if now_us < self.until_us { i64::try_from(self.spent).unwrap_or(i64::MAX) } else { 0 };
        };
        // Instants are whole microseconds: less than a thousandth of a unit may be their rounding.
        let owed_us = (self.until_us - now_us).max(0) - (self.base_us - now_us).max(0);
        let per_unit = u128::from(bucket.period) * u128::from(bucket.tick);
        let owed = u128::from(owed_us.max(0).unsigned_abs()) * u128::from(bucket.rate);
        i64::try_from(owed.saturating_sub(per_unit / 1000).div_ceil(per_unit)).unwrap_or(i64::MAX)
    }
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
