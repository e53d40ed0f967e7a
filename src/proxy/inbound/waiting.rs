//! Reading from the socket, and what happens when there is nothing to read: the read clocks.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Instant;

use super::super::socket::Standing;
use super::{Inbound, Opening, Refusal, Stage};

/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read from a socket at once, unless straight into hyper's buffer.
const SCRATCH: usize = 16 * 1024;
/// Most bytes buffered while a response is being written, before one more read.
const AHEAD: usize = 16 * 1024;
/// How often a client that sends no more, or more than is read, is looked after while it is answered.
const LOOK: Duration = Duration::from_secs(1);

thread_local! {
    /// Where this worker's sockets are read to before the connection keeps what arrived.
    pub(super) static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

impl Inbound {
    pub(super) fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<Opening> {
        loop {
            let start = &self.pending[..self.pending.len().min(PREFACE.len())];
            if start == PREFACE {
                return Poll::Ready(Opening::Http2);
            }
            if !start.is_empty() && !PREFACE.starts_with(start) {
                return Poll::Ready(Opening::Http1);
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) if self.pending.is_empty() => return Poll::Ready(Opening::Nothing),
                Poll::Ready(Ok(0)) => return Poll::Ready(Opening::Http1),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Opening::Nothing),
                Poll::Pending if !self.head_overdue(cx) => return Poll::Pending,
                Poll::Pending if self.pending.is_empty() => return Poll::Ready(Opening::Nothing),
                Poll::Pending => return Poll::Ready(Opening::Http1),
            }
        }
    }

    /// Reads once from the socket to the end of `pending`; 0 is the end of the client's bytes.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let read = BUFFER.with_borrow_mut(|buffer| {
            let mut scratch = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch))?;
            self.pending.extend_from_slice(scratch.filled());
            Poll::Ready(Ok::<_, io::Error>(scratch.filled().len()))
        });
        let read = ready!(read)?;
        self.ended = read == 0;
        Poll::Ready(Ok(read))
    }

    /// Bytes that may be read straight into hyper's buffer.
    pub(super) fn unchecked(&self) -> u64 {
        match &self.stage {
            Stage::Length(left) => *left,
            Stage::Chunked(body) => body.data_left(),
            _ => 0,
        }
    }

    pub(super) fn poll_direct(
        &mut self,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
        limit: u64,
    ) -> Poll<io::Result<()>> {
        let mut limited = (&mut self.stream).take(limit);
        ready!(Pin::new(&mut TokioIo::new(&mut limited)).poll_read(cx, cursor))?;
        let read = limit - limited.limit();
        self.ended = read == 0;
        match &mut self.stage {
            Stage::Length(left) => *left -= read,
            Stage::Chunked(body) if read > 0 => body.skip(read),
            _ => return Poll::Ready(Ok(())),
        }
        self.waiting.received(read);
        self.end_message();
        Poll::Ready(Ok(()))
    }

    /// While a response is being written: reads ahead a little, so that a client that leaves is seen.
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper looks beyond a message only when it has read all of it.
        self.gate.open.store(false, Ordering::Relaxed);
        while !self.ended && self.pending.len() < AHEAD {
            ready!(self.poll_fill(cx))?;
        }
        // From here on no read tells what becomes of the client: all was read, or no more of it is wanted.
        self.said_all = match self.stream.socket().standing() {
            Standing::Gone => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Standing::SaidAll => true,
            Standing::Open => self.ended,
        };
        if self.said_all && !self.wrote_since {
            let deadline = self.waiting.since() + self.clocks.half_closed;
            if self.timer.passed(cx, deadline) {
                return Poll::Ready(Ok(()));
            }
        }
        if self.timer.passed(cx, Instant::now() + LOOK) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Whether the head (or the pause before it) has taken too long; the stage then says so.
    pub(super) fn head_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.pending.is_empty() && !self.fresh;
        let since = self.waiting.since();
        if idle && since.duration_since(self.opened) > self.clocks.age {
            self.gate.retired.store(true, Ordering::Relaxed);
        }
        if !self.timer.passed(cx, since + if idle { self.clocks.idle } else { self.clocks.head }) {
            return false;
        }
        let silent = self.pending.is_empty();
        self.stage = if silent { Stage::Expired } else { Stage::Refused(Refusal::HeadTimeout) };
        true
    }

    /// Waits for more of a head or body.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let between = self.pending.is_empty();
        match self.poll_fill(cx) {
            Poll::Ready(Ok(0)) => {
                let head = matches!(self.stage, Stage::Head(_) | Stage::FirstChunk { .. });
                if head && !between {
                    self.stage = Stage::Refused(Refusal::Incomplete);
                } else {
                    self.stage = Stage::Expired;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(_)) => {
                if between && !self.fresh && matches!(self.stage, Stage::Head(_)) {
                    self.waiting.reset();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_clock(cx),
        }
    }

    pub(super) fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let overdue = match self.stage {
            Stage::Head(_) | Stage::FirstChunk { .. } => self.head_overdue(cx),
            Stage::Length(_) | Stage::Chunked(_) => {
                let deadline = self.waiting.body_deadline(self.clocks.pace());
                let overdue = self.timer.passed(cx, deadline);
                if overdue {
                    self.stage = Stage::Broken(Refusal::BodyTimeout);
                }
                overdue
            }
            Stage::Refused(_) | Stage::Broken(_) | Stage::Open(_) | Stage::Flooded(_) | Stage::Expired => false,
        };
        if overdue { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
