//! What an algorithm's numbers come to: how much, how fast, for how long.

use super::{Algorithm, Bucket, in_flight};
use crate::limit::store::Answer;

impl Algorithm {
    /// The bucket of the two algorithms that have one.
    #[must_use]
    pub fn bucket(&self) -> Option<&Bucket> {
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => Some(bucket),
            _ => None,
        }
    }

    /// The letter that stands for the algorithm in a Redis key (see `lua/`).
    #[must_use]
    pub fn letter(&self) -> char {
        match self {
            Self::TokenBucket(_) => 'b',
            Self::LeakyBucket { .. } => 'q',
            Self::FixedWindow(_) => 'f',
            Self::SlidingWindow(_) => 's',
            Self::SlidingLog(_) => 'l',
            Self::InFlight(_) => 'c',
            Self::Penalty(_) => 'p',
        }
    }

    /// What else a state's name holds: another window is another state. 0 where nothing else counts.
    #[must_use]
    pub fn window_us(&self) -> u64 {
        match self {
            Self::FixedWindow(window) => window.window_us,
            Self::SlidingWindow(window) => window.window_us(),
            Self::SlidingLog(log) => log.window_us,
            _ => 0,
        }
    }

    /// What else a state is read with: two algorithms with the same numbers say the same of it.
    #[must_use]
    pub fn numbers(&self) -> [u64; 4] {
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => {
                [bucket.lowest(), bucket.capacity, bucket.rate, bucket.period]
            }
            Self::Penalty(penalty) => [penalty.after, penalty.block_us, penalty.max_us, 0],
            _ => [self.capacity(), 0, 0, 0],
        }
    }

    /// The most that is admitted at once: the burst, the count of a window, the requests in flight.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => bucket.capacity,
            Self::FixedWindow(window) => window.limit,
            Self::SlidingWindow(window) => window.limit,
            Self::SlidingLog(log) => log.limit,
            Self::InFlight(slots) => slots.limit,
            Self::Penalty(penalty) => penalty.after,
        }
    }

    /// How far a settlement may go beyond the capacity.
    #[must_use]
    pub fn debt(&self) -> u64 {
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => bucket.debt,
            Self::FixedWindow(window) => window.debt,
            Self::SlidingWindow(window) => window.debt,
            Self::SlidingLog(log) => log.debt,
            Self::InFlight(_) | Self::Penalty(_) => 0,
        }
    }

    /// The unit of a state's clock, microseconds.
    #[must_use]
    pub fn tick_us(&self) -> u64 {
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => bucket.tick,
            Self::SlidingWindow(window) => window.tick,
            _ => 1,
        }
    }

    /// Microseconds in which the whole capacity is earned; 0 where nothing is earned by time.
    #[must_use]
    pub fn fill_us(&self) -> u64 {
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => bucket.reset_us(bucket.empty()),
            Self::InFlight(_) | Self::Penalty(_) => 0,
            _ => self.window_us(),
        }
    }

    /// Microseconds over which `remaining` may be spent without exceeding the rate, rounded up.
    #[must_use]
    pub fn spend_us(&self, remaining: u64) -> u64 {
        let (count, period_us) = match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => {
                let ticks = (u128::from(remaining) * u128::from(bucket.period)).div_ceil(u128::from(bucket.rate));
                return u64::try_from(ticks * u128::from(bucket.tick)).unwrap_or(u64::MAX);
            }
            _ => (self.capacity().max(1), self.window_us()),
        };
        u64::try_from((u128::from(remaining) * u128::from(period_us)).div_ceil(u128::from(count))).unwrap_or(u64::MAX)
    }

    /// Microseconds after which one unit is there for sure, of a state that has none left and equals "never seen"
    /// after `reset_us`.
    #[must_use]
    pub fn next_unit_us(&self, reset_us: u64) -> u64 {
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => {
                let least = bucket.retry_us(bucket.least_deficit(reset_us), 1).unsigned_abs();
                // What is full after so many whole microseconds may lack a little more than it seems.
                (least + bucket.tick).min(reset_us)
            }
            _ => reset_us,
        }
    }

    /// The longest that a denied cost can have to wait when others go on being admitted until now,
    /// microseconds; -1 when it never fits.
    #[must_use]
    pub fn longest_retry_us(&self, cost: u64) -> i64 {
        if cost > self.capacity() {
            return -1;
        }
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => bucket.retry_us(bucket.lowest(), cost),
            Self::SlidingWindow(window) => (2 * window.window_us()).cast_signed(),
            Self::FixedWindow(_) | Self::SlidingLog(_) => self.window_us().cast_signed(),
            Self::InFlight(_) => in_flight::RETRY_US,
            Self::Penalty(penalty) => penalty.max_us.cast_signed(),
        }
    }

    /// The longest that a state can take until it equals "never seen", microseconds.
    #[must_use]
    pub fn longest_reset_us(&self) -> u64 {
        match self {
            Self::SlidingWindow(window) => 2 * window.window_us(),
            Self::InFlight(slots) => slots.slot_us,
            Self::Penalty(penalty) => 2 * penalty.max_us,
            _ => self.fill_us(),
        }
    }

    /// Microseconds for which, after this denial, not even `least` is admitted.
    #[must_use]
    pub fn surely_denied_us(&self, answer: &Answer, least: u64) -> i64 {
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => {
                bucket.retry_us(bucket.least_deficit(answer.reset_us), least)
            }
            Self::FixedWindow(_) if answer.remaining < least => answer.retry_us,
            Self::Penalty(_) => answer.retry_us,
            _ => 0,
        }
    }

    /// Whether a denial proves that the same cost is denied until its retry: not where a request may
    /// end at any moment.
    #[must_use]
    pub fn denial_lasts(&self) -> bool {
        !matches!(self, Self::InFlight(_))
    }

    /// Whether what is left tells how many more requests will be admitted at this instant, all alike.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match self {
            Self::TokenBucket(_) | Self::FixedWindow(_) | Self::SlidingWindow(_) | Self::SlidingLog(_) => true,
            Self::LeakyBucket { .. } | Self::InFlight(_) | Self::Penalty(_) => false,
        }
    }
}
