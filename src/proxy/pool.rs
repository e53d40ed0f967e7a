//! This worker's connections to endpoints: idle ones are kept, last in first out.
//!
//! A connection is given back when the response has been read to its end, and only when hyper says
//! that it could take another request at once; in every other case it is closed, and with it
//! whatever the upstream was still doing for that request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::request_body::RequestBody;
use crate::upstream::{Address, Endpoint, EndpointId, Upstream};

/// Length of a tick of the pool's clock: reading the time is left to the sweep.
const TICK: Duration = Duration::from_millis(500);
/// Ticks a connection may be idle: 4 s, below the 5 s after which many servers close theirs.
const MAX_IDLE_TICKS: u32 = 8;
/// Bound of what is buffered of a response, head included, bytes.
const MAX_BUFFER: usize = 64 * 1024;
/// When a silent upstream connection is probed.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Idle and new connections to endpoints. One per worker; not `Send`.
#[derive(Debug)]
pub struct Pool {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where the built-in echo server of this process listens.
    echo: Option<SocketAddr>,
    idle: RefCell<HashMap<EndpointId, Vec<Idle>, ahash::RandomState>>,
    /// The clock: ticks since the sweep last started.
    now: Cell<u32>,
    /// Whether a sweep runs; it ends when nothing is idle.
    sweeping: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: u32,
}

/// One connection to an endpoint; closed when dropped.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    task: JoinHandle<()>,
}

/// A connection in use by one request.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    shared: Rc<Shared>,
    endpoint: EndpointId,
    max_idle: usize,
    reused: bool,
}

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("no address found: {0}")]
    Resolve(#[source] io::Error),
    /// Refused or unreachable.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// Not within the connect timeout.
    #[error("no connection within the timeout")]
    Timeout,
    /// An endpoint that this process does not have.
    #[error("the built-in echo server is not running")]
    NoEcho,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(echo: Option<SocketAddr>) -> Self {
        let shared = Shared { echo, idle: RefCell::default(), now: Cell::new(0), sweeping: Cell::new(false) };
        Self { shared: Rc::new(shared) }
    }

    /// A connection to `endpoint`: the one used last, or a new one.
    pub async fn checkout(&self, upstream: &Upstream, endpoint: &Endpoint) -> Result<Lease, ConnectError> {
        match self.shared.take(endpoint.id) {
            Some(connection) => Ok(self.lease(connection, upstream, endpoint, Origin::Idle)),
            None => self.connect(upstream, endpoint).await,
        }
    }

    /// A new connection to `endpoint`.
    pub async fn connect(&self, upstream: &Upstream, endpoint: &Endpoint) -> Result<Lease, ConnectError> {
        let connecting = self.shared.dial(endpoint);
        let stream = tokio::time::timeout(upstream.connect_timeout, connecting);
        let stream = stream.await.map_err(|_| ConnectError::Timeout)??;
        let connection = Connection::open(stream).await.map_err(ConnectError::Connect)?;
        Ok(self.lease(connection, upstream, endpoint, Origin::New))
    }

    fn lease(&self, connection: Connection, upstream: &Upstream, endpoint: &Endpoint, origin: Origin) -> Lease {
        Lease {
            connection,
            shared: Rc::clone(&self.shared),
            endpoint: endpoint.id,
            max_idle: upstream.max_idle_connections,
            reused: origin == Origin::Idle,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Idle,
    New,
}

impl Lease {
    /// Where requests are sent into.
    pub fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.connection.sender
    }

    /// Whether it has served another request before.
    #[must_use]
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// The connection itself, once `response` has changed its protocol, and what the upstream has sent
    /// behind that response. It is never used for another request.
    pub async fn into_stream(self, response: &mut Response<Incoming>) -> Option<(TcpStream, Bytes)> {
        // The task that drives the connection hands it over as soon as it has read the head.
        let upgraded = hyper::upgrade::on(response).await.ok()?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
        Some((parts.io.into_inner(), parts.read_buf))
    }

    /// The response was read to its end: keeps the connection for the next request if it can take
    /// one at once.
    pub fn finish(self) {
        if self.connection.sender.is_ready() {
            self.shared.put(self.endpoint, self.connection, self.max_idle);
        }
    }
}

impl Connection {
    async fn open(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        let handshake = http1::Builder::new().writev(false).max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Self { sender, task })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// The idle connection used last, if it still lives.
    fn take(&self, endpoint: EndpointId) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&endpoint)?;
        while let Some(Idle { connection, since }) = connections.pop() {
            if self.is_stale(since) {
                connections.clear();
            } else if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn put(self: &Rc<Self>, endpoint: EndpointId, connection: Connection, max_idle: usize) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(endpoint).or_default();
        if connections.len() >= max_idle {
            return;
        }
        connections.push(Idle { connection, since: self.now.get() });
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    fn is_stale(&self, since: u32) -> bool {
        self.now.get().wrapping_sub(since) >= MAX_IDLE_TICKS
    }

    /// Closes what was idle for too long; whether anything is left.
    fn tick(&self) -> bool {
        self.now.set(self.now.get().wrapping_add(1));
        let mut idle = self.idle.borrow_mut();
        idle.retain(|_, connections| {
            connections.retain(|idle| !self.is_stale(idle.since) && !idle.connection.sender.is_closed());
            !connections.is_empty()
        });
        !idle.is_empty()
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<TcpStream, ConnectError> {
        match &endpoint.address {
            Address::Echo => {
                let echo = self.echo.ok_or(ConnectError::NoEcho)?;
                TcpStream::connect(echo).await.map_err(ConnectError::Connect)
            }
            Address::Tcp { host, port } => match host.parse() {
                Ok(address) => TcpStream::connect(SocketAddr::new(address, *port)).await.map_err(ConnectError::Connect),
                Err(_) => dial_name(host, *port).await,
            },
        }
    }
}

/// Tries every address of a name in turn.
async fn dial_name(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(ConnectError::Resolve)?;
    let mut last = ConnectError::Resolve(io::ErrorKind::NotFound.into());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = ConnectError::Connect(error),
        }
    }
    Err(last)
}

/// Turns the pool's clock and closes idle connections, as long as there are any.
async fn sweep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(shared) = shared.upgrade() else { return };
        if !shared.tick() {
            shared.sweeping.set(false);
            return;
        }
    }
}
