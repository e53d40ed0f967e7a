//! Requests in flight: at most N at once. Each admitted request holds a slot, a lease on a place, until
//! it ends; a proxy that dies without ending its requests frees theirs after the slots' lifetime.
//!
//! Holders renew their slots well within that time. Only a holder that stands still for longer lets
//! more than N run at once.
//!
//! # Order of operations
//!
//! 1. **Read.** A slot is live while its end lies ahead of now. When the latest ends more than the lifetime
//!    and a second ahead (the clock stepped back), every slot that ends later than a lifetime from
//!    now ends then, which is written even on a denial.
//! 2. **Evaluate.** `ok = (n = 0) or (live + n <= N)`. Nobody knows when a request will end: `retry` is one second.
//! 3. **Commit.** The slot ends a lifetime from now; those that are over go. `remaining = max(0, N − live')`;
//!    `reset` = the latest end.

use super::{Settlement, TOLERANCE_US};

/// The numbers of a limit of requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// N, the most at once.
    pub limit: u64,
    /// How long a slot lasts that nobody renews, microseconds.
    pub slot_us: u64,
}

/// What is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Slots, in no order.
    pub slots: Vec<Slot>,
}

/// One request's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Whose; unique over all proxies.
    pub id: Box<str>,
    /// When it ends unless it is renewed, microseconds since 1970.
    pub until_us: i64,
}

/// A state at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    live: u64,
    latest_us: Option<i64>,
    pub(super) reanchored: bool,
}

/// What becomes of the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    now_us: i64,
    /// No slot ends later than this.
    latest_us: i64,
    /// Taken or renewed.
    take: Option<Slot>,
    /// Ended.
    end: Option<Box<str>>,
}

/// What a denied request is told.
pub(super) const RETRY_US: i64 = 1_000_000;

impl InFlight {
    /// Reads a stored state (step 1 of the module's order of operations).
    #[must_use]
    pub fn read(&self, stored: Option<&State>, now_us: i64) -> Reading {
        let slots = stored.map(|state| state.slots.as_slice()).unwrap_or_default();
        let live = slots.iter().filter(|slot| slot.until_us > now_us);
        let latest = live.clone().map(|slot| slot.until_us).max();
        let most = self.ends_us(now_us);
        let reanchored = latest.is_some_and(|latest| latest - most > TOLERANCE_US.cast_signed());
        let latest_us = if reanchored { latest.map(|latest| latest.min(most)) } else { latest };
        Reading { live: live.count() as u64, latest_us, reanchored }
    }

    /// When a slot taken now ends.
    fn ends_us(&self, now_us: i64) -> i64 {
        now_us + self.slot_us.cast_signed()
    }

    /// Microseconds until a denied request may try again: 0 when it fits, -1 when it never will.
    #[must_use]
    pub fn retry_us(&self, reading: &Reading, cost: u64) -> i64 {
        match cost {
            0 => 0,
            _ if cost > self.limit => -1,
            _ if reading.live + cost <= self.limit => 0,
            _ => RETRY_US,
        }
    }

    /// What is left after this cost, and microseconds until no slot is left unless they are renewed.
    pub(super) fn left(&self, reading: &Reading, cost: u64, now_us: i64) -> (u64, u64) {
        let taken = (cost > 0).then(|| self.ends_us(now_us));
        let latest = reading.latest_us.max(taken);
        let reset = latest.map_or(0, |latest| latest - now_us);
        (self.limit.saturating_sub(reading.live + cost), u64::try_from(reset).unwrap_or(0))
    }

    /// What to write for this cost.
    pub(super) fn change(&self, reading: &Reading, cost: u64, now_us: i64, slot: &str) -> Change {
        let ends_us = self.ends_us(now_us);
        let take = (cost > 0).then(|| Slot { id: slot.into(), until_us: ends_us });
        Change { now_us, latest_us: if reading.reanchored { ends_us } else { i64::MAX }, take, end: None }
    }

    /// A slot is renewed, or ends.
    pub(super) fn settled(&self, settlement: &Settlement<'_>, now_us: i64) -> Change {
        let renewed = || Slot { id: settlement.slot.into(), until_us: self.ends_us(now_us) };
        let ends = settlement.amount < 0;
        Change { now_us, latest_us: i64::MAX, take: (!ends).then(renewed), end: ends.then(|| settlement.slot.into()) }
    }
}

impl Change {
    /// The slots after the change.
    pub(super) fn applied(self, mut state: State) -> State {
        let slots = &mut state.slots;
        slots.retain(|slot| slot.until_us > self.now_us && Some(&slot.id) != self.end.as_ref());
        for slot in slots.iter_mut() {
            slot.until_us = slot.until_us.min(self.latest_us);
        }
        if let Some(taken) = self.take {
            match slots.iter_mut().find(|slot| slot.id == taken.id) {
                Some(slot) => *slot = taken,
                None => slots.push(taken),
            }
        }
        state
    }
}

impl State {
    /// The instant from which this state equals "never seen", microseconds since 1970.
    #[must_use]
    pub fn full_at_us(&self) -> i64 {
        self.slots.iter().map(|slot| slot.until_us).max().unwrap_or(i64::MIN)
    }
}
