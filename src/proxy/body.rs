//! Bodies of responses towards the client: one enum, nothing boxed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// A response body.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// An answer of our own.
    Full(Option<Bytes>),
}

/// Why a body ended early; its text never reaches a client.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's response broke off.
    #[error("upstream response broke off: {0}")]
    Upstream(#[source] hyper::Error),
    /// The upstream sent nothing for too long.
    #[error("upstream response stalled")]
    Stalled,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty | Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
        }
    }
}
