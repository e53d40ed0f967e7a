//! What passes: valid requests however they are split, and the clocks of a connection.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tollgate::config::Protocols;
use tollgate::proxy::connection::Phase;
use tollgate::proxy::inbound::{Clocks, Refusal};

use crate::raw::{Edge, PATIENCE, Seen};

const BOTH: Protocols = Protocols { h1: true, h2: true };

fn whole(method: &str, target: &str, body: &[u8]) -> Seen {
    Seen::Whole { method: method.into(), target: target.into(), body: body.to_vec() }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let edge = Edge::start();
    let requests = b"\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n\
        POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=\"y\"\r\nde\r\n1\r\nf\r\n0\r\nX-T: u\r\n\r\n\
        GET http://A/d?e HTTP/1.1\r\nHost: a:80\r\n\r\n\
        OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n\
        GET /f HTTP/1.0\r\n\r\n";
    let answers = edge.client().send(requests).answers();
    let bodies: Vec<&[u8]> = answers.iter().map(|answer| &answer.body[..]).collect();
    assert_eq!(bodies, [&b""[..], b"abc", b"def", b"", b"", b""]);
    let expected = [
        whole("GET", "/late", b""),
        whole("POST", "/b", b"abc"),
        whole("POST", "/c", b"def"),
        whole("GET", "http://A/d?e", b""),
        whole("OPTIONS", "*", b""),
        whole("GET", "/f", b""),
    ];
    assert_eq!(edge.seen(), expected);
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_its_answers() {
    let edge = Edge::start();
    let request = b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n";
    let answers = edge.client().send(&request.repeat(3)).finish().answers();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let edge = Edge::start();
    let request = b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n";
    for reset in [true, false] {
        let mut client = edge.client();
        client.send(request);
        // Another connection on the same thread: the request above has been read when it answers.
        assert_eq!(edge.client().send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
        edge.seen();
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        assert_eq!(edge.wait_seen(), [Seen::Dropped]);
    }
}

#[test]
fn a_large_body_passes_whole() {
    let edge = Edge::start();
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut client = edge.client();
    for _ in 0..2 {
        client.send(format!("POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        client.send(&body);
        assert!(client.answer().body == body);
        client.send(b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(70_000) {
            client.send(format!("{:x}\r\n", chunk.len()).as_bytes()).send(chunk).send(b"\r\n");
        }
        assert!(client.send(b"0\r\n\r\n").answer().body == body);
    }
}

#[test]
fn a_client_that_expects_to_be_told_to_continue_is_told() {
    let edge = Edge::start();
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut client = edge.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n").as_bytes());
        client.expect(b"HTTP/1.1 100 Continue\r\n\r\n");
        let body: &[u8] = if framing.starts_with('C') { b"hello" } else { b"5\r\nhello\r\n0\r\n\r\n" };
        assert_eq!(client.send(body).answer().body, b"hello");
    }
    // Denied at once: no 100, and the connection ends because nobody knows what comes.
    let head = b"POST /early HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let answer = edge.client().send(head).answer();
    assert_eq!(answer.status, 429);
    assert!(answer.has("connection: close"));
}

#[test]
fn a_slow_head_is_answered_with_408_and_silence_with_a_close() {
    let clocks = Clocks::new(Duration::from_millis(200), Duration::from_millis(400));
    let edge = Edge::with(clocks, BOTH);
    assert_eq!(edge.client().rest(), b"");
    for start in [
        &b"G"[..],
        b"P",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5",
    ] {
        let began = Instant::now();
        let answers = edge.client().send(start).answers();
        assert!(began.elapsed() >= clocks.head, "{start:?}");
        assert_eq!(answers[0].status, 408, "{start:?}");
    }
    let mut client = edge.client();
    assert_eq!(client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    assert_eq!(client.send(b"GET / HT").answers()[0].status, 408);
    let mut client = edge.client();
    assert_eq!(client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    let began = Instant::now();
    assert_eq!(client.rest(), b"");
    assert!(began.elapsed() >= clocks.idle / 2);
    assert_eq!(edge.seen().len(), 2);
}

#[test]
fn a_body_that_stops_or_drips_is_answered_with_408() {
    let mut clocks = Clocks::new(PATIENCE, PATIENCE);
    clocks.body_idle = Duration::from_millis(200);
    clocks.body_grace = Duration::from_millis(600);
    clocks.body_rate = 100_000;
    let edge = Edge::with(clocks, BOTH);
    for framing in ["Content-Length: 50000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nc350\r\n"] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}");
        let answers = edge.client().send(head.as_bytes()).send(b"some").answers();
        assert_eq!(answers[0].status, 408);
        assert_eq!(edge.seen(), [Seen::Broken(Some(Refusal::BodyTimeout))]);
        let mut client = edge.client();
        client.send(head.as_bytes());
        let began = Instant::now();
        while edge.seen().is_empty() {
            assert!(began.elapsed() < PATIENCE);
            client.send(b"x");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(began.elapsed() >= clocks.body_grace);
        assert_eq!(client.answers()[0].status, 408);
    }
}

#[test]
fn a_client_that_does_not_read_is_closed_on() {
    let mut clocks = Clocks::new(PATIENCE, PATIENCE);
    clocks.write = Duration::from_millis(200);
    let edge = Edge::with(clocks, BOTH);
    let mut client = edge.client();
    client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(clocks.write * 5);
    let mut read = Vec::new();
    let _ = client.read_all(&mut read);
    assert!(read.len() < 64 * 1024 * 1024, "{}", read.len());
}

#[test]
fn a_panic_ends_one_connection() {
    let edge = Edge::start();
    let mut other = edge.client();
    let mut read = Vec::new();
    let _ = edge.client().send(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").read_all(&mut read);
    assert_eq!(read, b"");
    assert_eq!(other.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
}

#[test]
fn draining_finishes_requests_and_ends_idle_connections() {
    let edge = Edge::start();
    let mut fresh = edge.client();
    let mut idle = edge.client();
    assert_eq!(idle.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    let mut busy = edge.client();
    busy.send(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    assert_eq!(idle.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    let mut hanging = edge.client();
    hanging.send(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    edge.turn(Phase::Draining);
    assert_eq!(fresh.rest(), b"");
    assert_eq!(idle.rest(), b"");
    let answers = busy.send(b"lo").answers();
    assert_eq!(answers[0].body, b"hello");
    assert!(answers[0].has("connection: close"));
    edge.turn(Phase::Stopped);
    assert_eq!(hanging.rest(), b"");
}

#[test]
fn a_listener_answers_in_its_own_protocol_only() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let clocks = Clocks::new(PATIENCE, PATIENCE);
    let h1 = Edge::with(clocks, Protocols { h1: true, h2: false });
    assert_eq!(h1.client().send(preface).answers()[0].status, 505);
    let h2 = Edge::with(clocks, Protocols { h1: false, h2: true });
    assert_eq!(h2.client().send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answers()[0].status, 505);
    assert_eq!(h2.seen(), []);
    let mut client = h2.client();
    client.trickle(preface).expect(b"\0\0");
}

#[test]
fn an_idle_http2_connection_is_told_to_go_away() {
    let mut clocks = Clocks::new(PATIENCE, Duration::from_millis(200));
    clocks.goaway = Duration::from_millis(200);
    let edge = Edge::with(clocks, BOTH);
    let mut client = edge.client();
    let began = Instant::now();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let bytes = client.rest();
    assert!(began.elapsed() >= clocks.idle);
    // A GOAWAY frame of 8 bytes on stream 0, and then the end although nobody acknowledged it.
    assert!(bytes.windows(9).any(|frame| frame == b"\0\0\x08\x07\0\0\0\0\0"), "{bytes:?}");
}

#[test]
fn an_http2_client_that_opens_no_window_is_closed_on() {
    let mut clocks = Clocks::new(PATIENCE, PATIENCE);
    clocks.write = Duration::from_millis(200);
    let edge = Edge::with(clocks, BOTH);
    let mut client = edge.client();
    // GET /large over http with `:authority: a`, indexed and literal without Huffman (RFC 7541).
    let block = b"\x82\x86\x04\x06/large\x01\x01a";
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    frames.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    frames.extend_from_slice(block);
    let bytes = client.send(&frames).rest();
    // The default window of 65,535 bytes was used up, and nothing came after.
    assert!(bytes.len() > 65_535 && bytes.len() < 80_000, "{}", bytes.len());
}

/// One valid request: its bytes and what the handler is to see of it.
fn request() -> impl Strategy<Value = (Vec<u8>, Seen)> {
    let method = prop::sample::select(vec!["GET", "POST", "DELETE", "PROPFIND"]);
    let target = "/[a-z0-9._~!$&'()*+,;=:@/-]{0,40}(\\?[a-z0-9=&/?]{0,30})?";
    let fields = prop::collection::vec("X-[A-Za-z0-9]{1,12}:[ \t]{0,2}[!-~]?[ -~]{0,40}", 0..6);
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..5);
    (method, target, fields, chunks, 0..3_u8).prop_map(|(method, target, fields, chunks, framing)| {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a.example:8080\r\n").into_bytes();
        for field in fields {
            bytes.extend_from_slice(field.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        let body = if framing == 0 { Vec::new() } else { chunks.concat() };
        match framing {
            0 => bytes.extend_from_slice(b"\r\n"),
            1 => {
                bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(&body);
            }
            _ => {
                bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for chunk in &chunks {
                    bytes.extend_from_slice(format!("{:X};a=b\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
            }
        }
        (bytes, whole(method, &target, &body))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_requests_pass_however_they_are_split(
        requests in prop::collection::vec(request(), 1..5),
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let edge = shared();
        let bytes: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let mut splits: Vec<usize> = splits.iter().map(|split| split.index(bytes.len())).collect();
        splits.sort_unstable();
        let mut client = edge.client();
        let mut sent = 0;
        for split in splits {
            client.send(&bytes[sent..split]);
            sent = split;
        }
        let answers = client.send(&bytes[sent..]).finish().answers();
        let expected: Vec<Seen> = requests.into_iter().map(|(_, seen)| seen).collect();
        prop_assert_eq!(edge.seen(), expected);
        prop_assert!(answers.iter().all(|answer| answer.status == 200));
    }

    #[test]
    fn mutated_requests_never_hang_or_stop_the_server(
        requests in prop::collection::vec(request(), 1..4),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let edge = shared();
        let mut bytes: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        for (at, byte, kind) in mutations {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let mut read = Vec::new();
        let ended = edge.client().send(&bytes).finish().read_all(&mut read);
        prop_assert!(ended, "neither closed nor reset: {:?}", String::from_utf8_lossy(&read));
        prop_assert_eq!(edge.client().send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
        edge.seen();
    }
}

/// One server for the cases of one test: every test runs on its own thread.
fn shared() -> &'static Edge {
    thread_local!(static EDGE: &'static Edge = Box::leak(Box::new(Edge::start())));
    EDGE.with(|edge| *edge)
}
