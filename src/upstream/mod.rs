//! Where requests go: an upstream is a named group of endpoints.

pub mod balance;
pub mod echo;
pub mod outage;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::HeaderValue;

use outage::Outage;

/// A named group of servers that answer alike.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its servers, at least one.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// How long a TCP connection may take.
    pub connect_timeout: Duration,
    /// How long the response head may take after the request was sent (per route: `timeout`).
    pub response_timeout: Duration,
    /// Idle connections kept per endpoint and worker.
    pub max_idle_connections: usize,
    /// Round-robin position, shared by all workers.
    pub next: AtomicUsize,
}

/// One server.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in the process: what connection pools are keyed by.
    pub id: EndpointId,
    /// Where to connect.
    pub address: Address,
    /// Label in logs and metrics: `host:port` or `echo`.
    pub label: Arc<str>,
    /// What Host would be if the client had sent none.
    pub host: HeaderValue,
    /// Whether it fails at present.
    pub outage: Outage,
}

/// Identity of an endpoint for pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId(pub usize);

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host name or an IP address (IPv6 without brackets), and a port.
    Tcp {
        /// Name or address.
        host: Box<str>,
        /// TCP port.
        port: u16,
    },
    /// The built-in echo server of this process.
    Echo,
}
