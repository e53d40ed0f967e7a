//! A request counts as in flight until its response body is gone: the guard travels in the body.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::streams::Streams;
use crate::proxy::Downstream;
use crate::proxy::inbound::Gate;
use crate::telemetry::metrics::ConnectionState;

/// Who else wants to know of a request's end.
#[derive(Debug, Clone)]
pub(super) enum Side {
    /// The reader of an HTTP/1 connection, which holds the next head back until then.
    Http1(Arc<Gate>),
    /// The other streams of an HTTP/2 connection.
    Http2(Rc<Streams>),
    /// Nobody: the connection is a tunnel.
    Tunnel,
}

/// One request in flight; dropping it ends that.
#[derive(Debug)]
pub(super) struct InFlight {
    downstream: Rc<Downstream>,
    side: Side,
    /// Whether the body's last frame has not made room for another one (HTTP/2).
    waiting: bool,
}

impl InFlight {
    pub(super) fn new(downstream: Rc<Downstream>, side: Side) -> Self {
        let others = downstream.in_flight.get();
        downstream.in_flight.set(others + 1);
        if others == 0 {
            downstream.stats.became(downstream.listener.ordinal, ConnectionState::Active);
        }
        Self { downstream, side, waiting: false }
    }

    /// The connection it came on.
    pub(super) fn downstream(&self) -> &Rc<Downstream> {
        &self.downstream
    }

    fn asked(&mut self, waiting: bool) {
        if let Side::Http2(streams) = &self.side {
            streams.asked(self.waiting, waiting);
            self.waiting = waiting;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let left = self.downstream.in_flight.get().saturating_sub(1);
        self.downstream.in_flight.set(left);
        if left == 0 {
            self.downstream.stats.became(self.downstream.listener.ordinal, ConnectionState::Idle);
        }
        match &self.side {
            Side::Http1(gate) => gate.responded(),
            Side::Tunnel => {}
            Side::Http2(streams) => {
                if self.waiting {
                    streams.gave_up();
                }
                if left == 0 {
                    streams.idle();
                }
            }
        }
    }
}

pin_project! {
    /// A response body and the guard of its request.
    pub(super) struct Held<B> {
        #[pin]
        body: B,
        in_flight: InFlight,
    }
}

impl<B> Held<B> {
    pub(super) fn new(body: B, in_flight: InFlight) -> Self {
        Self { body, in_flight }
    }
}

impl<B: Body> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        this.in_flight.asked(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
