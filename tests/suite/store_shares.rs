//! While Redis is away each proxy counts within its share, from where Redis stood; when it is back, what was
//! admitted without it is charged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::client::Request;
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;
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

/// Requests whose answers do not count, before, in and after the outage.
#[test]
fn what_is_given_back_in_an_outage_is_given_back_whole_and_never_charged_afterwards() {
    for algorithm in ["token_bucket", "fixed_window", "sliding_window", "sliding_log"] {
        let redis = RedisServer::start();
        let limit = format!("rate: 20/366d, algorithm: {algorithm}, count: {{ status: [401] }}");
        let proxies = [(); 2].map(|()| proxy(&redis, &limit, ""));
        let both = [&proxies[0], &proxies[1]];
        until_seen(&both);
        send(&proxies[0], "good", 1);
        redis.stop();
        until_away(&both);
        for proxy in both {
            for _ in 0..3 {
                send(proxy, "good", 12);
            }
        }
        redis.resume();
        for proxy in both {
            eventually("the store is back", || (proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(()));
        }
        let request = Request::get("/").header("x-client", "good");
        for proxy in both {
            // The request that looks is charged when it is told.
            eventually("nothing is charged", || {
                (proxy.client().send(&request).remaining("shared") == 19).then_some(())
            });
        }
        send(&proxies[0], "good", 30);
    }
}

/// A proxy of 1000 a year before an upstream whose every answer costs so much.
fn costing(cost: u64, redis: &RedisServer) -> (Upstream, Tollgate) {
    let upstream = Upstream::answering(move |peer, _| {
        peer.send(format!("HTTP/1.1 200 OK\r\nx-cost: {cost}\r\ncontent-length: 0\r\n\r\n"))
    });
    let proxy = in_front_of_costs(&upstream, redis);
    (upstream, proxy)
}

fn in_front_of_costs(upstream: &Upstream, redis: &RedisServer) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\nlimits:\n\
         \x20 - {{ name: shared, key: 'header:x-client', rate: 1000/366d, cost: {{ default: 1, response_header: x-cost }} }}\n\
         store:\n  redis: {{ url: '{}', timeout: 250ms }}\n  on_store_error: local\n",
        upstream.url(),
        redis.url()
    ))
}

/// What one look says; it is charged itself.
fn left(proxy: &Tollgate, client: &str) -> u64 {
    proxy.client().send(&Request::get("/").header("x-client", client)).remaining("shared")
}

#[test]
fn what_an_answer_cost_in_an_outage_is_charged_afterwards() {
    let redis = RedisServer::start();
    let (_upstream, proxy) = costing(30, &redis);
    redis.stop();
    until_away(&[&proxy]);
    send(&proxy, "a", 6);
    redis.resume();
    let key = || redis.keys().into_iter().filter(|key| key.contains(":shared:")).count();
    eventually("both clients are charged", || (key() == 2).then_some(()));
    let left = left(&proxy, "a");
    assert!(left < 1000 - 6 * 30, "{left} left");
}

/// A call that got no answer may have charged what was estimated, and no more: the difference is charged.
/// What is left of a client's limit, looked at without a charge.
fn left_in_store(proxy: &Tollgate, client: &str) -> Option<u64> {
    let look = crate::support::client::get(proxy.admin(), &format!("/api/v1/limits/shared/keys/{client}")).json();
    look["states"][0]["remaining"].as_u64()
}

#[test]
fn what_an_answer_cost_is_charged_although_the_decision_timed_out() {
    let redis = RedisServer::start();
    let (_upstream, proxy) = costing(50, &redis);
    proxy.wait_for_log("a connection", |line| line["message"] == "connected to redis");
    redis.stop();
    send(&proxy, "a", 1);
    redis.resume();
    eventually("it is charged what it cost", || (left_in_store(&proxy, "a")? == 950).then_some(()));
}

/// A machine that is too busy to ask in time for those who wait behind a call of the same question.
#[test]
fn what_was_admitted_although_nobody_asked_in_time_is_charged_and_counted() {
    let redis = RedisServer::start();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\n\
         limits: [{{ name: shared, key: 'header:x-client', rate: 20/h }}]\n\
         store: {{ redis: {{ url: '{}', timeout: 500ms }}, on_store_error: local }}\n",
        redis.url()
    ));
    send(&proxy, "b", 1);
    let mut clients: Vec<_> = (0..8).map(|_| proxy.client()).collect();
    redis.stop();
    for client in &mut clients {
        client.write(&Request::get("/").header("x-client", "a").bytes()).expect("sent");
    }
    // They are read, and the first is asked for, before the process sleeps past everybody's time.
    std::thread::sleep(Duration::from_millis(200));
    proxy.signal("STOP");
    std::thread::sleep(Duration::from_millis(700));
    redis.resume();
    proxy.signal("CONT");
    for client in &mut clients {
        assert_eq!(client.answer_to("GET").expect("an answer").status, 200);
    }
    eventually("each is charged", || (left_in_store(&proxy, "a")? == 12).then_some(()));
    let timeouts = proxy.metrics().count("tollgate_store_errors_total", &[("kind", "timeout")]);
    assert!(timeouts >= 7, "{timeouts}");
}

#[test]
fn what_was_let_through_before_the_first_connection_is_charged_with_what_it_cost() {
    let redis = RedisServer::start();
    redis.stop();
    let (_upstream, proxy) = costing(50, &redis);
    send(&proxy, "a", 2);
    redis.resume();
    eventually("both are charged what they cost", || (left_in_store(&proxy, "a")? == 900).then_some(()));
}

#[test]
fn what_an_answer_cost_that_comes_while_redis_is_away_is_charged_when_it_is_back() {
    let redis = RedisServer::start();
    let may = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&may);
    let upstream = Upstream::answering(move |peer, head| {
        while head.line.contains("/slow") && !waits.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        peer.send("HTTP/1.1 200 OK\r\nx-cost: 50\r\ncontent-length: 0\r\n\r\n")
    });
    let proxy = in_front_of_costs(&upstream, &redis);
    proxy.wait_for_log("a connection", |line| line["message"] == "connected to redis");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| proxy.client().send(&Request::get("/slow").header("x-client", "a")).status);
        eventually("it is decided", || upstream.seen().iter().any(|head| head.line.contains("/slow")).then_some(()));
        redis.stop();
        until_away(&[&proxy]);
        may.store(true, Ordering::SeqCst);
        assert_eq!(slow.join().expect("an answer"), 200);
    });
    // Long enough for what does not wait to be lost.
    std::thread::sleep(Duration::from_millis(500));
    redis.resume();
    eventually("it is charged what it cost", || (left_in_store(&proxy, "a")? == 950).then_some(()));
}

#[test]
fn a_blocked_key_stays_blocked_in_an_outage_on_every_worker() {
    let mut redis = RedisServer::start();
    let proxy = proxy(&redis, "rate: 1/s, penalty: { after: 1, block: 10m, max: 1h }", "");
    until_seen(&[&proxy]);
    send(&proxy, "a", 1);
    let request = Request::get("/").header("x-client", "a");
    assert!(proxy.client().send(&request).retry_after() >= 599);
    redis.kill();
    until_away(&[&proxy]);
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..10 {
        let answer = proxy.client().send(&request);
        assert!(answer.status == 429 && answer.retry_after() > 500, "{answer:?}");
    }
}

#[test]
fn a_cost_that_only_the_whole_limit_could_bear_is_told_to_come_again() {
    let mut redis = RedisServer::start();
    let proxies = [(); 2].map(|()| proxy(&redis, "rate: 10/h, cost: { default: 1, POST: 10 }", ""));
    until_seen(&[&proxies[0], &proxies[1]]);
    redis.kill();
    until_away(&[&proxies[0], &proxies[1]]);
    let answer = proxies[0].client().send(&Request::new("POST", "/").header("x-client", "a"));
    assert_eq!((answer.status, answer.retry_after()), (429, 1));
}

/// In a Cluster the limits on a shard that is there are charged there, and given back there.
#[test]
fn a_shard_that_is_there_is_told_what_a_request_cost_although_another_one_is_away() {
    let cluster = RedisCluster::of_masters();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits:\n\
         \x20 - {{ name: there, key: global, rate: 20/d, count: {{ status: [401] }} }}\n\
         \x20 - {{ name: away, key: 'header:x-client', rate: 1000/d }}\n\
         store:\n  redis: {{ cluster: {}, timeout: 250ms }}\n  on_store_error: local\n",
        cluster.list()
    ));
    eventually("the store is up", || (proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(()));
    let there = cluster.first_owner("global");
    send(&proxy, "probe", 1);
    // A client whose limit is on another shard.
    let keys = |node: usize| cluster.nodes[node].keys();
    let client = (0..100)
        .map(|n| format!("client-{n}"))
        .find(|client| {
            send(&proxy, client, 1);
            (0..3).filter(|&node| node != there).any(|node| keys(node).iter().any(|key| key.contains(":away:")))
        })
        .expect("a client of another shard");
    let shard = (0..3).find(|&node| node != there && keys(node).iter().any(|key| key.contains(":away:"))).unwrap();
    cluster.nodes[shard].stop();
    let request = Request::get("/").header("x-client", &client);
    for _ in 0..60 {
        assert_eq!(proxy.client().send(&request).status, 200);
    }
    cluster.nodes[shard].resume();
    eventually("the store is up", || (proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(()));
    let left = || proxy.client().send(&request).remaining("there");
    eventually("all but what was lost in time-outs was given back", || (left() >= 15).then_some(()));
}
