//! Upstreams, expanded.

use std::sync::Arc;

use super::{Lines, quoted};
use crate::config::values::{Scheme, Server};
use crate::tls::{MinVersion, Trust};
use crate::units::DurationText;
use crate::upstream::{Endpoint, Protocol, Upstream};

pub(super) fn upstreams(out: &mut Lines, upstreams: &[Arc<Upstream>]) {
    // The built-in upstream cannot be declared, only named.
    let declared: Vec<_> = upstreams.iter().filter(|upstream| &*upstream.name != "echo").collect();
    if !declared.is_empty() {
        out.line(0, "upstreams:");
    }
    for upstream in declared {
        out.line(2, format_args!("{}:", quoted(&upstream.name)));
        out.list(4, "servers", upstream.endpoints.iter().map(|endpoint| address(endpoint)));
        out.pair(4, "balance", "round_robin");
        out.pair(
            4,
            "protocol",
            match upstream.protocol {
                Protocol::Auto => "auto",
                Protocol::Http1 => "h1",
                Protocol::Http2 => "h2",
            },
        );
        tls(out, upstream);
        out.pair(4, "connect_timeout", DurationText(upstream.connect_timeout));
        out.pair(4, "response_timeout", DurationText(upstream.response_timeout));
        out.pair(4, "max_idle_connections", upstream.max_idle_connections);
        out.pair(4, "idle_timeout", DurationText(upstream.idle_timeout));
        out.pair(4, "max_connection_age", DurationText(upstream.max_connection_age));
    }
}

fn address(endpoint: &Endpoint) -> String {
    let scheme = if endpoint.security.is_some() { Scheme::Https } else { Scheme::Http };
    Server::text(&endpoint.address, &endpoint.label, scheme)
}

fn tls(out: &mut Lines, upstream: &Upstream) {
    let Some(tls) = &upstream.tls else { return };
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
