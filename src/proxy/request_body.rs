//! A request's body on its way upstream: streamed, never collected, its size passed on.

use std::cell::Cell;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
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
}

/// The client did not send its body properly: bad framing, a lost connection, silence, or slowness.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// Bad framing or a lost connection.
    #[error("request body broke off: {0}")]
    Broken(#[source] hyper::Error),
    /// Nothing came for too long, or too little.
    #[error("request body stalled")]
    Stalled,
    /// More came than the route takes.
    #[error("request body too large")]
    TooLarge,
}

impl RequestBodyError {
    /// Finds the client's fault behind an error of the upstream connection, if that is its cause.
    #[must_use]
    pub fn behind(error: &hyper::Error) -> Option<&Self> {
        let mut source = error.source();
        while let Some(error) = source {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            source = error.source();
        }
        None
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
        Self(Some(Streaming { incoming, upload: Rc::default(), clock, most: u64::MAX }))
    }

    /// The same, ending in an error as soon as more bytes have come.
    #[must_use]
    pub fn at_most(mut self, bytes: u64) -> Self {
        if let Some(streaming) = &mut self.0 {
            streaming.most = bytes;
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
        let upload = &streaming.upload;
        upload.waiting.set(false);
        match Pin::new(&mut streaming.incoming).poll_frame(context) {
            Poll::Pending => {
                upload.waiting.set(true);
                if streaming.clock.as_mut().is_some_and(|clock| clock.expired(context)) {
                    return Poll::Ready(Some(Err(RequestBodyError::Stalled)));
                }
                Poll::Pending
            }
            Poll::Ready(None) => {
                upload.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(RequestBodyError::Broken(error)))),
            Poll::Ready(Some(Ok(mut frame))) => {
                streaming.taken(&mut frame);
                let fits = streaming.upload.bytes() <= streaming.most;
                Poll::Ready(Some(if fits { Ok(frame) } else { Err(RequestBodyError::TooLarge) }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|streaming| streaming.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |streaming| streaming.incoming.size_hint())
    }
}

impl Streaming {
    fn taken(&mut self, frame: &mut Frame<Bytes>) {
        let upload = &self.upload;
        upload.frames.set(upload.frames.get() + 1);
        let len = frame.data_ref().map_or(0, Bytes::len) as u64;
        upload.bytes.set(upload.bytes.get() + len);
        if let Some(trailers) = frame.trailers_mut() {
            filter_trailers(trailers);
        }
        if self.incoming.is_end_stream() {
            upload.end();
        }
        if let Some(clock) = &mut self.clock {
            clock.received(len);
        }
    }
}
