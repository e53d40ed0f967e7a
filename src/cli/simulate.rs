//! `tollgate simulate LOG…`: what the limits of a configuration would have refused of the requests that
//! access logs tell of.

mod engine;
mod json;
mod notes;
mod tally;
mod threshold;
mod timeline;
mod verdicts;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::logs::{Findings, LogArgs, Logs, Placed};
use super::{FAILED, Format, Global};
use crate::config::frames::Colour;
use crate::config::{self, Config, Loaded, Origin};
use engine::{Fate, Simulation};
use threshold::{Measured, Metric, Threshold};
use verdicts::Verdicts;

/// Replay access logs on their own clock: what the limits would have refused
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Formats are found out line by line: combined and common (nginx, Apache), Caddy and Traefik JSON, Traefik CLF, \
and Tollgate's own JSON, whose `decided_at` makes the replay exact.

Conditions of --fail-if: [limit NAME:] NUMBER > >= < <= BOUND. Numbers: limited, requests, keys (of a limit), \
unreadable, different (verdicts that are not those of Tollgate's log), and beside --compare newly_limited, \
newly_passed. With --compare they are those of the other configuration. `%` is a share of the requests (of the lines: \
unreadable).

Examples:
  tollgate simulate /var/log/nginx/access.log
  zcat -f access.log* | tollgate simulate - --host api.example.com
  tollgate simulate a.log --compare b.yaml --fail-if 'newly_limited > 0.1%'
  tollgate simulate access.log --fail-if 'limit login: limited > 20'

Exit code 3 when a condition holds.")]
pub struct Args {
    #[command(flatten)]
    logs: LogArgs,
    /// Another configuration, side by side with the first
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Exit with 3 when this holds, such as 'limited > 1%'; may be repeated
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Threshold>,
    /// Write a line for each refused request: time, log, line, limit, Retry-After (tab-separated)
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

/// Everything there is to report.
struct Report<'c> {
    findings: Findings,
    simulation: Simulation<'c>,
    other: Option<Other<'c>>,
    thresholds: Vec<Checked>,
}

/// The configuration that is compared.
struct Other<'c> {
    name: String,
    simulation: Simulation<'c>,
    /// Requests that pass now and would not.
    newly_limited: u64,
    /// Requests that do not pass now and would.
    newly_passed: u64,
}

/// A condition, and whether it holds.
struct Checked {
    threshold: Threshold,
    measured: Measured,
    fails: bool,
}

/// Replays, and prints the report.
///
/// # Errors
/// When there is no configuration or no log, or something cannot be read or written.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let Some(loaded) = super::load(global)? else { return Ok(ExitCode::FAILURE) };
    let other = match &args.compare {
        None => None,
        Some(path) => match load_other(path)? {
            Some(other) => Some((path.display().to_string(), other)),
            None => return Ok(ExitCode::FAILURE),
        },
    };
    let judged = other.as_ref().map_or(&loaded.config, |(_, other)| &other.config);
    if let Some(mistake) = args.fail_if.iter().find_map(|threshold| mistake(threshold, judged, other.is_some())) {
        super::complain(&format!("error: {mistake}\n"));
        return Ok(ExitCode::from(2));
    }
    let report = Report::of(args, &loaded.config, other.as_ref().map(|(name, other)| (name.as_str(), &other.config)))?;
    super::check::print(&match args.format {
        Format::Text => words::text(&report),
        Format::Json => format!("{:#}\n", json::of(&report)),
    })?;
    let failed = report.thresholds.iter().any(|checked| checked.fails);
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// The configuration to compare with.
fn load_other(path: &Path) -> anyhow::Result<Option<Loaded>> {
    anyhow::ensure!(path.exists(), "there is no configuration file at {}", path.display());
    match config::load(&Origin::File(path.to_owned())) {
        Ok(loaded) => Ok(Some(loaded)),
        Err(report) => {
            super::complain(&report.render(Colour::Ansi));
            Ok(None)
        }
    }
}

/// Why a condition cannot be checked.
fn mistake(threshold: &Threshold, config: &Config, compared: bool) -> Option<String> {
    if threshold.metric.compares() && !compared {
        return Some(format!("`{}` needs --compare", threshold.text));
    }
    let name = threshold.limit.as_deref()?;
    let unknown = config.policies.iter().all(|policy| *policy.name != *name);
    let known = || config.policies.iter().map(|policy| &*policy.name).collect::<Vec<_>>().join(", ");
    unknown.then(|| format!("`{}`: there is no limit `{name}`; the limits are: {}", threshold.text, known()))
}

impl<'c> Report<'c> {
    /// Reads the logs to their end.
    fn of(args: &Args, config: &'c Config, other: Option<(&str, &'c Config)>) -> anyhow::Result<Self> {
        let mut simulation = Simulation::new(config);
        let mut other = other.map(|(name, config)| Other::new(name, config));
        let wanted = other.iter().flat_map(|other| other.simulation.wanted());
        let mut logs = Logs::open(&args.logs, simulation.wanted().into_iter().chain(wanted))?;
        let mut verdicts = args.verdicts.as_deref().map(|path| Verdicts::create(path, &args.logs.logs)).transpose()?;
        let host = args.logs.host.as_deref();
        while let Some(placed) = logs.next()? {
            let fate = simulation.take(&placed, host);
            if let Some(other) = &mut other {
                other.take(&placed, host, fate);
            }
            if let (Some(verdicts), Fate::Limited { policy, retry_us }) = (&mut verdicts, fate) {
                let name = config.policies.get(policy).map_or("", |policy| &*policy.name);
                verdicts.write(&placed, logs.name(placed.log), name, retry_us)?;
            }
        }
        if let Some(verdicts) = verdicts {
            verdicts.finish()?;
        }
        let mut report = Self { findings: logs.into_findings(), simulation, other, thresholds: Vec::new() };
        report.ensure_readable()?;
        report.ensure_judgeable(args)?;
        report.thresholds = args.fail_if.iter().map(|threshold| report.check(threshold)).collect();
        Ok(report)
    }

    /// Logs that hold nothing, or nothing that could be read, are a mistake, not an empty report.
    fn ensure_readable(&self) -> anyhow::Result<()> {
        let unreadable = self.findings.sum(|log| log.unreadable);
        anyhow::ensure!(self.findings.sum(|log| log.lines) > 0, "there is nothing in {}", self.names());
        if self.findings.sum(|log| log.lines) > unreadable || unreadable == 0 {
            return Ok(());
        }
        let sample = self.findings.notes.samples.first().context("a sample of the unreadable lines")?;
        anyhow::bail!(
            "no line could be read as a request; the first is {}:{}: {}: {}",
            sample.log,
            sample.line,
            sample.reason,
            sample.excerpt
        )
    }

    /// No condition is met or missed by no request at all.
    fn ensure_judgeable(&self, args: &Args) -> anyhow::Result<()> {
        let judged = args.fail_if.iter().find(|threshold| threshold.metric.needs_requests());
        if let (Some(threshold), 0) = (judged, self.simulation.totals.requests) {
            anyhow::bail!("`{}` cannot be judged: no request in {} reaches a limit", threshold.text, self.names());
        }
        Ok(())
    }

    /// The logs' names.
    fn names(&self) -> String {
        self.findings.logs.iter().map(|log| log.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn check(&self, threshold: &Threshold) -> Checked {
        let measured = self.measure(threshold);
        Checked { threshold: threshold.clone(), measured, fails: threshold.fails(measured) }
    }

    /// The number that a condition is about.
    fn measure(&self, threshold: &Threshold) -> Measured {
        let simulation = self.other.as_ref().map_or(&self.simulation, |other| &other.simulation);
        let totals = &simulation.totals;
        let named = threshold.limit.as_deref().and_then(|name| {
            let policy = simulation.config.policies.iter().find(|policy| *policy.name == *name)?;
            simulation.tallies.get(policy.index)
        });
        let of = |part: u64, whole: u64| Measured { part, whole };
        match (threshold.metric, named, &self.other) {
            (Metric::Limited, Some(tally), _) => of(tally.limited, tally.requests),
            (Metric::Limited, None, _) => of(totals.limited, totals.requests),
            (Metric::Requests, Some(tally), _) => of(tally.requests, tally.requests),
            (Metric::Requests, None, _) => of(totals.requests, totals.requests),
            (Metric::Keys, tally, _) => of(tally.map_or(0, |tally| tally.keys().0), 1),
            (Metric::NewlyLimited, _, other) => {
                of(other.as_ref().map_or(0, |other| other.newly_limited), totals.requests)
            }
            (Metric::NewlyPassed, _, other) => {
                of(other.as_ref().map_or(0, |other| other.newly_passed), totals.requests)
            }
            (Metric::Different, ..) => of(totals.not_as_logged, totals.as_logged + totals.not_as_logged),
            (Metric::Unreadable, ..) => of(self.findings.sum(|log| log.unreadable), self.findings.sum(|log| log.lines)),
        }
    }
}

impl<'c> Other<'c> {
    fn new(name: &str, config: &'c Config) -> Self {
        Self { name: name.to_owned(), simulation: Simulation::new(config), newly_limited: 0, newly_passed: 0 }
    }

    /// Decides a request and notes whether that is a change.
    fn take(&mut self, placed: &Placed, host: Option<&str>, now: Fate) {
        let then = self.simulation.take(placed, host);
        let limited = |fate| matches!(fate, Fate::Limited { .. });
        self.newly_limited += u64::from(!limited(now) && limited(then));
        self.newly_passed += u64::from(limited(now) && !limited(then));
    }
}
