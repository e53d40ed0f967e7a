//! What the access log tells of answers that the end of the process cuts, and of those that it does not.

use std::collections::HashSet;
use std::io;

use serde_json::Value;

use crate::support::client::{Client, Request};
use crate::support::eventually;
use crate::support::http2;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::{Arrived, Peer, SWITCHING, Upstream};

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// `/silent` gets no answer, `/events` one event, `/sized` and `/chunked` all of theirs, `/ws` a silent tunnel.
fn script(peer: &mut Peer, request: &Arrived) -> io::Result<()> {
    match request.line.split(' ').nth(1).unwrap_or_default() {
        "/events" => peer.send(format!("{EVENTS}4\r\none\n\r\n"))?,
        "/ws" => peer.send(format!("{SWITCHING}\r\n"))?,
        "/sized" => return peer.answer("all"),
        "/chunked" => return peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n"),
        _ => {}
    }
    peer.rest().map(drop)
}

fn in_front_of(upstream: &Upstream) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\naccess_log: {{}}\nshutdown: {{ delay: 0s, grace: 1s }}\n",
        upstream.url()
    ))
}

/// Path, status and error of the lines, by path.
fn told(proxy: &Tollgate, count: usize) -> Vec<(String, u64, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = proxy.access_lines(count);
    let mut told: Vec<_> = lines
        .iter()
        .map(|line| (text(&line["path"]), line["status"].as_u64().expect("a status"), text(&line["error"])))
        .collect();
    told.sort();
    told
}

fn line(path: &str, status: u64, error: &str) -> (String, u64, String) {
    (path.to_owned(), status, error.to_owned())
}

fn begin(client: &mut Client, bytes: &[u8]) {
    client.write(bytes).expect("sent");
}

#[test]
fn what_the_grace_cuts_is_told_so_and_never_as_a_client_that_left() {
    let upstream = Upstream::answering(script);
    let mut proxy = in_front_of(&upstream);
    let [mut silent, mut events, mut tunnel, mut kept, mut chunked] = [(); 5].map(|()| proxy.client());
    assert_eq!(kept.send(&Request::get("/sized")).text(), "all");
    assert_eq!(chunked.send(&Request::get("/chunked")).text(), "all");
    begin(&mut silent, &Request::get("/silent").bytes());
    begin(&mut events, &Request::get("/events").bytes());
    assert_eq!(events.head().expect("a head").status, 200);
    events.expect(b"4\r\none\n\r\n");
    begin(&mut tunnel, UPGRADE);
    assert_eq!(tunnel.head().expect("a head").status, 101);
    eventually("all are upstream", || (upstream.seen().len() == 5).then_some(()));
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), Some(0));
    assert_eq!(
        told(&proxy, 5),
        [
            line("/chunked", 200, ""),
            line("/events", 200, "cut_by_shutdown"),
            line("/silent", 503, "cut_by_shutdown"),
            line("/sized", 200, ""),
            line("/ws", 101, "cut_by_shutdown"),
        ]
    );
}

#[test]
fn streams_of_http2_are_told_the_same() {
    let upstream = Upstream::answering(script);
    let mut proxy = in_front_of(&upstream);
    let mut client = http2::Peer::connect(proxy.web());
    for (stream, path) in [(1, "/silent"), (3, "/events"), (5, "/sized")] {
        let whole = http2::END_HEADERS | http2::END_STREAM;
        client.send(&http2::request(whole, stream, "GET", path)).expect("sent");
    }
    let mut answering = HashSet::new();
    while answering.len() < 2 {
        answering.insert(client.until(|frame| frame.kind == http2::DATA).expect("data").stream);
    }
    assert_eq!(answering, HashSet::from([3, 5]));
    eventually("all are upstream", || (upstream.seen().len() == 3).then_some(()));
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), Some(0));
    assert_eq!(
        told(&proxy, 3),
        [line("/events", 200, "cut_by_shutdown"), line("/silent", 503, "cut_by_shutdown"), line("/sized", 200, ""),]
    );
}

#[test]
fn a_client_that_leaves_while_the_process_ends_has_left() {
    let upstream = Upstream::answering(script);
    let mut proxy = in_front_of(&upstream);
    let [mut silent, mut events, mut cut] = [(); 3].map(|()| proxy.client());
    begin(&mut silent, &Request::get("/silent").bytes());
    begin(&mut events, &Request::get("/events").bytes());
    begin(&mut cut, &Request::get("/cut").bytes());
    assert_eq!(events.head().expect("a head").status, 200);
    eventually("all are upstream", || (upstream.seen().len() == 3).then_some(()));
    proxy.signal("TERM");
    eventually("no new connections", || Client::open(proxy.web()).is_err().then_some(()));
    silent.reset();
    events.reset();
    assert_eq!(proxy.wait(), Some(0));
    assert_eq!(
        told(&proxy, 3),
        [line("/cut", 503, "cut_by_shutdown"), line("/events", 200, ""), line("/silent", 499, "")]
    );
}

#[test]
fn an_upstream_that_only_announces_its_answer_is_given_up() {
    let upstream = Upstream::answering(|peer, request| {
        let head = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        if request.line.starts_with("GET /few ") {
            peer.send(head.repeat(20))?;
            return peer.answer("answered");
        }
        // Until the proxy closes the connection.
        loop {
            peer.send(head.repeat(100))?;
        }
    });
    let proxy =
        Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\naccess_log: {{}}\n", upstream.url()));
    // The answer comes long before the time for it is over; it is not the timeout that ends it.
    for _ in 0..3 {
        let answer = proxy.get("/flood");
        assert_eq!((answer.status, answer.list("proxy-status").as_str()), (502, "tollgate; error=http_protocol_error"));
        let answer = proxy.get("/few");
        assert_eq!((answer.status, answer.text().as_str()), (200, "answered"));
    }
    let flood = line("/flood", 502, "informational");
    let few = line("/few", 200, "");
    assert_eq!(told(&proxy, 6), [few.clone(), few.clone(), few, flood.clone(), flood.clone(), flood]);
    let rejected = proxy.metrics().count("tollgate_rejected_requests_total", &[("error", "informational")]);
    assert_eq!(rejected, 3);
}

#[test]
fn a_large_head_and_body_behind_a_few_announcements_arrive_whole() {
    const BODY: usize = 4 << 20;
    let upstream = Upstream::answering(|peer, _| {
        let large = format!("x-large: {}\r\n", "y".repeat(8_000)).repeat(4);
        peer.send(format!("HTTP/1.1 103 Early Hints\r\n{large}\r\n").repeat(3))?;
        peer.send(format!("HTTP/1.1 200 OK\r\n{large}content-length: {BODY}\r\n\r\n"))?;
        peer.send(vec![7; BODY])
    });
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\n", upstream.url()));
    let mut client = proxy.client();
    for _ in 0..3 {
        let answer = client.send(&Request::get("/"));
        assert_eq!((answer.status, answer.body.len()), (200, BODY));
    }
    assert_eq!(upstream.connections(), 1, "the connection is kept");
}
