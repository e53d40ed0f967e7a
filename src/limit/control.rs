//! What whoever runs the proxy changes about limits while it runs, beside overrides for keys: which limits only
//! watch, and which states were reset. It outlives a reload and ends with the process. A request pays one load
//! for each of the two as long as nothing was changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::policy::Mode;

/// Changes of one process, shared by its workers.
#[derive(Debug, Default)]
pub struct Control {
    /// By the name of the limit.
    modes: ArcSwap<HashMap<Arc<str>, Mode, ahash::RandomState>>,
    /// How many of them there are.
    count: AtomicUsize,
    /// Held by whoever changes them.
    changing: Mutex<()>,
    /// States that were reset so far.
    resets: AtomicU64,
}

impl Control {
    /// What a limit was switched to, if it was.
    #[must_use]
    pub fn switched(&self, limit: &str) -> Option<Mode> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.modes.load().get(limit).copied()
    }

    /// Switches a limit; `None`: what the file says holds again.
    pub fn switch(&self, limit: &Arc<str>, mode: Option<Mode>) {
        let _changing = self.changing.lock();
        let mut modes = HashMap::clone(&self.modes.load());
        match mode {
            Some(mode) => modes.insert(Arc::clone(limit), mode),
            None => modes.remove(limit),
        };
        let count = modes.len();
        self.modes.store(Arc::new(modes));
        self.count.store(count, Ordering::Relaxed);
    }

    /// How many states were reset so far: what was remembered before the last time may not hold.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// A state was reset.
    pub fn note_reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_stays_switched_until_it_is_switched_back() {
        let (control, name) = (Control::default(), Arc::from("a"));
        assert_eq!(control.switched("a"), None);
        control.switch(&name, Some(Mode::Shadow));
        control.switch(&Arc::from("b"), Some(Mode::Enforce));
        assert_eq!((control.switched("a"), control.switched("b")), (Some(Mode::Shadow), Some(Mode::Enforce)));
        control.switch(&name, None);
        assert_eq!((control.switched("a"), control.switched("b")), (None, Some(Mode::Enforce)));
    }
}
