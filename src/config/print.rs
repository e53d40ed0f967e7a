//! The expanded configuration: every default written out, in the file's own format, without secrets.

mod listeners;
mod store;
mod trials;
mod variants;

use std::fmt::Write as _;
use std::time::Duration;

use super::{AccessLogFormat, ClientIpSource, Config, LogFormat};
use crate::jwt::settings::KeySource;
use crate::limit::algorithm::fixed_window::Align;
use crate::limit::algorithm::penalty::Watches;
use crate::limit::algorithm::{Algorithm, Penalty};
use crate::limit::headers::HeaderStyle;
use crate::limit::key::KeyPart;
use crate::limit::policy::{Limit, Missing, Mode, OnStoreError, OverrideMatch, PathPattern, Policy, Statuses, Terms};
use crate::limit::store::settings::Backend;
use crate::route::{EncodedPath, Route};
use crate::units::{DurationText, Size};
use crate::upstream::{Address, Upstream};

/// The configuration as YAML with nothing left to defaults. Secrets show as `"***"`.
#[must_use]
pub fn expanded(config: &Config) -> String {
    let mut out = Lines::default();
    listeners::listeners(&mut out, &config.listeners);
    clients(&mut out, config);
    upstreams(&mut out, &config.upstreams);
    routes(&mut out, config);
    out.pair(
        0,
        "rate_limit_headers",
        match config.rate_limit_headers {
            HeaderStyle::Draft => "draft",
            HeaderStyle::Legacy => "legacy",
            HeaderStyle::Both => "both",
            HeaderStyle::None => "none",
        },
    );
    store(&mut out, config);
    jwt(&mut out, config);
    process(&mut out, config);
    trials::trials(&mut out, &config.trials);
    out.0
}

/// YAML, line by line.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, indent: usize, text: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{:indent$}{text}", "");
    }

    fn pair(&mut self, indent: usize, key: &str, value: impl std::fmt::Display) {
        self.line(indent, format_args!("{key}: {value}"));
    }

    fn list(&mut self, indent: usize, key: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<_> = values.into_iter().map(|value| quoted(&value)).collect();
        if !values.is_empty() {
            self.pair(indent, key, format_args!("[{}]", values.join(", ")));
        }
    }
}

/// A double-quoted scalar (JSON's escapes are YAML's). `${` is doubled, so that it is read as it stands.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}

fn clients(out: &mut Lines, config: &Config) {
    out.list(0, "trusted_proxies", config.trusted_proxies.iter().map(ToString::to_string));
    out.line(0, "client_ip:");
    if !config.trusted_proxies.is_empty() {
        out.pair(
            2,
            "header",
            match &config.client_ip.source {
                ClientIpSource::XForwardedFor => "x-forwarded-for",
                ClientIpSource::Forwarded => "forwarded",
                ClientIpSource::Header(name) => name.as_str(),
            },
        );
    }
    out.pair(2, "ipv6_prefix", config.client_ip.ipv6_prefix);
}

fn upstreams(out: &mut Lines, upstreams: &[std::sync::Arc<Upstream>]) {
    // The built-in upstream cannot be declared, only named.
    let declared: Vec<_> = upstreams.iter().filter(|upstream| &*upstream.name != "echo").collect();
    if !declared.is_empty() {
        out.line(0, "upstreams:");
    }
    for upstream in declared {
        out.line(2, format_args!("{}:", quoted(&upstream.name)));
        out.list(
            4,
            "servers",
            upstream.endpoints.iter().map(|endpoint| match endpoint.address {
                Address::Tcp { .. } => format!("http://{}", endpoint.label),
                Address::Echo => "echo".to_owned(),
            }),
        );
        out.pair(4, "balance", "round_robin");
        out.pair(4, "connect_timeout", DurationText(upstream.connect_timeout));
        out.pair(4, "response_timeout", DurationText(upstream.response_timeout));
        out.pair(4, "max_idle_connections", upstream.max_idle_connections);
    }
}

fn routes(out: &mut Lines, config: &Config) {
    let mut routes: Vec<_> = config.router.routes().collect();
    routes.sort_by_key(|route| route.index);
    let global = routes.last().map(|route| &*route.policies).unwrap_or_default();
    out.line(0, "routes:");
    for route in &routes {
        let Some(upstream) = &route.upstream else { continue };
        out.line(2, format_args!("- name: {}", quoted(&route.name)));
        conditions(out, route);
        out.pair(4, "upstream", quoted(&upstream.name));
        out.pair(4, "timeout", DurationText(route.timeout));
        out.pair(
            4,
            "encoded_path",
            match route.encoded_path {
                EncodedPath::Reject => "reject",
                EncodedPath::Keep => "keep",
            },
        );
        limits(out, 4, route.policies.get(global.len()..).unwrap_or_default());
    }
    limits(out, 0, global);
}

fn conditions(out: &mut Lines, route: &Route) {
    let matches = &route.matches;
    let any = !matches.hosts.is_empty()
        || !matches.paths.is_empty()
        || !matches.methods.is_empty()
        || !matches.headers.is_empty();
    if any {
        out.line(4, "match:");
    }
    out.list(6, "host", matches.hosts.iter().map(ToString::to_string));
    out.list(6, "path", matches.paths.iter().map(|path| path.text.to_string()));
    out.list(6, "method", matches.methods.iter().map(ToString::to_string));
    if !matches.headers.is_empty() {
        out.line(6, "headers:");
    }
    for (name, value) in &matches.headers {
        let secret = matches!(name.as_str(), "authorization" | "proxy-authorization" | "cookie");
        let value = if secret { "***".into() } else { String::from_utf8_lossy(value.as_bytes()) };
        out.pair(8, name.as_str(), quoted(&value));
    }
}

fn limits(out: &mut Lines, indent: usize, policies: &[std::sync::Arc<Policy>]) {
    if !policies.is_empty() {
        out.line(indent, "limits:");
    }
    for policy in policies {
        out.line(indent + 2, format_args!("- name: {}", quoted(&policy.name)));
        limit(out, indent + 4, policy);
    }
}

fn limit(out: &mut Lines, indent: usize, policy: &Policy) {
    out.list(indent, "key", policy.key.parts.iter().map(|choice| key_choice(choice)));
    if policy.key.may_be_missing() {
        out.pair(
            indent,
            "missing",
            match policy.missing {
                Missing::ClientIp { .. } => "client_ip",
                Missing::Deny => "deny",
                Missing::Skip => "skip",
            },
        );
    }
    terms(out, indent, &policy.terms);
    costs(out, indent, policy);
    out.pair(indent, "mode", if policy.mode == Mode::Shadow { "shadow" } else { "enforce" });
    if policy.mode == Mode::Shadow {
        let (headers, enforce) = (policy.shadow_headers, policy.enforced_share);
        out.pair(indent, "shadow", format_args!("{{ headers: {headers}, enforce: {enforce} }}"));
    }
    overrides(out, indent, policy);
    variants::tiers(out, indent, policy);
    variants::schedules(out, indent, policy);
    variants::dynamic_overrides(out, indent, policy);
    if let Some(share) = policy.warn_at {
        out.pair(indent, "warn_at", share);
    }
    if let Some(over) = policy.spread_retry {
        out.pair(indent, "spread_retry", DurationText(over));
    }
    out.pair(
        indent,
        "on_store_error",
        match policy.on_store_error {
            OnStoreError::Local => "local",
            OnStoreError::Allow => "allow",
            OnStoreError::Deny => "deny",
        },
    );
    let applies = &policy.applies;
    if !applies.path.is_empty() || !applies.not_path.is_empty() {
        out.line(indent, "match:");
        out.list(indent + 2, "path", applies.path.iter().map(path_pattern));
        out.list(indent + 2, "not_path", applies.not_path.iter().map(path_pattern));
    }
    if let Some(response) = &policy.response {
        out.line(indent, "response:");
        out.pair(indent + 2, "status", response.status.as_u16());
        out.pair(indent + 2, "content_type", quoted(&String::from_utf8_lossy(response.content_type.as_bytes())));
        out.pair(indent + 2, "body", quoted(&response.body));
    }
}

fn terms(out: &mut Lines, indent: usize, terms: &Terms) {
    match terms {
        Terms::Unlimited => out.pair(indent, "rate", "unlimited"),
        Terms::Deny => out.pair(indent, "rate", "0/s"),
        Terms::Limited(limits) => {
            allowance(out, indent, limits);
            for limit in limits.iter().filter(|limit| limit.rate.is_some()).take(1) {
                algorithm(out, indent, limit);
            }
            for limit in limits {
                beside(out, indent, &limit.algorithm);
            }
            if limits.iter().any(|limit| matches!(limit.algorithm, Algorithm::Penalty(_))) {
                let network = limits.iter().find(|limit| limit.network.is_some());
                out.pair(indent + 2, "widen_after", network.map_or(0, |limit| limit.algorithm.capacity()));
            }
        }
    }
}

/// Rates and burst, or the number of requests in flight.
fn allowance(out: &mut Lines, indent: usize, limits: &[Limit]) {
    let rates: Vec<_> = limits.iter().filter_map(|limit| limit.rate).collect();
    // A penalty stands behind what it watches.
    match (rates.as_slice(), limits.first()) {
        ([rate], Some(limit)) => {
            out.pair(indent, "rate", rate);
            if limit.algorithm.bucket().is_some() {
                out.pair(indent, "burst", limit.burst());
            }
            if let Some(lease) = limit.lease {
                out.pair(indent, "lease", DurationText(lease));
            }
        }
        ([], Some(limit)) => out.pair(indent, "in_flight", limit.algorithm.capacity()),
        (rates, _) => {
            let rates: Vec<_> = rates.iter().map(ToString::to_string).collect();
            out.pair(indent, "rate", format_args!("[{}]", rates.join(", ")));
        }
    }
}

fn algorithm(out: &mut Lines, indent: usize, limit: &Limit) {
    match &limit.algorithm {
        Algorithm::TokenBucket(_) => out.pair(indent, "algorithm", "token_bucket"),
        Algorithm::LeakyBucket { delay_after, .. } => {
            out.pair(indent, "algorithm", "leaky_bucket");
            out.pair(indent, "delay_after", delay_after);
            out.pair(indent, "max_wait", DurationText(longest_wait(limit, *delay_after)));
        }
        Algorithm::FixedWindow(window) => {
            out.pair(indent, "algorithm", "fixed_window");
            let align = match &window.align {
                Align::Utc => "clock",
                Align::FirstRequest => "first_request",
                Align::Zone(zone) => zone.name(),
            };
            out.pair(indent, "align", align);
        }
        Algorithm::SlidingWindow(_) => out.pair(indent, "algorithm", "sliding_window"),
        Algorithm::SlidingLog(_) => out.pair(indent, "algorithm", "sliding_log"),
        Algorithm::InFlight(_) | Algorithm::Penalty(_) => {}
    }
}

/// What stands beside a rate or instead of it.
fn beside(out: &mut Lines, indent: usize, algorithm: &Algorithm) {
    match algorithm {
        Algorithm::InFlight(slots) => {
            out.pair(indent, "slot_ttl", DurationText(Duration::from_micros(slots.slot_us)));
        }
        Algorithm::Penalty(Penalty { watches: Watches::Parts, .. }) => {}
        Algorithm::Penalty(penalty) => {
            out.line(indent, "penalty:");
            out.pair(indent + 2, "after", penalty.after);
            out.pair(indent + 2, "block", DurationText(Duration::from_micros(penalty.block_us)));
            out.pair(indent + 2, "max", DurationText(Duration::from_micros(penalty.max_us)));
        }
        _ => {}
    }
}

/// How long the last of a whole burst is held: the smallest `max_wait` that means the same.
fn longest_wait(limit: &Limit, delay_after: u64) -> Duration {
    let held = u128::from(limit.algorithm.capacity().saturating_sub(delay_after));
    let (period, count) = limit.rate.map_or((0, 1), |rate| (rate.period.as_micros(), u128::from(rate.count.max(1))));
    Duration::from_micros(u64::try_from((held * period).div_ceil(count)).unwrap_or(u64::MAX).max(1))
}

fn costs(out: &mut Lines, indent: usize, policy: &Policy) {
    let cost = &policy.cost;
    if cost.by_method.is_empty() && !cost.is_dynamic() {
        out.pair(indent, "cost", cost.default);
    } else {
        out.line(indent, "cost:");
        out.pair(indent + 2, "default", cost.default);
        for (method, cost) in &cost.by_method {
            out.pair(indent + 2, method.as_str(), cost);
        }
        for (key, name) in [("header", &cost.header), ("response_header", &cost.response_header)] {
            if let Some(name) = name {
                out.pair(indent + 2, key, name);
            }
        }
        if let Some(part) = cost.body {
            out.pair(indent + 2, "body", Size(part));
        }
        out.pair(indent + 2, "max", cost.most);
    }
    settling(out, indent, policy);
}

fn settling(out: &mut Lines, indent: usize, policy: &Policy) {
    let list =
        |ranges: &[Statuses]| ranges.iter().map(|range| format!("{}-{}", range.first, range.last)).collect::<Vec<_>>();
    if let Some(count) = &policy.settling.count {
        out.line(indent, "count:");
        out.list(indent + 2, "status", list(count));
    }
    if !policy.settling.refund.is_empty() || policy.settling.refund_failures {
        out.line(indent, "refund:");
        out.list(indent + 2, "status", list(&policy.settling.refund));
        out.pair(indent + 2, "upstream_failure", policy.settling.refund_failures);
    }
    let debts = if let Terms::Limited(limits) = &policy.terms { limits.as_slice() } else { &[] };
    if let (true, Some(limit)) = (policy.cost.may_grow(), debts.first()) {
        out.pair(indent, "max_debt", limit.algorithm.debt());
    }
}

fn overrides(out: &mut Lines, indent: usize, policy: &Policy) {
    if !policy.overrides.is_empty() {
        out.line(indent, "overrides:");
    }
    for given in &policy.overrides {
        // What a value must be written behind.
        let several = policy.key.named_parts().len() > 1;
        let keys: Vec<_> = given
            .matches
            .iter()
            .map(|matches| match matches {
                OverrideMatch::Network(network) => quoted(&network.to_string()),
                OverrideMatch::Value { part, .. } if several => quoted(&format!("{part}=***")),
                OverrideMatch::Value { .. } => quoted("***"),
            })
            .collect();
        out.line(indent + 2, format_args!("- key: [{}]", keys.join(", ")));
        only_terms(out, indent + 4, &given.terms);
    }
}

/// Terms beside those of the limit: what both share is written once.
fn only_terms(out: &mut Lines, indent: usize, given: &Terms) {
    match given {
        Terms::Limited(limits) => {
            let counted = |limit: &&Limit| !matches!(limit.algorithm, Algorithm::Penalty(_));
            allowance(out, indent, &limits.iter().filter(counted).cloned().collect::<Vec<_>>());
        }
        other => terms(out, indent, other),
    }
}

fn key_choice(choice: &[KeyPart]) -> String {
    choice.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

fn path_pattern(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.to_string(),
        PathPattern::Prefix(prefix) => format!("{prefix}*"),
    }
}

fn store(out: &mut Lines, config: &Config) {
    out.line(0, "store:");
    if let Backend::Redis(settings) = &config.store.backend {
        store::redis(out, settings);
    }
    out.pair(2, "max_keys", config.store.max_keys);
}

fn jwt(out: &mut Lines, config: &Config) {
    let Some(jwt) = &config.jwt else { return };
    out.line(0, "jwt:");
    match &jwt.source {
        KeySource::Url(url) => {
            out.pair(2, "jwks_url", quoted(&url.text));
            if let Some(ca) = &url.ca {
                out.pair(2, "jwks_ca", quoted(&ca.to_string_lossy()));
            }
            out.pair(2, "refresh", DurationText(jwt.refresh));
        }
        KeySource::File(path) => out.pair(2, "jwks_file", quoted(&path.to_string_lossy())),
        KeySource::Pem(path) => out.pair(2, "public_key_file", quoted(&path.to_string_lossy())),
    }
    out.list(2, "audience", jwt.audience.iter().map(ToString::to_string));
    out.list(2, "issuer", jwt.issuer.iter().map(ToString::to_string));
    out.list(2, "algorithms", jwt.algorithms.iter().map(|algorithm| format!("{algorithm:?}")));
    out.pair(2, "header", jwt.header.as_str());
    out.pair(2, "leeway", DurationText(jwt.leeway));
}

fn process(out: &mut Lines, config: &Config) {
    let format = match config.log.format {
        LogFormat::Auto => "auto",
        LogFormat::Pretty => "pretty",
        LogFormat::Json => "json",
    };
    let level = config.log.level.as_str().to_ascii_lowercase();
    out.pair(0, "log", format_args!("{{ level: {level}, format: {format} }}"));
    if let Some(log) = &config.access_log {
        out.line(0, "access_log:");
        out.pair(
            2,
            "format",
            match log.format {
                AccessLogFormat::Json => "json",
                AccessLogFormat::Combined => "combined",
            },
        );
        out.list(
            2,
            "only",
            log.only.iter().map(|class| match class {
                super::AccessLogClass::Limited => "limited".to_owned(),
                super::AccessLogClass::Errors => "errors".to_owned(),
            }),
        );
        out.pair(2, "sample", quoted(&format!("{}%", log.sample * 100.0)));
    }
    out.pair(0, "metrics", format_args!("{{ path: {} }}", quoted(&config.metrics_path)));
    match &config.admin {
        Some(admin) => {
            out.line(0, "admin:");
            out.pair(2, "address", quoted(&admin.address.to_string()));
            if admin.token.is_some() {
                out.line(2, "# token_file: given");
            }
        }
        None => out.pair(0, "admin", "none"),
    }
    let shutdown = config.shutdown;
    let (delay, grace) = (DurationText(shutdown.delay), DurationText(shutdown.grace));
    out.pair(0, "shutdown", format_args!("{{ delay: {delay}, grace: {grace} }}"));
    out.pair(0, "workers", config.workers);
}
