//! An overview as tables: what `--once` prints, and what the screen is made of.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::table::{table, trimmed};
use crate::cli::text;

/// Head and rows of one table; the first column names the thing.
pub(super) struct Rows {
    pub(super) title: &'static str,
    pub(super) head: &'static [&'static str],
    /// Columns of text beside the first; the others are numbers.
    pub(super) left: &'static [usize],
    pub(super) list: Vec<Vec<String>>,
}

/// The whole overview for people.
pub(super) fn text(overview: &Value) -> String {
    let mut all = format!("{}\n{}\n", headline(overview), traffic(overview));
    for problem in problems(overview) {
        let _ = writeln!(all, "{problem}");
    }
    for rows in [limits(overview), routes(overview), servers(overview)] {
        let mut drawn = table(rows.head, rows.left);
        for row in &rows.list {
            drawn.add_row(row);
        }
        let _ = write!(all, "\n{}\n", trimmed(&drawn));
    }
    let _ = writeln!(all, "\n{}", store(overview));
    all
}

/// `tollgate 0.1.0, up 2 h, 2 workers, all well`.
pub(super) fn headline(overview: &Value) -> String {
    let up = overview["uptime_seconds"].as_u64().unwrap_or(0);
    let up = text::span(up.max(1).saturating_mul(1_000_000));
    let well = if problems(overview).is_empty() { ", all well" } else { "" };
    let version = word(&overview["version"]);
    format!("tollgate {version}, up {up}, {}{well}", text::count(number(&overview["workers"]), "worker"))
}

/// One line on all requests.
pub(super) fn traffic(overview: &Value) -> String {
    let traffic = &overview["traffic"];
    format!(
        "requests {}/s  limited {}/s  shadow {}/s  errors {}/s  added {}  total {} ms (p50/p99)",
        rate(&traffic["requests_per_second"]),
        rate(&traffic["limited_per_second"]),
        rate(&traffic["shadow_per_second"]),
        rate(&traffic["errors_per_second"]),
        percentiles(&traffic["added_ms"]),
        percentiles(&traffic["total_ms"]),
    )
}

/// What is wrong, one line each.
pub(super) fn problems(overview: &Value) -> Vec<String> {
    let listed = overview["problems"].as_array().into_iter().flatten();
    listed.map(|problem| format!("{}: {}", word(&problem["severity"]), word(&problem["message"]))).collect()
}

/// One line on the store.
pub(super) fn store(overview: &Value) -> String {
    let store = &overview["store"];
    let up = if store["up"] == true { "answers" } else { "does not answer" };
    format!(
        "store {} ({}) {up}, round trip {} ms (p50/p99), errors {}/s, decided without it {}/s",
        word(&store["kind"]),
        word(&store["place"]),
        percentiles(&store["round_trip_ms"]),
        rate(&store["errors_per_second"]),
        rate(&store["decided_without_per_second"]),
    )
}

pub(super) fn limits(overview: &Value) -> Rows {
    let row = |limit: &Value| {
        let top = &limit["top_key"];
        let top = top["key"].as_str().map_or_else(String::new, |key| format!("{key} ×{}", number(&top["denied"])));
        let switched = if limit["switched"] == true { "*" } else { "" };
        vec![
            word(&limit["name"]).to_owned(),
            format!("{}{switched}", word(&limit["mode"])),
            rate(&limit["decisions_per_second"]),
            rate(&limit["denied_per_second"]),
            rate(&limit["shadow_per_second"]),
            top,
        ]
    };
    let head = &["limit", "mode", "decided/s", "denied/s", "shadow/s", "most denied key"];
    Rows { title: "Limits", head, left: &[1, 5], list: each(&overview["limits"], row) }
}

pub(super) fn routes(overview: &Value) -> Rows {
    let row = |route: &Value| {
        let limits = route["limits"].as_array().into_iter().flatten().map(word).collect::<Vec<_>>().join(" → ");
        let name = Some(word(&route["name"])).filter(|name| !name.is_empty()).unwrap_or("(no route)");
        vec![
            name.to_owned(),
            limits,
            word(&route["upstream"]).to_owned(),
            rate(&route["requests_per_second"]),
            rate(&route["limited_per_second"]),
            rate(&route["errors_per_second"]),
            percentiles(&route["total_ms"]),
        ]
    };
    let head = &["route", "limits", "upstream", "req/s", "limited/s", "errors/s", "p50/p99 ms"];
    Rows { title: "Flow", head, left: &[1, 2], list: each(&overview["routes"], row) }
}

pub(super) fn servers(overview: &Value) -> Rows {
    let rows = overview["upstreams"].as_array().into_iter().flatten().flat_map(|upstream| {
        let row = |server: &Value| {
            vec![
                word(&upstream["name"]).to_owned(),
                word(&server["name"]).to_owned(),
                word(&server["state"]).to_owned(),
                rate(&server["requests_per_second"]),
                rate(&server["errors_per_second"]),
                number(&server["in_flight"]).to_string(),
            ]
        };
        each(&upstream["servers"], row)
    });
    let head = &["upstream", "server", "state", "req/s", "errors/s", "in flight"];
    Rows { title: "Servers", head, left: &[1, 2], list: rows.collect() }
}

fn each(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().into_iter().flatten().map(row).collect()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Whole above ten.
fn rate(value: &Value) -> String {
    match value.as_f64().unwrap_or(0.0) {
        0.0 => "0".to_owned(),
        small if small < 9.95 => format!("{small:.1}"),
        large => format!("{large:.0}"),
    }
}

/// `0.42/3.1`, or dashes.
fn percentiles(value: &Value) -> String {
    let told = |value: &Value| match value.as_f64() {
        None => "–".to_owned(),
        Some(ms) if ms < 0.95 => format!("{ms:.2}"),
        Some(ms) if ms < 9.95 => format!("{ms:.1}"),
        Some(ms) => format!("{ms:.0}"),
    };
    format!("{}/{}", told(&value["p50"]), told(&value["p99"]))
}
