//! Room for requests that are held for their turn (leaky buckets): bounded per worker, and taken
//! before the store is asked, so that a charged request always has its place.
//!
//! A limit takes a place only while it holds fewer than are free (dynamic thresholds: Choudhury and Hahne, 1998).
//! So keys that a client invents for one limit fill at most half of the places, and other limits find room at
//! once; nothing is set aside that nobody uses.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::stats::LimitStats;

/// A worker's places.
#[derive(Debug)]
pub struct HoldSpace {
    /// One more owner than places are taken.
    taken: Rc<()>,
    /// The same for each limit, by name.
    by_limit: RefCell<HashMap<Arc<str>, Rc<()>, ahash::RandomState>>,
    /// The most that may be taken at once.
    bound: usize,
    stats: Arc<LimitStats>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub struct Hold {
    _place: Rc<()>,
    _of_limit: Rc<()>,
    stats: Arc<LimitStats>,
}

impl HoldSpace {
    /// So many places, all free.
    #[must_use]
    pub fn new(bound: usize, stats: Arc<LimitStats>) -> Self {
        Self { taken: Rc::new(()), by_limit: RefCell::default(), bound, stats }
    }

    /// Takes a place for a request of this limit, if the limit may have one.
    #[must_use]
    pub fn reserve(&self, limit: &Arc<str>) -> Option<Hold> {
        let of_limit = self.of_limit(limit);
        // Two that own it are the table and this function.
        let own = Rc::strong_count(&of_limit) - 2;
        let free = self.bound.saturating_sub(Rc::strong_count(&self.taken) - 1);
        if own >= free {
            return None;
        }
        self.stats.held.fetch_add(1, Ordering::Relaxed);
        Some(Hold { _place: Rc::clone(&self.taken), _of_limit: of_limit, stats: Arc::clone(&self.stats) })
    }

    /// What counts the places of a limit. Limits that are gone since a reload leave the table with the next new one.
    fn of_limit(&self, limit: &Arc<str>) -> Rc<()> {
        let mut by_limit = self.by_limit.borrow_mut();
        if let Some(known) = by_limit.get(limit) {
            return Rc::clone(known);
        }
        by_limit.retain(|_, places| Rc::strong_count(places) > 1);
        Rc::clone(by_limit.entry(Arc::clone(limit)).or_default())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.stats.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_gets_as_many_places_as_it_leaves_free() {
        let space = HoldSpace::new(12, Arc::new(LimitStats::new()));
        let fill = |name: &str| -> Vec<Hold> {
            let name = Arc::from(name);
            std::iter::from_fn(|| space.reserve(&name)).collect()
        };
        let (first, second, third) = (fill("a"), fill("b"), fill("c"));
        assert_eq!([first.len(), second.len(), third.len()], [6, 3, 2]);
        assert!(space.reserve(&"a".into()).is_none() && space.reserve(&"d".into()).is_some());
        drop((first, third));
        assert_eq!(fill("b").len(), 3, "it holds three, and nine are free");
        drop(second);
        assert_eq!(fill("e").len(), 6);
        assert_eq!(space.by_limit.borrow().len(), 1, "who holds nothing is forgotten");
    }
}
