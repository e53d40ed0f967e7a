//! One connection to an endpoint, and the task that drives it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::RequestBody;
use super::overheard::Overheard;
use super::prelude::Prelude;
use crate::upstream::connect::ConnectError;
use crate::upstream::load::Place;
use crate::upstream::stream::Stream;

/// Bound of what is buffered of a response, head included, bytes.
pub(super) const MAX_BUFFER: usize = 64 * 1024;
/// Most streams of one connection of HTTP/2, whatever the server allows: beyond, another one is opened.
const MAX_STREAMS: usize = 128;

/// What came of sending a request: a head, or an error and, if nothing was written, the request.
pub type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A connection of HTTP/1; closed when dropped.
#[derive(Debug)]
pub(super) struct Single {
    sender: http1::SendRequest<RequestBody>,
    prelude: Arc<Prelude>,
    task: JoinHandle<()>,
    born: Instant,
    place: Option<Place>,
}

/// A connection of HTTP/2. It ends by itself when it is dropped and its last request has been answered.
#[derive(Debug)]
pub(super) struct Multiplexed {
    sender: http2::SendRequest<RequestBody>,
    streams: Cell<usize>,
    driven: Rc<Driven>,
    born: Instant,
    place: Option<Place>,
}

/// What the task of a connection of HTTP/2 polls, until it has ended: it also knows how many streams the
/// server allows.
type Driven = RefCell<Option<http2::Connection<TokioIo<Overheard<Rc<Notify>>>, RequestBody, LocalExecutor>>>;

/// One request's part of a connection of HTTP/2.
#[derive(Debug)]
pub(super) struct Share {
    connection: Rc<Multiplexed>,
    sender: http2::SendRequest<RequestBody>,
}

impl Single {
    pub(super) async fn open(stream: Stream, place: Option<Place>) -> io::Result<Self> {
        let prelude = Arc::<Prelude>::default();
        let stream = TokioIo::new(Overheard::new(stream, Arc::clone(&prelude)));
        let handshake = http1::Builder::new().writev(false).max_buf_size(MAX_BUFFER).handshake(stream);
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Self { sender, prelude, task, born: Instant::now(), place })
    }

    /// Sends a request; before the head of its response the server may say only so much.
    pub(super) async fn send(&mut self, request: Request<RequestBody>) -> Sent {
        self.prelude.begin();
        let sent = self.sender.try_send_request(request).await;
        if sent.is_ok() {
            self.prelude.end();
        }
        sent
    }

    /// Whether the server said more than that, and no answer.
    pub(super) fn talks_only(&self) -> bool {
        self.prelude.is_over()
    }

    /// Whether it could take a request at once.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Whether its place is worth more to others than it is, idle, to this worker.
    pub(super) fn is_wanted(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_wanted)
    }

    /// Its place at the endpoint, when it is none of HTTP any more.
    pub(super) fn into_place(mut self) -> Option<Place> {
        self.place.take()
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Multiplexed {
    /// Shakes hands, and waits for what the server says of itself.
    pub(super) async fn open(stream: Stream, place: Option<Place>) -> Result<Self, ConnectError> {
        let heard = Rc::new(Notify::new());
        let handshake = builder().handshake(TokioIo::new(Overheard::new(stream, Rc::clone(&heard))));
        let (sender, connection) = handshake.await.map_err(|error| ConnectError::Connect(io::Error::other(error)))?;
        let driven = Rc::new(RefCell::new(Some(connection)));
        tokio::task::spawn_local(drive(Rc::clone(&driven), Rc::clone(&heard)));
        loop {
            let more = heard.notified();
            match allowed(&driven) {
                None => return Err(ConnectError::Protocol),
                Some(0) => more.await,
                Some(_) => break,
            }
        }
        Ok(Self { sender, streams: Cell::new(0), driven, born: Instant::now(), place })
    }

    /// Whether it takes another request.
    pub(super) fn has_room(&self) -> bool {
        let allowed = allowed(&self.driven).unwrap_or(0);
        !self.sender.is_closed() && self.streams.get() < allowed.min(MAX_STREAMS)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether its place is worth more to others than it is, idle, to this worker.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_idle() && self.place.as_ref().is_some_and(Place::is_wanted)
    }

    /// Whether it answers no request at present.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }
}

impl Share {
    pub(super) fn of(connection: &Rc<Multiplexed>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self { connection: Rc::clone(connection), sender: connection.sender.clone() }
    }

    pub(super) fn sender(&mut self) -> &mut http2::SendRequest<RequestBody> {
        &mut self.sender
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.connection.streams.set(self.connection.streams.get() - 1);
        if let Some(place) = &self.connection.place {
            place.has_room_again();
        }
    }
}

fn builder() -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_max_send_streams(0)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_header_list_size(64 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    builder
}

/// Drives a connection of HTTP/2 to its end, and gives back what was sent into it and not taken.
async fn drive(connection: Rc<Driven>, heard: Rc<Notify>) {
    let ended = poll_fn(|cx| match connection.borrow_mut().as_mut() {
        Some(connection) => Pin::new(connection).poll(cx),
        None => Poll::Ready(Ok(())),
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "upstream connection ended");
    }
    drop(connection.take());
    heard.notify_waiters();
}

/// Streams that the server allows: none before it has spoken. `None` when the connection has ended.
fn allowed(driven: &Driven) -> Option<usize> {
    driven.borrow().as_ref().map(http2::Connection::current_max_send_streams)
}

/// Runs the streams of a connection on this worker's thread.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(stream);
    }
}
