//! One proxy's part of a limit, while proxies cannot count together.
//!
//! Of N proxies each has `ceil(C/N)` and earns R per `N·P`. Such a bucket takes as long to fill as the whole
//! one, so the instant at which a key is full again, which is all there is to know of a bucket, means
//! the same share of it in both.

use super::bucket::{self, greatest_common_divisor};
use super::{Algorithm, Bucket, FixedWindow, InFlight, SlidingLog, SlidingWindow, State};
use super::{fixed_window, penalty, sliding_log, sliding_window};

/// Shares below this part of a limit are not told apart: every product stays far below 2^63.
const MOST_PROXIES: u64 = 1000;

impl Algorithm {
    /// The part that one of so many proxies has.
    #[must_use]
    pub fn share(&self, proxies: u64) -> Self {
        let n = proxies.clamp(1, MOST_PROXIES);
        match self {
            Self::TokenBucket(bucket) => Self::TokenBucket(share_of(bucket, n)),
            Self::LeakyBucket { bucket, delay_after } => {
                let bucket = share_of(bucket, n);
                Self::LeakyBucket { bucket, delay_after: (*delay_after).min(bucket.capacity) }
            }
            Self::FixedWindow(window) => {
                Self::FixedWindow(FixedWindow { limit: window.limit.div_ceil(n), ..window.clone() })
            }
            Self::SlidingWindow(window) => {
                Self::SlidingWindow(SlidingWindow { limit: window.limit.div_ceil(n), ..*window })
            }
            Self::SlidingLog(log) => Self::SlidingLog(SlidingLog { limit: log.limit.div_ceil(n), ..*log }),
            Self::InFlight(slots) => Self::InFlight(InFlight { limit: slots.limit.div_ceil(n), ..*slots }),
            Self::Penalty(penalty) => Self::Penalty(*penalty),
        }
    }

    /// A state of a window, a log or a penalty of which only this is known: so much is used, and it equals "never seen"
    /// at `ends_us`. Never freer than the one that it stands for.
    #[must_use]
    pub fn presumed(&self, used: u64, ends_us: i64, now_us: i64) -> Option<State> {
        let width = self.window_us().cast_signed();
        match self {
            Self::FixedWindow(window) => {
                let whole = (ends_us - width, ends_us);
                let (start_us, end_us) = window.window_at(ends_us - width / 2).unwrap_or(whole);
                Some(State::Fixed(fixed_window::State { start_us, end_us, count: used }))
            }
            Self::SlidingWindow(window) => {
                let index = now_us.div_euclid(width.max(1));
                let window_us = window.window_us();
                Some(State::Sliding(sliding_window::State { index, current: used, previous: 0, window_us }))
            }
            Self::SlidingLog(log) => {
                let entries = (0..used.min(sliding_log::MOST_ENTRIES)).map(|_| ends_us - width).collect();
                Some(State::Log(sliding_log::State { entries, window_us: log.window_us }))
            }
            // How long the block was is not known; the next one is a second one at least.
            Self::Penalty(penalty) => Some(State::Penalty(penalty::State {
                strikes: 0,
                length_us: penalty.block_us,
                until_us: ends_us,
                blocked_until_us: ends_us,
                forgotten_at_us: ends_us.saturating_add(penalty.max_us.cast_signed()),
            })),
            _ => None,
        }
    }
}

fn share_of(bucket: &Bucket, n: u64) -> Bucket {
    let divisor = greatest_common_divisor(bucket.period * n, bucket.rate);
    Bucket {
        capacity: bucket.capacity.div_ceil(n),
        rate: bucket.rate / divisor,
        period: bucket.period * n / divisor,
        tick: bucket.tick,
        debt: bucket.debt.div_ceil(n),
    }
}

impl bucket::State {
    /// What is remembered of a state: when it equals "never seen", and how much is used, where that does not
    /// follow from it.
    #[must_use]
    pub fn remembered(full_at_us: i64, used: u64) -> Self {
        Self { at: full_at_us, rem: used, tick: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_limit_and_take_as_long_to_fill() {
        let whole = Bucket::new("7/3s".parse().unwrap(), 100).unwrap();
        let Algorithm::TokenBucket(share) = Algorithm::TokenBucket(whole).share(3) else { panic!("a bucket") };
        assert_eq!((share.capacity, share.rate, share.period), (34, 7, 9_000_000));
        let full_at = whole.state(whole.charged(0, 60), 1_000_000);
        // 40 of 100 are left: of the share as much as 13 of 34, a third of 40.
        assert_eq!(share.remaining(share.read(Some(full_at), 1_000_000).deficit), 14);
        assert_eq!(Algorithm::TokenBucket(whole).share(1), Algorithm::TokenBucket(whole));
        let coarse = Bucket::new("1000003/30d".parse().unwrap(), 1_000_003).unwrap();
        assert_eq!(Algorithm::TokenBucket(coarse).share(u64::MAX).capacity(), 1_001);
    }
}
