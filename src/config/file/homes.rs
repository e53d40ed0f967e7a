//! Where a key belongs that stands in the wrong place, and what is written for one of another proxy.

use super::foreign::instead_of;
use super::limit::{LimitMatch, Shadow};
use super::{
    Cors, Expectation, FieldEdits, File, Limit, Listener, Match, Otlp, PassiveHealth, Penalty, Redirect, Redis,
    Respond, Response, Rewrite, Route, Sending, Store, Tracing, Upstream, UpstreamTls,
};

/// A place, and the keys that exist there.
type Home = (&'static str, &'static [&'static str]);

const AN_ITEM_OF_LIMITS: Home = ("in an item of `limits`", Limit::KNOWN);
const AN_ITEM_OF_ROUTES: Home = ("in an item of `routes`", Route::KNOWN);
const THE_TOP: Home = ("at the top of the file", File::KNOWN);

/// What to do with a key that does not exist in this shape, but elsewhere in the file or in another proxy's.
pub(in crate::config) fn elsewhere(shape: &str, key: &str) -> Option<String> {
    home_of(shape, key).map(|home| format!("it belongs {home}")).or_else(|| instead_of(shape, key).map(str::to_owned))
}

/// The place (`in an item of …`) where a key exists; the likeliest of several.
fn home_of(shape: &str, key: &str) -> Option<&'static str> {
    let homes: &[Home] = match shape {
        "File" => &[
            AN_ITEM_OF_LIMITS,
            AN_ITEM_OF_ROUTES,
            ("in `match` of a route", Match::KNOWN),
            ("in a listener below `listeners`", Listener::KNOWN),
            ("in an upstream below `upstreams`", Upstream::KNOWN),
            ("in `store`", Store::KNOWN),
            ("in `redis` of the store", Redis::KNOWN),
        ],
        "Route" => &[
            AN_ITEM_OF_LIMITS,
            ("in `match`", Match::KNOWN),
            ("in `rewrite`", Rewrite::KNOWN),
            ("in `request_headers` or `response_headers`", FieldEdits::KNOWN),
            ("in `cors`", Cors::KNOWN),
            ("in `redirect`", Redirect::KNOWN),
            ("in `respond`", Respond::KNOWN),
            THE_TOP,
        ],
        "Rewrite" | "Cors" | "FieldEdits" | "Redirect" | "Respond" => &[("in the route itself", Route::KNOWN)],
        "Limit" => &[
            ("in `penalty`", Penalty::KNOWN),
            ("in `match`", LimitMatch::KNOWN),
            ("in `response`", Response::KNOWN),
            ("in `shadow`", Shadow::KNOWN),
            ("in `match` of the route", Match::KNOWN),
            ("in the route", Route::KNOWN),
            THE_TOP,
        ],
        "Upstream" => &[("in `tls`", UpstreamTls::KNOWN), ("in `passive` of `health`", PassiveHealth::KNOWN)],
        "Override" | "TierTerms" | "Schedule" => &[("in the limit itself", Limit::KNOWN)],
        "Redis" => &[("in `store`, beside `redis`", Store::KNOWN)],
        "Store" => &[("in `redis`", Redis::KNOWN)],
        "Tracing" => &[("in `otlp`", Otlp::KNOWN)],
        "Otlp" => &[("in `tracing`, beside `otlp`", Tracing::KNOWN)],
        "Trial" => &[("in `send`", Sending::KNOWN), ("in `expect`", Expectation::KNOWN)],
        _ => &[],
    };
    homes.iter().find(|(_, keys)| keys.contains(&key)).map(|(home, _)| *home)
}
