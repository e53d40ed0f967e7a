//! One shard: a dense table of buckets, the common case, and a map of all other states, which together
//! keep within one bound.

use super::others::Others;
use super::table::Table;
use crate::limit::algorithm::{Algorithm, Change, Evaluation, State, bucket};
use crate::limit::store::Ask;

/// Slots looked at to find room.
const LOOKED_AT: usize = 16;

/// The states of one shard.
#[derive(Debug)]
pub(super) struct States {
    buckets: Table,
    others: Others,
    /// The most that may be kept, in states of usual size.
    bound: usize,
    /// The instant of the latest decision, microseconds since 1970.
    latest_us: i64,
}

/// A stored state.
pub(super) enum Found<'s> {
    Bucket(bucket::State),
    Other(&'s State),
    None,
}

impl States {
    /// Nothing yet, and never more than `bound` states of usual size (at least one).
    pub(super) fn new(bound: usize) -> Self {
        Self { buckets: Table::new(), others: Others::default(), bound: bound.max(1), latest_us: i64::MIN }
    }

    /// The clock's instant, or the next microsecond after the latest decision when that is later.
    pub(super) fn instant(&self, clock_us: i64) -> i64 {
        clock_us.max(self.latest_us.saturating_add(1))
    }

    /// The same, and a decision is made then.
    pub(super) fn next_instant(&mut self, clock_us: i64) -> i64 {
        self.latest_us = self.instant(clock_us);
        self.latest_us
    }

    /// A decision is made at this instant.
    pub(super) fn decided(&mut self, now_us: i64) {
        self.latest_us = now_us;
    }

    /// The state of this name.
    pub(super) fn find(&self, name: u128, algorithm: &Algorithm) -> Found<'_> {
        if algorithm.bucket().is_some() {
            self.buckets.find(name).map_or(Found::None, Found::Bucket)
        } else {
            self.others.find(name).map_or(Found::None, Found::Other)
        }
    }

    /// The same, to keep.
    pub(super) fn owned(&self, name: u128, algorithm: &Algorithm) -> Option<State> {
        match self.find(name, algorithm) {
            Found::Bucket(state) => Some(State::Bucket(state)),
            Found::Other(state) => Some(state.clone()),
            Found::None => None,
        }
    }

    /// Judges an ask on its stored state.
    pub(super) fn evaluate(&self, name: u128, ask: &Ask<'_>, now_us: i64) -> Evaluation {
        match self.find(name, ask.algorithm) {
            Found::Bucket(state) => ask.algorithm.evaluate(Some(&State::Bucket(state)), ask.cost, now_us),
            Found::Other(state) => ask.algorithm.evaluate(Some(state), ask.cost, now_us),
            Found::None => ask.algorithm.evaluate(None, ask.cost, now_us),
        }
    }

    /// Changes a state; how many others that still meant something had to go for it.
    pub(super) fn write(&mut self, name: u128, change: Change, now_us: i64) -> u64 {
        let mut evicted = 0;
        if let Change::Put(State::Bucket(state)) = change {
            if self.buckets.find(name).is_none() {
                evicted = self.make_room(name, now_us);
            }
            self.buckets.put(name, state);
            return evicted;
        }
        if self.others.find(name).is_none() {
            evicted = self.make_room(name, now_us);
        }
        self.others.change(name, change);
        // A log may have grown.
        while self.buckets.len() + self.others.weight() > self.bound && self.others.len() > 1 {
            evicted += u64::from(self.others.evict(now_us));
        }
        evicted
    }

    /// Keeps what another store said; what was counted here is void then.
    pub(super) fn remember(&mut self, name: u128, state: bucket::State, now_us: i64) {
        self.others.forget(name);
        if self.buckets.find(name).is_none() {
            self.make_room(name, now_us);
        }
        self.buckets.put(name, state);
    }

    /// Nothing is kept of a state.
    pub(super) fn forget(&mut self, name: u128) {
        self.others.forget(name);
        self.buckets.forget(name);
    }

    /// Whether this state may be counted: it is known (of a window, what was remembered becomes its
    /// state), or there is room for it.
    pub(super) fn prepare(&mut self, name: u128, algorithm: &Algorithm, (now_us, proxies): (i64, u64)) -> bool {
        let remembered = self.buckets.find(name).filter(|state| state.full_at_us() > now_us);
        if algorithm.bucket().is_some() {
            return remembered.is_some() || self.has_room(now_us);
        }
        if self.others.find(name).is_some() {
            return true;
        }
        let Some(known) = remembered else { return self.has_room(now_us) };
        let used = known.rem.div_ceil(proxies.max(1));
        if let Some(state) = algorithm.presumed(used, known.at, now_us) {
            self.write(name, Change::Put(state), now_us);
        }
        true
    }

    /// Whether another state fits without any other's loss. A little is left for what keys without room share.
    fn has_room(&mut self, now_us: i64) -> bool {
        let most = self.bound - self.bound / 16;
        if self.buckets.len() + self.others.weight() < most {
            return true;
        }
        self.sweep(LOOKED_AT, now_us);
        self.buckets.len() + self.others.weight() < most
    }

    /// Removes what is soonest full of a few states while there is no room for another.
    fn make_room(&mut self, name: u128, now_us: i64) -> u64 {
        let mut evicted = 0;
        while self.buckets.len() + self.others.weight() >= self.bound {
            let from_others = self.others.weight() > self.buckets.len();
            let live = if from_others { self.others.evict(now_us) } else { self.buckets.evict_for(name, now_us) };
            evicted += u64::from(live);
        }
        evicted
    }

    /// Looks at `budget` states of each kind and removes those that equal "never seen".
    pub(super) fn sweep(&mut self, budget: usize, now_us: i64) {
        self.buckets.sweep(budget, now_us);
        self.others.sweep(budget, now_us);
    }

    /// How many states mean anything at `now_us`.
    pub(super) fn live(&self, now_us: i64) -> usize {
        self.buckets.live(now_us) + self.others.live(now_us)
    }

    /// Bytes taken from the allocator, about.
    pub(super) fn bytes(&self) -> usize {
        self.buckets.bytes() + self.others.bytes()
    }
}
