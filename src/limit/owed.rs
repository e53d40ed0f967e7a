//! What this process admitted of one key while the store was away, until the store is told.
//!
//! The account of a bucket holds two instants: when the key would have been full without this process' own
//! admissions, and when it is with them. The shares of all processes add up to the whole bucket, so
//! what lies between the two, at the rate of the share, is what this process owes. Of a window or a log
//! it is what still counts when the store is back.

use std::collections::VecDeque;

use super::algorithm::Algorithm;

/// The account of one key.
#[derive(Debug)]
pub(super) struct Owed {
    /// The limit's own, as the store has it.
    pub(super) algorithm: Algorithm,
    /// This process' part of it.
    share: Algorithm,
    used: Used,
}

/// What was admitted, as far as it may still count.
#[derive(Debug)]
enum Used {
    /// When the bucket is full but for what was admitted here, and when it is.
    Bucket { base_us: i64, until_us: i64 },
    /// In the window that is over at `until_us`, from the first admission on.
    Fixed { since_us: i64, until_us: i64, spent: u64 },
    /// In the window of this number, and in the one before.
    Sliding { index: i64, current: u64, previous: u64 },
    /// Instant and cost of each admission, in order.
    Log(VecDeque<(i64, u64)>),
}

impl Owed {
    /// An empty account, opened by an admission at `now_us`; `None` for what is not settled (slots, penalties).
    /// `ends_us`: when the share's state equals "never seen" after an admission of this cost.
    pub(super) fn open(
        algorithm: &Algorithm,
        share: &Algorithm,
        cost: u64,
        (now_us, ends_us): (i64, i64),
    ) -> Option<Self> {
        let used = match share {
            Algorithm::TokenBucket(_) | Algorithm::LeakyBucket { .. } => {
                let base_us = (ends_us - price_us(share, cost)).max(now_us);
                Used::Bucket { base_us, until_us: base_us }
            }
            Algorithm::FixedWindow(_) => Used::Fixed { since_us: now_us, until_us: now_us, spent: 0 },
            Algorithm::SlidingWindow(_) => Used::Sliding { index: i64::MIN, current: 0, previous: 0 },
            Algorithm::SlidingLog(_) => Used::Log(VecDeque::new()),
            Algorithm::InFlight(_) | Algorithm::Penalty(_) => return None,
        };
        Some(Self { algorithm: algorithm.clone(), share: share.clone(), used })
    }

    /// Adds an admission.
    pub(super) fn add(&mut self, cost: u64, (now_us, ends_us): (i64, i64)) {
        let width = self.share.window_us().cast_signed();
        match &mut self.used {
            Used::Bucket { until_us, .. } => *until_us = (*until_us).max(now_us) + price_us(&self.share, cost),
            Used::Fixed { since_us, until_us, spent } => {
                if now_us >= *until_us {
                    (*since_us, *spent) = (now_us, 0);
                }
                (*until_us, *spent) = (ends_us, *spent + cost);
            }
            Used::Sliding { index, current, previous } => {
                (*previous, *current) = rolled((*index, *current, *previous), now_us, width);
                (*index, *current) = (now_us.div_euclid(width.max(1)), *current + cost);
            }
            Used::Log(entries) => {
                while entries.front().is_some_and(|(at_us, _)| at_us + width <= now_us) {
                    entries.pop_front();
                }
                entries.push_back((now_us, cost));
            }
        }
    }

    /// An admission of `charged_at_us` turned out to cost so much more or, below 0, less. What is beyond the debt that
    /// the limit allows is forgiven, as in the store.
    pub(super) fn change(&mut self, amount: i64, charged_at_us: i64, now_us: i64) {
        let width = self.share.window_us().cast_signed();
        let most = self.share.capacity().saturating_add(self.share.debt());
        let changed = |count: u64| count.saturating_add_signed(amount).min(most.max(count));
        match &mut self.used {
            Used::Bucket { base_us, until_us } => {
                let price = price_us(&self.share, amount.unsigned_abs());
                let lowest_us = (now_us + price_us(&self.share, most)).max(*until_us);
                *until_us = (*until_us + if amount < 0 { -price } else { price }).min(lowest_us).max(*base_us);
            }
            Used::Fixed { since_us, spent, .. } if charged_at_us >= *since_us => *spent = changed(*spent),
            Used::Sliding { index, current, previous } => match *index - charged_at_us.div_euclid(width.max(1)) {
                0 => *current = changed(*current),
                1 => *previous = changed(*previous),
                _ => {}
            },
            Used::Log(entries) => {
                if let Some((_, cost)) = entries.iter_mut().rev().find(|(at_us, _)| *at_us == charged_at_us) {
                    *cost = changed(*cost);
                }
            }
            Used::Fixed { .. } => {}
        }
    }

    /// What is to be charged, in whole units, rounded up.
    pub(super) fn amount(&self, now_us: i64) -> i64 {
        let width = self.share.window_us().cast_signed();
        let units = match &self.used {
            Used::Bucket { base_us, until_us } => {
                units(&self.share, (*until_us - now_us).max(0) - (*base_us - now_us).max(0))
            }
            Used::Fixed { until_us, spent, .. } => {
                if now_us < *until_us {
                    *spent
                } else {
                    0
                }
            }
            Used::Sliding { index, current, previous } => {
                let (previous, current) = rolled((*index, *current, *previous), now_us, width);
                let left = (width - now_us.rem_euclid(width.max(1))).max(0).unsigned_abs();
                let weighted = u128::from(previous) * u128::from(left);
                current + u64::try_from(weighted.div_ceil(width.max(1).unsigned_abs().into())).unwrap_or(u64::MAX / 2)
            }
            Used::Log(entries) => {
                entries.iter().filter(|(at_us, _)| at_us + width > now_us).map(|(_, cost)| cost).sum()
            }
        };
        i64::try_from(units).unwrap_or(i64::MAX)
    }
}

/// Counts of the window before `now_us` and of its own, from those of the window `index` and the one before it.
fn rolled((index, current, previous): (i64, u64, u64), now_us: i64, width: i64) -> (u64, u64) {
    match now_us.div_euclid(width.max(1)).saturating_sub(index) {
        ..=0 => (previous, current),
        1 => (current, 0),
        _ => (0, 0),
    }
}

/// How much longer a cost makes a bucket take until it is full.
fn price_us(share: &Algorithm, cost: u64) -> i64 {
    let Some(bucket) = share.bucket() else { return 0 };
    let price = u128::from(cost) * u128::from(bucket.period) * u128::from(bucket.tick) / u128::from(bucket.rate);
    i64::try_from(price).unwrap_or(i64::MAX / 4)
}

/// What a bucket earns in this time. Instants are whole microseconds: less than a thousandth of a unit may be
/// their rounding.
fn units(share: &Algorithm, micros: i64) -> u64 {
    let Some(bucket) = share.bucket() else { return 0 };
    let per_unit = u128::from(bucket.period) * u128::from(bucket.tick);
    let owed = u128::from(micros.max(0).unsigned_abs()) * u128::from(bucket.rate);
    u64::try_from(owed.saturating_sub(per_unit / 1000).div_ceil(per_unit)).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::algorithm::{Bucket, FixedWindow, SlidingLog, SlidingWindow, fixed_window::Align};

    const SECOND: i64 = 1_000_000;
    const START: i64 = 1_900_000_000 * SECOND;

    fn account(algorithm: &Algorithm, ends_us: i64) -> Owed {
        Owed::open(algorithm, &algorithm.share(2), 1, (START, ends_us)).unwrap()
    }

    #[test]
    fn a_bucket_owes_what_it_has_not_earned_back() {
        let bucket = Algorithm::TokenBucket(Bucket::new("1/10s".parse().unwrap(), 10).unwrap());
        let mut owed = account(&bucket, START + 20 * SECOND);
        owed.add(1, (START, START + 20 * SECOND));
        owed.add(1, (START, START + 40 * SECOND));
        assert_eq!(owed.amount(START), 2);
        owed.change(-1, START, START);
        assert_eq!(owed.amount(START), 1);
        owed.change(-5, START, START);
        assert_eq!(owed.amount(START), 0);
        owed.change(3, START, START);
        assert_eq!((owed.amount(START), owed.amount(START + 41 * SECOND)), (3, 1));
        owed.change(1000, START, START);
        assert_eq!(owed.amount(START), 5, "no more than the share, which has no debt");
    }

    #[test]
    fn of_a_window_only_what_still_counts_is_owed() {
        let rate = || "10/5s".parse().unwrap();
        let log = Algorithm::SlidingLog(SlidingLog::new(rate(), 0).unwrap());
        let sliding = Algorithm::SlidingWindow(SlidingWindow::new(rate(), 0).unwrap());
        let fixed = Algorithm::FixedWindow(FixedWindow::new(rate(), Align::Utc, 0).unwrap());
        for (algorithm, most) in [(log, 5), (sliding, 6), (fixed, 5)] {
            let mut owed = account(&algorithm, START + 5 * SECOND);
            for second in 0..14 {
                let now_us = START + second * SECOND;
                let ends_us = now_us - now_us.rem_euclid(5 * SECOND) + 5 * SECOND;
                owed.add(1, (now_us, ends_us));
            }
            let now_us = START + 13 * SECOND;
            let before = owed.amount(now_us);
            assert!((4..=most).contains(&before), "{before} of {algorithm:?}");
            owed.change(-1, now_us, now_us);
            assert_eq!(owed.amount(now_us), before - 1, "{algorithm:?}");
            assert_eq!(owed.amount(now_us + 10 * SECOND), 0, "{algorithm:?}");
        }
    }
}
