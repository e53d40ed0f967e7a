//! Routes, expanded.

use super::limit::limits;
use super::{Lines, quoted, upstreams};
use crate::config::Config;
use crate::route::{EncodedPath, Route};
use crate::units::DurationText;

pub(super) fn routes(out: &mut Lines, config: &Config) {
    let mut routes: Vec<_> = config.router.routes().collect();
    routes.sort_by_key(|route| route.index);
    let global = routes.last().map(|route| &*route.policies).unwrap_or_default();
    out.line(0, "routes:");
    for route in &routes {
        let Some(upstream) = &route.upstream else { continue };
        out.line(2, format_args!("- name: {}", quoted(&route.name)));
        conditions(out, route);
        out.pair(4, "upstream", quoted(&upstream.name));
        if let Some(timeout) = route.timeout {
            out.pair(4, "timeout", DurationText(timeout));
        }
        if let Some(retries) = &route.retries {
            upstreams::retries(out, retries);
        }
        out.pair(
            4,
            "encoded_path",
            match route.encoded_path {
                EncodedPath::Reject => "reject",
                EncodedPath::Keep => "keep",
            },
        );
        limits(out, 4, route.policies.get(global.len()..).unwrap_or_default(), config);
    }
    limits(out, 0, global, config);
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
