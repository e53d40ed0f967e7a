//! One client connection, from its first byte to its last: HTTP/1 or HTTP/2, drained when the
//! process ends, closed so that the client can read the last answer; or a tunnel in the end.

mod accepted;
mod closing;
mod held;
mod streams;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::sync::watch;

use super::Downstream;
use super::inbound::{Clocks, Gate, Inbound, Opening, Refusal};
use super::transport::Transport;
use super::upgrade::Tunnel;
use crate::config::Listener;
use crate::telemetry::WorkerStats;
pub use accepted::serve;
pub(super) use closing::linger;
use held::{Held, InFlight, Side};
use streams::Streams;

/// Requests after which a connection ends.
const MAX_REQUESTS: usize = 10_000;

/// How long a kept-alive connection that idles when a drain begins is still open to one more request:
/// one that is already on its way is answered, with `Connection: close`, and not cut.
const FAREWELL: Duration = Duration::from_secs(1);

/// How far the process is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Another process serves still; nothing is accepted.
    Starting,
    /// Serving.
    Running,
    /// Not ready any more, still accepting (`shutdown.delay`).
    Leaving,
    /// Listeners closed; connections finish the request they have.
    Draining,
    /// The rest is cut.
    Stopped,
}

/// One connection and what it needs besides its socket and its handler.
#[derive(Debug)]
pub struct Connection {
    /// As its requests see it.
    pub downstream: Rc<Downstream>,
    /// How long what may take.
    pub clocks: Clocks,
    /// How far the process is from its end.
    pub phase: watch::Receiver<Phase>,
}

impl Connection {
    /// Serves `stream` with `handler` until the connection ends. A panic of the handler ends this
    /// connection alone, and is counted.
    pub async fn serve<H, F, B>(self, stream: Transport, listener: &Listener, handler: H)
    where
        H: Fn(Request<Incoming>, Rc<Downstream>) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: HttpBody<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let _panics = PanicCount(Arc::clone(&self.downstream.stats));
        stream.socket().set_nodelay();
        let mut inbound = Inbound::new(stream, listener.max_header_size, self.clocks);
        let opening = tokio::select! {
            biased;
            opening = inbound.opening() => opening,
            () = farewell(self.phase.clone()) => return,
        };
        match opening {
            Opening::Nothing => {}
            Opening::Http2 if listener.protocols.h2 => self.http2(inbound, handler).await,
            Opening::Http1 | Opening::Http2 => {
                if !listener.protocols.h1 {
                    inbound.refuse(Refusal::Protocol);
                }
                self.http1(inbound, listener.max_header_size, handler).await;
            }
        }
    }

    async fn http1<H, F, B>(self, inbound: Inbound, max_head: usize, handler: H)
    where
        H: Fn(Request<Incoming>, Rc<Downstream>) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: HttpBody<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let gate = inbound.gate();
        let downstream = Rc::clone(&self.downstream);
        let requests = std::cell::Cell::new(0);
        let handler = Rc::new(handler);
        let service = service_fn(|request: Request<Incoming>| {
            requests.set(requests.get() + 1);
            let last = requests.get() >= MAX_REQUESTS || gate.retired();
            if last {
                downstream.close.set(true);
            }
            downstream.version.set(request.version());
            let in_flight = InFlight::new(Rc::clone(&downstream), Side::Http1(Arc::clone(&gate)));
            answer(Rc::clone(&handler), request, in_flight, Some(Arc::clone(&gate)))
        });
        let mut builder = http1::Builder::new();
        // Head and body in one buffer: the copy costs less than a list of buffers does, at any size.
        builder.writev(false);
        builder.keep_alive(true).half_close(false).header_read_timeout(None).max_buf_size(buffer_size(max_head));
        let mut connection = builder.serve_connection(inbound, service);
        let mut ended = until(&mut connection, &self.phase, Phase::Draining).await;
        if ended.is_none() {
            self.downstream.close.set(true);
            let farewell = tokio::time::timeout(FAREWELL, until(&mut connection, &self.phase, Phase::Stopped));
            ended = if let Ok(ended) = farewell.await {
                ended
            } else {
                Pin::new(&mut connection).graceful_shutdown();
                until(&mut connection, &self.phase, Phase::Stopped).await
            };
        }
        let asked = self.downstream.close.get();
        let parts = connection.into_parts();
        let tunnel = self.downstream.tunnel.take();
        match (ended, tunnel) {
            // Boxed: other connections need not have room for a tunnel.
            (Some(Ok(())), Some(tunnel)) => Box::pin(self.carry(*tunnel, parts.io, parts.read_buf)).await,
            (Some(Ok(())), None) => closing::close(parts.io, asked, &self.downstream).await,
            (Some(Err(error)), _) => closing::break_off(parts.io, &error, &self.downstream),
            (None, _) => {}
        }
    }

    /// Carries what comes both ways, after a 101. `read` is what hyper has read behind the request.
    async fn carry(self, tunnel: Tunnel, inbound: Inbound, read: Bytes) {
        let _in_flight = InFlight::new(Rc::clone(&self.downstream), Side::Tunnel);
        let (client, waiting) = inbound.into_parts();
        let mut early = BytesMut::from(read);
        early.unsplit(waiting);
        tokio::select! {
            () = tunnel.run(client, early.freeze()) => {}
            () = reached(self.phase, Phase::Stopped) => {}
        }
    }

    async fn http2<H, F, B>(self, mut inbound: Inbound, handler: H)
    where
        H: Fn(Request<Incoming>, Rc<Downstream>) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: HttpBody<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        inbound.open_up();
        let gate = inbound.gate();
        let downstream = Rc::clone(&self.downstream);
        downstream.version.set(Version::HTTP_2);
        let streams = Rc::new(Streams::new());
        let service = {
            let (downstream, streams) = (Rc::clone(&downstream), Rc::clone(&streams));
            let handler = Rc::new(handler);
            service_fn(move |request: Request<Incoming>| {
                streams.began();
                let in_flight = InFlight::new(Rc::clone(&downstream), Side::Http2(Rc::clone(&streams)));
                answer(Rc::clone(&handler), request, in_flight, None)
            })
        };
        let connection = http2_builder(&self.downstream.stats).serve_connection(inbound, service);
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            ended = until(&mut connection, &self.phase, Phase::Draining) => if ended.is_some() {
                return closing::note_flood(&gate, &downstream);
            },
            () = streams.retired(self.clocks, &downstream) => {}
            () = streams.stalled(self.clocks.write) => return,
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            _ = until(&mut connection, &self.phase, Phase::Stopped) => {}
            () = streams.deserted(self.clocks.goaway, &downstream) => {}
            () = streams.stalled(self.clocks.write) => {}
        }
    }
}

/// What the handler answered, with what keeps the connection's books around it. The handler's future is large, and
/// boxed: a connection that idles need not have room for it.
async fn answer<H, F, B>(
    handler: Rc<H>,
    request: Request<Incoming>,
    in_flight: InFlight,
    gate: Option<Arc<Gate>>,
) -> Result<Response<Held<B>>, Infallible>
where
    H: Fn(Request<Incoming>, Rc<Downstream>) -> F,
    F: Future<Output = Response<B>>,
{
    let downstream = in_flight.downstream();
    let mut response = Box::pin(handler(request, Rc::clone(downstream))).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if let Some(gate) = gate {
            gate.switch();
        }
        return Ok(response.map(|body| Held::new(body, in_flight)));
    }
    // Whatever of the body is still to come will not be read by anyone: the connection ends.
    let unread = gate.is_some_and(|gate| gate.body_open());
    if unread || downstream.close.get() {
        downstream.close.set(true);
        if downstream.version.get() < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    Ok(response.map(|body| Held::new(body, in_flight)))
}

/// Polls a connection until it ends or `phase` is reached (`None`).
async fn until<C, T>(connection: &mut C, phase: &watch::Receiver<Phase>, target: Phase) -> Option<T>
where
    C: Future<Output = T> + Unpin,
{
    let mut turned = pin!(reached(phase.clone(), target));
    let mut watched = phase.clone();
    let mut asked = false;
    poll_fn(|cx: &mut Context<'_>| {
        if let Poll::Ready(ended) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(Some(ended));
        }
        // Registered once: after that only a change is worth asking again.
        if asked && !watched.has_changed().unwrap_or(false) {
            return Poll::Pending;
        }
        asked = true;
        watched.mark_unchanged();
        turned.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Ends when a connection on which no request has come is not waited for any longer.
pub async fn farewell(phase: watch::Receiver<Phase>) {
    reached(phase, Phase::Draining).await;
    tokio::time::sleep(FAREWELL).await;
}

/// Ends when `phase` is reached; never, when the process forgets to say so.
async fn reached(mut phase: watch::Receiver<Phase>, target: Phase) {
    if phase.wait_for(|phase| *phase >= target).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// hyper's buffer has to hold the largest head, but not much more than 64 KiB.
fn buffer_size(max_head: usize) -> usize {
    max_head.saturating_add(8 * 1024).max(64 * 1024)
}

fn http2_builder(stats: &Arc<WorkerStats>) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor { stats: Arc::clone(stats) });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_header_list_size(16 * 1024)
        .max_send_buf_size(64 * 1024)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Runs the streams of an HTTP/2 connection on this worker's thread.
#[derive(Debug, Clone)]
struct LocalExecutor {
    stats: Arc<WorkerStats>,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, stream: F) {
        let panics = PanicCount(Arc::clone(&self.stats));
        tokio::task::spawn_local(async move {
            let _panics = panics;
            stream.await;
        });
    }
}

/// Counts a panic that unwinds through it.
struct PanicCount(Arc<WorkerStats>);

impl Drop for PanicCount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked();
        }
    }
}
