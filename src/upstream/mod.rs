//! Where requests go: an upstream is a named group of servers, each of which has one or more endpoints.

pub mod announce;
pub mod balance;
pub mod breaker;
pub mod check;
pub mod connect;
mod continuity;
pub mod echo;
pub mod health;
pub mod keeper;
pub mod load;
pub mod lookup;
pub mod outage;
pub mod resolve;
pub mod retry;
pub mod selection;
pub mod sticky;
pub mod stream;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::tls::ServerTls;
use balance::Balance;
use breaker::Breaker;
use health::{Health, HealthPolicy};
use load::{Load, Queue};
use lookup::Lookup;
use outage::Outage;
use sticky::Sticky;

/// The endpoints of an upstream at one instant.
pub type Endpoints = Vec<Arc<Endpoint>>;

/// A named group of servers that answer alike.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its servers as the configuration names them, at least one.
    pub servers: Vec<Arc<Server>>,
    /// How it is asked.
    pub settings: Settings,
    /// What its servers come to at present.
    endpoints: ArcSwap<Endpoints>,
    /// Round-robin position, shared by all workers.
    next: AtomicUsize,
    /// That of requests which have been elsewhere before: they do not disturb the turns of the others.
    next_again: AtomicUsize,
}

/// How an upstream is asked.
#[derive(Debug)]
pub struct Settings {
    /// How requests are spread over them.
    pub balance: Balance,
    /// Keeps clients with the endpoint they went to first.
    pub sticky: Option<Sticky>,
    /// When a server is not asked for a while.
    pub health: HealthPolicy,
    /// What is spoken with them.
    pub protocol: Protocol,
    /// TLS towards those whose address begins with https, where there are any.
    pub tls: Option<ServerTls>,
    /// Whether connections begin with telling whose they are; then each serves one request.
    pub proxy_protocol: Option<announce::Version>,
    /// How long a connection may take, its TLS handshake included.
    pub connect_timeout: Duration,
    /// How long the response head may take after the request was sent (per route: `timeout`).
    pub response_timeout: Duration,
    /// Idle connections kept per endpoint and worker.
    pub max_idle_connections: usize,
    /// How long a connection is kept without a request.
    pub idle_timeout: Duration,
    /// How long a connection takes requests.
    pub max_connection_age: Duration,
    /// Where requests wait for a server that has room.
    pub queue: Arc<Queue>,
    /// Turns requests away while too many fail.
    pub breaker: Option<Breaker>,
}

/// One server as the configuration names it.
#[derive(Debug)]
pub struct Server {
    /// What its label has, in an upstream of this name, through every reload: the number of its statistics.
    pub ordinal: usize,
    /// Where it is.
    pub address: Address,
    /// What is known of its name.
    pub lookup: Arc<Lookup>,
    /// TLS, where its address begins with https.
    pub security: Option<Security>,
    /// Label in logs and metrics: `host:port`, `unix:/path` or `echo`.
    pub label: Arc<str>,
    /// What Host would be if the client had sent none.
    pub host: HeaderValue,
    /// Its share of the requests, in proportion to the others' weights; at least 1.
    pub weight: u32,
    /// Whether it is asked only while no other server can be.
    pub backup: bool,
    /// Whether whoever runs the proxy takes requests from it.
    pub draining: Arc<Draining>,
}

/// Whether a server gets no new requests, whatever its health: set while the proxy runs.
#[derive(Debug, Default)]
pub struct Draining(AtomicBool);

/// What the last check of an endpoint found.
#[derive(Debug, Clone)]
pub struct LastCheck {
    /// When it ended.
    pub at: SystemTime,
    /// Why it was not well; `None` when it was.
    pub error: Option<Box<str>>,
}

/// One address of a server, and how it is.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in the process: what connection pools are keyed by.
    pub id: EndpointId,
    /// The server it belongs to.
    pub server: Arc<Server>,
    /// Where to connect.
    pub address: Address,
    /// Whether its address is a name: it stands for what that comes to, until that is known.
    pub is_name: bool,
    /// Its share of the requests, in proportion to the others' weights; at least 1.
    pub weight: u32,
    /// Whether it is asked only while no other endpoint can be.
    pub backup: bool,
    /// The same for every process that knows this address: what consistent hashing goes by.
    pub hash: u64,
    /// Requests it has at present.
    pub load: Arc<Load>,
    /// Connections it has, where those are bounded.
    pub connections: Arc<Load>,
    /// Whether it is to be asked.
    pub health: Arc<Health>,
    /// Whether it fails at present, for the log.
    pub outage: Arc<Outage>,
    /// What its last check found, for people.
    pub last_check: Arc<Mutex<Option<LastCheck>>>,
}

/// What is spoken with the servers of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in clear text; over TLS what the server prefers.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: over TLS by ALPN, in clear text by prior knowledge.
    Http2,
}

/// TLS with one server, ready for handshakes.
#[derive(Debug, Clone)]
pub struct Security {
    /// The name its certificate must have, sent as SNI.
    pub name: ServerName<'static>,
    /// Offers all that the upstream's protocol allows.
    pub any: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone; `None` where the upstream speaks HTTP/2 only.
    pub http1: Option<Arc<ClientConfig>>,
}

/// Identity of an endpoint for pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId(usize);

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host name or an IP address (IPv6 without brackets), and a port.
    Tcp {
        /// Name or address.
        host: Box<str>,
        /// TCP port.
        port: u16,
    },
    /// What the SRV records of this name say (RFC 2782).
    Srv(Box<str>),
    /// A Unix socket.
    Unix(Box<Path>),
    /// The built-in echo server of this process.
    Echo,
}

impl Upstream {
    /// An upstream whose servers have one endpoint each, until their names are resolved.
    #[must_use]
    pub fn new(name: Arc<str>, servers: Vec<Server>, settings: Settings) -> Self {
        let servers: Vec<_> = servers.into_iter().map(Arc::new).collect();
        let endpoints = servers.iter().map(|server| Arc::new(Endpoint::new(server, server.address.clone())));
        Self {
            name,
            endpoints: ArcSwap::from_pointee(endpoints.collect()),
            servers,
            settings,
            next: AtomicUsize::new(0),
            next_again: AtomicUsize::new(0),
        }
    }

    /// What its servers come to at present.
    pub fn endpoints(&self) -> Guard<Arc<Endpoints>> {
        self.endpoints.load()
    }

    /// An endpoint failed: one failure too many, and it is left alone for a while.
    pub fn suspect(&self, endpoint: &Endpoint) {
        let Some(passive) = &self.settings.health.passive else { return };
        let endpoints = self.endpoints();
        let may_eject = || {
            let ejected = endpoints.iter().filter(|other| other.health.is_ejected()).count();
            passive.leaves_enough(ejected + 1, endpoints.len())
        };
        if endpoint.health.failed(passive, may_eject) {
            let server = &*endpoint.server.label;
            tracing::warn!(upstream = &*self.name, server, address = %endpoint.address, "upstream server ejected");
        }
    }

    /// From now on this server gets no new requests, or gets them again. What it has already it answers. False
    /// when that was so before.
    pub fn drain(&self, server: &Server, draining: bool) -> bool {
        let before = server.draining.0.swap(draining, Ordering::Relaxed);
        self.settings.queue.wake_all();
        before != draining
    }

    /// From now on these are its endpoints. Those that were there before keep what is known of them only if
    /// they are among these.
    pub fn set_endpoints(&self, endpoints: Endpoints) {
        self.endpoints.store(Arc::new(endpoints));
        self.settings.queue.wake_all();
    }
}

impl Draining {
    /// Whether it is.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Endpoint {
    /// An endpoint of which nothing is known yet.
    #[must_use]
    pub fn new(server: &Arc<Server>, address: Address) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Self {
            id: EndpointId(NEXT.fetch_add(1, Ordering::Relaxed)),
            hash: balance::hash(address.to_string().as_bytes()),
            server: Arc::clone(server),
            is_name: address.is_name(),
            address,
            weight: server.weight,
            backup: server.backup,
            load: Arc::default(),
            connections: Arc::default(),
            health: Arc::default(),
            outage: Arc::default(),
            last_check: Arc::default(),
        }
    }

    /// Whether it is to be asked.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.health.is_well() && !self.server.draining.is_on() && !self.is_unresolved()
    }

    /// Whether it is a name that has no address.
    #[must_use]
    pub fn is_unresolved(&self) -> bool {
        self.is_name && self.server.lookup.is_in_vain()
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Srv(name) => f.write_str(name),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Echo => f.write_str("echo"),
        }
    }
}
