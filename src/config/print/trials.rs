//! `tests:` with nothing left to defaults.

use http::HeaderMap;

use super::{Lines, quoted};
use crate::config::trial::{Answer, Expectation, RetryAfter, Sending, Trial};
use crate::units::DurationText;

pub(super) fn trials(out: &mut Lines, trials: &[Trial]) {
    if !trials.is_empty() {
        out.line(0, "tests:");
    }
    for trial in trials {
        out.line(2, format_args!("- name: {}", quoted(&trial.name)));
        out.line(4, "send:");
        trial.sends.iter().for_each(|send| sending(out, send));
        out.line(4, "expect:");
        expectation(out, &trial.expect);
    }
}

fn sending(out: &mut Lines, send: &Sending) {
    out.line(6, format_args!("- count: {}", send.count));
    out.pair(8, "method", quoted(send.method.as_str()));
    out.pair(8, "url", quoted(&send.uri.to_string()));
    out.pair(8, "from", quoted(&send.client.to_string()));
    fields(out, 8, &send.headers);
    if !send.claims.is_empty() {
        // JSON is YAML; `${` is doubled as in every other text.
        let claims = serde_json::Value::from(send.claims.clone()).to_string().replace("${", "$${");
        out.pair(8, "jwt_claims", claims);
    }
    if let Some(subject) = &send.tls_subject {
        out.pair(8, "tls_subject", quoted(subject));
    }
    out.pair(8, "at", DurationText(send.at));
    out.pair(8, "every", DurationText(send.every));
    if let Some(Answer { status, headers }) = &send.answer {
        out.line(8, "respond:");
        out.pair(10, "status", status.as_u16());
        fields(out, 10, headers);
    }
}

fn fields(out: &mut Lines, indent: usize, headers: &HeaderMap) {
    if !headers.is_empty() {
        out.line(indent, "headers:");
    }
    for (name, value) in headers {
        out.pair(indent + 2, name.as_str(), quoted(&String::from_utf8_lossy(value.as_bytes())));
    }
}

fn expectation(out: &mut Lines, expect: &Expectation) {
    for (key, number) in [("allowed", expect.allowed), ("denied", expect.denied), ("remaining", expect.remaining)] {
        if let Some(number) = number {
            out.pair(6, key, number);
        }
    }
    match expect.retry_after {
        Some(RetryAfter::Seconds(seconds)) => out.pair(6, "retry_after", format_args!("{seconds}s")),
        Some(RetryAfter::Never) => out.pair(6, "retry_after", "never"),
        None => {}
    }
    out.list(6, "denied_by", expect.denied_by.iter().map(ToString::to_string));
    if let Some(wait) = expect.longest_wait {
        out.pair(6, "longest_wait", DurationText(wait));
    }
}
