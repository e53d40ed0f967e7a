//! The sliding log: the instant of every admission, so that no window of length W ever holds more than L.
//!
//! Exact, and the dearest: eight bytes per admitted request in memory. At most 10,000 entries.
//!
//! # Order of operations
//!
//! 1. **Read.** An entry `a` is live while `a + W > now`. When the newest lies more than a second ahead of now
//!    (the clock stepped back), every entry ahead counts as one of now, which is written even on a denial;
//!    up to a second ahead they are believed.
//! 2. **Evaluate.** `ok = (n = 0) or (live + n <= L)`; `retry` = the instant at which the (live + n − L)-th oldest
//!    live entry ends; never if `n > L`.
//! 3. **Commit.** n entries at `max(now, newest)`. `remaining = max(0, L − live')`; `reset` = the end of the newest.

use std::collections::VecDeque;

use super::fixed_window::WindowError;
use super::{Settlement, TOLERANCE_US};
use crate::units::Rate;

/// The numbers of a sliding log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingLog {
    /// L, the most per window.
    pub limit: u64,
    /// W, microseconds.
    pub window_us: u64,
    /// How far a settlement may go beyond the limit.
    pub debt: u64,
}

/// What is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The instants of admissions, oldest first, microseconds since 1970.
    pub entries: VecDeque<i64>,
    /// W, microseconds.
    pub window_us: u64,
}

/// A state at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    live: u64,
    /// The newest live entry.
    newest_us: Option<i64>,
    pub(super) reanchored: bool,
    pub(super) retry_us: i64,
}

/// What becomes of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Entries up to here are over.
    over_us: i64,
    /// Entries beyond this become entries of this instant.
    latest_us: i64,
    /// Entries to remove: how many of which instant.
    remove: (u64, i64),
    /// Entries to add: how many of which instant.
    add: (u64, i64),
    window_us: u64,
}

/// The most entries of a log.
pub const MOST_ENTRIES: u64 = 10_000;
/// The most that one request may add.
pub const MOST_COST: u64 = 1_000;

impl SlidingLog {
    /// A log for a rate, whose count is the limit.
    ///
    /// # Errors
    /// When it would need more than [`MOST_ENTRIES`].
    pub fn new(rate: Rate, debt: u64) -> Result<Self, WindowError> {
        if rate.count.saturating_add(debt) > MOST_ENTRIES {
            return Err(WindowError::LogTooLong { most: MOST_ENTRIES });
        }
        let window_us = u64::try_from(rate.period.as_micros());
        let window_us = window_us.map_err(|_| WindowError::TooLarge { limit: rate.count, rate })?;
        Ok(Self { limit: rate.count, window_us, debt })
    }

    /// Reads a stored state and judges a cost (steps 1 and 2 of the module's order of operations).
    #[must_use]
    pub fn read(&self, stored: Option<&State>, cost: u64, now_us: i64) -> Reading {
        let none = VecDeque::new();
        let entries = stored.map_or(&none, |state| &state.entries);
        let over = now_us - self.window_us.cast_signed();
        let first = entries.partition_point(|&entry| entry <= over);
        let live = (entries.len() - first) as u64;
        let newest = entries.back().copied().filter(|_| live > 0);
        let reanchored = newest.is_some_and(|newest| newest - now_us > TOLERANCE_US.cast_signed());
        let believed = |entry: i64| if reanchored { entry.min(now_us) } else { entry };
        let retry_us = match (live + cost).checked_sub(self.limit) {
            _ if cost == 0 => 0,
            _ if cost > self.limit => -1,
            None | Some(0) => 0,
            Some(surplus) => {
                let position = first + usize::try_from(surplus - 1).unwrap_or(usize::MAX);
                let ends = entries.get(position).map(|&entry| believed(entry) + self.window_us.cast_signed());
                ends.map_or(-1, |ends| ends - now_us)
            }
        };
        Reading { live, newest_us: newest.map(believed), reanchored, retry_us }
    }

    /// What is left after this cost, and microseconds until the log equals "never seen".
    pub(super) fn left(&self, reading: &Reading, cost: u64, now_us: i64) -> (u64, u64) {
        let newest = if cost > 0 { Some(reading.next_us(now_us)) } else { reading.newest_us };
        let reset = newest.map_or(0, |newest| newest + self.window_us.cast_signed() - now_us);
        (self.limit.saturating_sub(reading.live + cost), u64::try_from(reset).unwrap_or(0))
    }

    /// What to write for this cost.
    pub(super) fn change(&self, reading: &Reading, cost: u64, now_us: i64) -> Change {
        let latest_us = if reading.reanchored { now_us } else { i64::MAX };
        Change { latest_us, add: (cost, reading.next_us(now_us)), ..self.unchanged(now_us) }
    }

    fn unchanged(&self, now_us: i64) -> Change {
        let over_us = now_us - self.window_us.cast_signed();
        Change { over_us, latest_us: i64::MAX, remove: (0, 0), add: (0, 0), window_us: self.window_us }
    }

    /// A refund takes entries of the charged instant away; a further charge adds some of now.
    pub(super) fn settled(&self, stored: Option<&State>, settlement: &Settlement<'_>, now_us: i64) -> Option<Change> {
        let amount = settlement.amount.unsigned_abs();
        if settlement.amount < 0 {
            stored?;
            let remove = (amount, settlement.charged_at_us);
            return Some(Change { remove, over_us: i64::MIN, ..self.unchanged(now_us) });
        }
        let reading = self.read(stored, 0, now_us);
        let added = amount.min((self.limit + self.debt).saturating_sub(reading.live));
        (added > 0 || reading.reanchored).then(|| self.change(&reading, added, now_us))
    }
}

impl Reading {
    /// The instant that new entries get: a log stays sorted.
    fn next_us(&self, now_us: i64) -> i64 {
        self.newest_us.map_or(now_us, |newest| newest.max(now_us))
    }
}

impl Change {
    /// The log after the change.
    pub(super) fn applied(self, mut state: State) -> State {
        let entries = &mut state.entries;
        while entries.front().is_some_and(|&entry| entry <= self.over_us) {
            entries.pop_front();
        }
        for entry in entries.iter_mut().rev().take_while(|entry| **entry > self.latest_us) {
            *entry = self.latest_us;
        }
        let (count, instant) = self.remove;
        let first = entries.partition_point(|&entry| entry < instant);
        let last = entries.partition_point(|&entry| entry <= instant);
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(last - first);
        entries.drain(first..first + count);
        let (count, instant) = self.add;
        entries.extend((0..count).map(|_| instant));
        State { window_us: self.window_us, ..state }
    }
}

impl State {
    /// The instant from which this state equals "never seen", microseconds since 1970.
    #[must_use]
    pub fn full_at_us(&self) -> i64 {
        self.entries.back().map_or(i64::MIN, |newest| newest.saturating_add(self.window_us.cast_signed()))
    }
}
