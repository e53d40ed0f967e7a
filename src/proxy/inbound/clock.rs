//! The one timer of a connection. Deadlines move often and pass rarely, so the timer is left alone
//! while it fires early enough, and set again only when it fired too early.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// From a head's first byte (on a new connection: from its acceptance) to its end.
    pub head: Duration,
    /// Between a response and the next head.
    pub idle: Duration,
    /// Between two reads of a body that is waited for.
    pub body_idle: Duration,
    /// How long a body may be waited for in all before its rate counts.
    pub body_grace: Duration,
    /// Slowest body after that, bytes per second of waiting.
    pub body_rate: u64,
    /// A write without progress.
    pub write: Duration,
    /// How long the answer to a client that closed its sending side is waited for.
    pub half_closed: Duration,
    /// How old a connection may become; after that it ends with its next response.
    pub age: Duration,
    /// How long an HTTP/2 connection without streams may take to close after GOAWAY.
    pub goaway: Duration,
}

/// How slowly a body may come.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Longest silence.
    idle: Duration,
    /// How long it may be waited for in all before its rate counts.
    grace: Duration,
    /// Slowest after that, bytes per second of waiting.
    rate: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), grace: Duration::from_secs(10), rate: 100 }
    }
}

impl Pace {
    /// For a stream, whose messages come when there is something to say: only silence counts.
    #[must_use]
    pub fn stream(idle: Duration) -> Self {
        Self { idle, grace: Duration::MAX, ..Self::default() }
    }
}

impl Clocks {
    /// The listener's two clocks beside the defaults of the others.
    #[must_use]
    pub fn new(head: Duration, idle: Duration) -> Self {
        let body = Pace::default();
        Self {
            head,
            idle,
            body_idle: body.idle,
            body_grace: body.grace,
            body_rate: body.rate,
            write: Duration::from_secs(30),
            half_closed: Duration::from_secs(2),
            age: Duration::from_hours(1),
            goaway: Duration::from_secs(5),
        }
    }

    /// How slowly a body may come.
    pub(super) fn pace(&self) -> Pace {
        Pace { idle: self.body_idle, grace: self.body_grace, rate: self.body_rate }
    }
}

/// Watches one body that comes frame by frame, where nothing below it does (HTTP/2).
#[derive(Debug)]
pub struct BodyClock {
    pace: Pace,
    waiting: Waiting,
    timer: Timer,
}

impl BodyClock {
    /// Begins to watch.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, waiting: Waiting::default(), timer: Timer::default() }
    }

    /// A frame with this many bytes came.
    pub fn received(&mut self, bytes: u64) {
        self.waiting.received(bytes);
    }

    /// There is nothing: whether it has been idle or slow for too long. If not, the task is woken then.
    pub fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.waiting.body_deadline(self.pace);
        self.timer.passed(cx, deadline)
    }
}

/// A lazily set timer.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When `sleep` fires, unless it has.
    set: Option<Instant>,
}

impl Timer {
    /// Whether `deadline` has passed; if not, the task is woken no later than then.
    pub(super) fn passed(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if self.set.is_none_or(|set| set > deadline) {
            sleep.as_mut().reset(deadline);
        } else if sleep.as_mut().poll(cx).is_pending() {
            return false;
        } else {
            sleep.as_mut().reset(deadline);
        }
        let pending = sleep.as_mut().poll(cx) == Poll::Pending;
        self.set = pending.then_some(deadline);
        !pending
    }
}

/// Time spent waiting in one phase of a connection, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Since when nothing came.
    since: Option<Instant>,
    /// Earlier waits of the same body, added up.
    before: Duration,
    /// Body bytes that arrived.
    received: u64,
}

impl Waiting {
    /// Since when there has been nothing to read; now, if the wait begins.
    pub(super) fn since(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now)
    }

    /// Begins a new phase.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Body bytes arrived.
    pub(super) fn received(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
        if let Some(since) = self.since.take() {
            self.before += since.elapsed();
        }
    }

    /// When a body that is waited for has been idle or slow for too long.
    pub(super) fn body_deadline(&mut self, pace: Pace) -> Instant {
        let since = self.since();
        let earned = Duration::from_secs(self.received / pace.rate.max(1));
        let slow = pace.grace.max(earned).saturating_sub(self.before);
        since + slow.min(pace.idle)
    }
}
