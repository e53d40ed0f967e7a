//! Access logs: opened, read in the formats of nginx, Apache, Caddy, Traefik and Tollgate, and merged
//! into one stream in the order of their times. Streaming: what is kept is bounded, whatever the logs hold.

mod combined;
mod entry;
mod fields;
mod json;
mod line;
mod progress;
mod source;
mod time;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::HeaderName;

use super::text;
use crate::route::target::canonical_host;
use crate::units::parse_duration;
pub(in crate::cli) use entry::{Entry, Format, Logged};
pub(in crate::cli) use fields::{Fields, Held};
use progress::Progress;
use source::{Source, Waiting};

/// Which logs, and how they are read.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct LogArgs {
    /// Access logs, `-` for standard input; .gz is inflated; several are merged by their times
    #[arg(required = true, value_name = "LOG")]
    pub(in crate::cli) logs: Vec<PathBuf>,
    /// The host of requests whose log does not name one
    #[arg(long, value_name = "HOST", value_parser = host)]
    pub(in crate::cli) host: Option<String>,
    /// How far a line may stand behind its time, as servers log a request when it ends
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    reorder: Duration,
}

/// The merged stream.
pub(in crate::cli) struct Logs {
    sources: Vec<Source>,
    /// The next request of each log that has one.
    heads: BinaryHeap<Reverse<Head>>,
    fields: Fields,
    notes: Notes,
    progress: Progress,
}

/// A log's next request, ordered by time, then by place.
struct Head {
    source: usize,
    next: Waiting,
}

/// A request, and where it stands.
pub(in crate::cli) struct Placed {
    /// Its time; for one that came too late, the time the log had reached.
    pub(in crate::cli) at_us: i64,
    /// Index of its log.
    pub(in crate::cli) log: usize,
    /// From 1.
    pub(in crate::cli) line: u64,
    pub(in crate::cli) entry: Box<Entry>,
}

/// What was found in one log.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Log {
    pub(in crate::cli) name: String,
    pub(in crate::cli) lines: u64,
    /// Lines that tell of a request that reached the limits.
    pub(in crate::cli) requests: u64,
    /// Those by [`Format`].
    pub(in crate::cli) formats: [u64; Format::ALL.len()],
    /// Lines that could not be read.
    pub(in crate::cli) unreadable: u64,
    /// Lines of connections that did not speak HTTP.
    pub(in crate::cli) no_request: u64,
    /// Requests that the proxy refused before it asked a limit.
    pub(in crate::cli) never_asked: u64,
    /// Requests further behind their time than lines are sorted.
    pub(in crate::cli) late: u64,
}

/// What else is to be said about the logs.
#[derive(Debug)]
pub(in crate::cli) struct Notes {
    /// The first lines that could not be read.
    pub(in crate::cli) samples: Vec<Sample>,
    /// Whether no time has a part of a second.
    pub(in crate::cli) whole_seconds: bool,
    /// Requests whose host the log does not tell.
    pub(in crate::cli) hostless: u64,
}

/// A line that could not be read.
#[derive(Debug)]
pub(in crate::cli) struct Sample {
    pub(in crate::cli) log: String,
    pub(in crate::cli) line: u64,
    pub(in crate::cli) reason: &'static str,
    /// Its beginning, printable.
    pub(in crate::cli) excerpt: String,
}

/// Unreadable lines that are shown.
const SAMPLES: usize = 5;

/// Characters shown of each.
const EXCERPT: usize = 80;

impl Logs {
    /// Opens every log, with the fields of requests that are wanted.
    ///
    /// # Errors
    /// When one cannot be opened or read.
    pub(in crate::cli) fn open(args: &LogArgs, wanted: impl IntoIterator<Item = HeaderName>) -> anyhow::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let window_us = i64::try_from(args.reorder.as_micros()).unwrap_or(i64::MAX);
        let sources = args.logs.iter().map(|path| Source::open(path, window_us, &read)).collect::<Result<_, _>>()?;
        let mut logs = Self {
            sources,
            heads: BinaryHeap::new(),
            fields: Fields::new(wanted),
            notes: Notes { samples: Vec::new(), whole_seconds: true, hostless: 0 },
            progress: Progress::new(&args.logs, read),
        };
        for source in 0..logs.sources.len() {
            logs.advance(source)?;
        }
        Ok(logs)
    }

    /// The next request of all logs.
    ///
    /// # Errors
    /// When a log cannot be read to its end.
    pub(in crate::cli) fn next(&mut self) -> anyhow::Result<Option<Placed>> {
        let Some(Reverse(Head { source, next })) = self.heads.pop() else {
            self.progress.finish();
            return Ok(None);
        };
        self.advance(source)?;
        self.progress.step();
        Ok(Some(Placed { at_us: next.at_us, log: source, line: next.line, entry: next.entry }))
    }

    fn advance(&mut self, source: usize) -> anyhow::Result<()> {
        if let Some(next) = self.sources[source].next(&mut self.fields, &mut self.notes)? {
            self.heads.push(Reverse(Head { source, next }));
        }
        Ok(())
    }

    /// The name of a log.
    pub(in crate::cli) fn name(&self, log: usize) -> &str {
        &self.sources[log].log.name
    }

    /// What was found.
    pub(in crate::cli) fn into_findings(self) -> Findings {
        let logs = self.sources.into_iter().map(|source| source.log).collect();
        Findings { logs, fields: self.fields, notes: self.notes }
    }
}

/// What reading the logs has shown.
pub(in crate::cli) struct Findings {
    pub(in crate::cli) logs: Vec<Log>,
    pub(in crate::cli) fields: Fields,
    pub(in crate::cli) notes: Notes,
}

impl Findings {
    /// The sum of one number over all logs.
    pub(in crate::cli) fn sum(&self, of: impl Fn(&Log) -> u64) -> u64 {
        self.logs.iter().map(of).sum()
    }
}

impl Log {
    fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// The formats its lines have.
    pub(in crate::cli) fn formats(&self) -> Vec<&'static str> {
        let counted = Format::ALL.iter().zip(&self.formats);
        counted.filter(|(_, count)| **count > 0).map(|((_, name), _)| *name).collect()
    }
}

impl Notes {
    /// Keeps the beginning of a line that could not be read, if it is one of the first.
    fn sample(&mut self, log: &Log, reason: &'static str, line: &[u8]) {
        if self.samples.len() < SAMPLES {
            let excerpt = text::printable(line, EXCERPT);
            self.samples.push(Sample { log: log.name.clone(), line: log.lines, reason, excerpt });
        }
    }
}

impl Head {
    fn place(&self) -> (i64, usize, u64) {
        (self.next.at_us, self.source, self.next.line)
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Head {}

/// Reads `--host`.
fn host(text: &str) -> Result<String, String> {
    canonical_host(text).map(|host| host.name.into_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
