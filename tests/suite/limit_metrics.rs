//! Metrics of what limits do beside single decisions: blocks, leases, places in flight, what is made up for.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::support::client::Request;
use crate::support::eventually;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

fn of(proxy: &Tollgate, metric: &str, labels: &[(&str, &str)]) -> u64 {
    proxy.metrics().count(metric, labels)
}

fn proxy(upstream: &str, limit: &str, store: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: {upstream}\nlimits: [{{ name: one, {limit} }}]\n{store}\n"
    ))
}

#[test]
fn requests_that_a_penalty_blocks_are_counted_among_the_denied() {
    let redis = RedisServer::start();
    for store in [String::new(), format!("store: {{ redis: {{ url: '{}', timeout: 2s }} }}", redis.url())] {
        let limit = "key: client_ip, rate: 1/h, penalty: { after: 1, block: 1h }";
        let proxy = proxy("echo", limit, &store);
        let statuses: Vec<_> = (0..6).map(|_| proxy.get("/").status).collect();
        assert_eq!(statuses, [200, 429, 429, 429, 429, 429]);
        let denied = of(&proxy, "tollgate_limit_decisions_total", &[("limit", "one"), ("decision", "deny")]);
        // The first denial begins the block.
        let blocked = of(&proxy, "tollgate_limit_blocked_total", &[("limit", "one")]);
        assert_eq!((denied, blocked), (5, 5), "{store}");
    }
}

#[test]
fn leases_are_counted_by_their_calls_and_what_they_took() {
    let redis = RedisServer::start();
    let store = format!("store: {{ redis: {{ url: '{}', timeout: 2s }} }}", redis.url());
    let proxy = proxy("echo", "key: global, rate: 10000/s, burst: 20000, lease: 500ms", &store);
    let mut client = proxy.client();
    for _ in 0..200 {
        assert_eq!(client.get("/").status, 200);
    }
    let calls = of(&proxy, "tollgate_lease_calls_total", &[]);
    assert!((1..200).contains(&calls), "{calls} calls for 200 requests");
    assert!(of(&proxy, "tollgate_lease_tokens_total", &[]) > 0, "tokens were taken in advance");
}

#[test]
fn what_was_admitted_without_redis_and_charged_afterwards_is_counted() {
    let redis = RedisServer::start();
    let store = format!("store: {{ redis: {{ url: '{}', timeout: 500ms }}, on_store_error: local }}", redis.url());
    let proxy = proxy("echo", "key: 'header:x-client', rate: 100/366d", &store);
    let up = |wanted| {
        eventually("the store is seen", || (of(&proxy, "tollgate_store_up", &[]) == wanted).then_some(()));
    };
    up(1);
    redis.stop();
    up(0);
    for _ in 0..7 {
        assert_eq!(proxy.client().send(&Request::get("/").header("x-client", "somebody")).status, 200);
    }
    redis.resume();
    up(1);
    let charged = || of(&proxy, "tollgate_store_made_up_total", &[("result", "charged")]);
    eventually("it is charged", || (charged() == 7).then_some(()));
    assert_eq!(of(&proxy, "tollgate_store_made_up_total", &[("result", "lost")]), 0);
}

#[test]
fn places_in_flight_are_shown() {
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::answering(move |peer, _| {
        told.lock().expect("one request").recv().map_err(std::io::Error::other)?;
        peer.answer("done")
    });
    let proxy = proxy(&upstream.url(), "key: client_ip, in_flight: 5", "");
    let places = || of(&proxy, "tollgate_in_flight_requests", &[]);
    let mut client = proxy.client();
    client.write(&Request::get("/").bytes()).expect("sent");
    eventually("it has its place", || (places() == 1).then_some(()));
    go_on.send(()).expect("the upstream waits");
    client.answer_to("GET").expect("answered");
    eventually("the place is free", || (places() == 0).then_some(()));
}
