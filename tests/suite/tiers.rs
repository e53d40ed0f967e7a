//! Tiers: other terms by plan, beside overrides, and each with states of its own.

use crate::support::client::Request;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{Tollgate, tollgate};

const TIERS: &str = "tiers: { by: 'header:x-plan | query:plan', values: { pro: { rate: 9/h, burst: 5 }, partner: unlimited, \
                     basic: [2/h, 3/d], shut: 0/s, '1': 4/h } }";

/// A proxy with one limit of three per hour and client, tiers, and more keys of the limit.
fn tiered(more: &str, store: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\ntrusted_proxies: [127.0.0.1/32]\n{store}\nlimits:\n\
         \x20 - {{ name: calls, key: 'header:x-id | client_ip', rate: 3/h, {TIERS}{more} }}\n"
    ))
}

/// A request of a client and a plan; no plan when it is empty.
fn of(client: &str, plan: &str) -> Request {
    let request = Request::get("/x").header("x-id", client);
    if plan.is_empty() { request } else { request.header("x-plan", plan) }
}

/// How many of eight such requests pass.
#[track_caller]
fn admitted(proxy: &Tollgate, request: &Request) -> usize {
    let statuses: Vec<_> = (0..8).map(|_| proxy.client().send(request).status).collect();
    let passed = statuses.iter().take_while(|status| **status == 200).count();
    assert!(statuses[passed..].iter().all(|status| *status == 429), "{statuses:?}");
    passed
}

#[test]
fn each_tier_has_its_own_terms_and_everybody_else_the_limits() {
    let proxy = tiered("", "");
    for (plan, expected) in [("pro", 5), ("partner", 8), ("basic", 2), ("shut", 0), ("1", 4), ("gold", 3), ("", 3)] {
        let client = format!("client-{plan}");
        assert_eq!(admitted(&proxy, &of(&client, plan)), expected, "{plan}");
    }
    let by_query = Request::get("/x?plan=pro").header("x-id", "other");
    assert_eq!(admitted(&proxy, &by_query), 5, "the second alternative");
    assert_eq!(admitted(&proxy, &of("other-2", "PRO")), 3, "values are compared exactly");
}

#[test]
fn a_tier_that_is_named_twice_is_refused() {
    let proxy = tiered("", "");
    assert_eq!(proxy.client().send(&of("a", "pro").header("x-plan", "partner")).status, 400);
    assert_eq!(proxy.get("/x?plan=pro&plan=partner").status, 400);
}

#[test]
fn an_override_comes_before_a_tier() {
    let proxy = tiered(", overrides: [{ key: named, rate: 1/h }, { key: 10.0.0.0/8, rate: 2/d }]", "");
    assert_eq!(admitted(&proxy, &of("named", "pro")), 1);
    assert_eq!(admitted(&proxy, &of("named", "partner")), 0, "the same state, whatever the plan");
    let by_address = Request::get("/x").from("10.1.2.3").header("x-plan", "pro");
    assert_eq!(admitted(&proxy, &by_address), 2);
}

#[test]
fn an_override_of_an_address_holds_for_who_is_counted_by_address_for_want_of_a_key() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nupstream: echo\ntrusted_proxies: [127.0.0.1/32]\nlimits:\n\
         \x20 - { key: 'header:x-id', rate: 3/h, overrides: [{ key: 10.0.0.0/8, rate: 1/h }] }\n",
    );
    assert_eq!(admitted(&proxy, &Request::get("/").from("10.1.2.3")), 1);
    assert_eq!(admitted(&proxy, &Request::get("/").from("192.0.2.1")), 3);
}

#[test]
fn own_terms_tiers_overrides_and_rates_never_read_each_others_state() {
    let redis = RedisServer::start();
    let store = format!("store: {{ redis: {{ url: '{}' }} }}", redis.url());
    let proxy = tiered(", overrides: [{ key: named, rate: 1/h }]", &store);
    // One client under every term that it can be under: none of them spends what another has.
    for (plan, expected) in [("", 3), ("pro", 5), ("1", 4), ("basic", 2)] {
        assert_eq!(admitted(&proxy, &of("one", plan)), expected, "{plan}");
    }
    assert_eq!(admitted(&proxy, &of("named", "")), 1);
    let mut ids: Vec<_> = redis.keys().iter().map(|key| key.split_once("}:").expect("a tag").1.to_owned()).collect();
    ids.sort();
    assert_eq!(
        ids,
        ["calls:b1", "calls@1:b1", "calls@@1:b1", "calls@@basic~1d:b1", "calls@@basic~1h:b1", "calls@@pro:b1"]
    );
}

#[test]
fn check_and_explain_tell_tiers_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.yaml");
    let text = format!(
        "listen: :8080\nupstream: echo\nlimits: [{{ name: calls, key: 'header:x-id', rate: 3/h, \
         overrides: [{{ key: me, rate: 1/h }}], {TIERS} }}, {{ key: client_ip, rate: 9/s }}]\n"
    );
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let checked = tollgate(&["check", "-c", path]).output;
    for words in [
        "whoever sends `header:x-plan` is believed",
        "tiers by value of the field x-plan, else value of the query parameter plan (pro: at most 5 at once",
        "partner: unlimited; basic: at most 2 at once, then one each 30 min, and at most 3 at once",
    ] {
        assert!(checked.contains(words), "{words} in\n{checked}");
    }
    let explain = |fields: &[&str]| {
        let fields = fields.iter().flat_map(|field| ["-H", field]);
        let arguments: Vec<_> = ["explain", "-c", path, "GET", "http://a/"].into_iter().chain(fields).collect();
        tollgate(&arguments).output
    };
    let told = |fields: &[&str], words: &str| {
        let out = explain(fields);
        assert!(out.contains(words), "{words} in\n{out}");
    };
    told(&["x-id: a", "x-plan: pro"], "tier pro: at most 5 at once");
    told(&["x-id: me", "x-plan: pro"], "override 1: at most 1 at once");
    told(&["x-plan: pro"], "the request does not carry its key (missing: client_ip); tier pro: at most 5");
    told(&["x-id: a", "x-plan: partner"], "unlimited under");
    let plain = explain(&["x-id: a", "x-plan: gold"]);
    assert!(!plain.contains("; tier pro") && !plain.contains("; override 1:"), "{plain}");
}
