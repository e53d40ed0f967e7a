//! What a route does beside forwarding, expanded.

use super::{Lines, quoted};
use crate::route::cors::Announced;
use crate::route::fields::{FieldValue, is_secret};
use crate::route::rewrite::{HostRewrite, PathRewrite};
use crate::route::{Access, Cors, Extras, FieldEdits, FixedAnswer, Rewrite};
use crate::units::{DurationText, Size};

pub(super) fn extras(out: &mut Lines, extras: &Extras) {
    if let Some(answer) = &extras.answer {
        fixed(out, answer);
    }
    rewrite(out, &extras.rewrite);
    field_edits(out, "request_headers", &extras.request_headers);
    field_edits(out, "response_headers", &extras.response_headers);
    if let Some(most) = extras.max_body_size {
        out.pair(4, "max_body_size", Size(most));
    }
    access(out, 4, &extras.access);
    if let Some(rules) = &extras.cors {
        cors(out, rules);
    }
}

fn fixed(out: &mut Lines, answer: &FixedAnswer) {
    match answer {
        FixedAnswer::Redirect(redirect) => {
            let (to, status) = (quoted(redirect.to().text()), redirect.status.as_u16());
            out.pair(4, "redirect", format_args!("{{ to: {to}, status: {status} }}"));
        }
        FixedAnswer::Respond(respond) => {
            out.line(4, "respond:");
            out.pair(6, "status", respond.status.as_u16());
            if !respond.body.is_empty() {
                out.pair(6, "body", quoted(&String::from_utf8_lossy(&respond.body)));
            }
            out.pair(6, "content_type", quoted(&String::from_utf8_lossy(respond.content_type.as_bytes())));
            values(out, "headers", &respond.headers);
        }
    }
}

fn rewrite(out: &mut Lines, rewrite: &Rewrite) {
    if *rewrite == Rewrite::default() {
        return;
    }
    out.line(4, "rewrite:");
    match &rewrite.path {
        PathRewrite::Keep => {}
        PathRewrite::Prefix { strip, add } => {
            for (key, prefix) in [("strip_prefix", strip), ("add_prefix", add)] {
                if let Some(prefix) = prefix {
                    out.pair(6, key, quoted(prefix));
                }
            }
        }
        PathRewrite::Replace(template) => out.pair(6, "path", quoted(template.text())),
        PathRewrite::Regex { pattern, replace } => {
            let (pattern, replace) = (quoted(pattern.text()), quoted(replace));
            out.pair(6, "regex", format_args!("{{ match: {pattern}, replace: {replace} }}"));
        }
    }
    if !rewrite.query.is_empty() {
        out.line(6, "query:");
        if !rewrite.query.set.is_empty() {
            out.line(8, "set:");
        }
        for (name, value) in &rewrite.query.set {
            out.line(10, format_args!("{}: {}", quoted(name), quoted(value.text())));
        }
        out.list(8, "remove", rewrite.query.remove.iter().map(ToString::to_string));
    }
    match &rewrite.host {
        HostRewrite::Keep => {}
        HostRewrite::Upstream => out.pair(6, "host", "upstream"),
        HostRewrite::Name(host) => out.pair(6, "host", quoted(&String::from_utf8_lossy(host.as_bytes()))),
    }
}

fn field_edits(out: &mut Lines, key: &str, edits: &FieldEdits) {
    if edits.is_empty() {
        return;
    }
    out.line(4, format_args!("{key}:"));
    values(out, "set", &edits.set);
    values(out, "add", &edits.add);
    values(out, "default", &edits.default);
    out.list(6, "remove", edits.remove.iter().map(ToString::to_string));
}

fn values(out: &mut Lines, key: &str, fields: &[(http::HeaderName, FieldValue)]) {
    if !fields.is_empty() {
        out.line(6, format_args!("{key}:"));
    }
    for (name, value) in fields {
        let shown = if is_secret(name) { "***".to_owned() } else { value.text() };
        out.line(8, format_args!("{}: {}", quoted(name.as_str()), quoted(&shown)));
    }
}

pub(super) fn access(out: &mut Lines, indent: usize, access: &Access) {
    if access.is_open() {
        return;
    }
    out.line(indent, "access:");
    out.list(indent + 2, "allow", access.allow.iter().map(ToString::to_string));
    out.list(indent + 2, "deny", access.deny.iter().map(ToString::to_string));
}

fn cors(out: &mut Lines, cors: &Cors) {
    out.line(4, "cors:");
    out.list(6, "origins", cors.rules.origins.iter().map(ToString::to_string));
    out.list(6, "methods", cors.rules.methods.iter().map(ToString::to_string));
    match &cors.rules.headers {
        Announced::Any => out.list(6, "headers", ["*".to_owned()]),
        Announced::These(names) => out.list(6, "headers", names.iter().map(ToString::to_string)),
    }
    out.list(6, "expose", cors.rules.expose.iter().map(ToString::to_string));
    out.pair(6, "credentials", cors.rules.credentials);
    out.pair(6, "max_age", DurationText(std::time::Duration::from_secs(cors.rules.max_age)));
}
