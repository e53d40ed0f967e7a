//! The overview once a second, as server-sent events (the HTML standard, 9.2), for as long as somebody reads.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Interval, MissedTickBehavior};

use super::Service;

/// Between two events.
const PERIOD: Duration = Duration::from_secs(1);
/// Streams at once; connections are left for everything else.
const MOST: usize = 32;

/// How many streams there are.
#[derive(Debug, Default)]
pub(super) struct Streams(Rc<Cell<usize>>);

/// One stream; it counts until it is dropped.
#[derive(Debug)]
pub(super) struct Events {
    service: Rc<Service>,
    clock: Interval,
    count: Rc<Cell<usize>>,
}

impl Streams {
    /// One more, unless there are too many.
    pub(super) fn open(&self, service: &Rc<Service>) -> Option<Events> {
        if self.0.get() >= MOST {
            return None;
        }
        self.0.set(self.0.get() + 1);
        let mut clock = tokio::time::interval(PERIOD);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Events { service: Rc::clone(service), clock, count: Rc::clone(&self.0) })
    }
}

impl Events {
    /// The next event, when it is due.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        ready!(self.clock.poll_tick(cx));
        Poll::Ready(Bytes::from(format!("data: {}\n\n", self.service.overview())))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
    }
}
