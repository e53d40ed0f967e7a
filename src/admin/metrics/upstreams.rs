//! What is counted and known of upstreams and their servers.

use std::collections::BTreeMap;

use super::Sources;
use crate::config::Config;
use crate::telemetry::exposition::{Exposition, Kind};
use crate::upstream::{Endpoint, Server, Upstream};

/// What an endpoint may be found to be.
pub(in crate::admin) const STATES: [&str; 4] = ["healthy", "down", "ejected", "draining"];

impl Sources {
    /// Everything about upstreams.
    pub(super) fn upstreams(&self, config: &Config, out: &mut Exposition) {
        out.family("tollgate_upstream_requests", Kind::Counter, "Answers of servers; code is error without one.");
        for (upstream, server) in servers(config) {
            let mut answers = BTreeMap::new();
            for (stats, _) in &self.workers {
                stats.each_answer(server.ordinal, |code, count| *answers.entry(code).or_insert(0) += count);
            }
            for (code, count) in answers {
                let code = code.map_or("error".to_owned(), |code| code.to_string());
                out.value(&[("upstream", &upstream.name), ("server", &server.label), ("code", &code)], count);
            }
        }
        out.family("tollgate_upstream_retries", Kind::Counter, "Requests sent once more, on another connection.");
        for (upstream, server) in servers(config) {
            let retries = self.workers.iter().map(|(stats, _)| stats.retries(server.ordinal)).sum();
            out.value(&[("upstream", &upstream.name), ("server", &server.label)], retries);
        }
        endpoints(config, out);
        waiting(config, out);
    }
}

fn endpoints(config: &Config, out: &mut Exposition) {
    out.family("tollgate_upstream_endpoints", Kind::Gauge, "Addresses of servers, by how they were found.");
    for (upstream, server) in servers(config) {
        let endpoints = upstream.endpoints();
        let of_server = || endpoints.iter().filter(|endpoint| endpoint.server.ordinal == server.ordinal);
        for state in STATES {
            let count = of_server().filter(|endpoint| state_of(endpoint) == state).count();
            out.value(&[("upstream", &upstream.name), ("server", &server.label), ("state", state)], count as u64);
        }
    }
    out.family("tollgate_upstream_healthy", Kind::Gauge, "1 while a server has an address that may be asked.");
    for (upstream, server) in servers(config) {
        let endpoints = upstream.endpoints();
        let mut of_server = endpoints.iter().filter(|endpoint| endpoint.server.ordinal == server.ordinal);
        let healthy = of_server.any(|endpoint| state_of(endpoint) == "healthy");
        out.value(&[("upstream", &upstream.name), ("server", &server.label)], u64::from(healthy));
    }
    out.family("tollgate_upstream_requests_in_flight", Kind::Gauge, "Requests that servers have at present.");
    for (upstream, server) in servers(config) {
        let endpoints = upstream.endpoints();
        let of_server = endpoints.iter().filter(|endpoint| endpoint.server.ordinal == server.ordinal);
        let requests = of_server.map(|endpoint| endpoint.load.requests() as u64).sum();
        out.value(&[("upstream", &upstream.name), ("server", &server.label)], requests);
    }
}

fn waiting(config: &Config, out: &mut Exposition) {
    out.family("tollgate_upstream_waiting", Kind::Gauge, "Requests that wait for a server with room.");
    for upstream in &config.upstreams {
        if upstream.settings.queue.bounds.requests.is_some() || upstream.settings.queue.bounds.connections.is_some() {
            out.value(&[("upstream", &upstream.name)], upstream.settings.queue.waiting() as u64);
        }
    }
    out.family("tollgate_upstream_breaker_open", Kind::Gauge, "Whether the circuit breaker turns requests away.");
    for upstream in &config.upstreams {
        if let Some(breaker) = &upstream.settings.breaker {
            out.value(&[("upstream", &upstream.name)], u64::from(breaker.is_open()));
        }
    }
}

/// Every server, with its upstream.
fn servers(config: &Config) -> impl Iterator<Item = (&Upstream, &Server)> {
    let upstreams = config.upstreams.iter();
    upstreams.flat_map(|upstream| upstream.servers.iter().map(|server| (&**upstream, &**server)))
}

pub(in crate::admin) fn state_of(endpoint: &Endpoint) -> &'static str {
    if endpoint.server.draining.is_on() {
        return "draining";
    }
    match (endpoint.health.is_down() || endpoint.is_unresolved(), endpoint.health.is_ejected()) {
        (true, _) => "down",
        (false, true) => "ejected",
        (false, false) => "healthy",
    }
}
