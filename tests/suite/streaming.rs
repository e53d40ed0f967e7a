//! Bodies of any size, event streams and many kept connections, with flat memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{Client, Request};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

const GIB: u64 = 1 << 30;
/// What buffers and the allocator may add while a gibibyte passes.
const GROWTH: u64 = 32 << 20;

fn in_front_of(upstream: &Upstream) -> Tollgate {
    Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\n", upstream.url()))
}

/// Runs `work` while watching the program's memory; the most it grew by.
fn growth(proxy: &Tollgate, work: impl FnOnce() + Send) -> u64 {
    let before = proxy.resident();
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(before));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(proxy.resident(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let finished = scope.spawn(work).join();
        done.store(true, Ordering::Relaxed);
        finished.expect("the transfer succeeds");
    });
    most.load(Ordering::Relaxed) - before
}

#[test]
fn a_gibibyte_down_passes_with_flat_memory() {
    let upstream = Upstream::answering(|peer, _| {
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n"))?;
        let block = vec![7; 1 << 16];
        (0..GIB / (1 << 16)).try_for_each(|_| peer.send(&block))
    });
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    let grown = growth(&proxy, move || {
        client.write(&Request::get("/").bytes()).expect("sent");
        assert_eq!(client.head().expect("a head").status, 200);
        let (mut read, mut buffer) = (0, vec![0; 1 << 16]);
        while read < GIB {
            let n = client.read(&mut buffer).expect("the body goes on");
            assert!(n > 0, "cut after {read} bytes");
            assert!(buffer[..n].iter().all(|byte| *byte == 7), "as it was sent");
            read += n as u64;
        }
        assert_eq!(read, GIB);
    });
    println!("memory grew by {} KiB", grown >> 10);
    assert!(grown < GROWTH, "memory grew by {} MiB", grown >> 20);
}

fn upload(head: &str, write: impl FnOnce(&mut Client) + Send) {
    let upstream = Upstream::start(|peer| {
        let head = peer.head()?;
        let length = peer.discard_body(&head)?;
        peer.answer(&length.to_string())
    });
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    let grown = growth(&proxy, move || {
        client.write(head.as_bytes()).expect("sent");
        write(&mut client);
        let answer = client.answer_to("POST").expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, GIB.to_string()));
    });
    println!("memory grew by {} KiB", grown >> 10);
    assert!(grown < GROWTH, "memory grew by {} MiB", grown >> 20);
}

#[test]
fn a_gibibyte_up_passes_with_flat_memory() {
    upload(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {GIB}\r\n\r\n"), |client| {
        let block = vec![7; 1 << 16];
        (0..GIB / (1 << 16)).for_each(|_| client.write(&block).expect("the upload goes on"));
    });
}

#[test]
fn a_gibibyte_up_in_chunks_passes_with_flat_memory() {
    upload("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", |client| {
        let mut chunk = b"10000\r\n".to_vec();
        chunk.resize(chunk.len() + (1 << 16), 7);
        chunk.extend(b"\r\n");
        (0..GIB / (1 << 16)).for_each(|_| client.write(&chunk).expect("the upload goes on"));
        client.write(b"0\r\n\r\n").expect("the upload ends");
    });
}

#[test]
fn an_event_arrives_while_the_stream_stays_open() {
    let (send, events) = std::sync::mpsc::channel::<&str>();
    let events = std::sync::Mutex::new(events);
    let upstream = Upstream::answering(move |peer, _| {
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for event in events.lock().expect("one stream").iter() {
            let text = format!("data: {event}\n\n");
            peer.send(format!("{:x}\r\n{text}\r\n", text.len()))?;
        }
        peer.send("0\r\n\r\n")
    });
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    client.write(&Request::get("/events").bytes()).expect("sent");
    let head = client.head().expect("the head arrives before the first event");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let mut seen = String::new();
    for event in ["one", "two", "three"] {
        send.send(event).expect("the upstream listens");
        while !seen.contains(&format!("data: {event}\n\n")) {
            let mut buffer = [0; 1024];
            let n = client.read(&mut buffer).expect("the event arrives while the stream is open");
            assert!(n > 0, "the stream stays open");
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }
    drop(send);
    while !seen.ends_with("0\r\n\r\n") {
        let mut buffer = [0; 1024];
        let n = client.read(&mut buffer).expect("the end arrives");
        assert!(n > 0, "ended without its last chunk: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
}

const THREADS: usize = 8;
const CLIENTS_PER_THREAD: usize = 125;

#[test]
fn a_thousand_kept_connections_for_a_minute_see_no_error() {
    let yaml = "listen: 127.0.0.1:0\nupstream: echo\nlimits: [{ key: client_ip, rate: 100000/s, burst: 100000 }]\n";
    let proxy = Arc::new(Tollgate::start(yaml));
    let web = proxy.web();
    let end = Instant::now() + Duration::from_mins(1);
    let threads = (0..THREADS).map(|_| {
        std::thread::spawn(move || {
            let mut clients: Vec<_> = (0..CLIENTS_PER_THREAD).map(|_| Client::connect(web)).collect();
            let (request, mut answered) = (Request::get("/").bytes(), 0_usize);
            while Instant::now() < end {
                let round = Instant::now();
                for client in &mut clients {
                    client.write(&request).expect("the connection is kept");
                }
                for client in &mut clients {
                    assert_eq!(client.answer_to("GET").expect("an answer").status, 200);
                    answered += 1;
                }
                std::thread::sleep(Duration::from_millis(500).saturating_sub(round.elapsed()));
            }
            answered
        })
    });
    let threads: Vec<_> = threads.collect();
    let answered: usize = threads.into_iter().map(|thread| thread.join().expect("zero errors")).sum();
    println!("{answered} answers over {} connections", THREADS * CLIENTS_PER_THREAD);
    assert!(answered >= 10 * THREADS * CLIENTS_PER_THREAD, "only {answered} answers");
    let metrics = proxy.metrics();
    assert_eq!(metrics.count("tollgate_http_requests_total", &[("code", "200")]), answered as u64);
}
