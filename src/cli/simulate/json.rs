//! The report as one JSON object.

use serde_json::{Value, json};

use super::engine::Simulation;
use super::tally::{Standout, Tally};
use super::{Report, notes};
use crate::cli::logs::{Log, Sample};
use crate::cli::text;
use crate::limit::Policy;
use crate::limit::policy::Mode;

/// Everything.
pub(super) fn of(report: &Report<'_>) -> Value {
    let mut object = simulation(&report.simulation);
    object["logs"] = report.findings.logs.iter().map(log).collect();
    object["unreadable_lines"] = report.findings.notes.samples.iter().map(sample).collect();
    object["notes"] = json!(notes::notes(report));
    if let Some(other) = &report.other {
        object["compare"] = simulation(&other.simulation);
        object["compare"]["config"] = json!(other.name);
        object["compare"]["newly_limited"] = json!(other.newly_limited);
        object["compare"]["newly_passed"] = json!(other.newly_passed);
    }
    object["thresholds"] = report
        .thresholds
        .iter()
        .map(|checked| {
            json!({
                "condition": checked.threshold.text,
                "value": checked.measured.part,
                "of": checked.measured.whole,
                "failed": checked.fails,
            })
        })
        .collect();
    object
}

fn simulation(simulation: &Simulation<'_>) -> Value {
    let totals = &simulation.totals;
    let (start_us, length_us, columns) = simulation.timeline.columns();
    let policies = simulation.config.policies.iter();
    json!({
        "requests": totals.requests,
        "limited": totals.limited,
        "limited_share": ratio(totals.limited, totals.requests),
        "refused": totals.refused,
        "held": totals.held,
        "longest_wait_ms": totals.longest_wait_us / 1_000,
        "from": totals.span_us.map(|(first, _)| text::exact_time(first)),
        "to": totals.span_us.map(|(_, last)| text::exact_time(last)),
        "as_logged": totals.as_logged,
        "different": totals.not_as_logged,
        "evicted": simulation.evictions(),
        "limits": policies.zip(&simulation.tallies).map(|(policy, tally)| limit(policy, tally)).collect::<Value>(),
        "timeline": {
            "from": totals.span_us.map(|_| text::exact_time(start_us)),
            "step_ms": length_us / 1_000,
            "requests": columns.iter().map(|step| step.requests).collect::<Vec<_>>(),
            "limited": columns.iter().map(|step| step.limited).collect::<Vec<_>>(),
        },
    })
}

fn limit(policy: &Policy, tally: &Tally) -> Value {
    let (keys, exact) = tally.keys();
    let standout = |standout: Option<&Standout>, unit: &str| {
        standout.map(|standout| json!({ "key": standout.key, unit: standout.number }))
    };
    json!({
        "name": &*policy.name,
        "mode": if policy.mode == Mode::Shadow { "shadow" } else { "enforce" },
        "requests": tally.requests,
        "limited": tally.limited,
        "limited_share": ratio(tally.limited, tally.requests),
        "without_key": tally.without_key,
        "keys": keys,
        "keys_are_exact": exact,
        "worst_key": standout(tally.worst(), "limited"),
        "peak": standout(tally.peak(), "in_one_second"),
    })
}

fn log(log: &Log) -> Value {
    json!({
        "name": log.name,
        "formats": log.formats(),
        "lines": log.lines,
        "requests": log.requests,
        "unreadable": log.unreadable,
        "no_request": log.no_request,
        "never_asked": log.never_asked,
        "late": log.late,
    })
}

fn sample(sample: &Sample) -> Value {
    json!({ "log": sample.log, "line": sample.line, "reason": sample.reason, "excerpt": sample.excerpt })
}

/// A share from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "counts of log lines are far below 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
