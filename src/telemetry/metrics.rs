//! What one worker counts. Written by that worker only, read by the admin listener, which sums the
//! workers. A request costs a few plain stores: everything is found by index, never by label.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::histogram::{Distribution, Histogram, Tally};
use crate::slots::Slots;

/// Upper bounds of `tollgate_http_request_duration_seconds`, nanoseconds.
const DURATIONS: [u64; 14] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of `tollgate_overhead_seconds`, nanoseconds.
const OVERHEADS: [u64; 11] =
    [25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 100_000_000];

/// The methods that are labels, in index order; every other one is `OTHER`.
static METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
    Method::OPTIONS,
    Method::CONNECT,
    Method::TRACE,
];

/// The labels of [`METHODS`].
const LABELS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];

/// The label of all methods but [`METHODS`].
const OTHER: &str = "OTHER";

/// What one worker counts about requests, upstream answers and connections.
#[derive(Debug)]
pub struct WorkerStats {
    /// By [`Listener::ordinal`](crate::config::Listener::ordinal).
    listeners: Slots<ListenerStats>,
    /// By a route's ordinal, from its first request on.
    routes: Slots<OnceLock<Box<RouteStats>>>,
    /// By a server's ordinal.
    servers: Slots<ServerStats>,
    /// Time per request that was the proxy's own.
    overhead: Histogram<11>,
    /// Malformed requests by kind; rare, so a lock that nobody contends will do.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// Requests answered by the proxy itself, by reason; likewise.
    rejected: Mutex<BTreeMap<&'static str, u64>>,
    /// Connection tasks that panicked.
    panics: Tally,
}

/// The state a connection is counted under in `tollgate_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// A request is being answered.
    Active,
    /// Open and between requests.
    Idle,
}

/// The state a TLS handshake is counted under in `tollgate_tls_handshakes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeState {
    /// It has its turn.
    Running,
    /// It has asked, and waits for its turn.
    Waiting,
}

/// Connections of one listener.
#[derive(Debug, Default)]
struct ListenerStats {
    opened: Tally,
    closed: Tally,
    became_active: Tally,
    became_idle: Tally,
    turned_away: Mutex<BTreeMap<&'static str, u64>>,
    handshakes_failed: Mutex<BTreeMap<&'static str, u64>>,
    /// Handshakes that entered each state, and left it.
    handshakes: [(Tally, Tally); 2],
}

/// Requests of one route.
#[derive(Debug)]
struct RouteStats {
    /// By index in [`METHODS`], the last for all others.
    methods: [Statuses; 10],
    /// From the head to the end of the response.
    duration: Histogram<14>,
    /// Requests that a limit denied, and that a shadow limit would have.
    denied: [Tally; 2],
}

/// Answers of one server.
#[derive(Debug, Default)]
struct ServerStats {
    answers: Statuses,
    failed: Tally,
    retried: Tally,
}

/// Counts by status; room for a class of hundred is made when its first status occurs.
#[derive(Debug, Default)]
struct Statuses {
    /// From 1xx to 9xx.
    classes: [OnceLock<Box<[Tally; 100]>>; 9],
}

/// The connections of one listener, as read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// A request is being answered.
    pub active: u64,
    /// Open and between requests.
    pub idle: u64,
}

impl WorkerStats {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            listeners: Slots::default(),
            routes: Slots::default(),
            servers: Slots::default(),
            overhead: Histogram::new(&OVERHEADS),
            refused: Mutex::default(),
            rejected: Mutex::default(),
            panics: Tally::default(),
        }
    }

    /// A request was answered: `total` from its head to the end of the response.
    pub fn request(&self, route: usize, method: &Method, status: StatusCode, total: Duration) {
        let route = self.routes.at(route).get_or_init(Box::default);
        let method = METHODS.iter().position(|known| known == method).unwrap_or(METHODS.len());
        route.methods[method].count(status);
        route.duration.observe(total);
    }

    /// Of a route's requests, one was denied by a limit.
    pub fn limited(&self, route: usize) {
        self.denied(route, 0);
    }

    /// Of a route's requests, one would have been denied by a shadow limit.
    pub fn shadowed(&self, route: usize) {
        self.denied(route, 1);
    }

    fn denied(&self, route: usize, how: usize) {
        if let Some(route) = self.routes.get(route) {
            route.get_or_init(Box::default).denied[how].increment();
        }
    }

    /// The part of a request's time that was not spent waiting for the upstream or the client.
    pub fn own_time(&self, overhead: Duration) {
        self.overhead.observe(overhead);
    }

    /// A server answered with this status, or failed (`None`).
    pub fn upstream(&self, server: usize, status: Option<StatusCode>) {
        let server = self.servers.at(server);
        match status {
            Some(status) => server.answers.count(status),
            None => server.failed.increment(),
        }
    }

    /// A request was sent again because its pooled connection had gone stale.
    pub fn retried(&self, server: usize) {
        self.servers.at(server).retried.increment();
    }

    /// A malformed request was refused before it became one; `kind` is one of a fixed set of words.
    pub fn refused(&self, kind: &'static str) {
        *self.refused.lock().entry(kind).or_default() += 1;
    }

    /// A request was answered by the proxy itself; `error` is one of a fixed set of words.
    pub fn rejected(&self, error: &'static str) {
        *self.rejected.lock().entry(error).or_default() += 1;
    }

    /// A connection was opened on a listener.
    pub fn opened(&self, listener: usize) {
        self.listeners.at(listener).opened.increment();
    }

    /// A connection was closed on a listener.
    pub fn closed(&self, listener: usize) {
        self.listeners.at(listener).closed.increment();
    }

    /// An open connection began to answer a request while it had none, or has none any more.
    pub fn became(&self, listener: usize, state: ConnectionState) {
        let listener = self.listeners.at(listener);
        match state {
            ConnectionState::Active => listener.became_active.increment(),
            ConnectionState::Idle => listener.became_idle.increment(),
        }
    }

    /// A connection was closed as soon as it was accepted, for lack of room.
    pub fn turned_away(&self, listener: usize, reason: &'static str) {
        *self.listeners.at(listener).turned_away.lock().entry(reason).or_default() += 1;
    }

    /// A TLS handshake entered a state.
    pub fn handshake_entered(&self, listener: usize, state: HandshakeState) {
        self.listeners.at(listener).handshakes[state as usize].0.increment();
    }

    /// A TLS handshake left a state.
    pub fn handshake_left(&self, listener: usize, state: HandshakeState) {
        self.listeners.at(listener).handshakes[state as usize].1.increment();
    }

    /// A TLS handshake failed; `kind` is one of a fixed set of words.
    pub fn handshake_failed(&self, listener: usize, kind: &'static str) {
        *self.listeners.at(listener).handshakes_failed.lock().entry(kind).or_default() += 1;
    }

    /// A connection task panicked.
    pub fn panicked(&self) {
        self.panics.increment();
    }
}

/// What the admin listener reads.
impl WorkerStats {
    /// Tells every count of requests: a route's ordinal, method label, status, count.
    pub fn each_request(&self, mut tell: impl FnMut(usize, &'static str, u16, u64)) {
        for (index, route) in self.routes.iter() {
            let Some(route) = route.get() else { continue };
            for (method, statuses) in route.methods.iter().enumerate() {
                let label = LABELS.get(method).copied().unwrap_or(OTHER);
                statuses.each(|status, count| tell(index, label, status, count));
            }
        }
    }

    /// Of a route's requests, how many limits denied, and how many shadow limits would have.
    #[must_use]
    pub fn denials(&self, route: usize) -> (u64, u64) {
        let route = self.routes.get(route).and_then(OnceLock::get);
        route.map_or((0, 0), |route| (route.denied[0].value(), route.denied[1].value()))
    }

    /// Durations of a route's requests, once it had one.
    #[must_use]
    pub fn durations(&self, route: usize) -> Option<Distribution> {
        Some(self.routes.get(route)?.get()?.duration.read())
    }

    /// The proxy's own share of the requests' time.
    #[must_use]
    pub fn overhead(&self) -> Distribution {
        self.overhead.read()
    }

    /// Tells a server's answers by status, and its failures as `None`.
    pub fn each_answer(&self, server: usize, mut tell: impl FnMut(Option<u16>, u64)) {
        let Some(server) = self.servers.get(server) else { return };
        server.answers.each(|status, count| tell(Some(status), count));
        tell(None, server.failed.value());
    }

    /// How often requests to a server were sent again.
    #[must_use]
    pub fn retries(&self, server: usize) -> u64 {
        self.servers.get(server).map_or(0, |server| server.retried.value())
    }

    /// Connections of a listener now. Read while they change, so never below zero rather than exact.
    #[must_use]
    pub fn connections(&self, listener: usize) -> Connections {
        let Some(listener) = self.listeners.get(listener) else { return Connections::default() };
        let open = listener.opened.value().saturating_sub(listener.closed.value());
        let active = listener.became_active.value().saturating_sub(listener.became_idle.value()).min(open);
        Connections { active, idle: open - active }
    }

    /// Connections of a listener that were turned away, by reason.
    #[must_use]
    pub fn turned_away_by_reason(&self, listener: usize) -> BTreeMap<&'static str, u64> {
        self.listeners.get(listener).map(|listener| listener.turned_away.lock().clone()).unwrap_or_default()
    }

    /// TLS handshakes of a listener that are in a state now.
    #[must_use]
    pub fn handshakes(&self, listener: usize, state: HandshakeState) -> u64 {
        let counts = self.listeners.get(listener).map(|listener| &listener.handshakes[state as usize]);
        counts.map_or(0, |(entered, left)| entered.value().saturating_sub(left.value()))
    }

    /// Failed TLS handshakes of a listener, by kind.
    #[must_use]
    pub fn handshakes_failed_by_kind(&self, listener: usize) -> BTreeMap<&'static str, u64> {
        self.listeners.get(listener).map(|listener| listener.handshakes_failed.lock().clone()).unwrap_or_default()
    }

    /// Malformed requests by kind.
    #[must_use]
    pub fn refused_by_kind(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().clone()
    }

    /// Requests answered by the proxy itself, by reason.
    #[must_use]
    pub fn rejected_by_error(&self) -> BTreeMap<&'static str, u64> {
        self.rejected.lock().clone()
    }

    /// Connection tasks that panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.value()
    }
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for RouteStats {
    fn default() -> Self {
        Self { methods: Default::default(), duration: Histogram::new(&DURATIONS), denied: Default::default() }
    }
}

impl Statuses {
    fn count(&self, status: StatusCode) {
        let (class, rest) = (usize::from(status.as_u16() / 100), usize::from(status.as_u16() % 100));
        if let Some(class) = class.checked_sub(1).and_then(|class| self.classes.get(class)) {
            class.get_or_init(|| Box::new(std::array::from_fn(|_| Tally::default())))[rest].increment();
        }
    }

    fn each(&self, mut tell: impl FnMut(u16, u64)) {
        for (class, first) in self.classes.iter().zip((100..).step_by(100)) {
            let Some(class) = class.get() else { continue };
            for (tally, status) in class.iter().zip(first..) {
                if tally.value() > 0 {
                    tell(status, tally.value());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_method_and_status() {
        let stats = WorkerStats::new();
        let brew = Method::from_bytes(b"BREW").unwrap();
        for (route, method, status) in
            [(0, &Method::GET, 200), (0, &Method::GET, 200), (1, &brew, 418), (1, &Method::TRACE, 999)]
        {
            stats.request(route, method, StatusCode::from_u16(status).unwrap(), Duration::ZERO);
            stats.own_time(Duration::ZERO);
        }
        let mut seen = Vec::new();
        stats.each_request(|route, method, status, count| seen.push((route, method, status, count)));
        assert_eq!(seen, [(0, "GET", 200, 2), (1, "TRACE", 999, 1), (1, "OTHER", 418, 1)]);
        assert_eq!(stats.durations(0).unwrap().counts.iter().sum::<u64>(), 2);
        assert_eq!(stats.overhead().counts.iter().sum::<u64>(), 4);
        stats.limited(0);
        stats.shadowed(0);
        stats.shadowed(0);
        assert_eq!((stats.denials(0), stats.denials(1), stats.denials(7)), ((1, 2), (0, 0), (0, 0)));
    }

    #[test]
    fn connections_are_active_or_idle() {
        let stats = WorkerStats::new();
        stats.opened(0);
        stats.opened(0);
        stats.became(0, ConnectionState::Active);
        assert_eq!(stats.connections(0), Connections { active: 1, idle: 1 });
        stats.became(0, ConnectionState::Idle);
        stats.closed(0);
        assert_eq!(stats.connections(0), Connections { active: 0, idle: 1 });
    }

    #[test]
    fn an_endpoint_counts_answers_failures_and_retries() {
        let stats = WorkerStats::new();
        stats.upstream(0, Some(StatusCode::OK));
        stats.upstream(0, None);
        stats.retried(0);
        let mut seen = Vec::new();
        stats.each_answer(0, |status, count| seen.push((status, count)));
        assert_eq!(seen, [(Some(200), 1), (None, 1)]);
        assert_eq!(stats.retries(0), 1);
    }
}
