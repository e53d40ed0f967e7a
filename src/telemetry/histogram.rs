//! Counters and histograms that one thread writes and any may read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter with one writer: a plain load and store, where an atomic addition would lock the bus.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

/// Durations by upper bound, and their sum; one writer.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// Upper bounds, nanoseconds, ascending.
    bounds: &'static [u64; N],
    /// How many per bound (not cumulative).
    counts: [Tally; N],
    /// How many above the last bound.
    above: Tally,
    /// Nanoseconds in all.
    sum: Tally,
}

/// What histograms held when they were read; those of several workers are added up.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Upper bounds in seconds, ascending, without infinity.
    pub bounds: Vec<f64>,
    /// How many per bound (not cumulative), the last for those above.
    pub counts: Vec<u64>,
    /// Seconds in all.
    pub sum: f64,
}

impl Tally {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<const N: usize> Histogram<N> {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(bounds: &'static [u64; N]) -> Self {
        let counts = std::array::from_fn(|_| Tally::default());
        Self { bounds, counts, above: Tally::default(), sum: Tally::default() }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.iter().position(|&bound| nanos <= bound);
        bucket.map_or(&self.above, |bucket| &self.counts[bucket]).increment();
        self.sum.add(nanos);
    }

    /// What it holds now.
    #[must_use]
    pub fn read(&self) -> Distribution {
        let bounds = self.bounds.iter().map(|&nanos| seconds(nanos)).collect();
        let counts = self.counts.iter().chain([&self.above]).map(Tally::value).collect();
        Distribution { bounds, counts, sum: seconds(self.sum.value()) }
    }
}

impl Distribution {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was counted since an earlier reading.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        debug_assert_eq!(self.bounds, earlier.bounds);
        for (count, before) in self.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        self.sum = (self.sum - earlier.sum).max(0.0);
        self
    }

    /// The duration, in seconds, that this share of all does not exceed: interpolated inside its bucket, and the
    /// last bound for what lies above all. `None` without any.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share;
        let (mut below, mut floor) = (0.0, 0.0);
        for (index, count) in self.counts.iter().map(|&count| count as f64).enumerate() {
            let Some(&bound) = self.bounds.get(index) else { break };
            if count > 0.0 && below + count >= wanted {
                return Some(floor + (bound - floor) * ((wanted - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            floor = bound;
        }
        (self.count() > 0).then_some(floor)
    }

    /// The sum of two with the same bounds.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        debug_assert_eq!(self.bounds, other.bounds);
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
        self
    }
}

/// Nanoseconds as seconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days; what is lost beyond is not shown")]
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_under_the_first_bound_that_holds_it() {
        let histogram = Histogram::new(&[1_000, 2_000]);
        for nanos in [0, 1_000, 1_001, 2_000, 2_001, u64::MAX] {
            histogram.observe(Duration::from_nanos(nanos.min(1 << 40)));
        }
        assert_eq!(histogram.read().counts, [2, 2, 2]);
        assert_eq!(histogram.read().merge(histogram.read()).counts, [4, 4, 4]);
        assert_eq!(histogram.read().since(&histogram.read()).count(), 0);
    }

    #[test]
    fn a_quantile_lies_inside_its_bucket() {
        let of = |counts: [u64; 3]| Distribution { bounds: vec![1.0, 3.0], counts: counts.to_vec(), sum: 0.0 };
        assert_eq!(of([0, 0, 0]).quantile(0.5), None);
        assert_eq!(of([0, 10, 0]).quantile(0.5), Some(2.0));
        assert_eq!(of([10, 10, 0]).quantile(0.5), Some(1.0));
        assert_eq!(of([10, 0, 10]).quantile(0.99), Some(3.0), "nothing is known beyond the last bound");
    }
}
