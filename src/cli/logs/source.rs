//! One log: opened, inflated when it is gzip, read line by line, and put into the order of its times.
//!
//! Most servers log a request when it ends, but its limits were asked when it began. So lines wait in
//! a bounded heap until nothing earlier can be expected any more.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use anyhow::Context as _;
use flate2::bufread::MultiGzDecoder;

use super::entry::{Entry, Format, Logged, Unread};
use super::fields::Fields;
use super::line::{self, Found};
use super::{Log, Notes, combined, json};

/// Lines that wait at most.
const WAITING: usize = 65_536;

/// The first bytes of a gzip stream (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A log that is being read.
pub(super) struct Source {
    input: Box<dyn BufRead>,
    /// What is known of it; becomes part of the report.
    pub(super) log: Log,
    /// How long lines wait for earlier ones, microseconds.
    window_us: i64,
    line: Vec<u8>,
    waiting: BinaryHeap<Waiting>,
    /// The latest time read so far.
    newest_us: i64,
    /// The latest time handed out.
    released_us: i64,
    ended: bool,
}

/// A line that waits for its turn.
pub(super) struct Waiting {
    pub(super) at_us: i64,
    /// From 1.
    pub(super) line: u64,
    pub(super) entry: Box<Entry>,
}

impl Source {
    /// Opens a file; `-` is standard input. What is read of it is added to `read`.
    pub(super) fn open(path: &Path, window_us: i64, read: &Arc<AtomicU64>) -> anyhow::Result<Self> {
        let is_stdin = path.as_os_str() == "-";
        let name = if is_stdin { "<stdin>".to_owned() } else { path.display().to_string() };
        let raw: Box<dyn Read> = if is_stdin {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            anyhow::ensure!(!file.metadata()?.is_dir(), "cannot read {name}: it is a directory");
            Box::new(file)
        };
        let counted = BufReader::with_capacity(64 << 10, Counted { raw, read: Arc::clone(read) });
        Ok(Self {
            input: inflated(counted).with_context(|| format!("cannot read {name}"))?,
            log: Log::new(name),
            window_us,
            line: Vec::new(),
            waiting: BinaryHeap::new(),
            newest_us: i64::MIN,
            released_us: i64::MIN,
            ended: false,
        })
    }

    /// The next request in the order of times.
    pub(super) fn next(&mut self, fields: &mut Fields, notes: &mut Notes) -> anyhow::Result<Option<Waiting>> {
        while !self.is_ready() {
            self.read(fields, notes).with_context(|| format!("cannot read on in {}", self.log.name))?;
        }
        let next = self.waiting.pop();
        self.released_us = next.as_ref().map_or(self.released_us, |next| next.at_us);
        Ok(next)
    }

    /// Whether the earliest line can have none before it, or must not wait any longer.
    fn is_ready(&self) -> bool {
        let oldest = self.waiting.peek().map(|waiting| waiting.at_us);
        let settled = oldest.is_some_and(|at_us| self.newest_us.saturating_sub(at_us) > self.window_us);
        self.ended || settled || self.waiting.len() >= WAITING
    }

    /// Reads one line.
    fn read(&mut self, fields: &mut Fields, notes: &mut Notes) -> io::Result<()> {
        let read = match line::read(&mut self.input, &mut self.line)? {
            Found::End => {
                self.ended = true;
                return Ok(());
            }
            Found::TooLong => Err(Unread::Line("it is longer than 256 KiB")),
            Found::Line => match self.line.trim_ascii_start().first() {
                None => {
                    self.log.lines += 1;
                    return Ok(());
                }
                Some(b'{') => json::parse(&self.line, fields),
                Some(_) => combined::parse(&self.line, fields),
            },
        };
        self.log.lines += 1;
        match read {
            Ok(entry) => self.wait(entry, notes),
            Err(Unread::NoRequest) => self.log.no_request += 1,
            Err(Unread::NeverAsked) => self.log.never_asked += 1,
            Err(Unread::Line(reason)) => {
                self.log.unreadable += 1;
                notes.sample(&self.log, reason, &self.line);
            }
        }
        Ok(())
    }

    /// Puts a request where it belongs. One that comes too late for that counts from now on.
    fn wait(&mut self, entry: Entry, notes: &mut Notes) {
        self.log.requests += 1;
        self.log.formats[entry.format as usize] += 1;
        notes.whole_seconds &= entry.at_us % 1_000_000 == 0;
        notes.hostless += u64::from(entry.host.is_none());
        if entry.at_us < self.released_us {
            self.log.late += 1;
        }
        let at_us = entry.at_us.max(self.released_us);
        self.newest_us = self.newest_us.max(at_us);
        self.waiting.push(Waiting { at_us, line: self.log.lines, entry: Box::new(entry) });
    }
}

impl Waiting {
    /// What comes first: the earliest and, of those at one instant, the first line. One call can decide many like
    /// requests at one instant of the store's clock; those it admitted were the first of them, whenever they were
    /// logged.
    fn place(&self) -> (i64, bool, u64) {
        let was_denied = self.entry.format == Format::Tollgate && self.entry.logged == Logged::Denied;
        (self.at_us, was_denied, self.line)
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        other.place().cmp(&self.place())
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

/// What is compressed is inflated; its first bytes tell.
fn inflated(mut input: impl BufRead + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut first = Vec::with_capacity(GZIP.len());
    input.by_ref().take(GZIP.len() as u64).read_to_end(&mut first)?;
    let is_gzip = first == GZIP;
    let whole = Cursor::new(first).chain(input);
    Ok(if is_gzip { Box::new(BufReader::with_capacity(64 << 10, MultiGzDecoder::new(whole))) } else { Box::new(whole) })
}

/// Counts what is read.
struct Counted {
    raw: Box<dyn Read>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.raw.read(buffer)?;
        self.read.fetch_add(read as u64, Atomic::Relaxed);
        Ok(read)
    }
}
