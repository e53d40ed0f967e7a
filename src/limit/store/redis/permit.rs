//! How many calls of one connection may be under way.

use std::cell::Cell;

/// Decisions that may be under way at once; one more fails at once.
const MOST_IN_FLIGHT: usize = 4096;

/// One call's place among those under way.
pub(super) struct InFlight<'a>(&'a Cell<usize>);

impl<'a> InFlight<'a> {
    /// A place, if there is one.
    pub(super) fn enter(count: &'a Cell<usize>) -> Option<Self> {
        if count.get() >= MOST_IN_FLIGHT {
            return None;
        }
        count.set(count.get() + 1);
        Some(Self(count))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
