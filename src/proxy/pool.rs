//! This worker's connections to endpoints: idle ones of HTTP/1 are kept, last in first out; one of
//! HTTP/2 is shared by as many requests as the server allows.
//!
//! A connection of HTTP/1 is given back when the response has been read to its end, and only when hyper
//! says that it could take another request at once; in every other case it is closed, and with it
//! whatever the upstream was still doing for that request.

mod connection;
mod kept;
mod overheard;
mod prelude;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::request_body::RequestBody;
use crate::upstream::connect::{Call, ConnectError, Wanted};
use crate::upstream::load::{Busy, Place, Slot};
use crate::upstream::stream::Stream;
use crate::upstream::{Endpoint, EndpointId, Protocol};
pub use connection::Sent;
use connection::{Multiplexed, Share, Single};
use kept::{Keep, Kept};
use overheard::Overheard;
use prelude::Prelude;

/// Length of a tick of the pool's clock: reading the time is left to the sweep.
const TICK: Duration = Duration::from_millis(500);

/// Idle, shared and new connections to endpoints. One per worker; not `Send`.
#[derive(Debug)]
pub struct Pool {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where the built-in echo server of this process listens.
    echo: Arc<OnceLock<SocketAddr>>,
    kept: RefCell<HashMap<EndpointId, Kept, ahash::RandomState>>,
    /// The clock: ticks since the sweep last started.
    now: Cell<u32>,
    /// Whether a sweep runs; it ends when nothing is kept.
    sweeping: Cell<bool>,
}

/// A connection in use by one request; of HTTP/2, its part of one.
#[derive(Debug)]
pub struct Lease {
    connection: Leased,
    shared: Rc<Shared>,
    endpoint: EndpointId,
    keep: Keep,
    origin: Origin,
    slot: Option<Slot>,
}

/// A connection that has changed its protocol, and its place at the endpoint.
#[derive(Debug)]
pub struct Switched {
    /// The connection.
    pub stream: Stream,
    /// What the upstream has sent behind its response.
    pub early: Bytes,
    _slot: Option<Slot>,
    _place: Option<Place>,
}

#[derive(Debug)]
enum Leased {
    Http1(Single),
    Http2(Share),
}

/// Where a request finds room whose endpoint's connections are bounded.
enum Room {
    Shared(Leased),
    New(Option<Place>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Kept,
    New,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(echo: Arc<OnceLock<SocketAddr>>) -> Self {
        let shared = Shared { echo, kept: RefCell::default(), now: Cell::new(0), sweeping: Cell::new(false) };
        Self { shared: Rc::new(shared) }
    }

    /// The connection that is called for: one that is there, or a new one.
    pub async fn checkout(&self, call: &Call<'_>) -> Result<Lease, ConnectError> {
        match self.shared.take(call) {
            Some(connection) => Ok(self.lease(connection, call, Origin::Kept)),
            None => self.connect(call).await,
        }
    }

    /// A new connection, or the part of one of HTTP/2 that is new to all who wait for it.
    pub async fn connect(&self, call: &Call<'_>) -> Result<Lease, ConnectError> {
        if !self.shared.expects_http2(call) {
            return self.open(call).await;
        }
        // One connection serves many: who comes while it is being opened waits for it.
        let turn = self.shared.turn(call.endpoint.id);
        let turn = tokio::time::timeout(call.upstream.settings.connect_timeout, turn.lock_owned());
        let _turn = turn.await.map_err(|_| ConnectError::Timeout)?;
        match self.shared.take(call) {
            Some(connection) => Ok(self.lease(connection, call, Origin::New)),
            None => self.open(call).await,
        }
    }

    async fn open(&self, call: &Call<'_>) -> Result<Lease, ConnectError> {
        let place = match self.place(call).await? {
            Room::Shared(connection) => return Ok(self.lease(connection, call, Origin::Kept)),
            Room::New(place) => place,
        };
        let stream = call.open(self.shared.echo.get().copied()).await?;
        let prefers = call.upstream.settings.protocol == Protocol::Http2 || stream.agreed_on_h2();
        let connection = if prefers && call.wanted == Wanted::Any {
            let opening =
                tokio::time::timeout(call.upstream.settings.connect_timeout, Multiplexed::open(stream, place));
            let connection = opening.await.map_err(|_| ConnectError::Timeout)??;
            Leased::Http2(self.shared.share(call, connection))
        } else {
            Leased::Http1(Single::open(stream, place).await.map_err(ConnectError::Connect)?)
        };
        Ok(self.lease(connection, call, Origin::New))
    }

    /// Room for another connection, or one that got room for another request meanwhile.
    async fn place(&self, call: &Call<'_>) -> Result<Room, ConnectError> {
        let queue = &call.upstream.settings.queue;
        let Some(most) = queue.bounds.connections else { return Ok(Room::New(None)) };
        let look = || {
            let place = queue.place(call.endpoint, most).map(|place| Room::New(Some(place)));
            place.or_else(|| self.shared.take(call).map(Room::Shared))
        };
        match look() {
            Some(room) => Ok(room),
            None => queue.wait(look).await.map_err(|Busy| ConnectError::Full),
        }
    }

    fn lease(&self, connection: Leased, call: &Call<'_>, origin: Origin) -> Lease {
        let (shared, keep) = (Rc::clone(&self.shared), Keep::of(call));
        Lease { connection, shared, endpoint: call.endpoint.id, keep, origin, slot: None }
    }
}

impl Lease {
    /// Sends a request; its URI and fields are those of [`Lease::is_http2`]'s protocol.
    pub async fn send(&mut self, request: Request<RequestBody>) -> Sent {
        match &mut self.connection {
            Leased::Http1(single) => single.send(request).await,
            Leased::Http2(share) => share.sender().try_send_request(request).await,
        }
    }

    /// Whether the server went on announcing an answer until the connection was given up.
    #[must_use]
    pub fn talks_only(&self) -> bool {
        matches!(&self.connection, Leased::Http1(single) if single.talks_only())
    }

    /// Keeps the request's place at the endpoint until the connection is not used by it any more.
    pub fn hold(&mut self, slot: Slot) {
        self.slot = Some(slot);
    }

    /// Where its connection goes, once it [holds](Self::hold) a place there.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.slot.as_ref().map(|slot| &*slot.endpoint)
    }

    /// Whether requests are to be those of HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self.connection, Leased::Http2(_))
    }

    /// Whether it has served another request before.
    #[must_use]
    pub fn reused(&self) -> bool {
        self.origin == Origin::Kept
    }

    /// The connection itself, once `response` has changed its protocol. It is never used for another request.
    pub async fn into_stream(self, response: &mut Response<Incoming>) -> Option<Switched> {
        // The task that drives the connection hands it over as soon as it has read the head.
        let upgraded = hyper::upgrade::on(response).await.ok()?;
        let parts = upgraded.downcast::<TokioIo<Overheard<Arc<Prelude>>>>().ok()?;
        let place = if let Leased::Http1(single) = self.connection { single.into_place() } else { None };
        Some(Switched {
            stream: parts.io.into_inner().into_stream(),
            early: parts.read_buf,
            _slot: self.slot,
            _place: place,
        })
    }

    /// The response was read to its end: keeps the connection for the next request if it can take
    /// one at once.
    pub fn finish(self) {
        if let Leased::Http1(single) = self.connection
            && single.is_ready()
        {
            self.shared.put(self.endpoint, self.keep, single);
        }
    }
}

impl Shared {
    /// A connection that is there, the one of HTTP/1 used last, if it still lives.
    fn take(&self, call: &Call<'_>) -> Option<Leased> {
        let mut kept = self.kept.borrow_mut();
        let kept = kept.get_mut(&call.endpoint.id)?;
        if call.wanted == Wanted::Any
            && let Some(share) = kept.share(self.now.get())
        {
            return Some(Leased::Http2(share));
        }
        kept.pop(self.now.get()).map(Leased::Http1)
    }

    fn put(self: &Rc<Self>, endpoint: EndpointId, keep: Keep, single: Single) {
        self.kept.borrow_mut().entry(endpoint).or_default().push(single, keep, self.now.get());
        self.sweep();
    }

    /// Keeps a connection of HTTP/2 for others too, unless it is told to be one client's.
    fn share(self: &Rc<Self>, call: &Call<'_>, connection: Multiplexed) -> Share {
        let connection = Rc::new(connection);
        let share = Share::of(&connection);
        if call.upstream.settings.proxy_protocol.is_none() {
            let mut kept = self.kept.borrow_mut();
            kept.entry(call.endpoint.id).or_default().add(connection, Keep::of(call), self.now.get());
            self.sweep();
        }
        share
    }

    /// Whether the next connection will probably be one of HTTP/2 that others can use.
    fn expects_http2(&self, call: &Call<'_>) -> bool {
        if call.wanted == Wanted::Http1 || call.upstream.settings.proxy_protocol.is_some() {
            return false;
        }
        match call.upstream.settings.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => {
                let kept = self.kept.borrow();
                call.endpoint.server.security.is_some() && kept.get(&call.endpoint.id).is_some_and(Kept::spoke_http2)
            }
        }
    }

    /// Who may open the next connection of HTTP/2.
    fn turn(&self, endpoint: EndpointId) -> std::sync::Arc<tokio::sync::Mutex<()>> {
        self.kept.borrow_mut().entry(endpoint).or_default().turn()
    }

    /// Closes what was idle for too long; whether anything is left.
    fn tick(&self) -> bool {
        self.now.set(self.now.get().wrapping_add(1));
        let mut kept = self.kept.borrow_mut();
        kept.values_mut().for_each(|kept| kept.tick(self.now.get()));
        kept.values().any(|kept| !kept.is_empty())
    }

    fn sweep(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }
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
