//! Servers that are left alone for a while: by checks, by what comes of requests, by a circuit breaker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

use crate::support::eventually;
use crate::support::h2_upstream::{Exchange, H2Upstream, Service, whole};
use crate::support::tollgate::{Tollgate, field};
use crate::support::upstream::{Arrived, Peer, Upstream};

fn in_front_of(servers: &[&str], keys: &str) -> Tollgate {
    let servers: Vec<_> = servers.iter().map(|server| format!("'{server}'")).collect();
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: api\n\
         upstreams: {{ api: {{ servers: [{}], {keys} }} }}\n",
        servers.join(", ")
    ))
}

/// A server whose health is what a test says, and which never fails otherwise.
fn checked(name: &'static str, status: &Arc<AtomicU16>) -> Upstream {
    let status = Arc::clone(status);
    Upstream::answering(move |peer, request| {
        if request.line.starts_with("GET /healthz?full HTTP/1.1") {
            let status = status.load(Ordering::SeqCst);
            return peer.send(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"));
        }
        peer.answer(name)
    })
}

/// The servers that answer ten requests, each once.
fn answering(proxy: &Tollgate) -> Vec<String> {
    let mut client = proxy.client();
    let mut names: Vec<_> = (0..10).map(|_| client.get("/").text()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_server_whose_check_fails_is_not_asked_until_it_is_well_again() {
    let [first, second] = [(), ()].map(|()| Arc::new(AtomicU16::new(204)));
    let servers = [checked("first", &first), checked("second", &second)];
    let active =
        "health: { active: { path: '/healthz?full', host: check.example, interval: 50ms, unhealthy_after: 2 } }";
    let proxy = in_front_of(&[&servers[0].url(), &servers[1].url()], active);
    assert_eq!(answering(&proxy), ["first", "second"]);
    second.store(503, Ordering::SeqCst);
    proxy.wait_for_log("the change", |line| {
        field(line, "message") == "upstream server found unhealthy" && field(line, "error") == "it answered 503"
    });
    assert_eq!(answering(&proxy), ["first"]);
    let health = |server: &Upstream| {
        let server = server.address().to_string();
        let labels = [("upstream", "api"), ("server", &*server), ("state", "healthy")];
        proxy.metrics().count("tollgate_upstream_endpoints", &labels)
    };
    assert_eq!((health(&servers[0]), health(&servers[1])), (1, 0));
    second.store(399, Ordering::SeqCst);
    proxy.wait_for_log("the change back", |line| field(line, "message") == "upstream server found healthy");
    assert_eq!(answering(&proxy), ["first", "second"]);
    // Where nobody is well, everybody may be.
    first.store(400, Ordering::SeqCst);
    second.store(400, Ordering::SeqCst);
    eventually("both are found down", || (health(&servers[0]) == 0 && health(&servers[1]) == 0).then_some(()));
    assert_eq!(answering(&proxy), ["first", "second"]);
    let check = servers[0].seen().into_iter().find(|request| request.line.contains("healthz")).expect("a check");
    assert_eq!(check.field("host").as_deref(), Some("check.example"));
}

#[test]
fn a_server_that_takes_no_connection_is_found_down() {
    let up = Upstream::answering(|peer, _| peer.answer("up"));
    let checks = "health: { passive: none, active: { type: tcp, interval: 50ms } }";
    let proxy = in_front_of(&[&up.url(), "http://127.0.0.1:9"], checks);
    proxy.wait_for_log("the change", |line| field(line, "message") == "upstream server found unhealthy");
    let failed = || proxy.metrics().count("tollgate_upstream_requests_total", &[("server", "127.0.0.1:9")]);
    let before = failed();
    assert_eq!(answering(&proxy), ["up"]);
    assert_eq!(failed(), before, "it was not asked");
}

/// A gRPC server: its health service says what a test says, its calls are answered with its name.
async fn grpc(mut exchange: Exchange, name: &'static str, serving: bool) {
    let Ok((body, _)) = whole(exchange.request.body_mut()).await else { return };
    let message: &[u8] = match exchange.request.uri().path() {
        "/grpc.health.v1.Health/Check" => {
            assert_eq!(body, b"\0\0\0\0\x06\x0a\x04shop", "the service is named");
            if serving { b"\0\0\0\0\x02\x08\x01" } else { b"\0\0\0\0\x02\x08\x02" }
        }
        _ => name.as_bytes(),
    };
    let mut stream = exchange.respond.send_response(Response::new(()), false).expect("sent");
    stream.send_data(Bytes::copy_from_slice(message), false).expect("sent");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).expect("sent");
}

#[test]
fn a_server_of_grpc_is_asked_for_its_health_as_grpc_does() {
    let well = Arc::new(AtomicBool::new(false));
    let serving = Arc::clone(&well);
    let first = H2Upstream::start(Service::clear(), |exchange| grpc(exchange, "first", true));
    let second = H2Upstream::start(Service::clear(), move |exchange| {
        let serving = serving.load(Ordering::SeqCst);
        grpc(exchange, "second", serving)
    });
    let checks = "protocol: h2, health: { active: { type: grpc, service: shop, interval: 50ms } }";
    let proxy = in_front_of(&[&first.url("http"), &second.url("http")], checks);
    proxy.wait_for_log("the change", |line| field(line, "message") == "upstream server found unhealthy");
    assert_eq!(answering(&proxy), ["first"]);
    well.store(true, Ordering::SeqCst);
    proxy.wait_for_log("the change back", |line| field(line, "message") == "upstream server found healthy");
    assert_eq!(answering(&proxy), ["first", "second"]);
}

#[test]
fn a_server_that_fails_too_often_is_left_alone_for_a_while() {
    let broken = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&broken);
    let bad = Upstream::answering(move |peer, _| {
        if fails.load(Ordering::SeqCst) {
            return peer.send("HTTP/1.1 500 x\r\ncontent-length: 3\r\n\r\nbad");
        }
        peer.answer("bad")
    });
    let good = Upstream::answering(|peer, _| peer.answer("good"));
    let passive = "health: { passive: { failures: 3, eject_for: 1s, status: [500, 502-504] } }";
    let proxy = in_front_of(&[&bad.url(), &good.url()], passive);
    let mut client = proxy.client();
    let statuses: Vec<_> = (0..30).map(|_| client.get("/").status).collect();
    assert_eq!(statuses.iter().filter(|&&status| status == 500).count(), 3, "{statuses:?}");
    proxy.wait_for_log("the ejection", |line| field(line, "message") == "upstream server ejected");
    broken.store(false, Ordering::SeqCst);
    eventually("it is asked again", || answering(&proxy).contains(&"bad".to_owned()).then_some(()));
}

#[test]
fn not_more_servers_are_left_alone_than_allowed() {
    let bad = |_: &mut Peer, _: &Arrived| -> io::Result<()> { Err(io::ErrorKind::BrokenPipe.into()) };
    let servers = [Upstream::answering(bad), Upstream::answering(bad), Upstream::answering(bad)];
    let urls = servers.each_ref().map(Upstream::url);
    let passive = "health: { passive: { failures: 1, eject_for: 1h, max_ejected: 34% } }";
    let proxy = in_front_of(&[&urls[0], &urls[1], &urls[2]], passive);
    let mut client = proxy.client();
    (0..12).for_each(|_| assert_eq!(client.get("/").status, 502));
    let counts: Vec<_> = servers.iter().map(|server| server.seen().len()).collect();
    let mut sorted = counts.clone();
    sorted.sort_unstable();
    assert_eq!(sorted[0], 1, "one is left alone after its first failure: {counts:?}");
    assert!(sorted[1] >= 5, "the others are asked on: {counts:?}");
}

#[test]
fn a_breaker_opens_turns_away_and_closes_when_one_request_succeeds() {
    let broken = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&broken);
    let upstream = Upstream::answering(move |peer, _| {
        if fails.load(Ordering::SeqCst) {
            return peer.send("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n");
        }
        peer.answer("ok")
    });
    let breaker = "circuit_breaker: { failures: 50%, min_requests: 4, open_for: 1s }";
    let proxy = in_front_of(&[&upstream.url()], breaker);
    let mut client = proxy.client();
    (0..4).for_each(|_| assert_eq!(client.get("/").status, 500));
    let answer = client.get("/");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("proxy-status"), Some("tollgate; error=destination_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(upstream.seen().len(), 4);
    assert_eq!(proxy.metrics().count("tollgate_upstream_breaker_open", &[("upstream", "api")]), 1);
    broken.store(false, Ordering::SeqCst);
    eventually("it closes", || (client.get("/").status == 200).then_some(()));
    proxy.wait_for_log("the end", |line| field(line, "message") == "circuit breaker closed");
    (0..10).for_each(|_| assert_eq!(client.get("/").status, 200));
}
