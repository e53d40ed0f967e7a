//! What there is and how it goes: the overview, routes, limits, upstreams.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::modes::word;
use crate::admin::Service;
use crate::admin::history::{DENIED, LOCAL, SHADOWED, Span};
use crate::admin::metrics::reading::Reading;
use crate::admin::metrics::upstreams::state_of;
use crate::config::sentences;
use crate::explain::conditions_of;
use crate::limit::policy::Policy;
use crate::limit::store::settings::Backend;
use crate::route::Route;
use crate::upstream::{Endpoint, Server, Upstream};

impl Service {
    /// Everything at a glance; the stream sends the same.
    pub(in crate::admin) fn overview(&self) -> Value {
        let reading = self.admin.sources.reading();
        let history = self.history.borrow();
        let span = history.until(&reading);
        let config = &reading.config;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "time": Timestamp::now().to_string(),
            "uptime_seconds": history.uptime_seconds(),
            "ready": self.admin.is_ready(),
            "workers": self.admin.sources.worker_count(),
            "window_seconds": (span.seconds() * 10.0).round() / 10.0,
            "problems": self.problems(&reading),
            "traffic": traffic(&span),
            "limits": config.policies.iter().map(|policy| self.limit_now(policy, &span)).collect::<Vec<_>>(),
            "routes": routes(&span),
            "upstreams": config.upstreams.iter().map(|upstream| upstream_now(upstream, &span)).collect::<Vec<_>>(),
            "store": self.store_now(&span),
            "reload": self.last_reload(),
        })
    }

    /// The last quarter of an hour.
    pub(super) fn history(&self) -> Value {
        self.history.borrow().told()
    }

    /// How long top keys have been counted, in seconds.
    pub(super) fn counted_seconds(&self) -> u64 {
        self.history.borrow().counted_seconds()
    }

    pub(super) fn routes(&self) -> Value {
        let reading = self.admin.sources.reading();
        let history = self.history.borrow();
        let span = history.until(&reading);
        let listed = sorted(reading.config.router.routes()).into_iter().map(|route| {
            let mut told = route_now(route, &span);
            told["conditions"] = json!(conditions_of(route));
            told
        });
        json!({ "routes": listed.collect::<Vec<_>>() })
    }

    pub(super) fn limits(&self) -> Value {
        let reading = self.admin.sources.reading();
        let history = self.history.borrow();
        let span = history.until(&reading);
        let listed = reading.config.policies.iter().map(|policy| {
            let mut told = self.limit_now(policy, &span);
            told["meaning"] = json!(sentences::sentence(policy));
            told["key"] = json!(policy.key.to_string());
            told["overrides_may_be_set"] = json!(policy.dynamic.is_some());
            told
        });
        json!({ "limits": listed.collect::<Vec<_>>() })
    }

    pub(super) fn upstreams(&self) -> Value {
        let reading = self.admin.sources.reading();
        let history = self.history.borrow();
        let span = history.until(&reading);
        let listed = reading.config.upstreams.iter().map(|upstream| {
            let endpoints = upstream.endpoints();
            let mut told = upstream_now(upstream, &span);
            for (server, told) in upstream.servers.iter().zip(told["servers"].as_array_mut().into_iter().flatten()) {
                let of_server = endpoints.iter().filter(|endpoint| endpoint.server.ordinal == server.ordinal);
                told["weight"] = json!(server.weight);
                told["backup"] = json!(server.backup);
                told["endpoints"] = of_server.map(|endpoint| endpoint_now(endpoint)).collect();
            }
            told
        });
        json!({ "upstreams": listed.collect::<Vec<_>>() })
    }

    fn limit_now(&self, policy: &Policy, span: &Span<'_>) -> Value {
        let index = policy.ordinal;
        let switched = self.admin.control.switched(&policy.name);
        let denied = span.rate(|reading| reading.decided(index, &DENIED));
        let shadowed = span.rate(|reading| reading.decided(index, &SHADOWED));
        let decided = |reading: &Reading| reading.limits.get(index).map_or(0, |kinds| kinds.iter().sum());
        let top = self.met(policy).into_iter().next().filter(|(_, met)| met.denied > 0);
        json!({
            "name": &*policy.name,
            "mode": word(switched.unwrap_or(policy.mode)),
            "file_mode": word(policy.mode),
            "switched": switched.is_some(),
            "decisions": decided(span.now),
            "denied": span.now.decided(index, &DENIED),
            "shadow_denied": span.now.decided(index, &SHADOWED),
            "decisions_per_second": span.rate(decided),
            "denied_per_second": denied,
            "shadow_per_second": shadowed,
            "top_key": top.map(|(key, met)| json!({ "key": key, "denied": met.denied })),
        })
    }

    fn store_now(&self, span: &Span<'_>) -> Value {
        let (kind, place) = match &span.now.config.store.backend {
            Backend::Memory => ("memory", "this process".to_owned()),
            Backend::Redis(settings) => ("redis", settings.display()),
        };
        let store = &span.now.store;
        json!({
            "kind": kind,
            "place": place,
            "up": store.away == 0,
            "workers_away": store.away,
            "round_trip_ms": span.percentiles(|reading| reading.checks.clone()),
            "calls_per_second": span.rate(|reading| reading.store.calls),
            "errors": store.errors,
            "timeouts": store.timeouts,
            "errors_per_second": span.rate(|reading| reading.store.errors),
            "decided_without_per_second": span.rate(|reading| reading.decided_in_all(&LOCAL)),
            "states_here": self.admin.sources.states(),
            "proxies": self.admin.sources.proxies(),
        })
    }
}

fn traffic(span: &Span<'_>) -> Value {
    let now = span.now;
    let (requests, errors) = now.requests();
    json!({
        "requests": requests,
        "limited": now.limited,
        "shadow_denied": now.decided_in_all(&SHADOWED),
        "errors": errors,
        "requests_per_second": span.rate(|reading| reading.requests().0),
        "limited_per_second": span.rate(|reading| reading.limited),
        "shadow_per_second": span.rate(|reading| reading.decided_in_all(&SHADOWED)),
        "errors_per_second": span.rate(|reading| reading.requests().1),
        "added_ms": span.percentiles(|reading| reading.overhead.clone()),
        "total_ms": span.percentiles(Reading::durations),
        "connections": { "active": now.active, "idle": now.idle },
        "held": now.held,
    })
}

/// In the order of the file, the implicit one last.
fn sorted<'r>(routes: impl Iterator<Item = &'r Arc<Route>>) -> Vec<&'r Arc<Route>> {
    let mut routes: Vec<_> = routes.collect();
    routes.sort_by_key(|route| route.index);
    routes
}

fn routes(span: &Span<'_>) -> Vec<Value> {
    let routes = span.now.config.router.routes();
    sorted(routes).into_iter().map(|route| route_now(route, span)).collect()
}

fn route_now(route: &Route, span: &Span<'_>) -> Value {
    let of = |reading: &Reading| reading.routes.get(route.ordinal).map_or((0, 0), |route| (route.count, route.errors));
    let denied = |reading: &Reading| reading.routes.get(route.ordinal).map_or((0, 0), |route| route.denied);
    let durations = |reading: &Reading| reading.routes.get(route.ordinal).and_then(|route| route.durations.clone());
    json!({
        "name": &*route.name,
        "limits": route.policies.iter().map(|policy| &*policy.name).collect::<Vec<_>>(),
        "upstream": route.upstream.as_ref().map(|upstream| &*upstream.name),
        "requests": of(span.now).0,
        "errors": of(span.now).1,
        "limited": denied(span.now).0,
        "requests_per_second": span.rate(|reading| of(reading).0),
        "limited_per_second": span.rate(|reading| denied(reading).0),
        "shadow_per_second": span.rate(|reading| denied(reading).1),
        "errors_per_second": span.rate(|reading| of(reading).1),
        "total_ms": span.percentiles(durations),
    })
}

fn upstream_now(upstream: &Upstream, span: &Span<'_>) -> Value {
    let servers = upstream.servers.iter().map(|server| server_now(upstream, server, span));
    json!({
        "name": &*upstream.name,
        "waiting": upstream.settings.queue.waiting(),
        "servers": servers.collect::<Vec<_>>(),
    })
}

fn server_now(upstream: &Upstream, server: &Server, span: &Span<'_>) -> Value {
    let endpoints = upstream.endpoints();
    let own: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.server.ordinal == server.ordinal).collect();
    let well = own.iter().find(|endpoint| endpoint.is_well()).or(own.first());
    let of =
        |reading: &Reading| reading.servers.get(server.ordinal).map_or((0, 0), |server| (server.count, server.errors));
    json!({
        "name": &*server.label,
        "state": well.map_or("down", |endpoint| state_of(endpoint)),
        "draining": server.draining.is_on(),
        "in_flight": own.iter().map(|endpoint| endpoint.load.requests()).sum::<usize>(),
        "requests": of(span.now).0,
        "errors": of(span.now).1,
        "requests_per_second": span.rate(|reading| of(reading).0),
        "errors_per_second": span.rate(|reading| of(reading).1),
        "last_check": own.iter().find_map(|endpoint| last_check(endpoint)),
    })
}

fn endpoint_now(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "state": state_of(endpoint),
        "in_flight": endpoint.load.requests(),
        "last_check": last_check(endpoint),
    })
}

fn last_check(endpoint: &Endpoint) -> Option<Value> {
    let last = endpoint.last_check.lock().clone()?;
    let at = Timestamp::try_from(last.at).ok()?;
    Some(json!({ "time": at.to_string(), "error": last.error }))
}
