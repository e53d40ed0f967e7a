//! A stream on which a server has only so much to say before its answer. hyper reads over informational
//! heads (RFC 9110 §15.2) for as long as they come, without a bound and without a pause.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::MAX_BUFFER;
use crate::upstream::stream::Stream;

/// Most bytes that are read between a request and the head of its response. That head fits into one
/// buffer; with it comes the beginning of its body, in at most two more.
const MOST: usize = 4 * MAX_BUFFER;

/// No head is waited for: whatever comes is read.
const ANY: usize = usize::MAX;

/// What a server may still say before its answer, in bytes. It is used by one thread; a connection that
/// changes its protocol has to be `Send`.
#[derive(Debug)]
pub(super) struct Prelude(AtomicUsize);

/// The stream of a connection of HTTP/1.
#[derive(Debug)]
pub(super) struct Bounded {
    stream: Stream,
    prelude: Arc<Prelude>,
}

impl Prelude {
    /// A head is waited for.
    pub(super) fn begin(&self) {
        self.0.store(MOST, Ordering::Relaxed);
    }

    /// It came.
    pub(super) fn end(&self) {
        self.0.store(ANY, Ordering::Relaxed);
    }

    /// Whether too much came in its stead.
    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn read(&self, bytes: usize) {
        let left = self.0.load(Ordering::Relaxed);
        if left != ANY {
            self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
    }
}

impl Default for Prelude {
    fn default() -> Self {
        Self(AtomicUsize::new(ANY))
    }
}

impl Bounded {
    pub(super) fn new(stream: Stream, prelude: &Arc<Prelude>) -> Self {
        Self { stream, prelude: Arc::clone(prelude) }
    }

    /// The stream without a bound.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prelude.is_over() {
            return Poll::Ready(Err(io::Error::other("too many informational heads before the answer")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        this.prelude.read(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
