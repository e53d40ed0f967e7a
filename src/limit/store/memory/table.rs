//! One shard's states: open addressing with linear probing, 32 bytes per slot, two slots per cache
//! line. It grows and shrinks with its content and never holds more than its bound.

use crate::limit::algorithm::bucket::State;

/// States by fingerprint.
#[derive(Debug)]
pub(super) struct Table {
    /// A power of two, never more than three quarters full.
    slots: Box<[Slot]>,
    /// Slots in use.
    len: usize,
    /// Where sweeping goes on.
    hand: usize,
}

/// One state, or none when the fingerprint is 0.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Whose state.
    fingerprint: u128,
    /// [`State::at`].
    at: i64,
    /// [`State::rem`] below 2^52, and the power of ten of [`State::tick`] above.
    rest: u64,
}

/// Bits of [`Slot::rest`] that hold the remainder.
const REM_BITS: u32 = 60;

/// Slots of a table that holds little or nothing.
const SMALLEST: usize = 8;

/// States looked at to find the one to evict.
const SAMPLE: usize = 8;

impl Slot {
    fn new(fingerprint: u128, state: State) -> Self {
        Self { fingerprint, at: state.at, rest: u64::from(state.tick.ilog10()) << REM_BITS | state.rem }
    }

    fn is_free(&self) -> bool {
        self.fingerprint == 0
    }

    fn state(&self) -> State {
        State {
            at: self.at,
            rem: self.rest & ((1 << REM_BITS) - 1),
            tick: 10_u64.pow(u32::try_from(self.rest >> REM_BITS).unwrap_or(0)),
        }
    }
}

impl Table {
    /// An empty table.
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot::default(); SMALLEST].into(), len: 0, hand: 0 }
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The state under this fingerprint.
    pub(super) fn find(&self, fingerprint: u128) -> Option<State> {
        let slot = &self.slots[self.probe(fingerprint)];
        (!slot.is_free()).then(|| slot.state())
    }

    /// Stores a state.
    pub(super) fn put(&mut self, fingerprint: u128, state: State) {
        let index = self.probe(fingerprint);
        if self.slots[index].is_free() {
            if (self.len + 1) * 4 > self.slots.len() * 3 {
                self.resize(self.slots.len() * 2);
                return self.put(fingerprint, state);
            }
            self.len += 1;
        }
        self.slots[index] = Slot::new(fingerprint, state);
    }

    /// Removes a state, if it is there.
    pub(super) fn forget(&mut self, fingerprint: u128) {
        let index = self.probe(fingerprint);
        if !self.slots[index].is_free() {
            self.remove(index);
        }
    }

    /// Makes room for this fingerprint; whether a state that still meant something at `now_us` went.
    pub(super) fn evict_for(&mut self, fingerprint: u128, now_us: i64) -> bool {
        // Not beside the new one: that would drive what lasts and what does not apart, until some samples
        // hold only what lasts.
        self.evict(self.home(fingerprint >> 96), now_us)
    }

    /// Looks at `budget` slots and removes the states that equal "never seen".
    pub(super) fn sweep(&mut self, budget: usize, now_us: i64) {
        for _ in 0..budget {
            self.hand &= self.slots.len() - 1;
            let slot = &self.slots[self.hand];
            if !slot.is_free() && slot.state().full_at_us() <= now_us {
                self.remove(self.hand);
            } else {
                self.hand += 1;
            }
        }
        if self.slots.len() > SMALLEST && self.len * 8 < self.slots.len() {
            self.resize(self.slots.len() / 2);
        }
    }

    /// How many states mean anything at `now_us`.
    pub(super) fn live(&self, now_us: i64) -> usize {
        self.slots.iter().filter(|slot| !slot.is_free() && slot.state().full_at_us() > now_us).count()
    }

    /// Bytes taken from the allocator.
    pub(super) fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.slots)
    }

    /// The slot that holds this fingerprint, or the free one where it would go.
    fn probe(&self, fingerprint: u128) -> usize {
        let mut index = self.home(fingerprint);
        while !self.slots[index].is_free() && self.slots[index].fingerprint != fingerprint {
            index = (index + 1) & (self.slots.len() - 1);
        }
        index
    }

    /// Where a fingerprint's search begins.
    fn home(&self, fingerprint: u128) -> usize {
        fingerprint as usize & (self.slots.len() - 1)
    }

    /// Removes, of the first few states from a slot on, the one that is full soonest.
    fn evict(&mut self, from: usize, now_us: i64) -> bool {
        let mask = self.slots.len() - 1;
        let soonest = (0..self.slots.len())
            .map(|step| (from + step) & mask)
            .filter(|&index| !self.slots[index].is_free())
            .take(SAMPLE)
            .min_by_key(|&index| self.slots[index].state().full_at_us());
        let Some(index) = soonest else { return false };
        let live = self.slots[index].state().full_at_us() > now_us;
        self.remove(index);
        live
    }

    /// Frees a slot and closes the gap in its probe sequence.
    fn remove(&mut self, mut gap: usize) {
        let mask = self.slots.len() - 1;
        self.slots[gap] = Slot::default();
        self.len -= 1;
        let mut index = (gap + 1) & mask;
        while !self.slots[index].is_free() {
            let home = self.home(self.slots[index].fingerprint);
            if index.wrapping_sub(home) & mask >= index.wrapping_sub(gap) & mask {
                self.slots[gap] = self.slots[index];
                self.slots[index] = Slot::default();
                gap = index;
            }
            index = (index + 1) & mask;
        }
    }

    /// Moves everything to a table of this many slots.
    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots].into());
        for slot in old.iter().filter(|slot| !slot.is_free()) {
            let index = self.probe(slot.fingerprint);
            self.slots[index] = *slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(at: i64) -> State {
        State { at, rem: 5, tick: 1000 }
    }

    #[test]
    fn a_table_agrees_with_a_map_under_random_writes_and_sweeps() {
        let mut table = Table::new();
        let mut map = std::collections::HashMap::new();
        let mut random = fastrand::Rng::with_seed(7);
        for now in 0..60_000_i64 {
            let fingerprint = u128::from(random.u32(1..2_000)) << 3;
            let full_at = now + random.i64(0..500);
            table.put(fingerprint, state(full_at));
            map.insert(fingerprint, full_at);
            table.sweep(3, now * 1000);
            map.retain(|_, at| (*at + 1) * 1000 > now * 1000);
            let asked = u128::from(random.u32(1..2_000)) << 3;
            let found = table.find(asked).filter(|state| state.full_at_us() > now * 1000);
            assert_eq!(found, map.get(&asked).map(|&at| state(at)), "at {now}");
            if now % 1000 == 0 {
                assert_eq!(table.live(now * 1000), map.len());
            }
        }
        (0..20).for_each(|_| table.sweep(10_000, i64::MAX));
        assert_eq!((table.len, table.slots.len()), (0, SMALLEST));
    }

    #[test]
    fn a_flood_of_fresh_states_does_not_push_out_those_that_last_longer() {
        let mut table = Table::new();
        let put = |table: &mut Table, fingerprint: u128, state: State| {
            if table.len() >= 100 {
                table.evict_for(fingerprint, 0);
            }
            table.put(fingerprint, state);
        };
        let mut random = fastrand::Rng::with_seed(3);
        let lasting: Vec<u128> = (0..20).map(|_| random.u128(1..)).collect();
        for &fingerprint in &lasting {
            put(&mut table, fingerprint, state(1_000_000));
        }
        for _ in 0..2_000 {
            put(&mut table, random.u128(1..), state(1_000));
        }
        let kept = lasting.iter().filter(|&&fingerprint| table.find(fingerprint).is_some()).count();
        assert!(kept >= 15, "{kept} of 20");
    }
}
