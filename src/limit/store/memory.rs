//! The memory store: sharded, bounded, exact expiry.
//!
//! A state is named by a keyed 128-bit fingerprint of its id and subject. A decision locks the shards
//! of its states in index order, evaluates all of them, then writes all or none. A state that
//! equals "never seen" is treated as absent at once; its slot is given back by a sweep of a few
//! slots per decision. No shard ever holds more than its share of `max_keys`: beyond that the
//! state that is full soonest of a small sample goes, and is counted.

mod others;
mod states;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use smallvec::{SmallVec, smallvec};

use super::{Answer, Ask, Reply, Settle, is_charged};
use crate::limit::algorithm::{Algorithm, Change, Evaluation, State, bucket};
use crate::limit::fingerprint::Fingerprints;
use states::{Found, States};

/// Limiter state of this process, shared by its workers.
#[derive(Debug)]
pub struct MemoryStore {
    /// A power of two of them, picked by the high bits of a fingerprint.
    shards: Box<[Shard]>,
    fingerprints: Fingerprints,
    /// Wall clock at the start, microseconds since 1970.
    epoch_us: i64,
    started: Instant,
    /// States dropped for want of room while they still meant something.
    evictions: AtomicU64,
}

/// One lock and its states, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Shard(Mutex<States>);

/// The most shards; enough that workers rarely meet.
const SHARDS: usize = 64;

/// The fewest states a shard is made for.
const SMALLEST_SHARD: usize = 64;

/// Slots swept per decision and shard.
const SWEPT: usize = 4;

impl MemoryStore {
    /// An empty store that keeps at most `max_keys` states (at least one).
    #[must_use]
    pub fn new(max_keys: usize) -> Self {
        let wanted = (max_keys / SMALLEST_SHARD).clamp(1, SHARDS);
        let shards = 1 << wanted.ilog2();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            shards: (0..shards).map(|_| Shard(Mutex::new(States::new(max_keys / shards)))).collect(),
            fingerprints: Fingerprints::new(),
            epoch_us: i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX / 2),
            started: Instant::now(),
            evictions: AtomicU64::new(0),
        }
    }

    /// Decides all of `asks` at once, all or nothing, by this store's clock. It is read under the locks, and
    /// decisions that share a shard never share an instant: in the order of their instants they repeat.
    pub fn decide(&self, asks: &[Ask<'_>]) -> Reply {
        self.decide_and_sweep(None, asks, SWEPT)
    }

    /// The same at a given instant, microseconds since 1970 (tests, simulations). Nothing is
    /// swept: an earlier instant may follow.
    pub fn decide_at(&self, now_us: i64, asks: &[Ask<'_>]) -> Reply {
        self.decide_and_sweep(Some(now_us), asks, 0)
    }

    /// The same for instants of which none is earlier than the one before; what is full is swept.
    pub fn decide_on(&self, now_us: i64, asks: &[Ask<'_>]) -> Reply {
        self.decide_and_sweep(Some(now_us), asks, SWEPT)
    }

    /// Keeps what another store said of a state, in a few bytes: when it equals "never seen", and how much of a
    /// window is used. A bucket goes on from there; for windows see [`MemoryStore::prepare`].
    pub fn remember(&self, ask: &Ask<'_>, answer: &Answer) {
        match ask.algorithm {
            Algorithm::InFlight(_) => return,
            // Of a penalty, only a block.
            Algorithm::Penalty(_) if answer.allowed => return self.forget(ask),
            _ => {}
        }
        let now_us = self.now_us();
        let name = self.fingerprints.of(ask.state_id, ask.algorithm, ask.subject);
        let lasts_us = match ask.algorithm {
            Algorithm::Penalty(_) => answer.retry_us.unsigned_abs(),
            _ => answer.reset_us,
        };
        let full_at_us = now_us.saturating_add(i64::try_from(lasts_us).unwrap_or(i64::MAX));
        let is_bucket = ask.algorithm.bucket().is_some();
        let used = if is_bucket { 0 } else { ask.algorithm.capacity().saturating_sub(answer.remaining) };
        let mut states = self.shards[self.shard(name)].0.lock();
        states.remember(name, bucket::State::remembered(full_at_us, used), now_us);
        states.sweep(SWEPT, now_us);
    }

    /// Another store said that this state holds nothing.
    fn forget(&self, ask: &Ask<'_>) {
        self.reset(ask.state_id, ask.algorithm, ask.subject);
    }

    /// Makes a state equal to "never seen".
    pub fn reset(&self, state_id: &str, algorithm: &Algorithm, subject: &[u8]) {
        let name = self.fingerprints.of(state_id, algorithm, subject);
        self.shards[self.shard(name)].0.lock().forget(name);
    }

    /// Makes what was remembered of a state, or this proxy's share of it, the state itself, unless there is one
    /// already. False when nothing is known of it and there is no room for more.
    #[must_use]
    pub fn prepare(&self, ask: &Ask<'_>, proxies: u64) -> bool {
        let now_us = self.now_us();
        let name = self.fingerprints.of(ask.state_id, ask.algorithm, ask.subject);
        self.shards[self.shard(name)].0.lock().prepare(name, ask.algorithm, (now_us, proxies))
    }

    /// Wall clock at start plus monotonic time, microseconds since 1970.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        self.epoch_us.saturating_add(i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// States kept now: those that do not equal "never seen". Looks at every slot, shard by shard.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len_at(self.now_us())
    }

    /// The same at a given instant, microseconds since 1970.
    #[must_use]
    pub fn len_at(&self, now_us: i64) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().live(now_us)).sum()
    }

    /// Whether no state is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// States dropped for want of room while they still meant something.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Bytes the states take, free slots included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().bytes()).sum()
    }

    fn decide_and_sweep(&self, now_us: Option<i64>, asks: &[Ask<'_>], swept: usize) -> Reply {
        match asks {
            [ask] => self.decide_one(now_us, ask, swept),
            _ => self.decide_all(now_us, asks, swept),
        }
    }

    /// Gives back, charges on top, renews or ends, each state by itself, by this store's clock.
    pub fn settle(&self, settles: &[Settle<'_>]) {
        self.settle_at(self.now_us(), settles);
    }

    /// The same at a given instant, microseconds since 1970.
    pub fn settle_at(&self, now_us: i64, settles: &[Settle<'_>]) {
        for settle in settles {
            let name = self.fingerprints.of(settle.state_id, settle.algorithm, settle.subject);
            let mut states = self.shards[self.shard(name)].0.lock();
            let stored_bucket;
            let stored = match states.find(name, settle.algorithm) {
                Found::Bucket(state) => {
                    stored_bucket = State::Bucket(state);
                    Some(&stored_bucket)
                }
                Found::Other(state) => Some(state),
                Found::None => None,
            };
            if let Some(change) = settle.algorithm.settled(stored, &settle.settlement, now_us) {
                self.write(&mut states, name, change, now_us);
            }
        }
    }

    /// The common case: one state, one lock.
    fn decide_one(&self, now_us: Option<i64>, ask: &Ask<'_>, swept: usize) -> Reply {
        let name = self.fingerprints.of(ask.state_id, ask.algorithm, ask.subject);
        let mut states = self.shards[self.shard(name)].0.lock();
        let now_us = now_us.unwrap_or_else(|| states.next_instant(self.now_us()));
        let mut evaluation = states.evaluate(name, ask, now_us);
        let reply = Reply::of(std::slice::from_ref(ask), std::slice::from_mut(&mut evaluation), now_us);
        if let Some(change) = ask.algorithm.written(&evaluation, reply.granted, ask.slot) {
            self.write(&mut states, name, change, now_us);
        }
        states.sweep(swept, now_us);
        reply
    }

    /// Several states: all their shards locked in index order, all evaluated, then all written.
    fn decide_all(&self, now_us: Option<i64>, asks: &[Ask<'_>], swept: usize) -> Reply {
        let names: SmallVec<[u128; 4]> =
            asks.iter().map(|ask| self.fingerprints.of(ask.state_id, ask.algorithm, ask.subject)).collect();
        let mut locked = self.lock(&names);
        let now_us = now_us.unwrap_or_else(|| instant(&mut locked, self.now_us()));
        let mut evaluations = self.evaluate(asks, &names, now_us, &mut locked);
        let reply = Reply::of(asks, &mut evaluations, now_us);
        for (index, (ask, &name)) in asks.iter().zip(&names).enumerate() {
            let charged = is_charged(asks, &evaluations, index, reply.granted);
            if let Some(change) = ask.algorithm.written(&evaluations[index], charged, ask.slot) {
                self.write(states_of(&mut locked, self.shard(name)), name, change, now_us);
            }
        }
        for (_, states) in &mut locked {
            states.sweep(swept, now_us);
        }
        reply
    }

    /// Evaluates every ask. A state that is asked twice in one decision is read the second time as if the
    /// first had been charged, so that it is never spent twice.
    fn evaluate(
        &self,
        asks: &[Ask<'_>],
        names: &[u128],
        now_us: i64,
        locked: &mut Locked<'_>,
    ) -> SmallVec<[Evaluation; 4]> {
        let mut evaluations: SmallVec<[Evaluation; 4]> = smallvec![];
        for (position, (ask, &name)) in asks.iter().zip(names).enumerate() {
            let states = states_of(locked, self.shard(name));
            let mut in_progress: Option<State> = None;
            for earlier in (0..position).filter(|&earlier| names[earlier] == name) {
                if let Some(change) = asks[earlier].algorithm.written(&evaluations[earlier], true, asks[earlier].slot) {
                    in_progress = Some(change.applied(in_progress.or_else(|| states.owned(name, ask.algorithm))));
                }
            }
            evaluations.push(match in_progress {
                Some(state) => ask.algorithm.evaluate(Some(&state), ask.cost, now_us),
                None => states.evaluate(name, ask, now_us),
            });
        }
        evaluations
    }

    /// Locks the shards of these states, each once, in index order (so that no two decisions can
    /// wait for each other).
    fn lock(&self, names: &[u128]) -> Locked<'_> {
        let mut indices: SmallVec<[usize; 4]> = names.iter().map(|&name| self.shard(name)).collect();
        indices.sort_unstable();
        indices.dedup();
        indices.into_iter().map(|index| (index, self.shards[index].0.lock())).collect()
    }

    fn write(&self, states: &mut States, name: u128, change: Change, now_us: i64) {
        let evicted = states.write(name, change, now_us);
        self.evictions.fetch_add(evicted, Ordering::Relaxed);
    }

    /// The shard of a fingerprint: its high bits (the tables use the low ones).
    #[expect(clippy::cast_possible_truncation, reason = "only as many bits as there are shards are wanted")]
    fn shard(&self, fingerprint: u128) -> usize {
        (fingerprint >> 64) as usize & (self.shards.len() - 1)
    }
}

/// Locked shards, in index order.
type Locked<'a> = SmallVec<[(usize, MutexGuard<'a, States>); 4]>;

/// The instant of a decision over these shards: later than every earlier one of any of them.
fn instant(locked: &mut Locked<'_>, clock_us: i64) -> i64 {
    let now_us = locked.iter().map(|(_, states)| states.instant(clock_us)).max().unwrap_or(clock_us);
    locked.iter_mut().for_each(|(_, states)| states.decided(now_us));
    now_us
}

/// The states of a shard that is locked.
fn states_of<'t>(locked: &'t mut Locked<'_>, shard: usize) -> &'t mut States {
    let position = locked.binary_search_by_key(&shard, |&(index, _)| index).unwrap_or_default();
    &mut locked[position].1
}

#[cfg(test)]
#[path = "memory/tests.rs"]
mod tests;
