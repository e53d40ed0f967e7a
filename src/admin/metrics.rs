//! A scrape: the workers' counters, summed, under the names and labels of the configuration.

mod listeners;
pub(super) mod reading;
mod traces;
pub(super) mod upstreams;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::jwt::{Keys, TokenKind};
use crate::limit::fallback::Fallback;
use crate::limit::inspect::Inspector;
use crate::limit::stats::{CHECK_BUCKETS, Counter, DecisionKind, LimitStats, StoreErrorKind};
use crate::limit::store::settings::{Backend, Servers};
use crate::proxy::pressure::Pressure;
use crate::reload::State;
use crate::route::Route;
use crate::telemetry::exposition::{Exposition, Format, Kind};
use crate::telemetry::histogram::{Distribution, seconds};
use crate::telemetry::traces::Counts;
use crate::telemetry::{AccessLog, WorkerStats, logging};

/// Everything that is read at a scrape.
#[derive(Debug)]
pub struct Sources {
    /// Names: of listeners, routes, policies, endpoints.
    config: Arc<ArcSwap<Config>>,
    /// Its keys are counted.
    fallback: Arc<Fallback>,
    /// Lost lines are counted.
    access_log: Option<AccessLog>,
    /// The keys of tokens, when there are any.
    keys: Option<Arc<Keys>>,
    /// Spans are counted, when requests are traced.
    traces: Option<Arc<Counts>>,
    /// Whether memory is scarce.
    pressure: Arc<Pressure>,
    /// What is known of reloads.
    reloads: Option<Arc<ArcSwap<State>>>,
    /// One of each per worker.
    workers: Vec<(Arc<WorkerStats>, Arc<LimitStats>)>,
}

impl Sources {
    /// Without workers; they are added as they start.
    #[must_use]
    pub fn new(config: Arc<ArcSwap<Config>>, fallback: Arc<Fallback>, access_log: Option<AccessLog>) -> Self {
        let pressure = Arc::new(Pressure::new(None));
        Self { config, fallback, access_log, keys: None, traces: None, pressure, reloads: None, workers: Vec::new() }
    }

    /// Shows these keys too.
    pub fn show_keys(&mut self, keys: Arc<Keys>) {
        self.keys = Some(keys);
    }

    /// Shows these spans too.
    pub fn show_traces(&mut self, counts: Arc<Counts>) {
        self.traces = Some(counts);
    }

    /// Shows this pressure.
    pub fn show_pressure(&mut self, pressure: Arc<Pressure>) {
        self.pressure = pressure;
    }

    /// Shows what is known of reloads.
    pub fn show_reloads(&mut self, reloads: Arc<ArcSwap<State>>) {
        self.reloads = Some(reloads);
    }

    /// Adds a worker.
    pub fn add(&mut self, requests: Arc<WorkerStats>, limits: Arc<LimitStats>) {
        self.workers.push((requests, limits));
    }

    /// The running configuration. A request takes it once and keeps it to its end.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// What is known of reloads; nothing where there can be none.
    #[must_use]
    pub fn last_reload(&self) -> Option<Arc<State>> {
        self.reloads.as_ref().map(|reloads| reloads.load_full())
    }

    /// Looks at states of limits; for the thread that asks.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        let store_log = self.workers.first().map(|(_, stats)| Arc::clone(&stats.store_log)).unwrap_or_default();
        let stats = LimitStats { store_log, ..LimitStats::new() };
        Inspector::new(Arc::clone(&self.fallback), Arc::new(stats))
    }

    /// States kept in this process.
    #[must_use]
    pub fn states(&self) -> usize {
        self.fallback.memory.len()
    }

    /// Proxies last seen at the store.
    #[must_use]
    pub fn proxies(&self) -> u64 {
        self.fallback.proxies()
    }

    /// Whether memory is so scarce that connections and requests are refused.
    #[must_use]
    pub fn sheds(&self) -> bool {
        self.pressure.sheds()
    }

    /// Whether whoever reads the metrics needs the token.
    #[must_use]
    pub fn metrics_need_token(&self) -> bool {
        self.config().metrics_need_token
    }

    /// All metrics as text.
    #[must_use]
    pub fn scrape(&self, format: Format) -> String {
        let (config, mut out) = (self.config(), Exposition::new(format));
        self.requests(&config, &mut out);
        self.limits(&config, &mut out);
        self.store(&config, &mut out);
        self.tokens(&mut out);
        self.upstreams(&config, &mut out);
        self.connections(&config, &mut out);
        self.tls(&config, &mut out);
        self.memory(&mut out);
        self.reloads(&mut out);
        self.spans(&mut out);
        self.process(&mut out);
        out.finish()
    }

    /// Requests by route, and how long they took.
    fn requests(&self, config: &Config, out: &mut Exposition) {
        let names: HashMap<usize, &str> = config.router.routes().map(|route| (route.ordinal, &*route.name)).collect();
        let mut counts = BTreeMap::new();
        for (stats, _) in &self.workers {
            stats.each_request(|route, method, code, count| {
                *counts.entry((route, method, code)).or_insert(0) += count;
            });
        }
        out.family("tollgate_http_requests", Kind::Counter, "Requests answered, by route, method and status.");
        for ((route, method, code), count) in counts {
            let code = code.to_string();
            if let Some(route) = names.get(&route) {
                out.value(&[("route", route), ("method", method), ("code", &code)], count);
            }
        }
        out.family(
            "tollgate_http_request_duration_seconds",
            Kind::Histogram,
            "From the end of a request's head to the end of its response.",
        );
        for route in in_order(config) {
            let durations = self.workers.iter().filter_map(|(stats, _)| stats.durations(route.ordinal));
            if let Some(durations) = durations.reduce(Distribution::merge) {
                out.histogram(&[("route", &route.name)], &durations);
            }
        }
        out.family("tollgate_overhead_seconds", Kind::Histogram, "The proxy's own share of a request's time.");
        let overhead = self.workers.iter().map(|(stats, _)| stats.overhead());
        if let Some(overhead) = overhead.reduce(Distribution::merge) {
            out.histogram(&[], &overhead);
        }
        let refused = summed(self.workers.iter().map(|(stats, _)| stats.refused_by_kind()));
        out.family("tollgate_refused_requests", Kind::Counter, "Malformed requests refused before they became one.");
        for (kind, count) in refused {
            out.value(&[("kind", kind)], count);
        }
        let rejected = summed(self.workers.iter().map(|(stats, _)| stats.rejected_by_error()));
        out.family("tollgate_rejected_requests", Kind::Counter, "Requests that the proxy answered itself, by reason.");
        for (error, count) in rejected {
            out.value(&[("error", error)], count);
        }
    }

    /// Decisions by limit.
    fn limits(&self, config: &Config, out: &mut Exposition) {
        out.family("tollgate_limit_decisions", Kind::Counter, "Decisions, by limit and outcome.");
        for policy in &config.policies {
            for (kind, label) in DecisionKind::ALL {
                let decided = |stats: &LimitStats| {
                    stats.decisions.get(policy.ordinal).map_or(0, |kinds| kinds[kind as usize].value())
                };
                out.value(&[("limit", &policy.name), ("decision", label)], self.limit_sum(decided));
            }
        }
        out.family("tollgate_limit_remembered_denials", Kind::Counter, "Denials decided without asking the store.");
        for policy in &config.policies {
            let remembered = |stats: &LimitStats| stats.remembered.get(policy.ordinal).map_or(0, Counter::value);
            out.value(&[("limit", &policy.name)], self.limit_sum(remembered));
        }
        out.family("tollgate_limit_settled", Kind::Counter, "Cost given back or charged on top after answers.");
        for policy in &config.policies {
            for (index, direction) in ["refund", "charge"].into_iter().enumerate() {
                let settled = |stats: &LimitStats| {
                    stats.settled.get(policy.ordinal).map_or(0, |counters| counters[index].value())
                };
                out.value(&[("limit", &policy.name), ("direction", direction)], self.limit_sum(settled));
            }
        }
        out.family("tollgate_limit_coalesced", Kind::Counter, "Requests decided by another request's store call.");
        for policy in &config.policies {
            let coalesced = |stats: &LimitStats| stats.coalesced.get(policy.ordinal).map_or(0, Counter::value);
            out.value(&[("limit", &policy.name)], self.limit_sum(coalesced));
        }
        out.family("tollgate_limit_blocked", Kind::Counter, "Denied requests whose key a penalty blocks.");
        for policy in &config.policies {
            let blocked = |stats: &LimitStats| stats.blocked.get(policy.ordinal).map_or(0, Counter::value);
            out.value(&[("limit", &policy.name)], self.limit_sum(blocked));
        }
        out.family("tollgate_in_flight_requests", Kind::Gauge, "Requests that have a place of a limit of such.");
        out.value(&[], self.limit_sum(|stats| stats.in_flight.load(Ordering::Relaxed)));
        out.family("tollgate_lease_calls", Kind::Counter, "Store calls that took leases.");
        out.value(&[], self.limit_sum(|stats| stats.lease_calls.value()));
        out.family("tollgate_lease_tokens", Kind::Counter, "Tokens that leases took for requests to come.");
        out.value(&[], self.limit_sum(|stats| stats.lease_tokens.value()));
        out.family("tollgate_limit_keys", Kind::Gauge, "States kept in this process.");
        out.value(&[], self.fallback.memory.len() as u64);
        out.family("tollgate_held_requests", Kind::Gauge, "Requests held until their turn.");
        out.value(&[], self.limit_sum(|stats| stats.held.load(Ordering::Relaxed)));
    }

    /// The store, as the workers see it.
    fn store(&self, config: &Config, out: &mut Exposition) {
        let up = self.workers.iter().all(|(_, stats)| stats.store_up.load(Ordering::Relaxed) != 0);
        out.family("tollgate_store_up", Kind::Gauge, "1 when the store answers every worker.");
        out.value(&[], u64::from(up));
        out.family("tollgate_store_breaker_state", Kind::Gauge, "0 closed, 1 open: a worker has stopped asking.");
        out.value(&[], u64::from(!up));
        out.family("tollgate_store_own_clock", Kind::Gauge, "Servers that are given this machine's clock.");
        let own_clock = self.workers.iter().map(|(_, stats)| stats.own_clock.load(Ordering::Relaxed)).max();
        out.value(&[], own_clock.unwrap_or(0));
        self.sentinels(config, out);
        out.family(
            "tollgate_proxies",
            Kind::Gauge,
            "Proxies last seen at the store, which share what it cannot count.",
        );
        out.value(&[], self.fallback.proxies());
        out.family("tollgate_store_errors", Kind::Counter, "Failed store calls, by kind.");
        for (kind, label) in StoreErrorKind::ALL {
            out.value(&[("kind", label)], self.limit_sum(|stats| stats.errors[kind as usize].value()));
        }
        out.family("tollgate_store_made_up", Kind::Counter, "Cost admitted without the store, once it was back.");
        for (index, result) in ["charged", "lost"].into_iter().enumerate() {
            out.value(&[("result", result)], self.limit_sum(|stats| stats.made_up[index].value()));
        }
        out.family("tollgate_store_calls", Kind::Counter, "Calls sent to the store.");
        out.value(&[], self.limit_sum(|stats| stats.store_calls.value()));
        out.family("tollgate_limit_check_seconds", Kind::Histogram, "From asking the store to its answer, by request.");
        let store = match config.store.backend {
            Backend::Memory => "memory",
            Backend::Redis(_) => "redis",
        };
        if let Some(checks) = self.workers.iter().map(|(_, stats)| checks(stats)).reduce(Distribution::merge) {
            out.histogram(&[("store", store)], &checks);
        }
    }

    /// Who watches the store, where somebody does.
    fn sentinels(&self, config: &Config, out: &mut Exposition) {
        let Backend::Redis(settings) = &config.store.backend else { return };
        if matches!(settings.servers, Servers::Sentinel(_)) {
            let up = self.workers.iter().all(|(_, stats)| stats.sentinel_up.load(Ordering::Relaxed) != 0);
            out.family("tollgate_store_sentinel_up", Kind::Gauge, "1 when a sentinel answers every worker.");
            out.value(&[], u64::from(up));
        }
    }

    /// How many keys tokens are verified with, where any are.
    pub(super) fn token_keys(&self) -> Option<usize> {
        self.keys.as_ref().map(|keys| keys.status().keys)
    }

    /// Tokens, and the keys that verify them.
    fn tokens(&self, out: &mut Exposition) {
        let Some(keys) = &self.keys else { return };
        let status = keys.status();
        out.family("tollgate_jwks_up", Kind::Gauge, "1 when the keys of tokens could be loaded at the last attempt.");
        out.value(&[], u64::from(status.up));
        out.family("tollgate_jwks_keys", Kind::Gauge, "Keys that tokens are verified with.");
        out.value(&[], status.keys as u64);
        out.family("tollgate_jwks_last_success_timestamp_seconds", Kind::Gauge, "When keys were last loaded; 0 never.");
        out.value(&[], status.last_success);
        out.family("tollgate_jwt_tokens", Kind::Counter, "Tokens that a limit asked for, by what was made of them.");
        for (kind, label) in TokenKind::ALL {
            out.value(&[("result", label)], keys.tokens(kind));
        }
    }

    /// The process itself.
    fn process(&self, out: &mut Exposition) {
        out.family("tollgate_panics", Kind::Counter, "Connections that ended because of a defect of the proxy.");
        out.value(&[], self.workers.iter().map(|(stats, _)| stats.panics()).sum());
        out.family("tollgate_log_dropped", Kind::Counter, "Log lines lost because the output was slow or closed.");
        out.value(&[("log", "access")], self.access_log.as_ref().map_or(0, AccessLog::dropped));
        out.value(&[("log", "process")], logging::dropped());
        out.family("tollgate_workers", Kind::Gauge, "Workers, one per core unless configured.");
        out.value(&[], self.workers.len() as u64);
        out.family("tollgate_build_info", Kind::Gauge, "Always 1; the label tells the version.");
        out.value(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    }

    /// What came of the last reload.
    fn reloads(&self, out: &mut Exposition) {
        let Some(reloads) = self.reloads.as_ref().map(|reloads| reloads.load()) else { return };
        let help = "1 unless the last attempt to replace the configuration failed.";
        out.family("tollgate_config_last_reload_successful", Kind::Gauge, help);
        out.value(&[], u64::from(reloads.failure.is_none()));
        let help = "When the running configuration was loaded, Unix time.";
        out.family("tollgate_config_last_reload_success_timestamp_seconds", Kind::Gauge, help);
        out.value(&[], reloads.loaded.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    }

    /// A sum over all workers' limiters.
    fn limit_sum(&self, value: impl Fn(&LimitStats) -> u64) -> u64 {
        self.workers.iter().map(|(_, stats)| value(stats)).sum()
    }
}

/// Routes as the file has them.
fn in_order(config: &Config) -> Vec<&Arc<Route>> {
    let mut routes: Vec<_> = config.router.routes().collect();
    routes.sort_by_key(|route| route.index);
    routes
}

/// Store round trips of one worker.
fn checks(stats: &LimitStats) -> Distribution {
    Distribution {
        bounds: CHECK_BUCKETS.to_vec(),
        counts: stats.check_buckets.iter().map(Counter::value).collect(),
        sum: seconds(stats.check_nanos.value()),
    }
}

/// Counts of several workers in one map.
fn summed(maps: impl Iterator<Item = BTreeMap<&'static str, u64>>) -> BTreeMap<&'static str, u64> {
    let mut sum = BTreeMap::new();
    for (key, count) in maps.flatten() {
        *sum.entry(key).or_insert(0) += count;
    }
    sum
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use http::{Method, StatusCode};

    use super::*;
    use crate::config::{Origin, parse};
    use crate::limit::store::memory::MemoryStore;

    /// Two workers that have counted something of everything.
    pub(in crate::admin) fn sources() -> Sources {
        let yaml = "listen: 127.0.0.1:0\nupstream: http://127.0.0.1:3000\nlimits: [{ key: client_ip, rate: 1/s }]\n\
                    jwt: { jwks_url: 'http://127.0.0.1:1/' }\n";
        let config = Arc::new(parse(yaml, &Origin::Arguments, &|_| None).unwrap().config);
        let keys = Arc::new(Keys::new(Arc::clone(config.jwt.as_ref().unwrap())));
        let mut sources =
            Sources::new(Arc::new(ArcSwap::new(config)), Arc::new(Fallback::new(Arc::new(MemoryStore::new(10)))), None);
        sources.show_keys(keys);
        sources.show_traces(Arc::default());
        for _ in 0..2 {
            let (requests, limits) = (WorkerStats::new(), LimitStats::new());
            requests.opened(0);
            requests.request(0, &Method::GET, StatusCode::OK, Duration::from_millis(3));
            requests.own_time(Duration::from_micros(30));
            requests.upstream(0, Some(StatusCode::OK));
            requests.upstream(0, None);
            requests.refused("bare_lf");
            requests.turned_away(0, "max_connections");
            limits.decided(0, DecisionKind::Deny);
            limits.check_buckets[2].increment();
            sources.add(Arc::new(requests), Arc::new(limits));
        }
        sources
    }

    #[test]
    fn workers_are_summed() {
        let text = sources().scrape(Format::Classic);
        for line in [
            "tollgate_upstream_requests_total{upstream=\"127.0.0.1:3000\",server=\"127.0.0.1:3000\",code=\"error\"} 2",
            "tollgate_refused_requests_total{kind=\"bare_lf\"} 2",
            "tollgate_connections{listener=\"default\",state=\"idle\"} 2",
            "tollgate_limit_check_seconds_count{store=\"memory\"} 2",
            "tollgate_overhead_seconds_bucket{le=\"0.00005\"} 2",
            "tollgate_jwks_up 0",
            "tollgate_upstream_healthy{upstream=\"127.0.0.1:3000\",server=\"127.0.0.1:3000\"} 1",
            "tollgate_trace_spans_total{result=\"dropped\"} 0",
            "tollgate_trace_exporter_up 1",
            "tollgate_jwt_tokens_total{result=\"valid\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.contains("method=\"GET\",code=\"200\"} 2\n"), "{text}");
        assert!(text.contains("decision=\"deny\"} 2\n"), "{text}");
    }

    #[test]
    fn both_formats_are_well_formed() {
        for format in [Format::Classic, Format::OpenMetrics] {
            well_formed(&sources().scrape(format), format);
        }
    }

    /// Every family announced once and before its samples, every series unique, buckets cumulative.
    fn well_formed(text: &str, format: Format) {
        let (mut kinds, mut series, mut last) = (HashMap::new(), HashSet::new(), (String::new(), 0.0));
        let mut lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.iter().filter(|line| **line == "# EOF").count(), usize::from(format == Format::OpenMetrics));
        lines.retain(|line| *line != "# EOF");
        for line in lines {
            if let Some(help) = line.strip_prefix("# HELP ") {
                assert!(help.ends_with('.'), "a sentence: {help}");
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(kinds.insert(name.to_owned(), kind).is_none(), "{name} twice");
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            assert!(series.insert(name.to_owned()), "{name} twice");
            let bare = name.split('{').next().unwrap();
            let family = kinds.keys().any(|family| {
                let suffix = bare.strip_prefix(family.as_str());
                suffix.is_some_and(|suffix| ["", "_total", "_bucket", "_sum", "_count"].contains(&suffix))
            });
            assert!(family && bare.starts_with("tollgate_"), "{bare} was not announced");
            if let Some((labels, _)) = name.split_once("le=\"") {
                assert!(last.0 != labels || last.1 <= value, "{name} is not cumulative");
                last = (labels.to_owned(), value);
            }
        }
    }
}
