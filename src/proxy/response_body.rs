//! An upstream's response body on its way to the client: streamed, its size passed on, its end
//! returned to the pool. What breaks off upstream breaks off towards the client as well.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::{BodyError, IdleClock};
use super::headers::filter_trailers;
use super::pool::Lease;

/// The body of a forwarded response.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    /// The connection it comes from. Dropped before the end, it is closed: a client that leaves
    /// cancels the request upstream.
    lease: Option<Lease>,
    idle: IdleClock,
}

impl ResponseBody {
    /// Streams `incoming`, which may be silent for `idle` at most.
    #[must_use]
    pub fn new(incoming: Incoming, lease: Lease, idle: Duration) -> Self {
        let mut body = Self { incoming, lease: Some(lease), idle: IdleClock::new(idle) };
        body.return_at_end();
        body
    }

    fn return_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(polled) = Pin::new(&mut this.incoming).poll_frame(context) else {
            ready!(this.idle.poll_expired(context));
            this.lease = None;
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        this.idle.reset();
        Poll::Ready(match polled {
            // hyper takes a stream that is reset without an error for one that ended.
            None if this.lease.as_ref().is_some_and(Lease::is_http2) && !this.incoming.is_end_stream() => {
                this.lease = None;
                Some(Err(BodyError::CutShort))
            }
            None => {
                this.finish();
                None
            }
            Some(Err(error)) => {
                this.lease = None;
                Some(Err(BodyError::Upstream(error)))
            }
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    filter_trailers(trailers);
                }
                this.return_at_end();
                Some(Ok(frame))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
