//! Upstreams, expanded.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Lines, quoted};
use crate::config::values::{Scheme, Server as ServerText};
use crate::tls::{MinVersion, Trust};
use crate::units::DurationText;
use crate::upstream::announce::Version;
use crate::upstream::balance::Balance;
use crate::upstream::health::{Active, Check, HealthPolicy, Passive};
use crate::upstream::load::Bounds;
use crate::upstream::resolve::DnsSettings;
use crate::upstream::retry::{Retries, RetryOn};
use crate::upstream::{Protocol, Server, Upstream};

pub(super) fn upstreams(out: &mut Lines, upstreams: &[Arc<Upstream>]) {
    // The built-in upstream cannot be declared, only named.
    let declared: Vec<_> = upstreams.iter().filter(|upstream| &*upstream.name != "echo").collect();
    if !declared.is_empty() {
        out.line(0, "upstreams:");
    }
    for upstream in declared {
        out.line(2, format_args!("{}:", quoted(&upstream.name)));
        out.line(4, "servers:");
        for server in &upstream.servers {
            server_line(out, server);
        }
        balance(out, upstream);
        out.pair(
            4,
            "protocol",
            match upstream.settings.protocol {
                Protocol::Auto => "auto",
                Protocol::Http1 => "h1",
                Protocol::Http2 => "h2",
            },
        );
        tls(out, upstream);
        out.pair(
            4,
            "proxy_protocol",
            match upstream.settings.proxy_protocol {
                None => "none",
                Some(Version::V1) => "v1",
                Some(Version::V2) => "v2",
            },
        );
        out.pair(4, "connect_timeout", DurationText(upstream.settings.connect_timeout));
        out.pair(4, "response_timeout", DurationText(upstream.settings.response_timeout));
        out.pair(4, "max_idle_connections", upstream.settings.max_idle_connections);
        out.pair(4, "idle_timeout", DurationText(upstream.settings.idle_timeout));
        out.pair(4, "max_connection_age", DurationText(upstream.settings.max_connection_age));
        bounds(out, upstream);
        health(out, &upstream.settings.health);
    }
}

/// Who tells the addresses of servers.
pub(super) fn dns(out: &mut Lines, dns: &DnsSettings) {
    if !dns.nameservers.is_empty() {
        out.line(0, "dns:");
        out.list(2, "nameservers", dns.nameservers.iter().map(ToString::to_string));
    }
}

fn server_line(out: &mut Lines, server: &Server) {
    let scheme = if server.security.is_some() { Scheme::Https } else { Scheme::Http };
    let url = ServerText::text(&server.address, &server.label, scheme);
    out.line(6, format_args!("- {{ url: {}, weight: {}, backup: {} }}", quoted(&url), server.weight, server.backup));
}

fn balance(out: &mut Lines, upstream: &Upstream) {
    let name = match &upstream.settings.balance {
        Balance::RoundRobin => "round_robin",
        Balance::LeastRequests => "least_requests",
        Balance::Random => "random",
        Balance::Hash(_) => "hash",
    };
    out.pair(4, "balance", name);
    if let Balance::Hash(key) = &upstream.settings.balance {
        let key: Vec<_> = key.parts.iter().flatten().map(ToString::to_string).collect();
        out.pair(4, "hash_key", quoted(&key.join(" | ")));
    }
    if let Some(sticky) = &upstream.settings.sticky {
        out.line(4, "sticky:");
        out.pair(6, "cookie", quoted(&sticky.cookie));
        if let Some(age) = sticky.max_age {
            out.pair(6, "max_age", DurationText(age));
        }
    }
}

fn bounds(out: &mut Lines, upstream: &Upstream) {
    let Bounds { requests, connections } = upstream.settings.queue.bounds;
    for (key, most) in [("max_requests", requests), ("max_connections", connections)] {
        if let Some(most) = most {
            out.pair(4, key, most);
        }
    }
    if requests.is_some() || connections.is_some() {
        let (size, timeout) = (upstream.settings.queue.size, DurationText(upstream.settings.queue.timeout));
        out.line(4, format_args!("queue: {{ size: {size}, timeout: {timeout} }}"));
    }
    if let Some(breaker) = &upstream.settings.breaker {
        out.line(4, "circuit_breaker:");
        out.pair(6, "failures", percent(breaker.settings.failures));
        out.pair(6, "min_requests", breaker.settings.min_requests);
        out.pair(6, "within", DurationText(breaker.settings.within));
        out.pair(6, "open_for", DurationText(breaker.settings.open_for));
    }
}

fn health(out: &mut Lines, policy: &HealthPolicy) {
    out.pair(4, "slow_start", DurationText(policy.slow_start));
    out.line(4, "health:");
    match &policy.passive {
        None => out.pair(6, "passive", "none"),
        Some(policy) => passive(out, policy),
    }
    match &policy.active {
        None => out.pair(6, "active", "none"),
        Some(policy) => active(out, policy),
    }
}

fn passive(out: &mut Lines, policy: &Passive) {
    out.line(6, "passive:");
    out.pair(8, "failures", policy.failures);
    out.pair(8, "within", DurationText(policy.within));
    out.pair(8, "eject_for", DurationText(policy.eject_for));
    out.pair(8, "max_ejected", percent(policy.max_ejected));
    out.list(8, "status", policy.statuses.iter().map(range));
}

fn active(out: &mut Lines, policy: &Active) {
    out.line(6, "active:");
    match &policy.check {
        Check::Tcp => out.pair(8, "type", "tcp"),
        Check::Grpc { service } => {
            out.pair(8, "type", "grpc");
            out.pair(8, "service", quoted(service));
        }
        Check::Http { path, host, statuses } => {
            out.pair(8, "type", "http");
            out.pair(8, "path", quoted(path));
            if let Some(host) = host {
                out.pair(8, "host", quoted(host));
            }
            out.list(8, "status", statuses.iter().map(range));
        }
    }
    out.pair(8, "interval", DurationText(policy.interval));
    out.pair(8, "timeout", DurationText(policy.timeout));
    out.pair(8, "healthy_after", policy.healthy_after);
    out.pair(8, "unhealthy_after", policy.unhealthy_after);
}

/// Which requests of a route are sent again.
pub(super) fn retries(out: &mut Lines, retries: &Retries) {
    out.line(4, "retries:");
    out.pair(6, "attempts", retries.attempts);
    let on = retries.on.iter().map(|on| match on {
        RetryOn::ConnectError => "connect_error".to_owned(),
        RetryOn::Reset => "reset".to_owned(),
        RetryOn::Timeout => "timeout".to_owned(),
        RetryOn::Status(statuses) => range(statuses),
    });
    out.list(6, "retry_on", on);
    if let Some(timeout) = retries.per_try_timeout {
        out.pair(6, "per_try_timeout", DurationText(timeout));
    }
    out.pair(6, "budget", percent(retries.budget.share));
}

fn range(range: &RangeInclusive<u16>) -> String {
    if range.start() == range.end() { range.start().to_string() } else { format!("{}-{}", range.start(), range.end()) }
}

fn percent(share: f64) -> String {
    format!("{}%", share * 100.0)
}

fn tls(out: &mut Lines, upstream: &Upstream) {
    let Some(tls) = &upstream.settings.tls else { return };
    out.line(4, "tls:");
    if let Trust::File(ca, _) = &tls.trust {
        out.pair(6, "ca", quoted(&ca.to_string_lossy()));
    }
    if let Some(shown) = &tls.shows {
        out.pair(6, "cert", quoted(&shown.files.0.to_string_lossy()));
        out.pair(6, "key", quoted(&shown.files.1.to_string_lossy()));
    }
    if let Some(name) = &tls.name {
        out.pair(6, "server_name", quoted(&name.to_str()));
    }
    out.pair(6, "min_version", if tls.min_version == MinVersion::Tls12 { "\"1.2\"" } else { "\"1.3\"" });
    out.pair(6, "insecure_skip_verify", matches!(tls.trust, Trust::Anything));
}
