//! Room for requests that are held for their turn (leaky buckets): bounded per worker, and taken
//! before the store is asked, so that a charged request always has its place.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::stats::LimitStats;

/// A worker's places.
#[derive(Debug)]
pub struct HoldSpace {
    places: Rc<()>,
    /// The most that may be taken at once.
    bound: usize,
    stats: Arc<LimitStats>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub struct Hold {
    _place: Rc<()>,
    stats: Arc<LimitStats>,
}

impl HoldSpace {
    /// So many places, all free.
    #[must_use]
    pub fn new(bound: usize, stats: Arc<LimitStats>) -> Self {
        Self { places: Rc::new(()), bound, stats }
    }

    /// Takes a place, if there is one.
    #[must_use]
    pub fn reserve(&self) -> Option<Hold> {
        if Rc::strong_count(&self.places) > self.bound {
            return None;
        }
        self.stats.held.fetch_add(1, Ordering::Relaxed);
        Some(Hold { _place: Rc::clone(&self.places), stats: Arc::clone(&self.stats) })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.stats.held.fetch_sub(1, Ordering::Relaxed);
    }
}
