//! The fixed window: a count per window of the clock, or per window that a request opens.
//!
//! Worst case: two full windows meet, so that a window of the same length laid over their border
//! holds up to 2·L (3·L around a window that the change of a zone's clock made shorter). Where that
//! matters, take `token_bucket` or `sliding_log`.
//!
//! # Order of operations
//!
//! 1. **Window.** `align: clock`: `[s, e)` is the window of the clock that holds now. Redis is told by the
//!    proxy the window of now and the neighbour that is nearer, because a window of a time zone has a
//!    length of its own on the day of a clock change; beyond them it counts on in whole lengths.
//!    `align: first_request`: the stored window while it lasts, else `[now, now + W)`.
//! 2. **Read.** A window stored as beginning at S counts when S = s. When S > s the clock stepped back (or the
//!    alignment was changed): up to one second ahead of now it is believed and lasts until the window of the
//!    clock that holds S ends (`first_request`: until S + W); further ahead its count is carried into `[s, e)`,
//!    which is written even on a denial. When S < s it is over.
//! 3. **Evaluate.** `ok = (n = 0) or (n <= L and count <= L − n)`; `retry` = the window's end, never if `n > L`.
//! 4. **Commit** as every algorithm does. `remaining = max(0, L − count')`, `reset` = the window's end when
//!    `count' > 0`.
//!
//! A refund goes to the window that was charged, if it is still the stored one: it began no later than the
//! charge. (A charge by a clock that had stepped back, counted in a window ahead of it, stays.) A count
//! of 0 is no state.

use super::zone::Zone;
use super::{Settlement, TOLERANCE_US};
use crate::units::Rate;

/// The numbers of a fixed window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedWindow {
    /// L, the most per window.
    pub limit: u64,
    /// W, microseconds.
    pub window_us: u64,
    /// Where windows begin.
    pub align: Align,
    /// How far a settlement may go beyond the limit.
    pub debt: u64,
}

/// Where windows begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Align {
    /// At multiples of W since 1970 in UTC; windows of whole weeks on Mondays.
    Utc,
    /// At the same marks of another zone's wall clock.
    Zone(Zone),
    /// At the first request.
    FirstRequest,
}

/// What is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The window's begin, microseconds since 1970.
    pub start_us: i64,
    /// Its end.
    pub end_us: i64,
    /// What was admitted in it.
    pub count: u64,
}

/// A state at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    start_us: i64,
    end_us: i64,
    count: u64,
    pub(super) reanchored: bool,
}

/// Why a window cannot be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A product would leave the exact range.
    #[error("{limit} per window of {rate} cannot be counted exactly: use a smaller count or a rounder window")]
    TooLarge {
        /// The count asked for.
        limit: u64,
        /// The rate asked for.
        rate: Rate,
    },
    /// More entries than a log keeps.
    #[error("a sliding_log keeps one entry per request, at most {most}; use sliding_window or token_bucket")]
    LogTooLong {
        /// The most entries.
        most: u64,
    },
}

/// Numbers stay below this: exact in the doubles of Redis' Lua.
pub(super) const EXACT: u128 = 1 << 52;

/// 1970-01-05, the first Monday, microseconds.
const FIRST_MONDAY_US: i64 = 4 * 86_400_000_000;
const WEEK_US: u64 = 7 * 86_400_000_000;

impl FixedWindow {
    /// A window for a rate, whose count is the limit.
    ///
    /// # Errors
    /// When a count could leave the exact range.
    pub fn new(rate: Rate, align: Align, debt: u64) -> Result<Self, WindowError> {
        let too_large = WindowError::TooLarge { limit: rate.count, rate };
        let window_us = u64::try_from(rate.period.as_micros()).map_err(|_| too_large)?;
        if u128::from(rate.count) + u128::from(debt) >= EXACT || window_us == 0 {
            return Err(too_large);
        }
        Ok(Self { limit: rate.count, window_us, align, debt })
    }

    /// The window of the clock that holds `now_us`; `None` when requests open windows.
    #[must_use]
    pub fn window_at(&self, now_us: i64) -> Option<(i64, i64)> {
        let width = self.window_us.cast_signed();
        match &self.align {
            Align::FirstRequest => None,
            Align::Utc => {
                let offset = if self.window_us.is_multiple_of(WEEK_US) { FIRST_MONDAY_US } else { 0 };
                let start = (now_us - offset).div_euclid(width) * width + offset;
                Some((start, start + width))
            }
            Align::Zone(zone) => Some(zone.window_at(now_us, width)),
        }
    }

    /// The borders of two windows that meet: the one that holds `now_us` and the neighbour that is nearer. It is
    /// what Redis is told, whose clock may be a little earlier or later.
    #[must_use]
    pub fn windows_near(&self, now_us: i64) -> Option<[i64; 3]> {
        let (start, end) = self.window_at(now_us)?;
        if now_us - start < end - now_us {
            self.window_at(start - 1).map(|(before, _)| [before, start, end])
        } else {
            self.window_at(end).map(|(_, after)| [start, end, after])
        }
    }

    /// When a stored window that lies ahead ends.
    fn end_of(&self, start_us: i64) -> i64 {
        self.window_at(start_us).map_or(start_us + self.window_us.cast_signed(), |(_, end)| end)
    }

    /// Reads a stored state (steps 1 and 2 of the module's order of operations).
    #[must_use]
    pub fn read(&self, stored: Option<State>, now_us: i64) -> Reading {
        let width = self.window_us.cast_signed();
        let stored = stored.filter(|state| state.count > 0);
        let open = |state: &State| (state.start_us..state.start_us + width).contains(&now_us);
        let (start_us, end_us) = match (self.window_at(now_us), stored.filter(open)) {
            (Some(window), _) => window,
            (None, Some(state)) => (state.start_us, state.start_us + width),
            (None, None) => (now_us, now_us + width),
        };
        let fresh = Reading { start_us, end_us, count: 0, reanchored: false };
        let Some(State { start_us: stored, count, .. }) = stored else { return fresh };
        if stored < start_us {
            return fresh;
        }
        if stored > start_us && stored - now_us <= TOLERANCE_US.cast_signed() {
            return Reading { start_us: stored, end_us: self.end_of(stored), count, reanchored: false };
        }
        Reading { count, reanchored: stored > start_us, ..fresh }
    }

    /// Microseconds until the cost fits: 0 when it does, -1 when it never will.
    #[must_use]
    pub fn retry_us(&self, reading: &Reading, cost: u64, now_us: i64) -> i64 {
        if cost == 0 {
            0
        } else if cost > self.limit {
            -1
        } else if reading.count <= self.limit - cost {
            0
        } else {
            reading.end_us - now_us
        }
    }

    /// What is left after this cost, and microseconds until the count equals "never seen".
    pub(super) fn left(&self, reading: &Reading, cost: u64, now_us: i64) -> (u64, u64) {
        let count = reading.count + cost;
        let reset_us = if count > 0 { u64::try_from(reading.end_us - now_us).unwrap_or(0) } else { 0 };
        (self.limit.saturating_sub(count), reset_us)
    }

    /// A refund goes to the window that was charged, if it is still the stored one; a further charge
    /// counts in the window of now.
    pub(super) fn settled(&self, stored: Option<State>, settlement: &Settlement<'_>, now_us: i64) -> Option<State> {
        let amount = settlement.amount.unsigned_abs();
        if settlement.amount < 0 {
            let state = stored.filter(|state| state.start_us <= settlement.charged_at_us)?;
            return Some(State { count: state.count.saturating_sub(amount), ..state });
        }
        let reading = self.read(stored, now_us);
        let most = reading.count.max(self.limit + self.debt);
        Some(State { count: (reading.count + amount).min(most), ..reading.state(0) })
    }
}

impl Reading {
    /// What to store after this cost.
    pub(super) fn state(&self, cost: u64) -> State {
        State { start_us: self.start_us, end_us: self.end_us, count: self.count + cost }
    }
}

impl State {
    /// The instant from which this state equals "never seen", microseconds since 1970.
    #[must_use]
    pub fn full_at_us(&self) -> i64 {
        if self.count == 0 { i64::MIN } else { self.end_us }
    }
}
