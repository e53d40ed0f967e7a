//! `spread_retry`: who is denied on one key is told the time of a token of its own.

use std::time::{Duration, Instant};

use crate::support::client::Request;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;

fn proxy(limit: &str, store: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\n{store}\nlimits: [{{ name: l, key: 'header:x-id', {limit} }}]\n"
    ))
}

/// What these denials in a row are told, once the burst is spent, and how long all of it took.
fn told(proxy: &Tollgate, id: &str, burst: usize, denials: usize) -> (Vec<u64>, Duration) {
    let mut client = proxy.client();
    let request = Request::get("/").header("x-id", id);
    for _ in 0..burst {
        assert_eq!(client.send(&request).status, 200);
    }
    let begun = Instant::now();
    let told = (0..denials).map(|_| {
        let denied = client.send(&request);
        assert_eq!(denied.status, 429);
        assert!(denied.list("ratelimit").ends_with(&format!(";t={}", denied.retry_after())), "{:?}", denied.headers);
        denied.retry_after()
    });
    (told.collect(), begun.elapsed())
}

/// Each is told so much more than the one before, but for the time that passed.
#[track_caller]
fn assert_steps(told: &[u64], expected: &[u64], took: Duration) {
    let slack = took.as_secs() + 1;
    let close = |(told, expected): (&u64, &u64)| told <= expected && told + slack >= *expected;
    assert!(
        told.len() == expected.len() && told.iter().zip(expected).all(close),
        "{told:?} in {took:?}, not {expected:?}"
    );
}

#[test]
fn the_i_th_denied_is_told_the_time_of_the_i_th_token_in_either_store() {
    let redis = RedisServer::start();
    for store in [String::new(), format!("store: {{ redis: {{ url: '{}', timeout: 2s }} }}", redis.url())] {
        let proxy = proxy("rate: 1/m, burst: 2, spread_retry: 4m", &store);
        let (five, took) = told(&proxy, "a", 2, 5);
        assert_steps(&five, &[60, 120, 180, 240, 300], took);
        let (again, took) = told(&proxy, "a", 0, 2);
        assert_steps(&again, &[60, 120], took + Duration::from_secs(1));
        let (others, took) = told(&proxy, "b", 2, 1);
        assert_steps(&others, &[60], took);
        if !store.is_empty() {
            let remembered = proxy.metrics().count("tollgate_limit_remembered_denials_total", &[("limit", "l")]);
            assert_eq!(remembered, 6, "all but the first denial of each key");
        }
    }
}

#[test]
fn without_it_all_are_told_the_exact_time_and_windows_are_spread_by_their_rate() {
    let (exact, took) = told(&proxy("rate: 1/m, burst: 2", ""), "a", 2, 3);
    assert_steps(&exact, &[60, 60, 60], took);
    let window = "algorithm: sliding_log, rate: 4/2m, spread_retry: 1m";
    let (spread, took) = told(&proxy(window, ""), "a", 4, 3);
    assert_steps(&spread, &[120, 150, 180], took);
}

/// Sends one request per client, all at once; those denied come back when they were told to.
fn come_back(proxy: &Tollgate, clients: usize) -> usize {
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let mut client = proxy.client();
            let request = Request::get("/").header("x-id", "shared");
            let denied = client.send(&request);
            assert_eq!(denied.status, 429);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(denied.retry_after()));
                client.send(&request).status
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).filter(|status| *status == 200).count()
}

#[test]
fn all_who_wait_as_long_as_they_were_told_are_admitted_in_one_round() {
    let spend = |proxy: &Tollgate| {
        for _ in 0..2 {
            assert_eq!(proxy.client().send(&Request::get("/").header("x-id", "shared")).status, 200);
        }
    };
    let spread = proxy("rate: 1/s, burst: 2, spread_retry: 1m", "");
    spend(&spread);
    assert_eq!(come_back(&spread, 4), 4);
    let exact = proxy("rate: 1/s, burst: 2", "");
    spend(&exact);
    assert!(come_back(&exact, 4) < 4, "they all come for the same token");
}
