//! The same again and again under load: reloads and drains that nobody notices. Each has a longer form:
//! `TOLLGATE_RELOADS=1000`, `TOLLGATE_DRAINS=100`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::support::certificates::{Authority, TlsClient, Wanted};
use crate::support::client::{Client, Request};
use crate::support::eventually;
use crate::support::http2::{self, Peer};
use crate::support::mixed_load::MixedLoad;
use crate::support::port::Port;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

fn times(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|times| times.parse().ok()).unwrap_or(usual)
}

/// Writes another configuration and has it read; the status of the answer.
fn reload(proxy: &Tollgate, yaml: &str) -> u16 {
    std::fs::write(proxy.config_path(), format!("{yaml}\nadmin: {{ address: 127.0.0.1:0 }}\n")).expect("written");
    let request = Request::new("POST", "/api/v1/reload").header("content-type", "application/json");
    Client::connect(proxy.admin()).send(&request).status
}

#[test]
fn many_reloads_under_load_fail_no_request_and_leave_nothing_behind() {
    let (redis, authority) = (RedisServer::start(), Authority::new());
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let upstream = Upstream::answering(|peer, _| peer.answer("ok"));
    let extra = Port::take().number();
    let config = |turn: usize| {
        let more = if turn % 2 == 1 { format!("more: '127.0.0.1:{extra}'") } else { String::new() };
        format!(
            "listeners:\n  default: 127.0.0.1:0\n  \
             tls: {{ address: 127.0.0.1:0, tls: {{ certificates: [{certificate}] }} }}\n  {more}\n\
             workers: 2\nstore: {{ redis: {{ url: '{}', timeout: 5s }} }}\n\
             routes: [{{ name: r, upstream: '{}' }}]\n\
             limits: [{{ name: all, key: global, rate: {}/s }}]\n",
            redis.url(),
            upstream.url(),
            100_000 + turn
        )
    };
    let proxy = Tollgate::start(&config(0));
    assert_eq!(proxy.get("/").status, 200);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("it lives").count();
    let to_redis = || redis.info("connected_clients").parse::<usize>().expect("a number");
    let (times, is_long) = (times("TOLLGATE_RELOADS", 60), std::env::var_os("TOLLGATE_RELOADS").is_some());
    let load = MixedLoad::start(proxy.web(), (proxy.address("tls"), &authority.client()), Duration::from_millis(1));
    let mut before = None;
    for turn in 1..=times {
        let began = Instant::now();
        match turn % 5 {
            0 => assert_eq!(reload(&proxy, "routes: nonsense"), 422),
            // What the one before said.
            4 => assert_eq!(reload(&proxy, &config(turn - 1)), 200),
            _ => assert_eq!(reload(&proxy, &config(turn)), 200),
        }
        if turn == times / 3 {
            before = Some((descriptors(), to_redis(), proxy.resident()));
        }
        if is_long {
            std::thread::sleep(Duration::from_millis(100).saturating_sub(began.elapsed()));
        }
    }
    let totals = load.stop();
    assert!(totals.failures.is_empty(), "{} failed: {:?}", totals.failures.len(), totals.failures.first());
    let answered = proxy.metrics().count("tollgate_http_requests_total", &[("route", "r"), ("code", "200")]);
    assert_eq!(answered, totals.answered as u64 + 1, "every one is counted");
    let (open, connected, resident) = before.expect("measured");
    eventually("nothing is left behind", || (descriptors() <= open && to_redis() <= connected).then_some(()));
    let grown = proxy.resident().saturating_sub(resident) / 1024;
    println!(
        "{times} reloads, {} requests in {:.0} s, {open} descriptors, {grown} KiB more than after a third",
        totals.answered, totals.seconds
    );
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

/// Requests of all kinds that are in flight when the end begins.
#[test]
fn every_request_in_flight_is_answered_when_the_process_is_told_to_end() {
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    for _ in 0..times("TOLLGATE_DRAINS", 3) {
        let gate = Arc::new(Gate::default());
        let held = Arc::clone(&gate);
        let upstream = Upstream::answering(move |peer, _| {
            held.wait();
            peer.answer("ok")
        });
        let proxy = Tollgate::start(&format!(
            "listeners:\n  default: 127.0.0.1:0\n  \
             tls: {{ address: 127.0.0.1:0, tls: {{ certificates: [{certificate}] }} }}\n\
             workers: 2\nroutes: [{{ name: r, upstream: '{}' }}]\n",
            upstream.url()
        ));
        let (web, tls) = (proxy.web(), proxy.address("tls"));
        let clients: Vec<_> = (0..125).map(|number| in_flight(number, web, tls, &authority.client())).collect();
        eventually("all are in flight", || (gate.waiting() == 200).then_some(()));
        proxy.signal("TERM");
        proxy.wait_for_log("the end begins", |line| line["message"] == "draining");
        gate.open();
        let answered: usize = clients.into_iter().map(|client| client.join().expect("answers")).sum();
        assert_eq!(answered, 200);
        let mut proxy = proxy;
        assert_eq!(proxy.wait(), Some(0));
    }
}

/// One of 125 clients that have 200 requests among them: a hundred with one each, in clear text or over TLS, and
/// twenty-five with four streams of HTTP/2. How many were answered with 200.
fn in_flight(number: usize, web: SocketAddr, tls: SocketAddr, client: &TlsClient) -> std::thread::JoinHandle<usize> {
    let client = client.clone();
    std::thread::spawn(move || {
        if number < 50 {
            usize::from(Client::connect(web).get("/").status == 200)
        } else if number < 100 {
            let mut client = client.connect(tls).expect("a handshake");
            usize::from(client.ask(&Request::get("/")).expect("an answer").status == 200)
        } else if number < 112 {
            four(Peer::connect(web)).expect("answers")
        } else {
            let stream = client.offering(&["h2"]).connect(tls).expect("a handshake").into_inner();
            four(Peer::over(stream)).expect("answers")
        }
    })
}

fn four<S: io::Read + io::Write>(mut peer: Peer<S>) -> io::Result<usize> {
    peer.send(&[1, 3, 5, 7].map(http2::get).concat())?;
    let (mut well, mut ended) = (0, 0);
    while ended < 4 {
        let frame = peer.until(|frame| matches!(frame.kind, http2::HEADERS | http2::DATA | http2::RST_STREAM))?;
        well += usize::from(frame.kind == http2::HEADERS && frame.status() == 200);
        ended += usize::from(frame.kind == http2::RST_STREAM || frame.flags & http2::END_STREAM != 0);
    }
    Ok(well)
}

/// Holds whoever comes until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(usize, bool)>,
    opened: Condvar,
}

impl Gate {
    fn wait(&self) {
        let mut state = self.state.lock().expect("no panic");
        state.0 += 1;
        let patience = Duration::from_secs(30);
        let _ = self.opened.wait_timeout_while(state, patience, |(_, open)| !*open).expect("no panic");
    }

    fn waiting(&self) -> usize {
        self.state.lock().expect("no panic").0
    }

    fn open(&self) {
        self.state.lock().expect("no panic").1 = true;
        self.opened.notify_all();
    }
}
