//! When a peer that answers nothing is taken for dead, although its connection looks alive.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::super::super::stats::StoreErrorKind;

/// This many calls unanswered in a row, the first of them this long ago.
const DEAD: (u32, Duration) = (3, Duration::from_millis(500));

/// Calls without an answer, in a row.
#[derive(Debug, Default)]
pub(super) struct Silence {
    calls: Cell<u32>,
    since: Cell<Option<Instant>>,
}

impl Silence {
    /// A call ended.
    pub(super) fn count(&self, error: Option<StoreErrorKind>) {
        if error == Some(StoreErrorKind::Timeout) {
            self.calls.set(self.calls.get().saturating_add(1));
            self.since.set(self.since.get().or_else(|| Some(Instant::now())));
        } else {
            self.end();
        }
    }

    /// The peer answered, or is another one.
    pub(super) fn end(&self) {
        self.calls.set(0);
        self.since.set(None);
    }

    /// Whether it is to be given up.
    pub(super) fn is_death(&self) -> bool {
        self.calls.get() >= DEAD.0 && self.since.get().is_some_and(|since| since.elapsed() >= DEAD.1)
    }
}
