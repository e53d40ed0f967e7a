//! The curve as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Args;
use super::arrivals::Arrivals;
use super::curve::{Curve, Point};
use crate::cli::table::{table, trimmed};
use crate::cli::text;

/// For people.
pub(super) fn text(args: &Args, arrivals: &Arrivals, curve: &Curve) -> String {
    let mut out = String::new();
    let (first, last) = arrivals.span_us;
    let long = text::span(last.abs_diff(first));
    let (requests, keys) = (arrivals.requests, arrivals.lanes.len() as u64);
    let _ = writeln!(out, "{} of {} by {}", text::count(requests, "request"), text::count(keys, "key"), key(args));
    let _ = writeln!(out, "{} to {} UTC ({long})\n", text::time(first), text::time(last));
    let _ = writeln!(out, "{}\n", rows(args, requests, curve));
    notes(arrivals, &mut out);
    let _ = write!(out, "\x1b[2m# proposed:\x1b[0m\n{}", yaml(args, &curve.points[curve.proposed]));
    out
}

/// A line for each rate. Where no refusal is acceptable, there is one burst and nothing refused.
fn rows(args: &Args, requests: u64, curve: &Curve) -> String {
    let target = format!("burst for {}", refused_share(args));
    let some_refused = args.refuse.millionths > 0;
    let refusals = [target.as_str(), "refused", "share", "keys refused"];
    let refusals = if some_refused { &refusals[..] } else { &[] };
    let mut rows = table(&[&["", "rate", "burst for 0%"], refusals, &["refill"]].concat(), &[]);
    for (index, point) in curve.points.iter().enumerate() {
        let mut row = vec![
            if index == curve.proposed { "→".to_owned() } else { String::new() },
            point.rate.to_string(),
            text::number(point.burst_for_none),
        ];
        if some_refused {
            row.push(text::number(point.burst));
            row.push(text::number(point.refused));
            row.push(text::share(point.refused, requests));
            row.push(text::number(point.refused_keys));
        }
        row.push(text::span(micros(point)));
        rows.add_row(row);
    }
    trimmed(&rows)
}

/// For machines.
pub(super) fn json(args: &Args, arrivals: &Arrivals, curve: &Curve) -> Value {
    let (first, last) = arrivals.span_us;
    let proposed = &curve.points[curve.proposed];
    json!({
        "key": args.key.iter().map(|key| &key.text).collect::<Vec<_>>(),
        "requests": arrivals.requests,
        "keys": arrivals.lanes.len(),
        "without_key": arrivals.without_key,
        "left_out": arrivals.left_out,
        "unreadable": arrivals.findings.sum(|log| log.unreadable),
        "from": text::exact_time(first),
        "to": text::exact_time(last),
        "acceptable": curve.allowed,
        "curve": curve.points.iter().map(point).collect::<Vec<_>>(),
        "proposed": { "rate": proposed.rate.to_string(), "burst": proposed.burst, "yaml": yaml(args, proposed) },
    })
}

fn point(point: &Point) -> Value {
    json!({
        "rate": point.rate.to_string(),
        "burst_for_none": point.burst_for_none,
        "burst": point.burst,
        "refused": point.refused,
        "refused_keys": point.refused_keys,
        "refill_ms": micros(point) / 1_000,
    })
}

/// A limit to paste.
fn yaml(args: &Args, point: &Point) -> String {
    let keys: Vec<_> = args.key.iter().map(|key| Value::from(key.text.as_str()).to_string()).collect();
    let key = match &args.key[..] {
        [key] => key.text.clone(),
        _ => format!("[{}]", keys.join(", ")),
    };
    let mut out = format!("limits:\n  - key: {key}\n    rate: {}\n    burst: {}\n", point.rate, point.burst);
    if let Some(filter) = &args.path {
        let _ = writeln!(out, "    match: {{ path: {} }}", Value::from(filter.text.as_str()));
    }
    out
}

/// What the numbers leave out.
fn notes(arrivals: &Arrivals, out: &mut String) {
    let findings = &arrivals.findings;
    let unreadable = findings.sum(|log| log.unreadable);
    let mut notes = Vec::new();
    for (number, what) in [
        (arrivals.without_key, "do not carry the key, as far as the logs tell, and are left out"),
        (arrivals.left_out, "are of other paths or such that the proxy would not accept, and are left out"),
    ] {
        if number > 0 {
            notes.push(format!("{} {what}", text::count(number, "request")));
        }
    }
    if unreadable > 0 {
        let sample = findings.notes.samples.first();
        let first = sample.map(|sample| format!(", the first at {}:{}: {}", sample.log, sample.line, sample.reason));
        notes.push(format!("{} could not be read{}", text::count(unreadable, "line"), first.unwrap_or_default()));
    }
    if findings.notes.whole_seconds {
        notes.push("the logs' times are whole seconds: bursts look larger than they were".to_owned());
    }
    for note in &notes {
        let _ = writeln!(out, "\x1b[33mnote\x1b[0m  {note}");
    }
    if !notes.is_empty() {
        out.push('\n');
    }
}

fn key(args: &Args) -> String {
    args.key.iter().map(|key| key.text.as_str()).collect::<Vec<_>>().join(" and ")
}

/// `0.1%`, as it was given.
#[expect(clippy::cast_precision_loss, reason = "at most a million")]
fn refused_share(args: &Args) -> String {
    format!("{}%", args.refuse.millionths as f64 / 10_000.0)
}

fn micros(point: &Point) -> u64 {
    u64::try_from(point.refill.as_micros()).unwrap_or(u64::MAX)
}
