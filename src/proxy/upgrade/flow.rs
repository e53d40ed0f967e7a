//! One direction of a tunnel. What is read is written at once; only what the receiver does not take is
//! kept, and nothing more is read until it has been taken. An idle tunnel holds no buffer.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes read at once, and so the most that is kept per direction.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// Where this worker's tunnels are read to.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// One direction, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Read and not yet written.
    pending: Bytes,
    stage: Stage,
    received: u64,
    delivered: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// Something was written that the receiver's stream may still hold back.
    Unflushed,
    /// The sender has closed; the receiver is to be told.
    Ended,
    /// The receiver was told, or is gone.
    Done,
}

impl Flow {
    /// A direction in which these bytes wait already.
    pub(super) fn beginning_with(early: Bytes) -> Self {
        let received = early.len() as u64;
        Self { pending: early, received, ..Self::default() }
    }

    /// Bytes the sender has sent.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes the receiver has taken.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Carries what there is. Ready when the sender's end was passed on, or the receiver is gone: what
    /// it has sent before may still come the other way. An error is the sender's.
    pub(super) fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while self.stage != Stage::Done {
            if ready!(self.poll_write(cx, to)).is_err() {
                self.stage = Stage::Done;
                self.pending = Bytes::new();
                break;
            }
            if self.stage == Stage::Ended {
                // A receiver that is gone needs no telling.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.stage = Stage::Done;
                break;
            }
            ready!(self.poll_read(cx, from, to))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is pending and sees it off.
    fn poll_write<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(written);
            self.wrote(written);
        }
        // An emptied buffer still holds its memory.
        self.pending = Bytes::new();
        if self.stage == Stage::Unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.stage = Stage::Open;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes as much of it as is taken at once.
    fn poll_read<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|buffer| {
            let mut scratch = ReadBuf::new(buffer);
            ready!(Pin::new(from).poll_read(cx, &mut scratch))?;
            let read = scratch.filled();
            self.received += read.len() as u64;
            if read.is_empty() {
                self.stage = Stage::Ended;
                return Poll::Ready(Ok(()));
            }
            // What goes wrong here goes wrong again when the rest is written.
            let written = match Pin::new(to).poll_write(cx, read) {
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.wrote(written);
            self.pending = Bytes::copy_from_slice(&read[written..]);
            Poll::Ready(Ok(()))
        })
    }

    fn wrote(&mut self, written: usize) {
        self.delivered += written as u64;
        if written > 0 && self.stage == Stage::Open {
            self.stage = Stage::Unflushed;
        }
    }
}
