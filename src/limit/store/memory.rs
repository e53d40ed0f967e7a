//! The memory store: sharded, bounded, exact expiry.

use super::{Ask, Reply};

/// Limiter state of this process, shared by its workers.
#[derive(Debug)]
pub struct MemoryStore {}

impl MemoryStore {
    /// An empty store that keeps at most `max_keys` states.
    #[must_use]
    pub fn new(max_keys: usize) -> Self {
        let _ = max_keys;
        Self {}
    }

    /// Decides all of `asks` at once, all or nothing, by this store's clock.
    pub fn decide(&self, asks: &[Ask<'_>]) -> Reply {
        self.decide_at(self.now_us(), asks)
    }

    /// The same at a given instant, microseconds since 1970 (tests, simulations).
    pub fn decide_at(&self, now_us: i64, asks: &[Ask<'_>]) -> Reply {
        let _ = (now_us, asks);
        todo!()
    }

    /// Wall clock at start plus monotonic time, microseconds since 1970.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        todo!()
    }

    /// States kept now.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether no state is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
