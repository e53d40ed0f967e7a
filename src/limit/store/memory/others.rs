//! States that are no buckets: windows, logs, slots, penalties. A list that can be walked and sampled,
//! and a map into it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use crate::limit::algorithm::{Change, State, sliding_log};

/// States by fingerprint.
#[derive(Debug, Default)]
pub(super) struct Others {
    list: Vec<(u128, State)>,
    places: HashMap<u128, usize, BuildHasherDefault<Keyed>>,
    /// Room taken, in states of usual size.
    weight: usize,
    /// Where sweeping goes on.
    hand: usize,
}

/// Fingerprints are keyed hashes already.
#[derive(Debug, Default)]
struct Keyed(u64);

impl Hasher for Keyed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut part = [0; 8];
            part[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_ne_bytes(part);
        }
    }
}

/// States looked at to find the one to evict.
const SAMPLE: usize = 8;

impl Others {
    /// The state of this name.
    pub(super) fn find(&self, name: u128) -> Option<&State> {
        self.places.get(&name).map(|&place| &self.list[place].1)
    }

    /// Changes a state, or makes it.
    pub(super) fn change(&mut self, name: u128, change: Change) {
        match self.places.entry(name) {
            Entry::Occupied(place) => {
                let state = &mut self.list[*place.get()].1;
                self.weight -= state.weight();
                let stored = std::mem::replace(state, State::Log(sliding_log::State::default()));
                *state = change.applied(Some(stored));
                self.weight += state.weight();
            }
            Entry::Vacant(place) => {
                place.insert(self.list.len());
                let state = change.applied(None);
                self.weight += state.weight();
                self.list.push((name, state));
            }
        }
    }

    /// How many states.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Room taken, in states of usual size.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Removes, of a few states, the one that is full soonest; whether it still meant something.
    pub(super) fn evict(&mut self, now_us: i64) -> bool {
        let len = self.list.len();
        let soonest =
            (0..SAMPLE.min(len)).map(|_| fastrand::usize(..len)).min_by_key(|&place| self.list[place].1.full_at_us());
        let Some(place) = soonest else { return false };
        let live = self.list[place].1.full_at_us() > now_us;
        self.remove(place);
        live
    }

    /// Removes a state, if it is there.
    pub(super) fn forget(&mut self, name: u128) {
        if let Some(&place) = self.places.get(&name) {
            self.remove(place);
        }
    }

    /// Looks at `budget` states and removes those that equal "never seen".
    pub(super) fn sweep(&mut self, budget: usize, now_us: i64) {
        for _ in 0..budget.min(self.list.len()) {
            if self.hand >= self.list.len() {
                self.hand = 0;
            }
            match self.list.get(self.hand) {
                None => return,
                Some((_, state)) if state.full_at_us() <= now_us => self.remove(self.hand),
                Some(_) => self.hand += 1,
            }
        }
        if self.list.capacity() > 64 && self.list.len() * 8 < self.list.capacity() {
            self.list.shrink_to(self.list.len() * 2);
            self.places.shrink_to(self.list.len() * 2);
        }
    }

    /// How many states mean anything at `now_us`.
    pub(super) fn live(&self, now_us: i64) -> usize {
        self.list.iter().filter(|(_, state)| state.full_at_us() > now_us).count()
    }

    /// Bytes taken from the allocator, about.
    pub(super) fn bytes(&self) -> usize {
        let per_place = size_of::<(u128, usize)>() + 1;
        self.list.capacity() * size_of::<(u128, State)>() + self.places.capacity() * per_place + self.weight * 64
    }

    fn remove(&mut self, place: usize) {
        let (name, state) = self.list.swap_remove(place);
        self.weight -= state.weight();
        self.places.remove(&name);
        if let Some((moved, _)) = self.list.get(place) {
            self.places.insert(*moved, place);
        }
    }
}
