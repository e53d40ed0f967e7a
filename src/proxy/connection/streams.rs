//! The streams of one HTTP/2 connection, watched together: when the connection is idle, too old, or
//! stalled by a client that opens no window.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::MAX_REQUESTS;
use crate::proxy::Downstream;
use crate::proxy::inbound::Clocks;

/// What the streams of one connection did.
#[derive(Debug)]
pub(super) struct Streams {
    opened: Instant,
    /// When the last stream ended.
    idle_since: Cell<Instant>,
    requests: Cell<usize>,
    enough: Notify,
    /// Bodies whose last frame has not made room for another one.
    waiting: Cell<usize>,
    /// Whether any body was asked for a frame since this was last looked at.
    moved: Cell<bool>,
}

impl Streams {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            opened: now,
            idle_since: Cell::new(now),
            requests: Cell::new(0),
            enough: Notify::new(),
            waiting: Cell::new(0),
            moved: Cell::new(false),
        }
    }

    /// A request came.
    pub(super) fn began(&self) {
        self.requests.set(self.requests.get() + 1);
        if self.requests.get() == MAX_REQUESTS {
            self.enough.notify_one();
        }
    }

    /// The last request in flight ended.
    pub(super) fn idle(&self) {
        self.idle_since.set(Instant::now());
    }

    /// A body was asked for a frame; whether it had been `waiting` for that, and is now.
    pub(super) fn asked(&self, waiting: bool, now: bool) {
        self.moved.set(true);
        self.waiting.set((self.waiting.get() + usize::from(now)).saturating_sub(usize::from(waiting)));
    }

    /// A body that was waiting for room is gone.
    pub(super) fn gave_up(&self) {
        self.waiting.set(self.waiting.get().saturating_sub(1));
    }

    /// Ends when the connection has been idle for too long, is too old or has served enough.
    pub(super) async fn retired(&self, clocks: Clocks, downstream: &Downstream) {
        tokio::select! {
            () = self.enough.notified() => {}
            () = sleep_until(self.opened + clocks.age) => {}
            () = self.idled(clocks.idle, downstream) => {}
        }
    }

    async fn idled(&self, idle: Duration, downstream: &Downstream) {
        loop {
            let since = if downstream.in_flight.get() == 0 { self.idle_since.get() } else { Instant::now() };
            if since.elapsed() >= idle {
                return;
            }
            sleep_until(since + idle).await;
        }
    }

    /// Ends when bodies wait for room and none has moved for `limit` (noticed within twice that).
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            self.moved.set(false);
            let waiting = self.waiting.get() > 0;
            sleep(limit).await;
            if waiting && self.waiting.get() > 0 && !self.moved.get() {
                return;
            }
        }
    }

    /// Ends when a connection that was told to go away lives on without streams.
    pub(super) async fn deserted(&self, grace: Duration, downstream: &Downstream) {
        loop {
            sleep(grace).await;
            if downstream.in_flight.get() == 0 {
                return;
            }
        }
    }
}
