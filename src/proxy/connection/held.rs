//! A request counts as in flight until its response body is gone: the guard travels in the body.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::proxy::Downstream;
use crate::proxy::inbound::Gate;

/// One request in flight; dropping it ends that.
#[derive(Debug)]
pub(super) struct InFlight {
    downstream: Rc<Downstream>,
    gate: Option<Arc<Gate>>,
    idle_since: Option<Rc<Cell<Instant>>>,
}

impl InFlight {
    pub(super) fn new(downstream: Rc<Downstream>, gate: Option<Arc<Gate>>) -> Self {
        downstream.in_flight.set(downstream.in_flight.get() + 1);
        Self { downstream, gate, idle_since: None }
    }

    /// The last of several requests notes here when the connection became idle.
    pub(super) fn until_idle(mut self, idle_since: Rc<Cell<Instant>>) -> Self {
        self.idle_since = Some(idle_since);
        self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let left = self.downstream.in_flight.get().saturating_sub(1);
        self.downstream.in_flight.set(left);
        if let Some(gate) = &self.gate {
            gate.responded();
        }
        if let (0, Some(idle_since)) = (left, &self.idle_since) {
            idle_since.set(Instant::now());
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
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
