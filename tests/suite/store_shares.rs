//! While Redis is away each proxy counts within its share, from where Redis stood; when it is back, what was
//! admitted without it is charged.

use std::time::Duration;

use crate::support::client::Request;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::{eventually, within};

fn proxy(redis: &RedisServer, limit: &str, store: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits: [{{ name: shared, key: 'header:x-client', {limit} }}]\n\
         store:\n  redis: {{ url: '{}', timeout: 250ms }}\n  on_store_error: local\n{store}",
        redis.url()
    ))
}

fn until_seen(proxies: &[&Tollgate]) {
    for proxy in proxies {
        let seen = || proxy.metrics().count("tollgate_proxies", &[]);
        eventually("all proxies are seen", || (seen() == proxies.len() as u64).then_some(()));
    }
}

/// Requests of a client until one is denied; how many were admitted.
fn admitted(proxy: &Tollgate, client: &str) -> usize {
    let request = Request::get("/").header("x-client", client);
    (0..200).take_while(|_| proxy.client().send(&request).status == 200).count()
}

fn send(proxy: &Tollgate, client: &str, count: usize) {
    for _ in 0..count {
        assert_eq!(proxy.client().send(&Request::get("/").header("x-client", client)).status, 200);
    }
}

fn until_away(proxies: &[&Tollgate]) {
    for proxy in proxies {
        let is_up = || proxy.metrics().count("tollgate_store_up", &[]) == 1;
        eventually("the store is seen to be away", || {
            // Somebody has to ask, so that it is noticed.
            let _ = proxy.client().send(&Request::get("/").header("x-client", "nobody"));
            (!is_up()).then_some(())
        });
        // Each worker sees it for itself.
        for _ in 0..40 {
            let _ = proxy.client().send(&Request::get("/").header("x-client", "nobody"));
        }
    }
}

#[test]
fn each_proxy_has_its_share_and_starts_from_what_redis_said() {
    let mut redis = RedisServer::start();
    let proxies = [proxy(&redis, "rate: 20/h", ""), proxy(&redis, "rate: 20/h", "")];
    let both = [&proxies[0], &proxies[1]];
    until_seen(&both);
    send(&proxies[0], "known", 7);
    send(&proxies[1], "known", 7);
    assert_eq!(admitted(&proxies[0], "spent"), 20);
    redis.kill();
    until_away(&both);
    assert_eq!(both.map(|proxy| admitted(proxy, "new")), [10, 10], "20 of nobody's");
    // 13 of 20 were left when the first proxy last asked, 6 when the second did; the half of that.
    assert_eq!(both.map(|proxy| admitted(proxy, "known")), [6, 3]);
    assert_eq!(admitted(&proxies[0], "spent"), 0);
}

#[test]
fn windows_are_shared_and_warm_too() {
    for (algorithm, known) in [("fixed_window", 6), ("sliding_window", 6), ("sliding_log", 6)] {
        let mut redis = RedisServer::start();
        let proxies = [(); 2].map(|()| proxy(&redis, &format!("rate: 20/366d, algorithm: {algorithm}"), ""));
        let both = [&proxies[0], &proxies[1]];
        until_seen(&both);
        send(&proxies[0], "known", 8);
        redis.kill();
        until_away(&both);
        assert_eq!(both.map(|proxy| admitted(proxy, "new")), [10, 10], "{algorithm}");
        assert_eq!(admitted(&proxies[0], "known"), known, "{algorithm}: 8 used, 4 of the half");
    }
}

/// Redis stands still and keeps its data.
#[test]
fn what_was_admitted_without_redis_is_charged_when_it_is_back() {
    for algorithm in ["token_bucket", "fixed_window", "sliding_window", "sliding_log"] {
        let redis = RedisServer::start();
        let proxy = proxy(&redis, &format!("rate: 20/366d, algorithm: {algorithm}"), "");
        until_seen(&[&proxy]);
        send(&proxy, "known", 4);
        redis.stop();
        until_away(&[&proxy]);
        send(&proxy, "known", 5);
        send(&proxy, "new", 3);
        redis.resume();
        let request = |client| Request::get("/").header("x-client", client);
        let is_up = || proxy.metrics().count("tollgate_store_up", &[]) == 1;
        eventually("the store is back", || is_up().then_some(()));
        let took = std::time::Instant::now();
        within(Duration::from_secs(1), "it is charged", || {
            // Of nobody, of known, and of new, which Redis never saw before.
            (redis.keys().iter().filter(|key| key.contains(":shared:")).count() == 3).then_some(())
        });
        println!("{algorithm}: charged within {:?}", took.elapsed());
        let left = |client| proxy.client().send(&request(client)).remaining("shared");
        assert_eq!((left("known"), left("new")), (20 - 4 - 5 - 1, 20 - 3 - 1), "{algorithm}");
    }
}

#[test]
fn keys_that_there_is_no_room_for_share_one_state() {
    let mut redis = RedisServer::start();
    let proxy = proxy(&redis, "rate: 1/h", "  max_keys: 1000\n");
    until_seen(&[&proxy]);
    assert_eq!(admitted(&proxy, "spent"), 1);
    redis.kill();
    until_away(&[&proxy]);
    let mut client = proxy.client();
    let mut passes = |name: &str| client.send(&Request::get("/").header("x-client", name)).status == 200;
    let own = (0..1_500).filter(|n| passes(&format!("client-{n}"))).count();
    println!("{own} of 1500 clients had a state of their own");
    assert!((700..=1_000).contains(&own), "{own} admitted: as many as there is room for, and one for all others");
    assert!(!passes("spent"), "what is known is not forgotten for them");
    assert!((0..500).all(|n| !passes(&format!("client-{n}"))), "nor what came first");
}
