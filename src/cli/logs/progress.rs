//! How far the reading is: a bar on a terminal, nothing anywhere else.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::cli::text;

/// Requests between two looks at the clock.
const STEP: u32 = 4_096;

/// A bar over the bytes of all logs.
pub(super) struct Progress {
    bar: ProgressBar,
    read: Arc<AtomicU64>,
    requests: u64,
    since: u32,
}

impl Progress {
    /// For these logs; what was read of them is in `read`.
    pub(super) fn new(logs: &[PathBuf], read: Arc<AtomicU64>) -> Self {
        let sizes = logs.iter().map(|path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file));
        let total: Option<u64> = sizes.map(|size| size.map(|metadata| metadata.len())).sum();
        let (bar, form) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{bar:40.cyan/dim} {percent:>3}%  {bytes} of {total_bytes}  {msg}  {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}"),
        };
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        };
        bar.set_draw_target(target);
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self { bar: bar.with_finish(ProgressFinish::AndClear), read, requests: 0, since: 0 }
    }

    /// One more request.
    pub(super) fn step(&mut self) {
        self.since += 1;
        if self.since == STEP {
            self.requests += u64::from(STEP);
            self.since = 0;
            self.bar.set_position(self.read.load(Ordering::Relaxed));
            self.bar.set_message(text::count(self.requests, "request"));
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
