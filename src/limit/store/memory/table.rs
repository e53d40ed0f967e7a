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
    /// The most that may be in use.
    bound: usize,
    /// Where sweeping goes on.
    hand: usize,
    /// The instant of the latest decision, microseconds since 1970.
    latest_us: i64,
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
    /// An empty table that will hold at most `bound` states, at least one.
    pub(super) fn new(bound: usize) -> Self {
        Self {
            slots: vec![Slot::default(); SMALLEST].into(),
            len: 0,
            bound: bound.max(1),
            hand: 0,
            latest_us: i64::MIN,
        }
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

    /// The state under this fingerprint.
    pub(super) fn find(&self, fingerprint: u128) -> Option<State> {
        let slot = &self.slots[self.probe(fingerprint)];
        (!slot.is_free()).then(|| slot.state())
    }

    /// Stores a state; when the table is at its bound another goes, and whether that one still
    /// meant anything at `now_us` is returned.
    pub(super) fn put(&mut self, fingerprint: u128, state: State, now_us: i64) -> bool {
        let index = self.probe(fingerprint);
        if !self.slots[index].is_free() {
            self.slots[index] = Slot::new(fingerprint, state);
            return false;
        }
        let mut evicted = false;
        if self.len >= self.bound {
            // Not beside the new one: that would drive what lasts and what does not apart, until some samples
            // hold only what lasts.
            evicted = self.evict(self.home(fingerprint >> 96), now_us);
        } else if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.resize(self.slots.len() * 2);
        }
        let index = self.probe(fingerprint);
        self.slots[index] = Slot::new(fingerprint, state);
        self.len += 1;
        evicted
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
        let mut table = Table::new(10_000);
        let mut map = std::collections::HashMap::new();
        let mut random = fastrand::Rng::with_seed(7);
        for now in 0..60_000_i64 {
            let fingerprint = u128::from(random.u32(1..2_000)) << 3;
            let full_at = now + random.i64(0..500);
            assert!(!table.put(fingerprint, state(full_at), now * 1000));
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
        let mut table = Table::new(100);
        let mut random = fastrand::Rng::with_seed(3);
        let lasting: Vec<u128> = (0..20).map(|_| random.u128(1..)).collect();
        for &fingerprint in &lasting {
            table.put(fingerprint, state(1_000_000), 0);
        }
        for _ in 0..2_000 {
            table.put(random.u128(1..), state(1_000), 0);
        }
        let kept = lasting.iter().filter(|&&fingerprint| table.find(fingerprint).is_some()).count();
        assert!(kept >= 15, "{kept} of 20");
    }

    #[test]
    fn a_full_table_evicts_the_soonest_full_of_a_few_and_never_grows() {
        let mut table = Table::new(100);
        let evicted = (1..=1000_u128).filter(|&n| table.put(n * 0x9e37_79b9, state(1000), 0)).count();
        assert_eq!((table.len, evicted), (100, 900));
        assert!(table.slots.len() <= 256);
    }
}
