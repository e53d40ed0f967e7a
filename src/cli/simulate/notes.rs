//! What a reader of the report must know: what the logs do not hold, and what was done about it.

use http::header::COOKIE;

use super::Report;
use super::tally::Tally;
use crate::cli::logs::{Findings, Held};
use crate::cli::text;
use crate::limit::key::KeyPart;
use crate::limit::policy::{Missing, Policy, Terms};

/// Every note, in sentences without a full stop.
pub(super) fn notes(report: &Report<'_>) -> Vec<String> {
    let findings = &report.findings;
    let reached = || {
        let limits = report.simulation.config.policies.iter().zip(&report.simulation.tallies);
        limits.filter(|(_, tally)| tally.reached > 0)
    };
    let mut notes: Vec<String> = reached().filter_map(|(policy, tally)| limit(policy, tally, findings)).collect();
    notes.extend(reached().filter_map(|(policy, _)| answers(policy)));
    notes.extend(reached().filter_map(|(policy, _)| in_flight(policy)));
    notes.extend(routes(report));
    let requests = findings.sum(|log| log.requests);
    let mut add = |count: u64, note: &dyn Fn(String) -> String| {
        if count > 0 {
            notes.push(note(text::count(count, "request")));
        }
    };
    add(findings.sum(|log| log.never_asked), &|count| {
        format!("{count} had been refused by the proxy before any limit: not counted")
    });
    add(findings.sum(|log| log.late), &|count| {
        format!("{count} stood too far behind their time and counted when they were read (--reorder)")
    });
    add(report.simulation.evictions(), &|_| {
        format!("{} found no room in store.max_keys and began anew", text::count(report.simulation.evictions(), "key"))
    });
    if requests > 0 && findings.notes.whole_seconds {
        notes.push("the logs' times are whole seconds: what came within one second counts as at once".to_owned());
    }
    notes
}

/// What the logs lack of a limit's key.
fn limit(policy: &Policy, tally: &Tally, findings: &Findings) -> Option<String> {
    let mut lacking: Vec<String> =
        policy.key.parts.iter().flatten().filter_map(|part| lacking(part, findings)).collect();
    lacking.dedup();
    if lacking.is_empty() {
        return None;
    }
    let instead = match policy.missing {
        Missing::ClientIp { .. } => "counted by client address instead",
        Missing::Deny => "denied, as `missing: deny` says",
        Missing::Skip => "not counted",
    };
    let what = lacking.join(" and ");
    let taken = match (policy.missing, tally.without_key) {
        (Missing::Skip, _) => format!("requests without it are {instead}"),
        // Others denied every request first: this limit decided on none.
        _ if tally.requests == 0 => return None,
        (_, 0) => "the limit's other keys stood in".to_owned(),
        (_, count) => format!("{} {instead}", text::count(count, "request")),
    };
    Some(format!("limit {}: the logs hold {what}; {taken}", policy.name))
}

/// Logs tell when requests came, and not how many were under way then.
fn in_flight(policy: &Policy) -> Option<String> {
    policy.terms_of_all_keys().any(Terms::counts_in_flight).then(|| {
        format!(
            "limit {}: the logs do not tell how many requests were under way at once; each counts as over at once, so \
             that `in_flight` refuses none",
            policy.name
        )
    })
}

/// What the logs do not tell of answers that change a charge.
fn answers(policy: &Policy) -> Option<String> {
    let name = &policy.name;
    if let Some(field) = &policy.cost.response_header {
        return Some(format!(
            "limit {name}: logs do not hold {field} of answers; every request stays charged as it was when it came"
        ));
    }
    policy.settling.may_refund().then(|| {
        format!(
            "limit {name}: counts by the statuses in the logs, as if answers came at once; requests that were \
             answered 429, or without a status, stay charged"
        )
    })
}

/// What is not held of one part of a key.
fn lacking(part: &KeyPart, findings: &Findings) -> Option<String> {
    let held = |held: Held, what: String| match held {
        Held::Values => None,
        Held::Redacted => Some(format!("no value of {what}")),
        Held::Nothing => Some(format!("no {what}")),
    };
    match part {
        KeyPart::Header(name) => held(findings.fields.held(name), format!("field {name}")),
        KeyPart::Cookie(name) => held(findings.fields.held(&COOKIE), format!("cookie {name}")),
        KeyPart::Query(name) => (findings.fields.hidden_queries > 0)
            .then(|| format!("no query ({name}) of {}", text::count(findings.fields.hidden_queries, "request"))),
        KeyPart::Jwt(claim) => Some(format!("no token with {claim}")),
        KeyPart::TlsSubject => Some("no client's certificate".to_owned()),
        KeyPart::ClientIp { .. }
        | KeyPart::Path(_)
        | KeyPart::Host
        | KeyPart::Method
        | KeyPart::Route
        | KeyPart::Global => None,
    }
}

/// Routes that wait for what the logs do not tell.
fn routes(report: &Report<'_>) -> Vec<String> {
    let routes: Vec<_> = report.simulation.config.router.routes().collect();
    let mut notes = Vec::new();
    let by_host = routes.iter().any(|route| !route.matches.hosts.is_empty());
    let hostless = report.findings.notes.hostless;
    if by_host && hostless > 0 {
        notes.push(format!(
            "{} name no host, and routes match by host: say which it was with --host",
            text::count(hostless, "request")
        ));
    }
    for route in routes {
        let unheld = |name: &&http::HeaderName| report.findings.fields.held(name) != Held::Values;
        let field = route.matches.headers.iter().map(|(name, _)| name).find(unheld).map(ToString::to_string);
        let parameter = route.matches.query.first().filter(|_| report.findings.fields.hidden_queries > 0);
        let unheld = field.or(parameter.map(|(name, _)| format!("the query parameter {name}")));
        if let Some(name) = unheld {
            notes.push(format!(
                "route {}: it matches by {name}, which the logs do not hold: requests take it as if it were absent",
                route.name
            ));
        }
    }
    notes
}
