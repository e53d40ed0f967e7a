//! When the requests of each key arrived, kept in memory: a curve looks at them many times.

use ahash::{HashMap, HashMapExt};
use anyhow::ensure;

use super::Args;
use crate::cli::logs::{Findings, Placed};
use crate::limit::key::{Found, Hashing, Key, KeyPart, Subject};
use crate::limit::policy::{Applies, PathPattern};
use crate::route::target::{canonical_path, comparable};

/// Requests that are kept at most (8 bytes each).
const MOST: usize = 50_000_000;

/// Keys that are kept at most.
const KEYS: usize = 4_000_000;

/// The arrivals of every key.
pub(super) struct Arrivals {
    /// Ascending instants, microseconds since 1970, by key.
    pub(super) lanes: Vec<Vec<i64>>,
    /// Requests in all of them.
    pub(super) requests: u64,
    /// Requests that do not carry the key.
    pub(super) without_key: u64,
    /// Requests of other paths, and such that the proxy would not accept.
    pub(super) left_out: u64,
    /// Of the first and the last request.
    pub(super) span_us: (i64, i64),
    pub(super) findings: Findings,
}

/// Which paths count.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    applies: Applies,
    /// As written.
    pub(super) text: String,
}

/// Arrivals as they come.
struct Collected {
    lanes: Vec<Vec<i64>>,
    indices: HashMap<Subject, usize>,
    requests: usize,
    without_key: u64,
    left_out: u64,
    span_us: Option<(i64, i64)>,
}

impl Arrivals {
    /// Reads every log to its end.
    pub(super) fn read(args: &Args, key: &Key) -> anyhow::Result<Self> {
        let mut logs = args.open(key)?;
        let mut collected = Collected {
            lanes: Vec::new(),
            indices: HashMap::new(),
            requests: 0,
            without_key: 0,
            left_out: 0,
            span_us: None,
        };
        while let Some(placed) = logs.next()? {
            collected.add(args, key, &placed)?;
        }
        let findings = logs.into_findings();
        let unreadable = findings.sum(|log| log.unreadable);
        let Some(span_us) = collected.span_us else {
            let by_host = key.parts.iter().flatten().any(|part| matches!(part, KeyPart::Host));
            let cure = if by_host && findings.notes.hostless > 0 {
                "; the logs name no host: say which it was with --host"
            } else {
                ""
            };
            anyhow::bail!(
                "no request to compute with: {} without the key, {} left out, {unreadable} unreadable{cure}",
                collected.without_key,
                collected.left_out
            )
        };
        Ok(Self {
            lanes: collected.lanes,
            requests: collected.requests as u64,
            without_key: collected.without_key,
            left_out: collected.left_out,
            span_us,
            findings,
        })
    }
}

impl Collected {
    /// Notes one request under its key.
    fn add(&mut self, args: &Args, key: &Key, placed: &Placed) -> anyhow::Result<()> {
        let asked = placed.entry.asked(args.logs.host.as_deref());
        let Ok(target) = asked.target() else {
            self.left_out += 1;
            return Ok(());
        };
        if args.path.as_ref().is_some_and(|filter| !filter.applies.to(target.compared())) {
            self.left_out += 1;
            return Ok(());
        }
        let facts = target.unrouted(&asked);
        let Ok(Found::Present { subject, .. }) = key.subject(&facts, &Hashing::Raw) else {
            self.without_key += 1;
            return Ok(());
        };
        let next = self.lanes.len();
        let lane = *self.indices.entry(subject).or_insert(next);
        if lane == next {
            self.lanes.push(Vec::new());
        }
        self.lanes[lane].push(placed.at_us);
        self.requests += 1;
        self.span_us = Some((self.span_us.map_or(placed.at_us, |(first, _)| first), placed.at_us));
        ensure!(
            self.requests <= MOST && self.lanes.len() <= KEYS,
            "more than {MOST} requests or {KEYS} keys are too many to compute with: give a shorter stretch"
        );
        Ok(())
    }
}

impl Filter {
    /// `/exact` or `/prefix/*`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (fixed, below) = text.strip_suffix('*').map_or((text, false), |fixed| (fixed, true));
        if fixed.contains('*') || (below && !fixed.ends_with('/')) {
            return Err("write /exact or /prefix/*".to_owned());
        }
        let canonical = canonical_path(fixed).map_err(|error| error.to_string())?.text;
        let compared = comparable(&canonical).into();
        let pattern = if below { PathPattern::Prefix(compared) } else { PathPattern::Exact(compared) };
        Ok(Self { applies: Applies { path: vec![pattern], not_path: Vec::new() }, text: text.to_owned() })
    }
}
