//! `tollgate test`: the configuration's own tests of its limits, on a virtual clock.

mod course;

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;

use super::{FAILED, Format, Global, text};
use crate::config::Trial;
use course::{Course, Deviation};

/// Run the configuration's tests of its limits; nothing is sent, and no time passes
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A test says what is sent and what must come of it:

  tests:
    - name: a login burst is cut at five
      send: { count: 20, method: POST, url: /v1/login, from: 192.0.2.7 }
      expect: { allowed: 5, denied: 15, denied_by: login-per-ip }

Examples:
  tollgate test
  tollgate test -c proxy.yaml login --format json

Exit code 3 when a test fails, 2 when no test has such a name, 1 when there is no test at all.")]
pub struct Args {
    /// Only the tests whose name holds this
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

/// One test that was run.
struct Ran<'c> {
    trial: &'c Trial,
    course: Course,
    deviations: Vec<Deviation>,
}

/// Runs the tests, and prints a line for each.
///
/// # Errors
/// When there is no configuration or it has no tests, or standard output cannot be written, except that nobody reads
/// it any more.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let Some(loaded) = super::load(global)? else { return Ok(ExitCode::FAILURE) };
    let config = &loaded.config;
    let file = &loaded.warnings.file;
    anyhow::ensure!(
        !config.trials.is_empty(),
        "{file} has no tests; write some below `tests:` (see `tollgate test --help`)"
    );
    let wanted = |trial: &&Trial| args.name.as_deref().is_none_or(|name| trial.name.contains(name));
    let ran: Vec<Ran<'_>> = config
        .trials
        .iter()
        .filter(wanted)
        .map(|trial| {
            let course = Course::run(config, trial);
            let deviations = course.deviations(&trial.expect);
            Ran { trial, course, deviations }
        })
        .collect();
    if ran.is_empty() {
        super::complain(&format!(
            "error: {file} has no test whose name holds `{}`\n",
            args.name.as_deref().unwrap_or("")
        ));
        return Ok(ExitCode::from(2));
    }
    super::check::print(&match args.format {
        Format::Text => words(&ran),
        Format::Json => format!("{:#}\n", json(&ran)),
    })?;
    let failed = ran.iter().any(|ran| !ran.deviations.is_empty());
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn words(ran: &[Ran<'_>]) -> String {
    let mut out = String::new();
    for Ran { trial, course, deviations } in ran {
        let verdict = if deviations.is_empty() { "\x1b[32mok    \x1b[0m" } else { "\x1b[1;31mFAILED\x1b[0m" };
        let (allowed, denied) = (text::number(course.allowed), text::number(course.denied));
        let _ = writeln!(out, "{verdict} {}  \x1b[2m{allowed} allowed, {denied} denied\x1b[0m", trial.name);
        for Deviation { what, expected, actual, place } in deviations {
            let _ = writeln!(out, "         {what}: expected {expected}, got {actual}");
            if let Some(place) = place {
                let _ = writeln!(out, "           first at {place}");
            }
        }
    }
    let failed = ran.iter().filter(|ran| !ran.deviations.is_empty()).count();
    let tests = text::count(ran.len() as u64, "test");
    let _ = writeln!(out, "\n{tests}: {} passed, {failed} failed", ran.len() - failed);
    out
}

fn json(ran: &[Ran<'_>]) -> serde_json::Value {
    let failed = ran.iter().filter(|ran| !ran.deviations.is_empty()).count();
    let tests = ran.iter().map(|Ran { trial, course, deviations }| {
        let deviations = deviations.iter().map(|deviation| {
            json!({
                "what": deviation.what,
                "expected": deviation.expected,
                "actual": deviation.actual,
                "first_at": deviation.place,
            })
        });
        json!({
            "name": &*trial.name,
            "passed": deviations.len() == 0,
            "allowed": course.allowed,
            "denied": course.denied,
            "refused": course.refused,
            "deviations": deviations.collect::<Vec<_>>(),
        })
    });
    json!({ "passed": ran.len() - failed, "failed": failed, "tests": tests.collect::<Vec<_>>() })
}
