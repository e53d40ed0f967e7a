//! The sliding window: the counts of two neighbouring windows of the clock, the earlier one weighted by
//! how much of it still lies within the last W.
//!
//! It assumes that requests of the earlier window came evenly. When they did not, up to almost 2·L pass
//! within W (L at the end of a window, then L spread over the next). Where that matters, take
//! `token_bucket` or `sliding_log`.
//!
//! # Order of operations
//!
//! With `t = floor(now / U)`, `i = floor(t / W)`, `e = t − i·W`, all in ticks of U µs:
//!
//! 1. **Read.** A state of window i counts as it is; one of window i − 1 is the earlier one; an older one is
//!    none. One of a later window i' (the clock stepped back) is believed when `i'·W − t` is at most a
//!    second: then `e = 0` in window i', and that distance is added to retry and reset. Further ahead,
//!    its counts are carried into window i, which is written even on a denial. Counts above `L + D` (a
//!    lowered limit) are held at that.
//! 2. **Evaluate.** `ok = (n = 0) or (n <= L and cur <= L − n and prev·(W − e) <= (L − n − cur)·W)`. Retry, exact:
//!    `W − floor((L − n − cur)·W / prev) − e` while `cur <= L − n`, else `2·W − e − floor((L − n)·W / cur)`.
//! 3. **Commit** as every algorithm does. `remaining = max(0, L − cur' − ceil(prev·(W − e) / W))`; `reset` is the
//!    end of the next window when `cur' > 0`, of this one when only `prev > 0`.

use super::fixed_window::{EXACT, WindowError};
use super::{Settlement, TOLERANCE_US};
use crate::units::Rate;

/// The numbers of a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindow {
    /// L, the most per window.
    pub limit: u64,
    /// W in ticks.
    pub window: u64,
    /// U, microseconds per tick: a power of ten from 1 to 1,000,000.
    pub tick: u64,
    /// D, how far a settlement may go beyond the limit.
    pub debt: u64,
}

/// What is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The later window's number since 1970.
    pub index: i64,
    /// What was admitted in it.
    pub current: u64,
    /// What was admitted in the one before.
    pub previous: u64,
    /// W, microseconds.
    pub window_us: u64,
}

/// A state at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    index: i64,
    current: u64,
    previous: u64,
    /// e, ticks.
    elapsed: u64,
    /// How far the window lies ahead of a clock that stepped back, ticks.
    ahead: u64,
    pub(super) reanchored: bool,
}

impl SlidingWindow {
    /// A window for a rate, whose count is the limit, with the smallest tick that keeps `(L + D)·W` exact.
    ///
    /// # Errors
    /// When no tick between 1 µs and 1 s does.
    pub fn new(rate: Rate, debt: u64) -> Result<Self, WindowError> {
        let too_large = WindowError::TooLarge { limit: rate.count, rate };
        let window_us = u64::try_from(rate.period.as_micros()).map_err(|_| too_large)?;
        let most = u128::from(rate.count) + u128::from(debt);
        (0..=6)
            .map(|exponent| 10_u64.pow(exponent))
            .take_while(|tick| window_us.is_multiple_of(*tick))
            .find(|tick| most * u128::from(window_us / tick) < EXACT)
            .map(|tick| Self { limit: rate.count, window: window_us / tick, tick, debt })
            .ok_or(too_large)
    }

    /// W, microseconds.
    #[must_use]
    pub fn window_us(&self) -> u64 {
        self.window * self.tick
    }

    /// The number of the window that holds an instant, and the ticks since it began.
    fn place(&self, now_us: i64) -> (i64, u64) {
        let ticks = now_us.div_euclid(self.tick.cast_signed());
        let width = self.window.cast_signed();
        (ticks.div_euclid(width), ticks.rem_euclid(width).cast_unsigned())
    }

    /// Reads a stored state (step 1 of the module's order of operations).
    #[must_use]
    pub fn read(&self, stored: Option<State>, now_us: i64) -> Reading {
        let (index, elapsed) = self.place(now_us);
        let none = Reading { index, current: 0, previous: 0, elapsed, ahead: 0, reanchored: false };
        let Some(state) = stored.filter(|state| state.current + state.previous > 0) else { return none };
        let most = self.limit + self.debt;
        let (current, previous) = (state.current.min(most), state.previous.min(most));
        if state.index <= index {
            return match index - state.index {
                0 => Reading { current, previous, ..none },
                1 => Reading { previous: current, ..none },
                _ => none,
            };
        }
        let ahead = (state.index - index).saturating_mul(self.window.cast_signed()) - elapsed.cast_signed();
        if ahead <= (TOLERANCE_US / self.tick).cast_signed() {
            let ahead = ahead.cast_unsigned();
            return Reading { index: state.index, current, previous, elapsed: 0, ahead, reanchored: false };
        }
        Reading { current, previous, reanchored: true, ..none }
    }

    /// Microseconds until the cost fits: 0 when it does, -1 when it never will.
    #[must_use]
    pub fn retry_us(&self, reading: &Reading, cost: u64) -> i64 {
        let Reading { current, previous, elapsed, ahead, .. } = *reading;
        if cost == 0 {
            return 0;
        }
        let Some(room) = self.limit.checked_sub(cost) else { return -1 };
        let ticks = match room.checked_sub(current) {
            Some(room) if previous * (self.window - elapsed) <= room * self.window => return 0,
            Some(room) => self.window - room * self.window / previous - elapsed,
            None => 2 * self.window - elapsed - room * self.window / current,
        };
        ((ticks + ahead) * self.tick).cast_signed()
    }

    /// What is left after this cost, and microseconds until the state equals "never seen".
    pub(super) fn left(&self, reading: &Reading, cost: u64) -> (u64, u64) {
        let current = reading.current + cost;
        let weighted = (reading.previous * (self.window - reading.elapsed)).div_ceil(self.window);
        let windows = if current > 0 { 2 } else { u64::from(reading.previous > 0) };
        let ticks = if windows == 0 { 0 } else { windows * self.window - reading.elapsed + reading.ahead };
        (self.limit.saturating_sub(current).saturating_sub(weighted), ticks * self.tick)
    }

    /// What to store after this cost.
    pub(super) fn state(&self, reading: &Reading, cost: u64) -> State {
        State {
            index: reading.index,
            current: reading.current + cost,
            previous: reading.previous,
            window_us: self.window_us(),
        }
    }

    /// A refund goes to the window that was charged while it counts; a further charge to that of now.
    pub(super) fn settled(&self, stored: Option<State>, settlement: &Settlement<'_>, now_us: i64) -> Option<State> {
        let amount = settlement.amount.unsigned_abs();
        if settlement.amount < 0 {
            let state = stored?;
            return match state.index - self.place(settlement.charged_at_us).0 {
                0 => Some(State { current: state.current.saturating_sub(amount), ..state }),
                1 => Some(State { previous: state.previous.saturating_sub(amount), ..state }),
                _ => None,
            };
        }
        let reading = self.read(stored, now_us);
        let most = reading.current.max(self.limit + self.debt);
        Some(State { current: (reading.current + amount).min(most), ..self.state(&reading, 0) })
    }
}

impl State {
    /// The instant from which this state equals "never seen", microseconds since 1970.
    #[must_use]
    pub fn full_at_us(&self) -> i64 {
        let windows = match (self.current, self.previous) {
            (0, 0) => return i64::MIN,
            (0, _) => 1,
            _ => 2,
        };
        self.index.saturating_add(windows).saturating_mul(self.window_us.cast_signed())
    }
}
