//! What is wrong at present, most urgent first: the page's first line.

use serde_json::{Value, json};

use super::Service;
use super::metrics::reading::Reading;
use super::metrics::upstreams::state_of;
use crate::config::Config;
use crate::limit::store::settings::Backend;
use crate::upstream::Upstream;
use crate::upstream::breaker::Breaker;

/// Days before its end from which on a certificate is told of.
const CERTIFICATE_DAYS: i64 = 7;

/// One thing that is wrong.
struct Problem {
    severity: &'static str,
    kind: &'static str,
    message: String,
}

impl Service {
    /// All of them.
    pub(super) fn problems(&self, now: &Reading) -> Vec<Value> {
        let mut problems = Vec::new();
        self.store(now, &mut problems);
        if let Some(why) = self.reload_refused() {
            problems.push(error("reload_failed", format!("The configuration file was not loaded: {why}.")));
        }
        for upstream in &now.config.upstreams {
            problems.extend(servers(upstream));
            if upstream.settings.breaker.as_ref().is_some_and(Breaker::is_open) {
                let message = format!("The circuit breaker of the upstream {} turns requests away.", upstream.name);
                problems.push(error("breaker_open", message));
            }
        }
        if self.admin.sources.token_keys().is_some_and(|keys| keys == 0) {
            let message = "There is no key to verify tokens with: every token counts as missing.";
            problems.push(error("no_token_keys", message.to_owned()));
        }
        certificates(&now.config, &mut problems);
        if self.admin.sources.sheds() {
            problems.push(error("memory", "Memory is scarce: connections and requests are refused.".to_owned()));
        }
        if !self.admin.is_ready() {
            problems.push(warning("draining", "The proxy is shutting down: it is not ready any more.".to_owned()));
        }
        for policy in &now.config.policies {
            if let Some(mode) = self.admin.control.switched(&policy.name) {
                let mode = super::api::word(mode);
                let message = format!("The limit {} was switched to {mode}; the file says otherwise.", policy.name);
                problems.push(Problem { severity: "notice", kind: "switched", message });
            }
        }
        let urgency = |problem: &Problem| ["error", "warning"].iter().position(|known| *known == problem.severity);
        problems.sort_by_key(|problem| urgency(problem).unwrap_or(2));
        let told = |problem: &Problem| json!({ "severity": problem.severity, "kind": problem.kind, "message": problem.message });
        problems.iter().map(told).collect()
    }

    fn store(&self, now: &Reading, problems: &mut Vec<Problem>) {
        let workers = self.admin.sources.worker_count();
        let Backend::Redis(_) = &now.config.store.backend else { return };
        match now.store.away {
            0 => {}
            away => problems.push(error(
                "store_down",
                format!(
                    "The store does not answer: {away} of {workers} workers have stopped asking it, and decide by \
                     on_store_error."
                ),
            )),
        }
    }
}

fn servers(upstream: &Upstream) -> Option<Problem> {
    let endpoints = upstream.endpoints();
    let (well, all) = (endpoints.iter().filter(|endpoint| endpoint.is_well()).count(), endpoints.len());
    let sick: Vec<_> = endpoints.iter().filter(|endpoint| !endpoint.is_well()).collect();
    let listed: Vec<_> =
        sick.iter().take(3).map(|endpoint| format!("{} is {}", endpoint.address, state_of(endpoint))).collect();
    let more = if sick.len() > 3 { format!(" and {} more", sick.len() - 3) } else { String::new() };
    let listed = format!("{}{more}", listed.join(", "));
    let name = &upstream.name;
    match well {
        _ if well == all => None,
        0 => Some(error("no_server", format!("The upstream {name} has no server that is well: {listed}."))),
        _ if sick.iter().all(|endpoint| endpoint.server.draining.is_on()) => {
            let message = format!("In the upstream {name}, {listed}.");
            Some(Problem { severity: "notice", kind: "draining_server", message })
        }
        _ => Some(warning("server_down", format!("In the upstream {name}, {listed}; {well} of {all} are well."))),
    }
}

fn certificates(config: &Config, problems: &mut Vec<Problem>) {
    let now = jiff::Timestamp::now().as_second();
    for listener in &config.listeners {
        let Some(tls) = &listener.tls else { continue };
        for certificate in &tls.live.now().certificates {
            let left = certificate.validity.not_after.as_second() - now;
            let (listener, name) = (&listener.name, certificate.names.first().map_or("without a name", |name| name));
            if left <= 0 {
                let message = format!("The certificate {name} of the listener {listener} has expired.");
                problems.push(error("certificate", message));
            } else if left < CERTIFICATE_DAYS * 86_400 {
                let hours = left / 3600;
                let message = format!("The certificate {name} of the listener {listener} expires in {hours} hours.");
                problems.push(warning("certificate", message));
            }
        }
    }
}

fn error(kind: &'static str, message: String) -> Problem {
    Problem { severity: "error", kind, message }
}

fn warning(kind: &'static str, message: String) -> Problem {
    Problem { severity: "warning", kind, message }
}
