//! Limits of requests under way: a place is taken when a request comes and given back when it ends,
//! however it ends, over all proxies on one store.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::client::{Client, Request};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::{Arrived, Peer, Upstream};

/// An upstream that keeps every request until it is opened, and what opens it.
fn gated() -> (Upstream, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let upstream = Upstream::answering(move |peer: &mut Peer, _: &Arrived| -> io::Result<()> {
        while !gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        peer.answer("done")
    });
    (upstream, open)
}

fn configuration(upstream: &str, limit: &str, store: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: {upstream}\nlimits:\n  - {{ name: busy, key: global, {limit} }}\n{store}"
    )
}

fn redis_store(redis: &RedisServer) -> String {
    format!("store:\n  redis: {{ url: '{}', timeout: 2s }}\n", redis.url())
}

/// Sends a request and leaves its answer for later.
fn begin(proxy: &Tollgate) -> Client {
    let mut client = proxy.client();
    client.write(&Request::get("/").bytes()).expect("the request is sent");
    client
}

/// Sends so many requests, each on a connection of its own, and waits until the upstream has them.
fn occupy(proxies: &[&Tollgate], upstream: &Upstream, count: usize) -> Vec<Client> {
    let before = upstream.seen().len();
    let clients = (0..count).map(|n| begin(proxies[n % proxies.len()])).collect();
    eventually("the requests are under way", || (upstream.seen().len() == before + count).then_some(()));
    clients
}

#[test]
fn only_so_many_run_at_once_over_two_proxies_and_an_end_makes_room() {
    let redis = RedisServer::start();
    let (upstream, open) = gated();
    let yaml = configuration(&upstream.url(), "in_flight: 4", &redis_store(&redis));
    let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
    let running = occupy(&[&proxies[0], &proxies[1]], &upstream, 4);
    for proxy in &proxies {
        let denied = proxy.get("/");
        assert_eq!((denied.status, denied.retry_after(), denied.remaining("busy")), (429, 1, 0));
        assert_eq!(denied.list("ratelimit-policy"), "\"busy\";q=4;qu=\"concurrent-requests\"");
    }
    assert_eq!(upstream.seen().len(), 4, "a denied request never reaches the upstream");
    open.store(true, Ordering::SeqCst);
    for mut client in running {
        assert_eq!(client.answer_to("GET").unwrap().status, 200);
    }
    eventually("every place is free again", || redis.keys().iter().all(|key| !key.contains("busy")).then_some(()));
    assert_eq!(proxies[0].get("/").remaining("busy"), 3);
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let redis = RedisServer::start();
    for store in [String::new(), redis_store(&redis)] {
        let (upstream, _open) = gated();
        let proxy = Tollgate::start(&configuration(&upstream.url(), "in_flight: 2", &store));
        let running = occupy(&[&proxy], &upstream, 2);
        assert_eq!(proxy.get("/").status, 429);
        drop(running);
        let freed = || {
            let mut client = begin(&proxy);
            client.set_patience(Duration::from_millis(100));
            // Admitted requests wait at the gate; denied ones are answered.
            client.answer_to("GET").is_err().then_some(client)
        };
        let _admitted = eventually("a place is free again", freed);
    }
}

#[test]
fn a_request_that_is_refused_by_another_limit_takes_no_place() {
    let (upstream, _open) = gated();
    let limits = "in_flight: 9 }\n  - { name: scarce, key: global, rate: 1/h";
    let proxy = Tollgate::start(&configuration(&upstream.url(), limits, ""));
    let _running = occupy(&[&proxy], &upstream, 1);
    for _ in 0..20 {
        let denied = proxy.get("/");
        assert_eq!((denied.status, denied.remaining("busy")), (429, 8));
    }
}

#[test]
fn a_long_stream_holds_its_place_beyond_the_lifetime_of_a_slot() {
    let redis = RedisServer::start();
    for store in [String::new(), redis_store(&redis)] {
        let (upstream, open) = gated();
        let yaml = configuration(&upstream.url(), "in_flight: 1, slot_ttl: 1s", &store);
        let proxy = Tollgate::start(&yaml);
        let mut running = occupy(&[&proxy], &upstream, 1);
        for _ in 0..8 {
            assert_eq!(proxy.get("/").status, 429, "the slot is renewed as long as the request runs");
            std::thread::sleep(Duration::from_millis(300));
        }
        open.store(true, Ordering::SeqCst);
        assert_eq!(running[0].answer_to("GET").unwrap().status, 200);
        eventually("the place is free", || (proxy.get("/").status == 200).then_some(()));
    }
}

#[test]
fn a_killed_proxy_frees_fifty_places_within_the_lifetime_of_its_slots() {
    let redis = RedisServer::start();
    let (upstream, open) = gated();
    let yaml = configuration(&upstream.url(), "in_flight: 50, slot_ttl: 2s", &redis_store(&redis));
    let (dying, other) = (Tollgate::start(&yaml), Tollgate::start(&yaml));
    let running = occupy(&[&dying], &upstream, 50);
    assert_eq!(other.get("/").status, 429);
    dying.signal("KILL");
    let killed = std::time::Instant::now();
    open.store(true, Ordering::SeqCst);
    let freed = eventually("a place is free again", || (other.get("/").status == 200).then(|| killed.elapsed()));
    println!("free again {freed:?} after the kill; slots last 2 s");
    eventually("all of them are free", || (other.get("/").remaining("busy") == 49).then_some(()));
    drop(running);
}

#[test]
fn places_are_kept_over_an_outage_of_the_store_and_are_there_again_after_it() {
    let mut redis = RedisServer::start();
    let (upstream, open) = gated();
    let yaml = configuration(&upstream.url(), "in_flight: 3, slot_ttl: 1s", &redis_store(&redis));
    let proxy = Tollgate::start(&yaml);
    let mut running = occupy(&[&proxy], &upstream, 3);
    assert_eq!(proxy.get("/").status, 429);
    redis.kill();
    eventually("the outage is noticed", || (proxy.metrics().count("tollgate_store_up", &[]) == 0).then_some(()));
    assert_eq!(proxy.get("/").status, 429, "what runs counts on without the store");
    redis.restart();
    eventually("the store is back", || (proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(()));
    let slots = || redis.keys().iter().find(|key| key.contains("busy")).map(|key| redis.cli(&["ZCARD", key]));
    eventually("the empty store learns who runs", || (slots().as_deref() == Some("3")).then_some(()));
    assert_eq!(proxy.get("/").status, 429);
    open.store(true, Ordering::SeqCst);
    for client in &mut running {
        assert_eq!(client.answer_to("GET").unwrap().status, 200);
    }
    eventually("every place is free again", || slots().is_none().then_some(()));
}

#[test]
fn a_half_read_answer_that_is_cut_gives_its_place_back() {
    let upstream = Upstream::answering(|peer, _| {
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        peer.closed()
    });
    let proxy = Tollgate::start(&configuration(&upstream.url(), "in_flight: 1", ""));
    let mut client = begin(&proxy);
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(proxy.get("/").status, 429);
    client.shutdown(Shutdown::Both);
    drop(client);
    eventually("the place is free", || {
        let mut next = begin(&proxy);
        (next.head().unwrap().status == 200).then_some(())
    });
}

#[test]
fn a_websocket_holds_its_place_until_either_side_closes_it() {
    let upstream = Upstream::answering(|peer, _| {
        peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")?;
        peer.closed()
    });
    let proxy = Tollgate::start(&configuration(&upstream.url(), "in_flight: 1, slot_ttl: 1s", ""));
    let upgrade = Request::get("/chat").header("connection", "upgrade").header("upgrade", "websocket");
    let mut tunnel = proxy.client();
    tunnel.write(&upgrade.bytes()).unwrap();
    assert_eq!(tunnel.head().unwrap().status, 101);
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(400));
        let mut refused = proxy.client();
        refused.write(&upgrade.bytes()).unwrap();
        assert_eq!(refused.head().unwrap().status, 429, "the slot is renewed as long as the tunnel is open");
    }
    drop(tunnel);
    eventually("the place is free", || {
        let mut next = proxy.client();
        next.write(&upgrade.bytes()).unwrap();
        (next.head().unwrap().status == 101).then_some(())
    });
}

#[test]
fn a_proxy_that_is_stopped_gives_the_places_of_the_requests_back_that_it_cuts() {
    let redis = RedisServer::start();
    let (upstream, gate) = gated();
    let yaml = configuration(&upstream.url(), "in_flight: 6, slot_ttl: 60s", &redis_store(&redis));
    let mut stopping = Tollgate::start(&format!("{yaml}shutdown: {{ delay: 0s, grace: 1s }}\n"));
    let staying = Tollgate::start(&yaml);
    let cut = occupy(&[&stopping], &upstream, 6);
    assert_eq!(staying.get("/").status, 429);
    stopping.signal("TERM");
    assert_eq!(stopping.wait(), Some(0));
    gate.store(true, Ordering::SeqCst);
    eventually("the places are free", || (staying.get("/").status == 200).then_some(()));
    drop(cut);
}

#[test]
fn a_limit_that_only_watches_holds_no_place_that_it_would_not_have_given() {
    let redis = RedisServer::start();
    let (upstream, gate) = gated();
    let limit = "in_flight: 1, slot_ttl: 1s, mode: shadow";
    let proxy = Tollgate::start(&configuration(&upstream.url(), limit, &redis_store(&redis)));
    let both = occupy(&[&proxy], &upstream, 2);
    let key = redis.keys().into_iter().find(|key| key.contains(":busy:")).expect("a place is taken");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(redis.cli(&["ZCARD", &key]), "1", "renewed is what was given");
    gate.store(true, Ordering::SeqCst);
    drop(both);
}
