//! Attacks that HTTP/2 makes possible: each costs the proxy little, ends soon, and disturbs nobody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate::config::Protocols;
use tollgate::proxy::inbound::Clocks;

use crate::raw::{self, Edge, PATIENCE};
use crate::support::bystander::Bystander;
use crate::support::eventually;
use crate::support::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, Peer,
    RST_STREAM, SETTINGS, block, frame, get, integer, pseudo, request, setting, window_update,
};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

/// How soon a flood has to end.
const SOON: Duration = Duration::from_secs(5);
/// What one attacking connection may cost, bytes.
const COST: u64 = 16 * 1024 * 1024;

/// Runs an attack on a proxy with one worker, beside a client that has nothing to do with it.
fn survive<T>(proxy: &Tollgate, attack: impl FnOnce() -> T) -> T {
    let bystander = Bystander::start(1, proxy.web(), Duration::from_millis(1));
    eventually("the legitimate client is served", || (bystander.answered() > 100).then_some(()));
    let before = proxy.resident();
    let (running, most) = (AtomicBool::new(true), AtomicU64::new(before));
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while running.load(Ordering::Relaxed) {
                most.fetch_max(proxy.resident(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let _stop = Stop(&running);
        attack()
    });
    let grown = most.load(Ordering::Relaxed) - before;
    assert!(grown <= COST, "{} KiB more memory", grown / 1024);
    let answered = bystander.answered();
    eventually("the legitimate client is served on", || (bystander.answered() > answered + 100).then_some(()));
    bystander.stop();
    println!("{} KiB more memory", grown / 1024);
    outcome
}

/// Ends what watches an attack, also when that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn proxy() -> Tollgate {
    Tollgate::start("listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\n")
}

/// Sends pieces, each made for the next stream, and reads nothing until the proxy has had enough; the
/// error code it left behind, if any.
fn flood(proxy: &Tollgate, opening: &[u8], piece: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    survive(proxy, || {
        let mut peer = Peer::connect(proxy.web());
        peer.set_patience(SOON);
        let begun = Instant::now();
        peer.send(opening).expect("sent");
        let mut stream = 3;
        loop {
            let mut pieces = Vec::new();
            while pieces.len() < 8 * 1024 {
                pieces.extend(piece(stream));
                stream += 2;
            }
            if peer.send(&pieces).is_err() {
                break;
            }
            assert!(begun.elapsed() < SOON, "still not ended after {stream} streams");
        }
        println!("ended after {:?}, about {} pieces", begun.elapsed(), stream / 2);
        assert!(begun.elapsed() < SOON, "ended late");
        peer.until(|frame| frame.kind == GOAWAY).ok().map(|frame| frame.code())
    })
}

/// How many connections were ended for their frames.
fn floods(proxy: &Tollgate) -> u64 {
    proxy.metrics().count("tollgate_refused_requests_total", &[("kind", "http2_flood")])
}

#[test]
fn control_frames_without_end_close_the_connection() {
    let proxy = proxy();
    let pieces: [(&str, Vec<u8>); 8] = [
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("answers to no PING", frame(PING, 1, 0, b"12345678")),
        ("SETTINGS", frame(SETTINGS, 0, 0, b"")),
        ("SETTINGS that say something", setting(4, 65_535)),
        ("PRIORITY", frame(PRIORITY, 0, 5, &[0, 0, 0, 3, 1])),
        ("WINDOW_UPDATE", window_update(0, 1)),
        ("unknown frames", frame(0x42, 0, 0, b"")),
        ("PRIORITY_UPDATE", frame(0x10, 0, 0, &[0, 0, 0, 5, b'u'])),
    ];
    for (index, (name, piece)) in pieces.into_iter().enumerate() {
        println!("{name}");
        flood(&proxy, b"", |_| piece.clone());
        assert_eq!(floods(&proxy), u64::try_from(index).expect("a few") + 1, "{name}");
    }
}

#[test]
fn requests_that_are_taken_back_at_once_close_the_connection() {
    flood(&proxy(), b"", |stream| [get(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat());
    // One by one, so that each request is under way before it is taken back.
    let proxy = proxy();
    survive(&proxy, || {
        let mut peer = Peer::connect(proxy.web());
        let begun = Instant::now();
        let ended = (1..).step_by(2).find(|&stream| {
            assert!(begun.elapsed() < 4 * SOON, "still not ended after {stream} streams");
            let sent = peer.send(&get(stream));
            std::thread::yield_now();
            sent.and_then(|()| peer.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]))).is_err()
        });
        assert!(ended.is_some());
    });
}

#[test]
fn requests_that_make_the_proxy_reset_them_close_the_connection() {
    let open = |stream| request(0, stream, "POST", "/");
    let whole = |stream| get(stream);
    let proxy = proxy();
    flood(&proxy, b"", |stream| [open(stream), window_update(stream, 0)].concat());
    flood(&proxy, b"", |stream| {
        [open(stream), window_update(stream, 0x7fff_ffff), window_update(stream, 0x7fff_ffff)].concat()
    });
    flood(&proxy, b"", |stream| [whole(stream), frame(DATA, 0, stream, b"x")].concat());
    flood(&proxy, b"", |stream| [whole(stream), get(stream)].concat());
    flood(&proxy, b"", |stream| [open(stream), frame(PRIORITY, 0, stream, &[0; 4])].concat());
    flood(&proxy, b"", |stream| {
        [open(stream), frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat())].concat()
    });
    flood(&proxy, b"", |stream| frame(HEADERS, END_HEADERS, stream, &block(&[(":method", "GET"), ("X", "y")])));
}

#[test]
fn a_head_without_end_closes_the_connection() {
    let opening = |payload: &[u8]| frame(HEADERS, END_STREAM, 1, payload);
    let start = block(&pseudo("GET", "/"));
    let proxy = proxy();
    for more in [&b""[..], &block(&[("x", "y")]), &block(&[("x", &"y".repeat(8_000))])] {
        flood(&proxy, &opening(&start), |_| frame(CONTINUATION, 0, 1, more));
    }
    // A single value that goes on for ever.
    let endless = [&[0, 1, b'x'][..], &integer(7, 1 << 28)].concat();
    flood(&proxy, &opening(&[start, endless].concat()), |_| frame(CONTINUATION, 0, 1, &[b'y'; 4_000]));
}

#[test]
fn a_small_head_that_becomes_a_large_one_is_refused_and_a_large_one_closes_the_connection() {
    let proxy = proxy();
    // A field of 4,000 bytes enters the table; one byte brings it back.
    let bomb = [vec![0x40, 1, b'x'], integer(7, 4_000), vec![b'y'; 4_000]].concat();
    for (copies, expected) in [(10, None), (16_000, Some(ENHANCE_YOUR_CALM))] {
        let payload = [block(&pseudo("GET", "/")), bomb.clone(), vec![0xbe; copies]].concat();
        let parts: Vec<_> = payload.chunks(16_000).collect();
        let last = parts.len() - 1;
        let mut bytes = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let kind = if index == 0 { HEADERS } else { CONTINUATION };
            let flags = if index == last { END_HEADERS } else { 0 } | if index == 0 { END_STREAM } else { 0 };
            bytes.extend(frame(kind, flags, 1, part));
        }
        survive(&proxy, || {
            let mut peer = Peer::connect(proxy.web());
            peer.send(&bytes).expect("sent");
            let end = peer.until(|frame| frame.kind == GOAWAY || frame.stream == 1).expect("an answer");
            match expected {
                Some(code) => assert_eq!((end.kind, end.code()), (GOAWAY, code)),
                None => assert_eq!((end.kind, end.status()), (HEADERS, 431), "{end:?}"),
            }
        });
    }
}

#[test]
fn more_than_a_hundred_fields_are_refused() {
    let proxy = proxy();
    for (count, status) in [(90, 200), (101, 431), (300, 431)] {
        let mut peer = Peer::connect(proxy.web());
        let payload = [block(&pseudo("GET", "/")), block(&[("x", "")]).repeat(count)].concat();
        peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &payload)).expect("sent");
        let head = peer.until(|frame| frame.stream == 1).expect("an answer");
        assert_eq!((head.kind, head.status()), (HEADERS, status), "{count} fields: {head:?}");
    }
}

#[test]
fn data_frames_that_carry_nothing_close_the_connection() {
    let proxy = proxy();
    flood(&proxy, &request(0, 1, "POST", "/"), |_| frame(DATA, 0, 1, b""));
    flood(&proxy, &request(0, 1, "POST", "/"), |_| frame(DATA, 8, 1, &[200; 201]));
}

#[test]
fn a_client_that_floods_is_told_to_calm_down() {
    let proxy = proxy();
    let mut peer = Peer::connect(proxy.web());
    peer.send(&get(1)).expect("sent");
    peer.until(|frame| frame.kind == DATA && frame.stream == 1).expect("an answer");
    peer.send(&frame(PING, 0, 0, b"12345678").repeat(4_000)).expect("sent");
    let mut pongs = 0;
    let farewell = peer.until(|frame| {
        pongs += usize::from(frame.kind == PING);
        frame.kind == GOAWAY
    });
    let farewell = farewell.expect("a farewell");
    assert_eq!(farewell.code(), ENHANCE_YOUR_CALM);
    assert_eq!(farewell.payload[..4], 1_u32.to_be_bytes(), "the latest stream");
    assert!(pongs > 500, "{pongs} were answered before");
    peer.until(|frame| frame.kind != PING).expect_err("it ends");
}

#[test]
fn a_hundred_streams_without_a_window_cost_little() {
    let upstream = Upstream::answering(|peer, _| {
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 << 20))?;
        loop {
            peer.send([b'x'; 16 * 1024])?;
        }
    });
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 1\nupstreams: {{ large: '{}' }}\n\
         routes: [{{ name: large, match: {{ path: /large }}, upstream: large }}, \
         {{ name: rest, match: {{ path: /* }}, upstream: echo }}]\n",
        upstream.url()
    ));
    survive(&proxy, || {
        let mut peer = Peer::connect(proxy.web());
        peer.send(&setting(4, 0)).expect("sent");
        for stream in 0..100 {
            peer.send(&request(END_STREAM, 2 * stream + 1, "GET", "/large")).expect("sent");
        }
        let mut heads = 0;
        peer.until(|frame| {
            heads += usize::from(frame.kind == HEADERS);
            heads == 100
        })
        .expect("a hundred heads");
        // What the upstreams go on sending finds no room anywhere.
        for _ in 0..50 {
            peer.send(&frame(PING, 0, 0, b"12345678")).expect("sent");
            peer.until(|frame| frame.kind == PING).expect("an answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn windows_that_open_by_one_byte_do_not_keep_a_connection() {
    let mut clocks = Clocks::new(PATIENCE, PATIENCE);
    clocks.write = Duration::from_millis(300);
    let edge = Edge::with(clocks, Protocols { h1: true, h2: true });
    let mut peer = Peer::connect(edge.address);
    peer.send(&setting(4, 0)).expect("sent");
    for stream in (1..200).step_by(2) {
        peer.send(&request(END_STREAM, stream, "GET", "/large")).expect("sent");
    }
    let begun = Instant::now();
    while peer.send(&window_update(1, 1)).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still open");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_preface_that_drips_is_closed_by_its_timeout() {
    let clocks = Clocks::new(Duration::from_millis(300), PATIENCE);
    let edge = Edge::with(clocks, Protocols { h1: true, h2: true });
    let begun = Instant::now();
    let mut client = raw::Client::connect(edge.address);
    for byte in PREFACE[..20].chunks(1) {
        client.send(byte);
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut received = Vec::new();
    assert!(client.read_all(&mut received), "closed");
    assert!(begun.elapsed() >= clocks.head);
}

#[test]
fn a_client_that_measures_its_line_and_opens_its_windows_with_each_answer_is_no_flood() {
    let proxy = proxy();
    let mut peer = Peer::connect(proxy.web());
    for stream in (1..5_000).step_by(2) {
        let more = [window_update(0, 400), window_update(stream, 400), frame(PING, 0, 0, b"12345678")].concat();
        peer.send(&[get(stream), more].concat()).expect("sent");
        peer.until(|frame| frame.stream == stream && frame.flags & END_STREAM != 0).expect("an answer");
    }
    assert_eq!(floods(&proxy), 0);
}
