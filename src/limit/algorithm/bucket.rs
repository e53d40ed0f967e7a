//! The token bucket (the same admitted set as GCRA and as a leaky bucket used as a meter), as pure
//! functions of state, time and cost, in integers only.
//!
//! State is the theoretical arrival time TAT = `at + rem / R` ticks: the instant at which the
//! bucket is full again. A state that equals "full" is no state.
//!
//! # Order of operations
//!
//! Every store computes exactly this (`lua/` states the same integers), for each limit of a decision
//! made at `now` µs with cost n; `t = floor(now / U)`:
//!
//! 1. **Rescale.** Only when the stored tick U' differs from U: `e = (at + (1 if rem > 0)) · U'` µs;
//!    if `e <= now` there is no state; else `at = ceil(e / U)`, `rem = 0` (towards emptier).
//! 2. **Clamp.** `rem = min(rem, R − 1)`: a remainder may have been written under another rate.
//! 3. **Re-anchor.** `ahead = at − t`; if `ahead < 0` then `d = 0`; if
//!    `ahead > ceil((C + D)·P / R) + 10^6 / U` (further ahead than a full refill and one second: a clock that
//!    stepped back, or a lowered limit) then `d = C·P` and the state counts as *re-anchored*; else
//!    `d = ahead·R + rem`. Within that second d may exceed C·P: the state is believed as it is, so
//!    that retry and reset stay true (nothing is written that would shorten them).
//! 4. **Evaluate**, every limit before any write: `ok = (n = 0) or (n <= C and d <= C·P − n·P)`;
//!    `retry = 0` if ok, never if `n > C`, else `ceil((d − (C·P − n·P)) / R)` ticks;
//!    leaky buckets: `wait = ceil(max(0, d − (delay_after − 1)·P) / R)` ticks if ok and `n > 0`, else 0.
//! 5. **Commit.** `granted` = all enforced limits are ok. A limit is charged when granted and ok
//!    itself (so a shadow limit that would deny is not): `d' = d + n·P`, otherwise `d' = d`.
//!    With `n > 0` the state is written if charged, or if re-anchored (even when denied); with
//!    `n = 0` nothing is written. Written is `at = t + floor(d' / R)`, `rem = d' mod R`, tick U.
//! 6. **Answer.** `remaining = floor(max(0, C·P − d') / P)`, `reset = ceil(d' / R)` ticks; ticks become µs
//!    by multiplication with U (so they round up to the tick).
//!
//! A settlement reads the state in the same way (steps 1 to 3); a refund of n gives `max(0, d − n·P)`, a
//! further charge `min(d + n·P, (C + D)·P)`, never less than d.

use super::TOLERANCE_US;
use crate::units::Rate;

/// The numbers of a bucket, checked so that every product stays exact (see [`Bucket::new`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// C, the most that can be admitted at once.
    pub capacity: u64,
    /// R, tokens earned per period; reduced by the greatest common divisor with `period`.
    pub rate: u64,
    /// P, the period in ticks, reduced likewise.
    pub period: u64,
    /// U, microseconds per tick: a power of ten from 1 to 1,000,000.
    pub tick: u64,
    /// D, how far a settlement may go below empty, in tokens.
    pub debt: u64,
}

/// The stored state: TAT in ticks since 1970 and a remainder in 1/R tick, `rem < R`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Whole ticks.
    pub at: i64,
    /// The rest, in units of 1/R tick.
    pub rem: u64,
    /// Microseconds per tick, a power of ten from 1 to 1,000,000.
    pub tick: u64,
}

/// A state as one bucket reads it at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Deficit d in 1/R ticks: 0 is full, C·P is empty; up to one second more after a clock stepped back.
    pub deficit: u64,
    /// Whether the state lay too far ahead and now counts as empty; that is written even on a denial.
    pub reanchored: bool,
}

/// Why a rate and a burst cannot be kept exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// No tick between 1 µs and 1 s keeps every product below 2^52.
    #[error("a burst of {capacity} at {rate} cannot be counted exactly: use a smaller burst or a rounder rate")]
    TooLarge {
        /// The burst asked for.
        capacity: u64,
        /// The rate asked for.
        rate: Rate,
    },
    /// A bucket that never admits anything.
    #[error("a burst of {capacity} at {rate} never admits anything: both must be at least 1")]
    Zero {
        /// The burst asked for.
        capacity: u64,
        /// The rate asked for.
        rate: Rate,
    },
}

/// Products stay below this: exact in the doubles of Redis' Lua with a factor of two to spare.
const EXACT: u128 = 1 << 52;

impl Bucket {
    /// The bucket for a rate and a capacity (`burst`), with the smallest tick that keeps it exact.
    ///
    /// # Errors
    /// When nothing would ever be admitted, or no tick keeps `C·P`, `R` per second and the time to
    /// fill below 2^52.
    pub fn new(rate: Rate, capacity: u64) -> Result<Self, BucketError> {
        Self::with_debt(rate, capacity, 0)
    }

    /// The same where settlements may go so many tokens below empty.
    ///
    /// # Errors
    /// As [`Bucket::new`], for `(C + D)·P`.
    pub fn with_debt(rate: Rate, capacity: u64, debt: u64) -> Result<Self, BucketError> {
        if rate.count == 0 || capacity == 0 {
            return Err(BucketError::Zero { capacity, rate });
        }
        let too_large = BucketError::TooLarge { capacity, rate };
        let period_us = u64::try_from(rate.period.as_micros()).map_err(|_| too_large)?;
        (0..=6)
            .map(|exponent| 10_u64.pow(exponent))
            .take_while(|tick| period_us.is_multiple_of(*tick))
            .map(|tick| {
                let period = period_us / tick;
                let divisor = greatest_common_divisor(period, rate.count);
                Self { capacity, rate: rate.count / divisor, period: period / divisor, tick, debt }
            })
            .find(Self::is_exact)
            .ok_or(too_large)
    }

    /// Whether no product of a decision can leave the exact range.
    fn is_exact(&self) -> bool {
        let lowest = (u128::from(self.capacity) + u128::from(self.debt)) * u128::from(self.period);
        let fill_us = lowest.div_ceil(u128::from(self.rate)) * u128::from(self.tick);
        let tolerated = u128::from(TOLERANCE_US / self.tick + 2) * u128::from(self.rate);
        lowest < EXACT && fill_us < EXACT && tolerated < EXACT
    }

    /// The deficit of an empty bucket, C·P, in 1/R ticks.
    #[must_use]
    pub fn empty(&self) -> u64 {
        self.capacity * self.period
    }

    /// The largest deficit that a settlement leaves, `(C + D)·P`.
    #[must_use]
    pub fn lowest(&self) -> u64 {
        (self.capacity + self.debt) * self.period
    }

    /// Reads a stored state at `now_us` (steps 1 to 3 of the module's order of operations).
    #[must_use]
    pub fn read(&self, stored: Option<State>, now_us: i64) -> Reading {
        let full = Reading { deficit: 0, reanchored: false };
        let Some(state) = stored.and_then(|state| self.rescale(state, now_us)) else { return full };
        let Ok(ahead) = u64::try_from(state.at - self.ticks(now_us)) else { return full };
        if ahead > self.lowest().div_ceil(self.rate) + TOLERANCE_US / self.tick {
            return Reading { deficit: self.empty(), reanchored: true };
        }
        Reading { deficit: ahead * self.rate + state.rem.min(self.rate - 1), reanchored: false }
    }

    /// The same state in this bucket's ticks, or `None` when it is full by its own.
    fn rescale(&self, state: State, now_us: i64) -> Option<State> {
        if state.tick == self.tick {
            return Some(state);
        }
        let full_at = state.full_at_us();
        if full_at <= now_us {
            return None;
        }
        let tick = self.tick.cast_signed();
        Some(State { at: (full_at + tick - 1).div_euclid(tick), rem: 0, tick: self.tick })
    }

    /// Whole ticks since 1970.
    fn ticks(&self, now_us: i64) -> i64 {
        now_us.div_euclid(self.tick.cast_signed())
    }

    /// Whether a cost fits beside this deficit; 0 always does.
    #[must_use]
    pub fn admits(&self, deficit: u64, cost: u64) -> bool {
        cost == 0 || (cost <= self.capacity && deficit <= self.empty() - cost * self.period)
    }

    /// The deficit after a cost that fits.
    #[must_use]
    pub fn charged(&self, deficit: u64, cost: u64) -> u64 {
        deficit + cost.min(self.capacity) * self.period
    }

    /// Whole cost units left.
    #[must_use]
    pub fn remaining(&self, deficit: u64) -> u64 {
        self.empty().saturating_sub(deficit) / self.period
    }

    /// Microseconds until the cost fits: 0 when it does, -1 when it never will.
    #[must_use]
    pub fn retry_us(&self, deficit: u64, cost: u64) -> i64 {
        if self.admits(deficit, cost) {
            return 0;
        }
        if cost > self.capacity {
            return -1;
        }
        let missing = deficit - (self.empty() - cost * self.period);
        (missing.div_ceil(self.rate) * self.tick).cast_signed()
    }

    /// Microseconds until the bucket is full.
    #[must_use]
    pub fn reset_us(&self, deficit: u64) -> u64 {
        deficit.div_ceil(self.rate) * self.tick
    }

    /// The least deficit from which it takes this long, microseconds, until the bucket is full.
    #[must_use]
    pub fn least_deficit(&self, reset_us: u64) -> u64 {
        (reset_us / self.tick).checked_sub(1).map_or(0, |ticks| ticks.saturating_mul(self.rate).saturating_add(1))
    }

    /// Microseconds until a request admitted at this deficit has its turn, when the first `delay_after`
    /// go through at once.
    #[must_use]
    pub fn wait_us(&self, deficit: u64, delay_after: u64) -> u64 {
        let free = delay_after.saturating_sub(1).saturating_mul(self.period);
        deficit.saturating_sub(free).div_ceil(self.rate) * self.tick
    }

    /// What a refund (below 0) or a further charge makes of a state; `None` when nothing is to be written.
    #[must_use]
    pub fn settled(&self, stored: Option<State>, amount: i64, now_us: i64) -> Option<State> {
        let deficit = self.read(stored, now_us).deficit;
        let change = amount.unsigned_abs().saturating_mul(self.period);
        let settled = if amount < 0 {
            deficit.saturating_sub(change)
        } else {
            deficit.saturating_add(change).min(self.lowest().max(deficit))
        };
        // A full bucket is no state, by whatever clock it is read: it was full in 1970.
        let full = State { at: 0, rem: 0, tick: self.tick };
        (settled != deficit).then(|| if settled == 0 { full } else { self.state(settled, now_us) })
    }

    /// What to store for a deficit at `now_us`.
    #[must_use]
    pub fn state(&self, deficit: u64, now_us: i64) -> State {
        State {
            at: self.ticks(now_us) + (deficit / self.rate).cast_signed(),
            rem: deficit % self.rate,
            tick: self.tick,
        }
    }
}

impl State {
    /// The instant from which this state equals "never seen", microseconds since 1970 (rounded up to
    /// its tick).
    #[must_use]
    pub fn full_at_us(&self) -> i64 {
        (self.at + i64::from(self.rem > 0)).saturating_mul(self.tick.cast_signed())
    }
}

/// Euclid's algorithm; of two numbers above zero.
pub(super) fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: &str, capacity: u64) -> Bucket {
        Bucket::new(rate.parse().unwrap(), capacity).unwrap()
    }

    #[test]
    fn the_smallest_exact_tick_is_chosen_and_the_fraction_reduced() {
        assert_eq!(bucket("100/m", 100), Bucket { capacity: 100, rate: 1, period: 600_000, tick: 1, debt: 0 });
        assert_eq!(bucket("3/s", 10), Bucket { capacity: 10, rate: 3, period: 1_000_000, tick: 1, debt: 0 });
        let month = bucket("1000003/30d", 1_000_003);
        assert_eq!((month.rate, month.period, month.tick), (1_000_003, 2_592_000_000, 1000));
    }

    #[test]
    fn what_cannot_be_counted_exactly_is_refused() {
        for (rate, capacity) in
            [("7/366d", 1 << 40), ("1/us", 1 << 52), ("18446744073709551615/s", 1), ("3/7us", 1 << 51)]
        {
            let result = Bucket::new(rate.parse().unwrap(), capacity);
            assert!(matches!(result, Err(BucketError::TooLarge { .. })), "{rate} {capacity}: {result:?}");
        }
        assert!(matches!(Bucket::new("0/s".parse().unwrap(), 1), Err(BucketError::Zero { .. })));
        assert!(matches!(Bucket::new("1/s".parse().unwrap(), 0), Err(BucketError::Zero { .. })));
    }

    #[test]
    fn a_burst_passes_at_once_and_the_next_after_exactly_the_retry() {
        let bucket = bucket("3/s", 2);
        let now = 1_700_000_000_000_000;
        let mut deficit = bucket.read(None, now).deficit;
        for _ in 0..2 {
            assert!(bucket.admits(deficit, 1));
            deficit = bucket.charged(deficit, 1);
        }
        let state = bucket.state(deficit, now);
        let retry = bucket.retry_us(deficit, 1);
        assert_eq!(retry, 333_334);
        assert!(!bucket.admits(bucket.read(Some(state), now + retry - 1).deficit, 1));
        assert!(bucket.admits(bucket.read(Some(state), now + retry).deficit, 1));
        assert_eq!(state.full_at_us(), now + 666_667);
    }

    #[test]
    fn a_cost_above_the_capacity_never_fits_and_zero_always_does() {
        let bucket = bucket("1/s", 5);
        assert_eq!(bucket.retry_us(0, 6), -1);
        assert_eq!(bucket.retry_us(0, u64::MAX), -1);
        assert!(bucket.admits(bucket.empty(), 0) && bucket.admits(bucket.empty() + 1, 0));
    }

    #[test]
    fn a_clock_that_steps_back_by_up_to_a_second_is_believed_and_by_more_re_anchors() {
        let bucket = bucket("10/s", 10);
        let state = bucket.state(bucket.empty(), 100_000_000);
        let believed = bucket.read(Some(state), 99_000_000);
        assert!(!believed.reanchored);
        assert_eq!(bucket.retry_us(believed.deficit, 1), 1_100_000);
        assert_eq!(bucket.remaining(believed.deficit), 0);
        let anchored = bucket.read(Some(state), 98_999_999);
        assert_eq!(anchored, Reading { deficit: bucket.empty(), reanchored: true });
        assert_eq!(bucket.retry_us(anchored.deficit, 1), 100_000);
    }

    #[test]
    fn a_fraction_of_a_tick_does_not_re_anchor() {
        let bucket = bucket("3/s", 2);
        let state = bucket.state(bucket.empty(), 100_000_000);
        let reanchored = |back: i64| bucket.read(Some(state), 100_000_000 - back).reanchored;
        assert_eq!([1_000_000, 1_000_001, 1_000_002].map(reanchored), [false, false, true]);
    }

    #[test]
    fn another_tick_reads_a_state_towards_emptier_but_not_a_full_one() {
        let bucket = Bucket { capacity: 10, rate: 1, period: 1, tick: 1_000_000, debt: 0 };
        let state = State { at: 1_200_000, rem: 3, tick: 1 };
        assert_eq!(bucket.read(Some(state), 100_000).deficit, 2);
        assert_eq!(bucket.read(Some(state), 1_100_000).deficit, 1);
        assert_eq!(bucket.read(Some(state), 1_200_000).deficit, 1);
        assert_eq!(bucket.read(Some(state), 1_200_001).deficit, 0);
    }

    #[test]
    fn a_remainder_of_a_faster_rate_is_clamped() {
        let bucket = Bucket { capacity: 10, rate: 3, period: 7, tick: 1, debt: 0 };
        assert_eq!(bucket.read(Some(State { at: 5, rem: 1000, tick: 1 }), 4).deficit, 5);
    }

    #[test]
    fn the_queue_waits_as_nginx_does() {
        let bucket = bucket("10/s", 10);
        let mut deficit = 0;
        let waits: Vec<u64> = (0..4)
            .map(|_| {
                let wait = bucket.wait_us(deficit, 2);
                deficit = bucket.charged(deficit, 1);
                wait
            })
            .collect();
        assert_eq!(waits, [0, 0, 100_000, 200_000]);
    }
}
