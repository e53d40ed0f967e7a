//! Tokens taken in advance: few calls to Redis, and never more than the limit promises.

use std::time::Duration;

use super::contract::{Terms, assert_no_window_holds_too_much};
use crate::support::client::Request;
use crate::support::load::{Load, Sample};
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;

fn proxy(redis: &RedisServer, limits: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits:\n{limits}\
         store:\n  redis: {{ url: '{}', timeout: 2s }}\n  on_store_error: deny\n",
        redis.url()
    ))
}

fn with_status(samples: &[Sample], status: u16) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.status() == status).collect()
}

#[test]
fn on_a_hot_key_a_call_pays_for_many_requests() {
    let redis = RedisServer::start();
    let limits = "  - { name: hot, key: global, rate: 100000/s, burst: 20000, lease: 50ms }\n";
    let proxies = [proxy(&redis, limits), proxy(&redis, limits)];
    let answer = proxies[0].get("/");
    assert!(answer.list("ratelimit-policy").contains("\"hot\";q=15000"), "{:?}", answer.headers);
    assert_eq!(answer.remaining("hot"), 14_999);
    let clients = (0..16).map(|n| (proxies[n % 2].web(), Request::get("/"))).collect();
    let before = redis.script_calls();
    let samples = Load::start(clients, Duration::ZERO).run_for(Duration::from_secs(2));
    let (calls, requests) = (redis.script_calls() - before, samples.len() as u64);
    assert_eq!(with_status(&samples, 200).len(), samples.len(), "it never denies");
    println!("{calls} calls for {requests} requests");
    assert!(calls * 10 <= requests, "{calls} calls for {requests} requests");
    for proxy in &proxies {
        assert_eq!(proxy.metrics().count("tollgate_store_errors_total", &[]), 0);
    }
}

#[test]
fn t1_holds_with_leases_over_two_proxies() {
    let redis = RedisServer::start();
    let limits = "  - { name: hot, key: global, rate: 400/s, burst: 120, lease: 100ms }\n";
    let proxies = [proxy(&redis, limits), proxy(&redis, limits)];
    let clients = || (0..8).map(|n| (proxies[n % 2].web(), Request::get("/"))).collect::<Vec<_>>();
    // Below the limit first, so that leases are taken; then above.
    let mut samples = Load::start(clients(), Duration::from_millis(30)).run_for(Duration::from_secs(1));
    samples.extend(Load::start(clients(), Duration::from_micros(500)).run_for(Duration::from_millis(1_500)));
    let admitted = with_status(&samples, 200);
    assert_eq!(admitted.len() + with_status(&samples, 429).len(), samples.len());
    assert!(admitted.len() > 400, "{} admitted", admitted.len());
    assert_no_window_holds_too_much(&admitted, &Terms { burst: 120.0, rate: 400.0 });
}

/// Another limit of the request denies: the token goes back, so that next to nothing is spent of the lease.
#[test]
fn a_token_of_a_request_that_another_limit_denies_goes_back() {
    let redis = RedisServer::start();
    let proxy = proxy(
        &redis,
        "  - { name: narrow, key: 'header:x-client', rate: 3/h }\n\
         \x20 - { name: hot, key: global, rate: 10/h, burst: 101, lease: 1s }\n",
    );
    let mut client = proxy.client();
    let mut send = |name: &str| client.send(&Request::get("/").header("x-client", name));
    let statuses: Vec<_> = (0..60).map(|_| send("a").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3);
    // What a lease may have dropped meanwhile, at its end.
    let left = send("b").remaining("hot");
    assert!((70..=96).contains(&left), "{left} of 100 left after four requests");
    let denied = send("a");
    assert_eq!(denied.status, 429);
    assert!(denied.text().contains("narrow") && !denied.text().contains("hot"), "{}", denied.text());
}

#[test]
fn a_leased_limit_denies_with_a_true_retry() {
    let redis = RedisServer::start();
    let proxy = proxy(&redis, "  - { name: hot, key: global, rate: 1/2s, burst: 3, lease: 10ms }\n");
    let mut client = proxy.client();
    assert_eq!([client.get("/").status, client.get("/").status], [200, 200]);
    let denied = client.get("/");
    assert_eq!(denied.status, 429);
    std::thread::sleep(Duration::from_secs(denied.retry_after()));
    assert_eq!(client.get("/").status, 200);
}

/// What clients are denied is charged to nobody, also after the end of the lease whose tokens they held.
#[test]
fn clients_that_another_limit_denies_empty_no_leased_limit() {
    let redis = RedisServer::start();
    let limits = "  - { name: everybody, key: global, rate: 1/h, burst: 20, lease: 50ms }\n\
                  \x20 - { name: each, key: 'header:x-client', rate: 1/h }\n";
    let proxy = proxy(&redis, limits);
    let ask = |client: &str| proxy.client().send(&Request::get("/").header("x-client", client));
    for client in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert_eq!(ask(client).status, 200);
        for _ in 0..8 {
            assert_eq!(ask(client).status, 429);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    let answer = ask("z");
    assert_eq!(answer.status, 200);
    // Of 20: one is kept out for the lease, 9 were spent, and what leases had left over at their ends was dropped.
    assert!(answer.remaining("everybody") > 0, "{:?}", answer.headers);
}
