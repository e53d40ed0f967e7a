//! The report as text for people.

use std::fmt::Write as _;

use super::engine::Simulation;
use super::tally::{Standout, Tally};
use super::{Checked, Other, Report, notes};
use crate::cli::table::{table, trimmed};
use crate::cli::text;
use crate::limit::Policy;
use crate::limit::policy::Mode;

/// Logs that are listed; of more there is only the sum.
const LOGS: usize = 8;

/// Characters of a key that are shown.
const KEY: usize = 28;

/// Everything.
pub(super) fn text(report: &Report<'_>) -> String {
    let mut out = String::new();
    logs(report, &mut out);
    headline(&report.simulation, &mut out);
    match &report.other {
        None => out.push_str(&limits(&report.simulation)),
        Some(other) => compared(&report.simulation, other, &mut out),
    }
    let chart = report.simulation.timeline.chart();
    if !chart.is_empty() {
        let _ = write!(out, "\n{chart}");
    }
    for (index, note) in notes::notes(report).iter().enumerate() {
        let _ = writeln!(out, "{}\x1b[33mnote\x1b[0m  {note}", if index == 0 { "\n" } else { "" });
    }
    unreadable(report, &mut out);
    thresholds(&report.thresholds, &mut out);
    out
}

/// What was read.
fn logs(report: &Report<'_>, out: &mut String) {
    let logs = &report.findings.logs;
    for log in logs.iter().take(LOGS) {
        let formats = log.formats().join(", ");
        let format = if formats.is_empty() { String::new() } else { format!(" ({formats})") };
        let _ = writeln!(out, "{}  {}{format}", log.name, text::count(log.requests, "request"));
    }
    if logs.len() > LOGS {
        let _ = writeln!(out, "and {} more logs", logs.len() - LOGS);
    }
}

/// How many of how many, and when.
fn headline(simulation: &Simulation<'_>, out: &mut String) {
    let totals = &simulation.totals;
    if let Some((first, last)) = totals.span_us {
        let long = text::span(last.abs_diff(first));
        let _ = writeln!(out, "{} to {} UTC ({long})", text::time(first), text::time(last));
    }
    let (limited, requests) = (text::number(totals.limited), text::count(totals.requests, "request"));
    let share = text::share(totals.limited, totals.requests);
    let _ = writeln!(out, "\n\x1b[1m{limited} of {requests} would be refused ({share})\x1b[0m");
    if totals.refused > 0 {
        let count = text::count(totals.refused, "request");
        let _ = writeln!(out, "{count} would be answered 400, 403 or 405 before a limit is asked");
    }
    if totals.held > 0 {
        let longest = text::span(totals.longest_wait_us);
        let _ =
            writeln!(out, "{} would be held for their turn, {longest} at most", text::count(totals.held, "request"));
    }
    let told = totals.as_logged + totals.not_as_logged;
    if told > 0 {
        let same = match totals.not_as_logged {
            0 => "all as the proxy decided then".to_owned(),
            other => format!("{} otherwise than the proxy decided then", text::number(other)),
        };
        let _ = writeln!(out, "{} of the log carry their decision: {same}", text::count(told, "request"));
    }
    out.push('\n');
}

/// One line per limit.
fn limits(simulation: &Simulation<'_>) -> String {
    let mut table =
        table(&["limit", "requests", "limited", "share", "keys", "most refused key", "busiest key"], &[5, 6]);
    for (policy, tally) in simulation.config.policies.iter().zip(&simulation.tallies) {
        table.add_row([
            name(policy),
            text::number(tally.requests),
            text::number(tally.limited),
            text::share(tally.limited, tally.requests),
            keys(tally),
            tally.worst().map_or_else(|| "-".to_owned(), |worst| standout(worst, &text::count(worst.number, "time"))),
            tally
                .peak()
                .map_or_else(|| "-".to_owned(), |peak| standout(peak, &format!("{}/s", text::number(peak.number)))),
        ]);
    }
    if simulation.tallies.is_empty() {
        "The configuration has no limits.\n".to_owned()
    } else {
        format!("{}\n", trimmed(&table))
    }
}

/// Both configurations side by side.
fn compared(simulation: &Simulation<'_>, other: &Other<'_>, out: &mut String) {
    let mut table = table(&["limit", "limited", "share", "would be", "share", "change"], &[]);
    let mut names: Vec<&str> = simulation.config.policies.iter().map(|policy| &*policy.name).collect();
    names.extend(other.simulation.config.policies.iter().map(|policy| &*policy.name));
    let mut seen = Vec::new();
    for name in names {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let (now, then) = (tally(simulation, name), tally(&other.simulation, name));
        let cells = |tally: Option<&Tally>| match tally {
            Some(tally) => (text::number(tally.limited), text::share(tally.limited, tally.requests)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let (limited, share) = cells(now);
        let (would_be, would_share) = cells(then);
        let change = change(now.map_or(0, |tally| tally.limited), then.map_or(0, |tally| tally.limited));
        table.add_row([text::printable(name.as_bytes(), KEY), limited, share, would_be, would_share, change]);
    }
    let (totals, others) = (&simulation.totals, &other.simulation.totals);
    table.add_row([
        "all together".to_owned(),
        text::number(totals.limited),
        text::share(totals.limited, totals.requests),
        text::number(others.limited),
        text::share(others.limited, others.requests),
        change(totals.limited, others.limited),
    ]);
    let _ = writeln!(out, "{}\n", trimmed(&table));
    let _ = writeln!(
        out,
        "With {}, {} that pass now would be refused, and {} that are refused now would pass.",
        other.name,
        text::count(other.newly_limited, "request"),
        text::number(other.newly_passed)
    );
}

fn tally<'s>(simulation: &'s Simulation<'_>, name: &str) -> Option<&'s Tally> {
    let policy = simulation.config.policies.iter().find(|policy| *policy.name == *name)?;
    simulation.tallies.get(policy.index)
}

/// `+12`, `-3`, `=`.
fn change(now: u64, then: u64) -> String {
    match then.cmp(&now) {
        std::cmp::Ordering::Equal => "=".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", text::number(then - now)),
        std::cmp::Ordering::Less => format!("-{}", text::number(now - then)),
    }
}

fn name(policy: &Policy) -> String {
    let shadow = if policy.mode == Mode::Shadow { " (shadow)" } else { "" };
    format!("{}{shadow}", text::printable(policy.name.as_bytes(), KEY))
}

fn keys(tally: &Tally) -> String {
    match tally.keys() {
        (keys, true) => text::number(keys),
        (keys, false) => format!("over {}", text::number(keys)),
    }
}

/// `ip=192.0.2.7  12 times`. What is denied for want of a key has none.
fn standout(standout: &Standout, measure: &str) -> String {
    if standout.key.is_empty() {
        return format!("(no key)  {measure}");
    }
    format!("{}  {measure}", text::printable(standout.key.as_bytes(), KEY))
}

/// Lines that could not be read.
fn unreadable(report: &Report<'_>, out: &mut String) {
    let findings = &report.findings;
    let no_request = findings.sum(|log| log.no_request);
    if no_request > 0 {
        let _ = writeln!(out, "\n{} of connections that did not speak HTTP", text::count(no_request, "line"));
    }
    let unreadable = findings.sum(|log| log.unreadable);
    if unreadable == 0 {
        return;
    }
    let _ = writeln!(out, "\n{} could not be read:", text::count(unreadable, "line"));
    for sample in &findings.notes.samples {
        let _ = writeln!(out, "  {}:{}: {}", sample.log, sample.line, sample.reason);
        let _ = writeln!(out, "    \x1b[2m{}\x1b[0m", sample.excerpt);
    }
    if unreadable > findings.notes.samples.len() as u64 {
        let _ = writeln!(out, "  …");
    }
}

/// Conditions, and whether they hold.
fn thresholds(thresholds: &[Checked], out: &mut String) {
    for (index, Checked { threshold, measured, fails }) in thresholds.iter().enumerate() {
        let verdict = if *fails { "\x1b[1;31mfailed\x1b[0m" } else { "\x1b[32mpassed\x1b[0m" };
        let value =
            if threshold.percent { text::share(measured.part, measured.whole) } else { text::number(measured.part) };
        let _ =
            writeln!(out, "{}{verdict}  fail if {}: it is {value}", if index == 0 { "\n" } else { "" }, threshold.text);
    }
}
