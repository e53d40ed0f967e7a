//! Routes, expanded.

use super::extras::extras;
use super::limit::limits;
use super::matching::conditions;
use super::{Lines, quoted, upstreams};
use crate::config::Config;
use crate::route::EncodedPath;
use crate::units::DurationText;

pub(super) fn routes(out: &mut Lines, config: &Config) {
    let mut routes: Vec<_> = config.router.routes().collect();
    routes.sort_by_key(|route| route.index);
    let global = routes.last().map(|route| &*route.policies).unwrap_or_default();
    out.line(0, "routes:");
    for route in &routes {
        if route.is_unmatched() {
            continue;
        }
        out.line(2, format_args!("- name: {}", quoted(&route.name)));
        conditions(out, &route.matches);
        if let Some(upstream) = &route.upstream {
            out.pair(4, "upstream", quoted(&upstream.name));
        }
        if let Some(timeout) = route.timeout {
            out.pair(4, "timeout", DurationText(timeout));
        }
        if let Some(retries) = &route.retries {
            upstreams::retries(out, retries);
        }
        if let Some(more) = &route.extras {
            extras(out, more);
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
