//! The configuration: from a YAML file to a ready-to-use [`Config`], with every mistake found in
//! one run and shown where it stands.

mod continuity;
mod document;
mod environment;
mod file;
pub mod frames;
mod load;
mod mask;
mod ordinals;
mod print;
pub mod schema;
pub mod sentences;
mod shape;
mod traces;
pub mod trial;
mod validate;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use crate::jwt::settings::JwtSettings;
use crate::limit::headers::HeaderStyle;
use crate::limit::policy::Policy;
use crate::limit::store::settings::{Secret, StoreSettings};
use crate::route::{Access, Router};
use crate::tls;
use crate::upstream::Upstream;
use crate::upstream::resolve::DnsSettings;
pub use frames::Report;
pub use load::{load, load_after, parse};
pub use ordinals::Ordinals;
pub use print::expanded;
pub use traces::{Collector, CollectorTls, TracingSettings, WebAddress};
pub use trial::Trial;

/// A whole, valid configuration: what the workers run on. Immutable; a reload replaces it.
#[derive(Debug)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<Arc<Listener>>,
    /// Whose forwarded fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether who connects to a Unix socket is believed likewise.
    pub trusts_unix: bool,
    /// How the client's address is found behind trusted proxies.
    pub client_ip: ClientIp,
    /// Who is let in at all.
    pub access: Access,
    /// Routes, and the implicit route of unmatched requests.
    pub router: Router,
    /// Every policy, by [`Policy::index`].
    pub policies: Vec<Arc<Policy>>,
    /// The longest that each of them may hold a request, by [`Policy::index`]; `None` for those that hold none. Their
    /// bursts keep within it, so that only people need to know.
    pub max_waits: Vec<Option<Duration>>,
    /// Every upstream, in file order.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Who tells the addresses of their servers.
    pub dns: DnsSettings,
    /// Which rate-limit fields clients see.
    pub rate_limit_headers: HeaderStyle,
    /// Where limiter state lives.
    pub store: StoreSettings,
    /// Whose tokens are believed, if anybody's.
    pub jwt: Option<Arc<JwtSettings>>,
    /// Process log.
    pub log: LogSettings,
    /// Access log; off by default.
    pub access_log: Option<AccessLogSettings>,
    /// Traces; off by default.
    pub tracing: Option<TracingSettings>,
    /// Path of the metrics on the admin listener.
    pub metrics_path: Box<str>,
    /// Whether whoever reads them must have the admin listener's token, where it has one.
    pub metrics_need_token: bool,
    /// The admin listener, if any.
    pub admin: Option<AdminSettings>,
    /// Most memory that the process is to use, bytes.
    pub max_memory: Option<u64>,
    /// How the process ends.
    pub shutdown: ShutdownSettings,
    /// Number of workers, at least 1.
    pub workers: usize,
    /// Tests of the limits.
    pub trials: Vec<Trial>,
    /// The numbers of its names.
    pub ordinals: Ordinals,
    /// Files that it names, but those of listeners' certificates, which are followed by themselves.
    pub files: Vec<PathBuf>,
}

/// A socket that clients connect to, and its clocks.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name in the configuration; `default` in the short form.
    pub name: Arc<str>,
    /// What its name has through every reload: the number of its statistics and connections.
    pub ordinal: usize,
    /// Address; port 0 lets the system choose.
    pub address: ListenAddress,
    /// Permissions of its file, when it is a Unix socket.
    pub mode: u32,
    /// HTTP/1.1 and HTTP/2.
    pub protocols: Protocols,
    /// The port that clients are redirected to, when everything is answered with that.
    pub redirect_to_https: Option<u16>,
    /// Whether trusted proxies say who the client is before anything else.
    pub proxy_protocol: ProxyProtocol,
    /// TLS, unless it is clear text.
    pub tls: Option<Arc<ListenerTls>>,
    /// Connections open at once, over all workers.
    pub max_connections: usize,
    /// Connections open at once from one client address; never applied to trusted proxies.
    pub max_connections_per_ip: Option<usize>,
    /// From the first byte of a connection or request to the end of the head.
    pub header_timeout: Duration,
    /// Between requests of a kept-alive connection.
    pub idle_timeout: Duration,
    /// Silence of an event stream, a gRPC stream or a tunnel.
    pub stream_idle_timeout: Duration,
    /// Largest request head, bytes.
    pub max_header_size: usize,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

/// Whether a header of the PROXY protocol precedes a connection's own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does; what looks like one is a bad request.
    Never,
    /// One may, from a trusted proxy.
    Optional,
    /// One must, from a trusted proxy.
    Required,
}

/// Which protocols a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    /// HTTP/1.1 (and 1.0).
    pub h1: bool,
    /// HTTP/2: in clear text by prior knowledge, over TLS by ALPN.
    pub h2: bool,
}

/// TLS of a listener.
#[derive(Debug)]
pub struct ListenerTls {
    /// Certificates and authorities, as they are in their files. Its sessions are this listener's alone.
    pub live: tls::Live,
    /// Whether upstreams are told of a client's certificate.
    pub forward_client_certificate: bool,
    /// Handshakes under way at once, per worker.
    pub max_handshakes: usize,
}

/// Which field tells the client's address when the peer is a trusted proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIp {
    /// The field.
    pub source: ClientIpSource,
    /// Bits of an IPv6 address that make one client.
    pub ipv6_prefix: u8,
}

/// A field that carries client addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIpSource {
    /// X-Forwarded-For, walked right to left.
    XForwardedFor,
    /// Forwarded (RFC 7239), its `for=` walked right to left.
    Forwarded,
    /// A field with one address, such as CF-Connecting-IP.
    Header(HeaderName),
}

/// Process log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: tracing::Level,
    /// How lines look.
    pub format: LogFormat,
}

/// How process log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// Access log.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLogSettings {
    /// JSON or the combined format.
    pub format: AccessLogFormat,
    /// When not empty: only requests of these classes (and the sampled share of the others).
    pub only: Vec<AccessLogClass>,
    /// Share of all other requests that is logged, 0 to 1; 1 when `only` is empty, else 0, unless given.
    pub sample: f64,
    /// Where lines are appended; standard output when `None`.
    pub file: Option<PathBuf>,
}

/// How access log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object per line.
    Json,
    /// The combined log format of Apache and nginx.
    Combined,
}

/// Which requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogClass {
    /// Denied by a limit.
    Limited,
    /// Status 500 and above, and 4xx of our own making other than 429.
    Errors,
}

/// The field by which a command tells an admin listener the configuration file, percent-encoded, whose proxy it means.
pub const WHOSE: &str = "tollgate-configuration";

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Address; anything but loopback needs a token.
    pub address: SocketAddr,
    /// Bearer token for everything but `/healthz` and `/readyz`.
    pub token: Option<Secret>,
    /// Whether there is a page for people.
    pub dashboard: bool,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { address: Self::DEFAULT_ADDRESS, token: None, dashboard: true }
    }
}

impl AdminSettings {
    /// Where it listens unless configured.
    pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// From the signal (not ready any more) to the closing of the listeners.
    pub delay: Duration,
    /// From then until the remaining connections are cut.
    pub grace: Duration,
}

/// Where a configuration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// The quick form's arguments.
    Arguments,
}

/// A configuration that can be run, and what is doubtful about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings only.
    pub warnings: Report,
    /// The text it was read from, secrets covered.
    pub text: Arc<str>,
    /// Another one where that, or a file that it names, is another.
    pub fingerprint: blake3::Hash,
}

impl Config {
    /// The listener that has taken the place of another: of its name and address, or of its address alone.
    #[must_use]
    pub fn heir_of(&self, listener: &Listener) -> Option<&Arc<Listener>> {
        let mut there = self.listeners.iter().filter(|other| other.address == listener.address);
        let same = there.clone().find(|other| other.name == listener.name);
        // A port of the system's choice is nobody else's.
        same.or_else(|| there.next().filter(|_| !listener.address.is_chosen_by_system()))
    }

    /// Whether a peer's word about the client is believed; one without an address is behind a Unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(address) => self.trusted_proxies.iter().any(|network| network.contains(&address)),
            None => self.trusts_unix,
        }
    }
}

impl ListenAddress {
    /// Whether it has the port, or the socket's path, of another.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(another)) => one.port() == another.port(),
            (one, another) => one == another,
        }
    }

    /// Whether the system chooses the port.
    #[must_use]
    pub fn is_chosen_by_system(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.port() == 0)
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("<stdin>"),
            Self::Arguments => f.write_str("<arguments>"),
        }
    }
}

impl Origin {
    /// Where relative paths in the configuration begin.
    fn directory(&self) -> PathBuf {
        match self {
            Self::File(path) => path.parent().map_or_else(PathBuf::new, Path::to_owned),
            Self::Stdin | Self::Arguments => PathBuf::new(),
        }
    }
}
