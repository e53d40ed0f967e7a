//! The request's path: listener → handshake → inbound → connection → handler → client → forward → response body,
//! upgrade or rejection.

mod attempt;
mod balancing;
pub mod body;
pub mod client;
pub mod client_certificate;
pub mod connection;
mod cut;
mod dialect;
pub mod forward;
pub mod handler;
pub mod handshake;
pub mod headers;
mod https_redirect;
pub mod inbound;
pub mod listener;
mod patience;
pub mod pool;
pub mod pressure;
pub mod proxy_protocol;
mod record;
pub mod rejection;
pub mod request_body;
pub mod response_body;
pub mod socket;
mod target;
mod trace;
pub mod transport;
pub mod upgrade;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderValue, Version};
use tokio::sync::watch;

use crate::config::{Config, Listener};
use crate::jwt::Tokens;
use crate::limit::Limiter;
use crate::limit::dynamic::DynamicOverrides;
use crate::telemetry::traces::Tracer;
use crate::telemetry::{AccessLog, WorkerStats};
pub use body::Body;
use connection::Phase;
use handshake::{Handshakes, Secured};
use pressure::Pressure;
use socket::Peer;
use upgrade::Tunnel;

/// One worker's proxy: everything a request on this core needs.
#[derive(Debug)]
pub struct Proxy {
    /// The running snapshot; a request keeps the one it began with.
    pub config: Arc<ArcSwap<Config>>,
    /// This worker's limiter.
    pub limiter: Rc<Limiter>,
    /// What this worker has verified of tokens, when the configuration says whose to believe.
    pub tokens: Option<Tokens>,
    /// This worker's upstream connections.
    pub pool: pool::Pool,
    /// Whether memory is scarce.
    pub pressure: Arc<Pressure>,
    /// Its TLS handshakes, by a listener's ordinal.
    pub handshakes: Handshakes,
    /// This worker's counters.
    pub stats: Arc<WorkerStats>,
    /// Overrides that are set while the proxy runs, where a limit allows any.
    pub overrides: Option<Arc<DynamicOverrides>>,
    /// The access log, when it is on.
    pub access_log: Option<AccessLog>,
    /// Where spans go, when requests are traced.
    pub tracer: Option<Tracer>,
}

/// One client connection, as its requests see it.
#[derive(Debug)]
pub struct Downstream {
    /// The client's end of the connection.
    pub peer: Peer,
    /// Its address, IPv4-mapped IPv6 as IPv4, as text.
    pub peer_text: HeaderValue,
    /// Our end of the socket, where it has an address.
    pub local: Option<SocketAddr>,
    /// The listener, as it was when the connection came.
    pub listener: Arc<Listener>,
    /// Whether the peer is in `trusted_proxies`.
    pub trusted: bool,
    /// Requests whose response has not been written to its end.
    pub in_flight: Cell<usize>,
    /// Set by a handler (or a drain, or the age of the connection) when this connection must not be
    /// used for another request.
    pub close: Cell<bool>,
    /// HTTP/1.1 or HTTP/2.
    pub version: Cell<Version>,
    /// What the TLS handshake told; `None` in clear text.
    pub secured: Option<Secured>,
    /// Left by a handler that answered with 101: what this connection turns into.
    pub tunnel: RefCell<Option<Box<Tunnel>>>,
    /// This worker's counters.
    pub stats: Arc<WorkerStats>,
    /// How far its listener is from its end.
    pub phase: Rc<watch::Receiver<Phase>>,
}
