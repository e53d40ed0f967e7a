//! The thread between the queue and the collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, sleep, timeout_at};

use super::collector::{Collector, Failure};
use super::otlp::{Receipt, Resource};
use super::{CAPACITY, Counts, Sampler, Span, Tracer};
use crate::config::TracingSettings;

/// How long spans come together before they are sent. While there are any, the thread looks for more without being
/// woken, which would cost the workers a system call each time.
const GATHER: Duration = Duration::from_millis(200);

/// Spans of one batch, about: a request's spans are not torn apart.
const BATCH: usize = 512;

/// Between attempts to deliver a batch: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How long the last spans have once the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Takes spans from the queue and delivers them.
#[derive(Debug)]
pub struct Exporter {
    queue: Receiver<Vec<Span>>,
    counts: Arc<Counts>,
    resource: Resource,
    collector: Collector,
    /// Where that is, for the log.
    place: Box<str>,
    /// Taken from the queue for the next batch.
    gathered: Vec<Span>,
    /// A batch that is not delivered yet, and its spans.
    waiting: Option<(Bytes, usize)>,
    /// What was told of losses.
    trouble: Option<Trouble>,
    /// Spans lost when the queue was empty last.
    seen: u64,
    /// Spans lost that were told of.
    told: u64,
}

/// What goes on for a while, and is told when it begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trouble {
    kind: Kind,
    /// Spans lost or refused before it began.
    before: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing is delivered.
    Away,
    /// The collector takes nothing of it.
    Refused,
    /// More comes than it takes.
    Slow,
}

/// What is to be done after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// That batch is settled.
    Another,
    /// It is to be tried again, after this pause if the collector named one.
    Again(Option<Duration>),
}

impl Exporter {
    /// An exporter, and what enqueues spans for it.
    #[must_use]
    pub fn new(settings: &TracingSettings) -> (Tracer, Self) {
        let (sender, queue) = mpsc::channel(CAPACITY);
        let counts = Arc::<Counts>::default();
        let tracer = Tracer { sampler: Sampler::of(settings.sample), queue: sender, counts: Arc::clone(&counts) };
        let exporter = Self {
            queue,
            counts,
            resource: Resource::of(&settings.service_name),
            collector: Collector::new(Arc::clone(&settings.collector)),
            place: settings.collector.text.clone(),
            gathered: Vec::new(),
            waiting: None,
            trouble: None,
            seen: 0,
            told: 0,
        };
        (tracer, exporter)
    }

    /// Exports until `stopped` completes, then for a moment what is left. Needs a local runtime.
    pub async fn run(mut self, stopped: impl Future<Output = ()>) {
        tokio::select! {
            () = stopped => {}
            () = self.export() => {}
        }
        if self.waiting.is_some() {
            // It may have been under way on this connection.
            self.collector.disconnect();
        }
        let end = Instant::now() + FAREWELL;
        let _ = timeout_at(end, self.rest()).await;
        self.give_up();
    }

    /// Exports until nobody can enqueue any more.
    async fn export(&mut self) {
        while let Some(first) = self.queue.recv().await {
            self.gathered = first;
            self.wait().await;
            let mut batch = self.gather();
            while batch > 0 {
                self.deliver().await;
                // Where there was more than that, it is not waited for.
                batch = if batch < BATCH { 0 } else { self.gather() };
            }
            self.look();
        }
    }

    /// Lets spans come together, but not so many that there is no more room.
    async fn wait(&self) {
        let end = Instant::now() + GATHER;
        while Instant::now() < end && self.queue.len() < CAPACITY / 4 {
            sleep(GATHER / 8).await;
        }
    }

    /// What is left, and what the workers' last requests leave: one attempt each.
    async fn rest(&mut self) {
        loop {
            if self.waiting.is_none() && self.gather() == 0 {
                let Some(first) = self.queue.recv().await else { return };
                self.gathered = first;
                self.gather();
            }
            let Some((batch, spans)) = &self.waiting else { return };
            let spans = *spans;
            let delivered = self.collector.deliver(batch).await;
            if self.account(delivered, spans) != Next::Another {
                return;
            }
        }
    }

    /// Counts what will never be delivered.
    fn give_up(&mut self) {
        let waiting = self.gathered.len() + self.waiting.take().map_or(0, |(_, spans)| spans);
        let queued: usize = std::iter::from_fn(|| self.queue.try_recv().ok()).map(|spans| spans.len()).sum();
        if waiting + queued > 0 {
            Counts::add(&self.counts.dropped, waiting + queued);
            tracing::warn!(collector = &*self.place, spans = waiting + queued, "spans could not be exported any more");
        }
    }

    /// Makes a batch of what is there; how many spans it has.
    fn gather(&mut self) -> usize {
        let mut spans = std::mem::take(&mut self.gathered);
        while spans.len() < BATCH {
            let Ok(more) = self.queue.try_recv() else { break };
            spans.extend(more);
        }
        let count = spans.len();
        if count > 0 {
            self.waiting = Some((self.resource.encode(spans).into(), count));
        }
        count
    }

    /// Delivers the waiting batch, however long that takes; meanwhile the queue fills.
    async fn deliver(&mut self) {
        let mut pause = PAUSES.0;
        while let Some((batch, spans)) = &self.waiting {
            let spans = *spans;
            let delivered = self.collector.deliver(batch).await;
            let Next::Again(asked) = self.account(delivered, spans) else { return };
            let jitter = pause.mul_f64(fastrand::f64() / 4.0);
            sleep(asked.unwrap_or(pause + jitter)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Notes how it went.
    fn account(&mut self, delivered: Result<Receipt, Failure>, spans: usize) -> Next {
        match delivered {
            Ok(Receipt { refused, reason }) => {
                let refused = refused.min(spans);
                Counts::add(&self.counts.exported, spans - refused);
                Counts::add(&self.counts.refused, refused);
                if refused == 0 {
                    self.delivered();
                } else {
                    let reason = if reason.is_empty() { "it gives no reason" } else { &reason };
                    self.begins(Kind::Refused, reason);
                }
            }
            Err(failure @ Failure::Refused(_)) => {
                Counts::add(&self.counts.refused, spans);
                self.begins(Kind::Refused, &failure.to_string());
            }
            Err(failure) => {
                self.begins(Kind::Away, &failure.to_string());
                let Failure::Busy(_, pause) = failure else { return Next::Again(None) };
                return Next::Again(pause);
            }
        }
        self.waiting = None;
        Next::Another
    }

    fn begins(&mut self, kind: Kind, cause: &str) {
        self.counts.failing.store(u64::from(kind != Kind::Slow), Ordering::Relaxed);
        if self.trouble.is_some_and(|trouble| trouble.kind == kind) {
            return;
        }
        let before = self.trouble.map_or(self.told, |trouble| trouble.before);
        self.trouble = Some(Trouble { kind, before });
        let collector = &*self.place;
        match kind {
            Kind::Away => tracing::warn!(collector, cause, "spans cannot be exported, requests go on without them"),
            Kind::Refused => tracing::warn!(collector, cause, "the collector refuses spans, they are lost"),
            Kind::Slow => tracing::warn!(collector, cause, "spans are dropped, requests go on without them"),
        }
    }

    /// A whole batch was taken. That too few are taken is told by [`Exporter::look`].
    fn delivered(&mut self) {
        self.counts.failing.store(0, Ordering::Relaxed);
        if let Some(trouble) = self.trouble.filter(|trouble| trouble.kind != Kind::Slow) {
            self.ends(trouble);
        }
    }

    /// The queue is empty: whether it was full in between.
    fn look(&mut self) {
        let lost = self.lost();
        let more = lost > std::mem::replace(&mut self.seen, lost);
        match self.trouble {
            None if more && lost > self.told => self.begins(Kind::Slow, "more spans come than the collector takes"),
            Some(trouble) if !more && trouble.kind == Kind::Slow => self.ends(trouble),
            _ => {}
        }
    }

    fn ends(&mut self, trouble: Trouble) {
        self.trouble = None;
        self.told = self.lost();
        tracing::info!(collector = &*self.place, lost = self.told - trouble.before, "spans are exported again");
    }

    fn lost(&self) -> u64 {
        self.counts.dropped() + self.counts.refused()
    }
}
