//! A stream on which somebody listens to what the server says.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::upstream::stream::Stream;

/// Who listens.
pub(super) trait Listens {
    /// Whether more is read.
    fn may_read(&self) -> io::Result<()> {
        Ok(())
    }

    /// So many bytes were read; 0 at the end.
    fn heard(&self, bytes: usize);
}

/// Who waits for a server's first word is woken: a server of HTTP/2 begins with SETTINGS, and until they are there
/// nobody knows how many requests it takes. All of it runs on one thread, so the word has been made sense of by then.
impl Listens for Rc<Notify> {
    fn heard(&self, _: usize) {
        self.notify_waiters();
    }
}

/// The stream.
#[derive(Debug)]
pub(super) struct Overheard<L> {
    stream: Stream,
    listener: L,
}

impl<L> Overheard<L> {
    pub(super) fn new(stream: Stream, listener: L) -> Self {
        Self { stream, listener }
    }

    /// The stream alone.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl<L: Listens + Unpin> AsyncRead for Overheard<L> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.listener.may_read()?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            this.listener.heard(buffer.filled().len() - before);
        }
        polled
    }
}

impl<L: Unpin> AsyncWrite for Overheard<L> {
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
