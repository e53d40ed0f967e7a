//! Clients of every kind at once: HTTP/1.1 and HTTP/2, in clear text and over TLS, each on connections that it keeps
//! until the server says goodbye.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::certificates::TlsClient;
use super::client::{Client, Request};
use super::http2::{self, Peer};

/// Streams that one HTTP/2 connection has open at a time.
const STREAMS: u32 = 8;

/// A load that runs until it is stopped.
pub(crate) struct MixedLoad {
    running: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    began: Instant,
    threads: Vec<JoinHandle<Vec<String>>>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) answered: usize,
    pub(crate) failures: Vec<String>,
    pub(crate) seconds: f64,
}

/// Requests in one go, and whether the connection is good for more.
struct Round {
    statuses: Vec<u16>,
    goes_on: bool,
}

trait Session {
    fn round(&mut self) -> io::Result<Round>;
}

struct Http2<S> {
    peer: Peer<S>,
    next: u32,
}

impl MixedLoad {
    /// One client of each kind for each address: in clear text, and over TLS.
    pub(crate) fn start(clear: SocketAddr, tls: (SocketAddr, &TlsClient), pause: Duration) -> Self {
        let (secure, client) = (tls.0, tls.1.clone());
        let (http1, http2) =
            (client.clone().offering(&["http/1.1"]).config(), client.clone().offering(&["h2"]).config());
        let (one, two) = (client.clone(), client);
        let mut load =
            Self { running: Arc::default(), answered: Arc::default(), began: Instant::now(), threads: vec![] };
        load.running.store(true, Ordering::Relaxed);
        load.add("HTTP/1.1", pause, move || Client::open(clear));
        load.add("HTTP/1.1 over TLS", pause, move || one.connect_with(secure, &http1));
        load.add("HTTP/2", pause, move || Ok(Http2::over(Client::open(clear)?.into_inner())));
        load.add("HTTP/2 over TLS", pause, move || Ok(Http2::over(two.connect_with(secure, &http2)?.into_inner())));
        load
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Totals {
        self.running.store(false, Ordering::Relaxed);
        let ends = self.threads.into_iter().map(|thread| thread.join().expect("no client panics"));
        let failures = ends.flatten().collect();
        let seconds = self.began.elapsed().as_secs_f64();
        Totals { answered: self.answered.load(Ordering::Relaxed), failures, seconds }
    }

    fn add<S: Session>(
        &mut self,
        kind: &'static str,
        pause: Duration,
        open: impl Fn() -> io::Result<S> + Send + 'static,
    ) {
        let (running, answered) = (Arc::clone(&self.running), Arc::clone(&self.answered));
        self.threads.push(std::thread::spawn(move || {
            let (mut failures, mut session) = (Vec::new(), None);
            while running.load(Ordering::Relaxed) {
                let round = session.take().map_or_else(&open, Ok).and_then(|mut open: S| {
                    let round = open.round()?;
                    session = round.goes_on.then_some(open);
                    Ok(round)
                });
                match round {
                    Ok(round) => {
                        let well = round.statuses.iter().filter(|status| **status == 200).count();
                        answered.fetch_add(well, Ordering::Relaxed);
                        let others = round.statuses.iter().filter(|status| **status != 200);
                        failures.extend(others.map(|status| format!("{kind}: {status}")));
                    }
                    Err(error) => failures.push(format!("{kind}: {error}")),
                }
                std::thread::sleep(pause);
            }
            failures
        }));
    }
}

impl<S: Read + Write> Session for Client<S> {
    fn round(&mut self) -> io::Result<Round> {
        let answer = self.ask(&Request::get("/"))?;
        Ok(Round { statuses: vec![answer.status], goes_on: answer.header("connection") != Some("close") })
    }
}

impl<S: Read + Write> Http2<S> {
    fn over(stream: S) -> Self {
        Self { peer: Peer::over(stream), next: 1 }
    }
}

impl<S: Read + Write> Session for Http2<S> {
    fn round(&mut self) -> io::Result<Round> {
        let streams: Vec<u32> = (0..STREAMS).map(|number| self.next + 2 * number).collect();
        self.next += 2 * STREAMS;
        // Room for the answers' bytes.
        let mut bytes = http2::window_update(0, 1024);
        bytes.extend(streams.iter().flat_map(|stream| http2::get(*stream)));
        self.peer.send(&bytes)?;
        let (mut statuses, mut open, mut goes_on) = (Vec::new(), streams.len(), true);
        while open > 0 {
            let frame = self.peer.frame()?;
            match frame.kind {
                http2::HEADERS => statuses.push(frame.status()),
                http2::RST_STREAM => return Err(io::Error::other(format!("stream reset: {}", frame.code()))),
                http2::GOAWAY => goes_on = false,
                _ => {}
            }
            if matches!(frame.kind, http2::HEADERS | http2::DATA) && frame.flags & http2::END_STREAM != 0 {
                open -= 1;
            }
        }
        Ok(Round { statuses, goes_on })
    }
}
