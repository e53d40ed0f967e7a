//! Where requests go: an upstream is a named group of endpoints.

pub mod balance;
pub mod connect;
pub mod echo;
pub mod outage;
pub mod stream;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::tls::ServerTls;
use outage::Outage;

/// A named group of servers that answer alike.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its servers, at least one.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// What is spoken with them.
    pub protocol: Protocol,
    /// TLS towards those whose address begins with https, where there are any.
    pub tls: Option<ServerTls>,
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
    /// TLS, where its address begins with https.
    pub security: Option<Security>,
    /// Label in logs and metrics: `host:port` or `echo`.
    pub label: Arc<str>,
    /// What Host would be if the client had sent none.
    pub host: HeaderValue,
    /// Whether it fails at present.
    pub outage: Outage,
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

/// TLS with one endpoint, ready for handshakes.
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
    /// A Unix socket.
    Unix(Box<Path>),
    /// The built-in echo server of this process.
    Echo,
}
