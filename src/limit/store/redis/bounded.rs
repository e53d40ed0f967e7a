//! A bound on what a server may send. Replies are small, and a reply that never ends would be collected
//! and searched for its end by the client library until memory or time run out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What may come unasked, handshake included, bytes.
const UNASKED: usize = 64 * 1024;
/// What may come for each byte of a command; replies are shorter than commands.
const PER_BYTE: usize = 8;
/// The most that is owed at once: more commands are never under way.
const OWED: usize = 1024 * 1024;

/// A stream that fails once the other side has sent much more than it was asked for.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    /// Bytes that may still come.
    allowed: usize,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, allowed: UNASKED }
    }

    fn asked(&mut self, bytes: usize) {
        self.allowed = self.allowed.saturating_add(bytes.saturating_mul(PER_BYTE)).min(OWED);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.allowed == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "more was sent than asked for")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.allowed = self.allowed.saturating_sub(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.asked(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.asked(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, join, repeat, sink};

    use super::*;

    #[tokio::test]
    async fn a_server_that_never_stops_sending_is_cut_off() {
        let mut stream = Bounded::new(join(repeat(b'x'), sink()));
        let mut buffer = [0; 4096];
        let mut received = 0;
        while let Ok(read) = stream.read(&mut buffer).await {
            received += read;
        }
        assert_eq!(received, UNASKED);
        stream.write_all(&[0; 1024]).await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 4096);
        stream.write_all(&vec![0; OWED]).await.unwrap();
        assert_eq!(stream.allowed, OWED);
    }
}
