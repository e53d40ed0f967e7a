//! A client's socket, TCP or Unix, with what was read from it before anyone knew what it speaks.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The client's end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, or as the PROXY protocol tells.
    Address(SocketAddr),
    /// A process of this machine, over a Unix socket: it has no address.
    Unix,
}

/// What the kernel knows of a client, whatever is still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Open,
    /// It sends no more. It may still be reading.
    SaidAll,
    /// Nobody is there.
    Gone,
}

/// A socket, read through what is there already.
#[derive(Debug)]
pub struct Socket {
    wire: Wire,
    /// Read and not yet handed on.
    early: BytesMut,
}

#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Peer {
    /// Its address, IPv4-mapped IPv6 as IPv4.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl Socket {
    /// Our end of it, where it has an address.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        match &self.wire {
            Wire::Tcp(stream) => stream.local_addr().ok(),
            Wire::Unix(_) => None,
        }
    }

    /// What has come and nobody has read.
    #[must_use]
    pub fn early(&self) -> &[u8] {
        &self.early
    }

    /// Waits for more, up to `max` bytes in all; false when the client has closed, or there are so many.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn wait_for_more(&mut self, max: usize) -> io::Result<bool> {
        let room = max.saturating_sub(self.early.len());
        // At once: a first message is to take one read, not one per few bytes.
        self.early.reserve(room);
        let mut limited = bytes::BufMut::limit(&mut self.early, room);
        let read = match &mut self.wire {
            Wire::Tcp(stream) => stream.read_buf(&mut limited).await?,
            Wire::Unix(stream) => stream.read_buf(&mut limited).await?,
        };
        Ok(read > 0)
    }

    /// Drops so many bytes of what has come.
    pub fn skip(&mut self, bytes: usize) {
        self.early.advance(bytes);
    }

    /// How the client stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        // A socket that may be written to is ready, and says so at once; one that may not is full, not gone.
        let either = Interest::READABLE | Interest::WRITABLE;
        let ready = match &self.wire {
            Wire::Tcp(stream) => at_once(stream.ready(either)),
            Wire::Unix(stream) => at_once(stream.ready(either)),
        };
        match ready {
            Poll::Ready(Ok(ready)) if ready.is_write_closed() => Standing::Gone,
            Poll::Ready(Ok(ready)) if ready.is_read_closed() => Standing::SaidAll,
            Poll::Ready(Err(_)) => Standing::Gone,
            Poll::Ready(Ok(_)) | Poll::Pending => Standing::Open,
        }
    }

    /// Small writes are sent at once.
    pub fn set_nodelay(&self) {
        if let Wire::Tcp(stream) = &self.wire {
            // Fails only on a socket that is already gone, which the first read will tell.
            let _ = stream.set_nodelay(true);
        }
    }

    /// A client that is silent for so long is probed. Those of this machine cannot vanish without a word.
    pub fn set_keepalive(&self, after: Duration) {
        if let Wire::Tcp(stream) = &self.wire {
            let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(after));
        }
    }

    /// Makes the close that follows a reset, where there is such a thing.
    pub fn reset_on_close(&self) {
        if let Wire::Tcp(stream) = &self.wire {
            let _ = stream.set_zero_linger();
        }
    }
}

/// What a future says at once.
fn at_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self { wire: Wire::Tcp(stream), early: BytesMut::new() }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { wire: Wire::Unix(stream), early: BytesMut::new() }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let len = this.early.len().min(buffer.remaining());
            buffer.put_slice(&this.early[..len]);
            this.early.advance(len);
            if this.early.is_empty() {
                this.early = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut this.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Wire::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
