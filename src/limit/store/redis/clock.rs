//! Whose clock the scripts of a server are given: its own, which all proxies share; where it keeps that from
//! scripts, this process'.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::shared::Shared;

/// The clock of one server's scripts.
#[derive(Debug, Default)]
pub(super) struct Clock(RefCell<Option<OwnClock>>);

impl Clock {
    /// What a script is given as its clock: 0, the server's, unless the server refuses that; then minus
    /// ours, by which no key may expire (`lua/prelude.lua`).
    pub(super) fn now_us(&self) -> i64 {
        if self.is_own() { own_clock() } else { 0 }
    }

    /// Whether scripts are given this process' clock.
    pub(super) fn is_own(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// The server refuses its clock. Returns whether that is new.
    pub(super) fn refused(&self, shared: &Rc<Shared>) -> bool {
        let is_new = !self.is_own();
        if is_new {
            *self.0.borrow_mut() = Some(OwnClock::begin(shared));
        }
        is_new
    }

    /// The server gives its clock, or is another one, of which nothing is known.
    pub(super) fn given(&self) {
        *self.0.borrow_mut() = None;
    }
}

/// A server's scripts are given this process' clock, as long as this lives.
#[derive(Debug)]
struct OwnClock(Rc<Shared>);

impl OwnClock {
    fn begin(shared: &Rc<Shared>) -> Self {
        shared.stats.own_clock.fetch_add(1, Ordering::Relaxed);
        Self(Rc::clone(shared))
    }
}

impl Drop for OwnClock {
    fn drop(&mut self) {
        self.0.stats.own_clock.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Minus this process' wall clock, microseconds since 1970.
pub(super) fn own_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(-1, |since| -i64::try_from(since.as_micros()).unwrap_or(1))
}
