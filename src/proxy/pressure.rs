//! Whether memory is scarce. One thread measures; every worker asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shares of the bound, in percent: from the first on load is shed, until use is below the second.
const SHED: u64 = 90;
const RECOVERED: u64 = 85;

/// Memory in use against the most that is to be used.
#[derive(Debug)]
pub struct Pressure {
    /// Bytes; `u64::MAX` without a bound.
    max: u64,
    used: AtomicU64,
    shedding: AtomicBool,
}

impl Pressure {
    /// No pressure yet.
    #[must_use]
    pub fn new(max: Option<u64>) -> Self {
        Self { max: max.unwrap_or(u64::MAX), used: AtomicU64::new(0), shedding: AtomicBool::new(false) }
    }

    /// Whether new connections and requests are refused.
    #[must_use]
    pub fn sheds(&self) -> bool {
        self.shedding.load(Ordering::Relaxed)
    }

    /// Bytes in use at the last measurement, and the bound; `None` without one.
    #[must_use]
    pub fn usage(&self) -> Option<(u64, u64)> {
        (self.max < u64::MAX).then(|| (self.used.load(Ordering::Relaxed), self.max))
    }

    /// Notes a measurement. Whether load is shed from now on, when that has changed.
    pub fn measured(&self, used: u64) -> Option<bool> {
        self.used.store(used, Ordering::Relaxed);
        let share = if self.sheds() { RECOVERED } else { SHED };
        let sheds = used >= self.max / 100 * share;
        (self.shedding.swap(sheds, Ordering::Relaxed) != sheds).then_some(sheds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_shed_from_nine_tenths_on_until_there_is_some_room_again() {
        let pressure = Pressure::new(Some(1_000));
        let told: Vec<_> = [899, 900, 950, 860, 850, 849, 899, 2_000].map(|used| pressure.measured(used)).into();
        assert_eq!(told, [None, Some(true), None, None, None, Some(false), None, Some(true)]);
        assert_eq!(pressure.usage(), Some((2_000, 1_000)));
    }

    #[test]
    fn without_a_bound_there_is_no_pressure() {
        let pressure = Pressure::new(None);
        assert_eq!((pressure.measured(1 << 60), pressure.sheds(), pressure.usage()), (None, false, None));
    }
}
