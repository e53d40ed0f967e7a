//! What a route matches, expanded.

use super::{Lines, quoted};
use crate::route::{Match, PathMatch, Wanted};

pub(super) fn conditions(out: &mut Lines, matches: &Match) {
    if matches.is_everything() {
        return;
    }
    out.line(4, "match:");
    out.list(6, "host", matches.hosts.iter().map(ToString::to_string));
    if !matches.paths.is_empty() {
        let paths: Vec<_> = matches.paths.iter().map(path).collect();
        out.pair(6, "path", format_args!("[{}]", paths.join(", ")));
    }
    out.list(6, "method", matches.methods.iter().map(ToString::to_string));
    let field = |name: &str, wanted: &Wanted| match name {
        "authorization" | "proxy-authorization" | "cookie" if wanted.has_value() => quoted("***"),
        _ => condition(wanted),
    };
    let headers = matches.headers.iter().map(|(name, wanted)| (name.as_str(), field(name.as_str(), wanted)));
    named(out, "headers", headers.collect());
    named(out, "query", matches.query.iter().map(|(name, wanted)| (&**name, condition(wanted))).collect());
}

fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Template(template) => quoted(&template.text),
        PathMatch::Regex(regex) => format!("{{ regex: {} }}", quoted(regex.pattern.text())),
    }
}

fn named(out: &mut Lines, key: &str, conditions: Vec<(&str, String)>) {
    if !conditions.is_empty() {
        out.line(6, format_args!("{key}:"));
    }
    for (name, condition) in conditions {
        out.line(8, format_args!("{}: {condition}", quoted(name)));
    }
}

fn condition(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Exactly(value) => quoted(&String::from_utf8_lossy(value)),
        Wanted::Present => "{ present: true }".to_owned(),
        Wanted::Absent => "{ present: false }".to_owned(),
        Wanted::Fits(pattern) => format!("{{ regex: {} }}", quoted(pattern.text())),
    }
}
