//! A request's body on its way upstream: streamed, never collected, its size passed on.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::headers::filter_trailers;
use super::inbound::{BodyClock, Pace};

/// Most bytes of an unwanted body that are read to keep its connection usable.
const MAX_DRAIN: usize = 64 * 1024;

/// How far an upload is; shared between the body, which the upstream connection owns, and the
/// handler that waits for the answer.
#[derive(Debug, Default)]
pub struct Upload {
    /// Bytes taken from the client.
    bytes: Cell<u64>,
    /// Changes whenever something was taken from the client.
    frames: Cell<u64>,
    /// The client is being waited for.
    waiting: Cell<bool>,
    /// When all was taken.
    ended: Cell<Option<Instant>>,
    /// How the client spoilt it.
    fault: Cell<Option<Fault>>,
}

/// How a client spoilt its upload. The upstream's connection may hide it: over HTTP/2 it only tells of a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Bad framing or a lost connection.
    Broken,
    /// Nothing came for too long, or too little.
    Stalled,
    /// More came than the route takes.
    TooLarge,
}

/// What an upload is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is complete, since then (`None`: from the beginning).
    Ended(Option<Instant>),
    /// For the client's next bytes, which its own clock watches.
    WaitsForClient,
    /// For the upstream to take more; this many frames were taken.
    Taken(u64),
}

impl Upload {
    /// Body bytes received from the client so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether all of it was taken.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.ended.get().is_some()
    }

    /// How the client spoilt it, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }

    fn end(&self) {
        if !self.is_complete() {
            self.ended.set(Some(Instant::now()));
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match (self.ended.get(), self.waiting.get()) {
            (Some(at), _) => Progress::Ended(Some(at)),
            (None, true) => Progress::WaitsForClient,
            (None, false) => Progress::Taken(self.frames.get()),
        }
    }
}

/// The body of a forwarded request.
#[derive(Debug, Default)]
pub struct RequestBody(Option<Streaming>);

#[derive(Debug)]
struct Streaming {
    incoming: Incoming,
    upload: Rc<Upload>,
    clock: Option<BodyClock>,
    /// Most bytes that may come.
    most: u64,
    /// Fields that no trailer may stand in for.
    kept_out: Vec<HeaderName>,
}

/// The client did not send its body properly: bad framing, a lost connection, silence, or slowness.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// Bad framing or a lost connection.
    #[error("request body broke off: {0}")]
    Broken(#[source] hyper::Error),
    /// A stream that was taken back without an error (RFC 9113 §8.1 has a meaning for that in responses only).
    #[error("request body was cut short")]
    CutShort,
    /// Nothing came for too long, or too little.
    #[error("request body stalled")]
    Stalled,
    /// More came than the route takes.
    #[error("request body too large")]
    TooLarge,
}

impl RequestBodyError {
    fn fault(&self) -> Fault {
        match self {
            Self::Broken(_) | Self::CutShort => Fault::Broken,
            Self::Stalled => Fault::Stalled,
            Self::TooLarge => Fault::TooLarge,
        }
    }
}

impl RequestBody {
    /// Streams `incoming`. `pace` is how slowly it may come, where nothing below this body watches
    /// that (HTTP/2; the clock of HTTP/1 is kept between the socket and hyper).
    #[must_use]
    pub fn new(incoming: Incoming, pace: Option<Pace>) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        let clock = pace.map(BodyClock::new);
        Self(Some(Streaming { incoming, upload: Rc::default(), clock, most: u64::MAX, kept_out: Vec::new() }))
    }

    /// The same, ending in an error as soon as more bytes have come.
    #[must_use]
    pub fn at_most(mut self, bytes: u64) -> Self {
        if let Some(streaming) = &mut self.0 {
            streaming.most = bytes;
        }
        self
    }

    /// The same, without these fields in its trailers: a server that adds trailers to the head would read the
    /// client's word for ours.
    #[must_use]
    pub fn keeping_out<'a>(mut self, names: impl Iterator<Item = &'a HeaderName>) -> Self {
        if let Some(streaming) = &mut self.0 {
            streaming.kept_out = names.cloned().collect();
        }
        self
    }

    /// How far the upload is; `None` when there is no body.
    #[must_use]
    pub fn upload(&self) -> Option<Rc<Upload>> {
        self.0.as_ref().map(|streaming| Rc::clone(&streaming.upload))
    }

    /// Whether the length is not known before the end, so that it must be sent in chunks.
    #[must_use]
    pub fn is_unsized(&self) -> bool {
        self.0.as_ref().is_some_and(|streaming| streaming.incoming.size_hint().exact().is_none())
    }
}

/// Takes what has already arrived of a body that nobody will read. True when that was all of it:
/// then the connection can be used again.
pub async fn drain_arrived(mut incoming: Incoming) -> bool {
    let mut taken = 0;
    poll_fn(|context| {
        loop {
            if incoming.is_end_stream() {
                return Poll::Ready(true);
            }
            match Pin::new(&mut incoming).poll_frame(context) {
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(Ok(frame))) => taken += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(Some(Err(_))) | Poll::Pending => return Poll::Ready(false),
            }
            if taken > MAX_DRAIN {
                return Poll::Ready(false);
            }
        }
    })
    .await
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Some(streaming) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let polled = streaming.poll(context);
        if let Poll::Ready(Some(Err(error))) = &polled {
            streaming.upload.fault.set(Some(error.fault()));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|streaming| streaming.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |streaming| streaming.incoming.size_hint())
    }
}

impl Streaming {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let upload = &self.upload;
        upload.waiting.set(false);
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Pending => {
                upload.waiting.set(true);
                if self.clock.as_mut().is_some_and(|clock| clock.expired(context)) {
                    return Poll::Ready(Some(Err(RequestBodyError::Stalled)));
                }
                Poll::Pending
            }
            // hyper takes a stream that is reset without an error for one that ended.
            Poll::Ready(None) if self.is_http2() && !self.incoming.is_end_stream() => {
                Poll::Ready(Some(Err(RequestBodyError::CutShort)))
            }
            Poll::Ready(None) => {
                upload.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(RequestBodyError::Broken(error)))),
            Poll::Ready(Some(Ok(mut frame))) => {
                self.taken(&mut frame);
                let fits = self.upload.bytes() <= self.most;
                Poll::Ready(Some(if fits { Ok(frame) } else { Err(RequestBodyError::TooLarge) }))
            }
        }
    }

    /// Bodies over HTTP/2 are those that have a clock here.
    fn is_http2(&self) -> bool {
        self.clock.is_some()
    }

    fn taken(&mut self, frame: &mut Frame<Bytes>) {
        let upload = &self.upload;
        upload.frames.set(upload.frames.get() + 1);
        let len = frame.data_ref().map_or(0, Bytes::len) as u64;
        upload.bytes.set(upload.bytes.get() + len);
        if let Some(trailers) = frame.trailers_mut() {
            filter_trailers(trailers);
            for name in &self.kept_out {
                trailers.remove(name);
            }
        }
        if self.incoming.is_end_stream() {
            upload.end();
        }
        if let Some(clock) = &mut self.clock {
            clock.received(len);
        }
    }
}
