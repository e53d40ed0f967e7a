//! Traces: spans of sampled requests, exported by OTLP over HTTP (protobuf) to an `OpenTelemetry` collector.
//!
//! A request's spans are made on its worker and enqueued together once it is over; a thread of its own takes
//! them from the queue, encodes and sends them in batches. The queue is bounded and never waited for: what finds it
//! full is dropped and counted, however the collector does.

mod collector;
pub mod context;
mod export;
mod otlp;
pub mod span;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

pub use context::Context;
use context::SpanId;
pub use export::Exporter;
pub use span::Span;

/// How many requests' spans may wait; those of one that finds the queue full are dropped and counted.
const CAPACITY: usize = 4_096;

/// A handle that samples requests and enqueues their spans. Cheap to clone, one per worker.
#[derive(Debug, Clone)]
pub struct Tracer {
    sampler: Sampler,
    queue: mpsc::Sender<Vec<Span>>,
    counts: Arc<Counts>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    /// The collector has them.
    exported: AtomicU64,
    /// The queue was full, or the process ended before the collector took them.
    dropped: AtomicU64,
    /// The collector does not want them.
    refused: AtomicU64,
    /// 1 while the last batch could not be delivered.
    failing: AtomicU64,
}

/// Which requests without a sampled parent are traced. The decision depends on the trace's id alone, so that
/// everybody with the same share decides alike (consistent probability sampling, W3C Trace Context Level 2 §5.1).
#[derive(Debug, Clone, Copy)]
struct Sampler {
    /// The random part of an id must not be below it.
    threshold: u64,
}

impl Tracer {
    /// The beginning of a new trace, sampled or not.
    #[must_use]
    pub fn root(&self) -> Context {
        let mut context = Context::random();
        context.sampled = self.sampler.takes(context.trace.randomness());
        context
    }

    /// Enqueues the spans of one request. Never blocks.
    pub fn send(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.queue.try_send(spans).is_err() {
            self.counts.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// What became of spans so far.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

impl Sampler {
    /// Takes this share, 0 to 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share is 0 to 1")]
    fn of(share: f64) -> Self {
        let whole = 2_f64.powi(context::RANDOM_BITS);
        Self { threshold: ((1.0 - share) * whole).round() as u64 }
    }

    fn takes(self, randomness: u64) -> bool {
        randomness >= self.threshold
    }
}

impl Counts {
    /// Spans that the collector has taken.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that were lost here.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Spans that the collector refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether the last batch was delivered; true before the first.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.failing.load(Ordering::Relaxed) == 0
    }

    fn add(count: &AtomicU64, spans: usize) {
        count.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(share: f64) -> (Tracer, mpsc::Receiver<Vec<Span>>) {
        let (queue, spans) = mpsc::channel(2);
        (Tracer { sampler: Sampler::of(share), queue, counts: Arc::default() }, spans)
    }

    #[test]
    fn the_sampled_share_is_about_what_was_asked_for() {
        for (share, expected) in [(0.0, 0..=0), (0.25, 4_000..=6_000), (1.0, 20_000..=20_000)] {
            let (tracer, _spans) = tracer(share);
            let sampled = (0..20_000).filter(|_| tracer.root().sampled).count();
            assert!(expected.contains(&sampled), "{share}: {sampled}");
        }
    }

    #[test]
    fn spans_that_find_the_queue_full_are_counted() {
        let (tracer, spans) = tracer(1.0);
        for _ in 0..5 {
            tracer.send(vec![span::tests::sample(), span::tests::sample()]);
        }
        assert_eq!(tracer.counts().dropped(), 6);
        assert_eq!(spans.len(), 2);
    }
}
