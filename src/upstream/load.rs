//! How many requests a server has, and where further ones wait when it has as many as it may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Endpoint;

/// Requests that one endpoint has at present, over all workers. Alone on its cache line: every request
/// changes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load(AtomicUsize);

/// Where requests wait for room, over all workers.
#[derive(Debug)]
pub struct Queue {
    /// How much one endpoint may have at once.
    pub bounds: Bounds,
    /// Most requests that wait.
    pub size: usize,
    /// How long one waits.
    pub timeout: Duration,
    waiting: AtomicUsize,
    /// Shared with the queues before this one: their requests make room, too.
    room: Arc<Notify>,
}

/// A request's place at an endpoint, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    /// Whose place it is.
    pub endpoint: Arc<Endpoint>,
    queue: Arc<Queue>,
}

/// How much one endpoint may have at once; `None`: any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Requests.
    pub requests: Option<usize>,
    /// Connections, idle ones too.
    pub connections: Option<usize>,
}

/// A connection's place at an endpoint whose connections are bounded, until it is dropped.
#[derive(Debug)]
pub struct Place {
    endpoint: Arc<Endpoint>,
    queue: Arc<Queue>,
}

/// A request's place in the queue.
struct Waiting<'a>(&'a Queue);

/// Nobody had room in time, or too many were waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl Load {
    /// Requests at present.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, unless there are `most` already.
    fn enter(&self, most: Option<usize>) -> bool {
        let Some(most) = most else {
            self.0.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < most).then_some(count + 1)).is_ok()
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    /// A queue that nobody waits in.
    #[must_use]
    pub fn new(bounds: Bounds, size: usize, timeout: Duration) -> Self {
        Self { bounds, size, timeout, waiting: AtomicUsize::new(0), room: Arc::default() }
    }

    /// The same, in the place of an earlier one whose requests are still under way.
    #[must_use]
    pub fn after(&self, earlier: &Self) -> Self {
        Self { room: Arc::clone(&earlier.room), ..Self::new(self.bounds, self.size, self.timeout) }
    }

    /// Whether the same may be done, and wait, as in another.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (self.bounds, self.size, self.timeout) == (other.bounds, other.size, other.timeout)
    }

    /// Requests that wait at present.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether an endpoint may get another request.
    pub(super) fn has_room(&self, endpoint: &Endpoint) -> bool {
        self.bounds.requests.is_none_or(|most| endpoint.load.requests() < most)
    }

    /// Takes a place at an endpoint, if it still has one.
    pub(super) fn enter(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> Option<Slot> {
        let entered = endpoint.load.enter(self.bounds.requests);
        entered.then(|| Slot { endpoint: Arc::clone(endpoint), queue: Arc::clone(self) })
    }

    /// A place for a new connection to an endpoint, one of `most`, if there is one.
    #[must_use]
    pub fn place(self: &Arc<Self>, endpoint: &Arc<Endpoint>, most: usize) -> Option<Place> {
        endpoint.connections.enter(Some(most)).then(|| Place::new(endpoint, self))
    }

    /// Asks `attempt` again whenever there may be room, first come, first served.
    ///
    /// # Errors
    /// When too many wait already, or when it took too long.
    pub async fn wait<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Result<T, Busy> {
        let _waiting = self.join().ok_or(Busy)?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let room = self.room.notified();
            // Asked once more, for room that there was before this one could hear of it.
            if let Some(found) = attempt() {
                return Ok(found);
            }
            timeout_at(deadline, room).await.map_err(|_| Busy)?;
        }
    }

    /// Everybody who waits looks again: there are other endpoints now, or others are up.
    pub fn wake_all(&self) {
        self.room.notify_waiters();
    }

    fn join(&self) -> Option<Waiting<'_>> {
        let joined = |count: usize| (count < self.size).then_some(count + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, joined).ok().map(|_| Waiting(self))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    fn new(endpoint: &Arc<Endpoint>, queue: &Arc<Queue>) -> Self {
        Self { endpoint: Arc::clone(endpoint), queue: Arc::clone(queue) }
    }

    /// Those who wait look again: what it is the place of has room for another request.
    pub fn has_room_again(&self) {
        if self.is_wanted() {
            self.queue.wake_all();
        }
    }

    /// Whether somebody waits for it, perhaps on another worker.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.queue.waiting() > 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.endpoint.connections.leave();
        if self.is_wanted() {
            self.queue.wake_all();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.endpoint.load.leave();
        // Nobody may be waiting in its own queue, but in the one that has taken its place.
        if self.queue.waiting() > 0 || Arc::strong_count(&self.queue.room) > 1 {
            self.queue.room.notify_one();
        }
    }
}
