//! Many clients at once, each on a connection that it keeps, everything they saw written down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Answer, Client, Request};

/// Begins the error of a request on a connection that had been kept open for it.
pub(crate) const KEPT: &str = "on a kept connection";

/// One request of a load: when it left, when its answer was there, and the answer.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) client: usize,
    pub(crate) sent: Instant,
    pub(crate) received: Instant,
    pub(crate) outcome: Result<Answer, String>,
}

/// A load that runs until it is stopped.
pub(crate) struct Load {
    running: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<Sample>>>,
}

impl Sample {
    /// The answer's status; 0 when there was none.
    pub(crate) fn status(&self) -> u16 {
        self.outcome.as_ref().map_or(0, |answer| answer.status)
    }

    /// The answer.
    #[track_caller]
    pub(crate) fn answer(&self) -> &Answer {
        self.outcome.as_ref().expect("an answer")
    }

    /// From the first byte sent to the last received.
    pub(crate) fn latency(&self) -> Duration {
        self.received - self.sent
    }
}

impl Load {
    /// One client per entry; each sends its request again and again, `pause` apart.
    pub(crate) fn start(clients: Vec<(SocketAddr, Request)>, pause: Duration) -> Self {
        let (addresses, requests): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
        Self::start_each(addresses, pause, move |client, _| requests[client].clone())
    }

    /// One client per address; `request` makes each of its requests, by the client's number and its own.
    pub(crate) fn start_each(
        clients: Vec<SocketAddr>,
        pause: Duration,
        request: impl Fn(usize, usize) -> Request + Send + Sync + 'static,
    ) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let sent = Arc::new(AtomicUsize::new(0));
        let request = Arc::new(request);
        let threads = clients.into_iter().enumerate().map(|(client, address)| {
            let (running, sent, request) = (Arc::clone(&running), Arc::clone(&sent), Arc::clone(&request));
            std::thread::spawn(move || {
                let mut samples = Vec::new();
                let mut connection = None;
                while running.load(Ordering::Relaxed) {
                    let request = request(client, samples.len());
                    samples.push(sample(client, address, &request, &mut connection));
                    sent.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(pause);
                }
                samples
            })
        });
        Self { threads: threads.collect(), running, sent }
    }

    /// Requests answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; all samples, by the instant of sending.
    pub(crate) fn stop(self) -> Vec<Sample> {
        self.running.store(false, Ordering::Relaxed);
        let ends = self.threads.into_iter().map(|thread| thread.join().expect("no client panics"));
        let mut samples: Vec<_> = ends.flatten().collect();
        samples.sort_by_key(|sample| sample.sent);
        samples
    }

    /// Lets it run this long, then ends it.
    pub(crate) fn run_for(self, time: Duration) -> Vec<Sample> {
        std::thread::sleep(time);
        self.stop()
    }
}

fn sample(client: usize, address: SocketAddr, request: &Request, connection: &mut Option<Client>) -> Sample {
    let sent = Instant::now();
    let kept = connection.is_some();
    let outcome = connection.take().map_or_else(|| Client::open(address), Ok).and_then(|mut open| {
        let answer = open.exchange(request)?;
        if answer.header("connection") != Some("close") {
            *connection = Some(open);
        }
        Ok(answer)
    });
    let tell = |error: std::io::Error| if kept { format!("{KEPT}: {error}") } else { error.to_string() };
    Sample { client, sent, received: Instant::now(), outcome: outcome.map_err(tell) }
}
