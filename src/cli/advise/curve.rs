//! For each of some rates, the burst it takes: exact, by running the arrivals through the bucket.

use std::cmp::Reverse;
use std::time::Duration;

use super::arrivals::Arrivals;
use crate::limit::replay::Lane;
use crate::units::Rate;

/// Rates of a curve.
const POINTS: usize = 10;

/// A burst that takes longer than this to be earned back is no limit any more.
const LONGEST_REFILL: Duration = Duration::from_hours(6);

/// The proposed burst is earned back within this.
const GOOD_REFILL: Duration = Duration::from_secs(10);

/// Rates and the bursts they take.
pub(super) struct Curve {
    /// Highest rate first.
    pub(super) points: Vec<Point>,
    /// Index of the proposed one.
    pub(super) proposed: usize,
    /// Refusals that are acceptable.
    pub(super) allowed: u64,
}

/// One rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) rate: Rate,
    /// The least burst without a refusal.
    pub(super) burst_for_none: u64,
    /// The least burst with no more refusals than are acceptable.
    pub(super) burst: u64,
    /// Requests and keys that this burst refuses.
    pub(super) refused: u64,
    pub(super) refused_keys: u64,
    /// How long that burst takes to be earned back.
    pub(super) refill: Duration,
}

impl Curve {
    /// Computes the curve; `None` when no rate can be counted exactly. These rates, or some that suit.
    pub(super) fn of(arrivals: &Arrivals, millionths: u64, rates: &[Rate]) -> Option<Self> {
        let share = u128::from(arrivals.requests) * u128::from(millionths) / 1_000_000;
        let allowed = u64::try_from(share).unwrap_or(u64::MAX);
        let mut points: Vec<Point> = Vec::new();
        if rates.is_empty() {
            for rate in ladder(busiest_second(arrivals)) {
                let Some(point) = Point::of(arrivals, rate, allowed) else { continue };
                if points.len() == POINTS || (point.refill > LONGEST_REFILL && !points.is_empty()) {
                    break;
                }
                points.push(point);
            }
        } else {
            points.extend(rates.iter().filter_map(|rate| Point::of(arrivals, *rate, allowed)));
            points.sort_by_key(|point| Reverse(per_day(point.rate)));
        }
        let good = points.iter().rposition(|point| point.refill <= GOOD_REFILL);
        (!points.is_empty()).then(|| Self { proposed: good.unwrap_or(0), points, allowed })
    }
}

impl Point {
    fn of(arrivals: &Arrivals, rate: Rate, allowed: u64) -> Option<Self> {
        if rate.count == 0 {
            return None;
        }
        // What each key would have drawn if nothing had been refused: only keys that draw more than a burst
        // can be refused under it.
        let mut needs = Vec::with_capacity(arrivals.lanes.len());
        for lane in &arrivals.lanes {
            needs.push((Lane::new(rate, lane.len() as u64)?.run(lane).drawn, lane.as_slice()));
        }
        needs.sort_by_key(|(need, _)| Reverse(*need));
        let burst_for_none = needs.first()?.0.max(1);
        let burst = least_burst(rate, &needs, allowed)?;
        let (refused, refused_keys) = refusals(rate, burst, &needs)?;
        let refill = Lane::new(rate, burst)?.refill();
        Some(Self { rate, burst_for_none, burst, refused, refused_keys, refill })
    }
}

/// The least burst that refuses no more than is acceptable: a larger one never refuses more.
fn least_burst(rate: Rate, needs: &[(u64, &[i64])], allowed: u64) -> Option<u64> {
    let (mut low, mut high) = (1, needs.first()?.0.max(1));
    while low < high {
        let middle = low + (high - low) / 2;
        if refusals(rate, middle, needs)?.0 <= allowed {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(high)
}

/// Requests and keys that are refused under a burst.
fn refusals(rate: Rate, burst: u64, needs: &[(u64, &[i64])]) -> Option<(u64, u64)> {
    let bucket = Lane::new(rate, burst)?;
    let drawn_out = needs.iter().take_while(|(need, _)| *need > burst);
    let refused = drawn_out.map(|(_, lane)| bucket.run(lane).refused);
    Some(refused.fold((0, 0), |(requests, keys), refused| (requests + refused, keys + u64::from(refused > 0))))
}

/// The most requests that one key sent within a second of the clock.
fn busiest_second(arrivals: &Arrivals) -> u64 {
    let busiest = arrivals.lanes.iter().map(|lane| {
        let seconds = lane.chunk_by(|a, b| a.div_euclid(1_000_000) == b.div_euclid(1_000_000));
        seconds.map(<[i64]>::len).max().unwrap_or(0)
    });
    busiest.max().unwrap_or(0) as u64
}

/// Round rates from the first that is at least so many per second, downwards.
fn ladder(highest: u64) -> impl Iterator<Item = Rate> {
    let seconds = (0..10).rev().flat_map(|power| [5, 2, 1].map(|digit| (digit * 10_u64.pow(power), 1)));
    let minutes = [30, 20, 10, 5, 2, 1].map(|count| (count, 60));
    let hours = [30, 20, 10, 5, 2, 1].map(|count| (count, 3_600));
    let mut rates: Vec<(u64, u64)> = seconds.chain(minutes).chain(hours).collect();
    let fitting = rates.iter().rposition(|(count, period)| *count >= highest.saturating_mul(*period) && *period == 1);
    rates.drain(..fitting.unwrap_or(0));
    rates.into_iter().map(|(count, period)| Rate { count, period: Duration::from_secs(period) })
}

/// For sorting.
fn per_day(rate: Rate) -> u128 {
    u128::from(rate.count) * 86_400_000_000 / rate.period.as_micros().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_begins_at_the_busiest_second_and_goes_down_to_one_an_hour() {
        let texts = |highest| ladder(highest).map(|rate| rate.to_string()).collect::<Vec<_>>();
        assert_eq!(texts(7)[..5], ["10/s", "5/s", "2/s", "1/s", "30/m"]);
        assert_eq!(texts(1)[0], "1/s");
        assert_eq!(texts(3).last().unwrap(), "1/h");
    }
}
