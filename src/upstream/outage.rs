//! Whether a server fails at present, as all workers together see it. The log is told when that
//! changes, not of each request: those are in the access log and in the metrics.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A server that fails now and then is failing: it has recovered when it answers this long after its
/// last failure.
const QUIET: Duration = Duration::from_secs(3);

/// What is known of one server.
#[derive(Debug, Default)]
pub struct Outage {
    /// Read for every answer, so on its own: nearly always false, and then nothing else is touched.
    failing: AtomicBool,
    /// Since it began to fail.
    failures: AtomicU64,
    /// When it failed last.
    last: Mutex<Option<Instant>>,
}

impl Outage {
    /// A request got no answer, because of `error`.
    pub fn failed(&self, upstream: &str, server: &str, error: impl Display) {
        *self.last.lock() = Some(Instant::now());
        self.failures.fetch_add(1, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(upstream, server, %error, "upstream server fails");
        }
    }

    /// A request was answered.
    pub fn answered(&self, upstream: &str, server: &str) {
        if !self.failing.load(Ordering::Relaxed) || self.last.lock().is_some_and(|last| last.elapsed() < QUIET) {
            return;
        }
        if self.failing.swap(false, Ordering::Relaxed) {
            let failures = self.failures.swap(0, Ordering::Relaxed);
            tracing::info!(upstream, server, failures, "upstream server answers again");
        }
    }
}
