//! What is kept of one endpoint's connections, and for how long.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::TICK;
use super::connection::{Multiplexed, Share, Single};
use crate::upstream::connect::Call;

/// How many connections are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// Idle ones of HTTP/1.
    most: usize,
    /// Ticks without a request.
    ticks: u32,
    /// From the handshake on.
    age: Duration,
}

/// The connections of one endpoint that can take a request.
#[derive(Debug, Default)]
pub(super) struct Kept {
    keep: Keep,
    /// Of HTTP/1, the one used last at the end, each with the tick since when it is idle.
    idle: Vec<(Single, u32)>,
    /// Of HTTP/2, each with the tick at which it was last seen busy.
    shared: Vec<(Rc<Multiplexed>, u32)>,
    turn: Arc<Mutex<()>>,
    spoke_http2: bool,
}

impl Keep {
    pub(super) fn of(call: &Call<'_>) -> Self {
        let upstream = call.upstream;
        let ticks = upstream.settings.idle_timeout.as_millis() / TICK.as_millis();
        Self {
            // A connection that was told whose it is serves nobody else.
            most: if upstream.settings.proxy_protocol.is_some() { 0 } else { upstream.settings.max_idle_connections },
            ticks: u32::try_from(ticks).unwrap_or(u32::MAX).max(1),
            age: upstream.settings.max_connection_age,
        }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self { most: 0, ticks: 1, age: Duration::ZERO }
    }
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.shared.is_empty()
    }

    /// Whether its last connection was one of HTTP/2.
    pub(super) fn spoke_http2(&self) -> bool {
        self.spoke_http2
    }

    pub(super) fn turn(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.turn)
    }

    /// Keeps a connection of HTTP/1, unless there are enough, it has served its time, or others need its place.
    pub(super) fn push(&mut self, single: Single, keep: Keep, now: u32) {
        self.keep = keep;
        if self.idle.len() < self.keep.most && single.age() < self.keep.age && !single.is_wanted() {
            self.idle.push((single, now));
        }
    }

    /// The connection of HTTP/1 that was used last, if it still lives.
    pub(super) fn pop(&mut self, now: u32) -> Option<Single> {
        while let Some((single, since)) = self.idle.pop() {
            if is_stale(since, now, self.keep) {
                // Those below it were idle for longer.
                self.idle.clear();
            } else if single.is_ready() {
                return Some(single);
            }
        }
        None
    }

    /// Keeps a connection of HTTP/2.
    pub(super) fn add(&mut self, connection: Rc<Multiplexed>, keep: Keep, now: u32) {
        self.keep = keep;
        self.spoke_http2 = true;
        self.shared.push((connection, now));
    }

    /// A part of a connection of HTTP/2 with room for another request.
    pub(super) fn share(&mut self, now: u32) -> Option<Share> {
        let found = self.shared.iter_mut().find(|(connection, _)| connection.has_room())?;
        found.1 = now;
        Some(Share::of(&found.0))
    }

    /// Lets go of what was idle for too long or has served its time.
    pub(super) fn tick(&mut self, now: u32) {
        let keep = self.keep;
        self.idle.retain(|(single, since)| !is_stale(*since, now, keep) && !single.is_closed() && !single.is_wanted());
        for (connection, busy) in &mut self.shared {
            if !connection.is_idle() {
                *busy = now;
            }
        }
        self.shared.retain(|(connection, busy)| {
            !is_stale(*busy, now, keep)
                && !connection.is_closed()
                && connection.age() < keep.age
                && !connection.is_wanted()
        });
    }
}

fn is_stale(since: u32, now: u32, keep: Keep) -> bool {
    now.wrapping_sub(since) >= keep.ticks
}
