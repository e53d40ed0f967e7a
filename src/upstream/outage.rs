//! Whether a server fails at present, as all workers together see it. The log is told when that
//! changes and of each new cause, not of each request: those are in the access log and in the metrics.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A server that fails now and then is failing: it has recovered when it answers this long after its
/// last failure.
const QUIET: Duration = Duration::from_secs(3);

/// Causes of one outage that the log is told of.
const MOST_CAUSES: usize = 8;

/// What is known of one server.
#[derive(Debug, Default)]
pub struct Outage {
    /// Read for every answer, so on its own: nearly always false, and then nothing else is touched.
    failing: AtomicBool,
    /// Since it began to fail.
    failures: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// When it failed last.
    at: Option<Instant>,
    /// The causes that the log has been told of since it began to fail.
    told: Vec<String>,
}

impl Outage {
    /// A request got no answer, because of `error`.
    pub fn failed(&self, upstream: &str, server: &str, error: impl Display) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failing.store(true, Ordering::Relaxed);
        let error = error.to_string();
        let mut last = self.last.lock();
        last.at = Some(Instant::now());
        if last.told.len() < MOST_CAUSES && !last.told.contains(&error) {
            tracing::warn!(upstream, server, error, "upstream server fails");
            last.told.push(error);
        }
    }

    /// A request was answered.
    pub fn answered(&self, upstream: &str, server: &str) {
        if !self.failing.load(Ordering::Relaxed) || self.last.lock().at.is_some_and(|at| at.elapsed() < QUIET) {
            return;
        }
        if self.failing.swap(false, Ordering::Relaxed) {
            let failures = self.failures.swap(0, Ordering::Relaxed);
            self.last.lock().told.clear();
            tracing::info!(upstream, server, failures, "upstream server answers again");
        }
    }
}
