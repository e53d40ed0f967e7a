//! Between the socket and hyper: lets one strictly valid HTTP/1 request head through at a time,
//! follows the framing to the next one, and owns the connection's clocks.
//!
//! # What passes
//!
//! Bytes are read into a small buffer, checked by `head` and `chunked`, and only what was
//! checked is handed to hyper. Data whose end is known (a Content-Length body, the inside of a
//! chunk) is read straight into hyper's buffer. The next head waits until the response before it
//! has been written, so a refused head never harms an earlier request: hyper sees an orderly end of
//! the connection, and [`super::connection`] answers for the refused one.
//!
//! # Clients that leave
//!
//! A reset is passed on at once, and hyper drops the request in flight. A FIN alone may mean either
//! "I am gone" or "that was my last request, I am reading": TCP does not tell. So the answer is
//! waited for a short while ([`Clocks::half_closed`]); once response bytes flow, the client's
//! kernel answers them with a reset if nobody is there. No read tells of that reset, nor of a FIN behind
//! bytes that are not wanted yet: the socket's state is looked at now and then. This is why hyper's own
//! `half_close` stays off: with it on, hyper would stop reading and never see the reset either.

mod checking;
mod chunked;
mod clock;
mod flood;
mod frames;
mod head;
mod refusal;
mod waiting;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::transport::Transport;
use chunked::Chunked;
pub use clock::{BodyClock, Clocks, Pace};
use clock::{Timer, Waiting};
use frames::FrameGuard;
use head::HeadParser;
pub use refusal::Refusal;

/// Largest empty buffer worth keeping, bytes.
const SMALL: usize = 4 * 1024;

/// What the two sides of hyper, this reader and the service, tell each other. All accesses are from
/// one thread; atomics so that the reader stays `Send`, as wrappers of it may want.
#[derive(Debug, Default)]
pub struct Gate {
    /// A request was let through and its response has not been produced to its end.
    busy: AtomicBool,
    /// The request's body has not been read to its end, and may never be.
    open: AtomicBool,
    /// The connection is too old for another request.
    retired: AtomicBool,
    /// The connection speaks another protocol behind the current response: no head is read any more.
    switched: AtomicBool,
    /// The client sent HTTP/2 frames without end.
    flooded: AtomicBool,
}

impl Gate {
    /// The response was produced to its end (or dropped).
    pub fn responded(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }

    /// The current response is a 101.
    pub fn switch(&self) {
        self.switched.store(true, Ordering::Relaxed);
    }

    /// Whether the current request's body would be left unread by an answer now.
    #[must_use]
    pub fn body_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the connection is to end with the next response.
    #[must_use]
    pub fn retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether the connection ended because of too many HTTP/2 frames.
    #[must_use]
    pub fn flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }
}

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Like HTTP/1.
    Http1,
    /// With the HTTP/2 preface.
    Http2,
    /// It ended, or nothing came in time.
    Nothing,
}

/// Where the reader is in the connection's bytes.
#[derive(Debug)]
enum Stage {
    /// Before or in a head.
    Head(HeadParser),
    /// Behind the head (`head` bytes) of a chunked request, `read` bytes into its first size line.
    FirstChunk { head: usize, read: usize, body: Chunked },
    /// In a body of this many more bytes.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunked),
    /// A head was refused: hyper is told that the connection ended.
    Refused(Refusal),
    /// A body turned out bad: hyper is told of an error.
    Broken(Refusal),
    /// HTTP/2: everything passes, and is counted.
    Open(Box<FrameGuard>),
    /// HTTP/2: too much of it passed. What still comes is thrown away for a moment (so many bytes), so
    /// that the client can read why.
    Flooded(usize),
    /// Idle for too long, or never used.
    Expired,
}

/// The reader and writer hyper gets instead of the socket.
#[derive(Debug)]
pub struct Inbound {
    stream: Transport,
    gate: Arc<Gate>,
    stage: Stage,
    /// Received and not yet handed on.
    pending: BytesMut,
    /// How many bytes of `pending` may be handed on.
    cleared: usize,
    /// A request was let through whose response is not written.
    responding: bool,
    /// Whether an empty line was skipped before the current head.
    skipped_line: bool,
    /// The client closed its sending side.
    ended: bool,
    /// The same, whether or not all of it was read.
    said_all: bool,
    /// Response bytes were written after that.
    wrote_since: bool,
    max_head: usize,
    clocks: Clocks,
    timer: Timer,
    waiting: Waiting,
    write_since: Option<Instant>,
    opened: Instant,
    /// No head was let through so far.
    fresh: bool,
}

impl Inbound {
    /// Wraps a client's connection; heads of more than `max_head` bytes are refused.
    #[must_use]
    pub fn new(stream: Transport, max_head: usize, clocks: Clocks) -> Self {
        let mut waiting = Waiting::default();
        let opened = waiting.since();
        Self {
            stream,
            gate: Arc::default(),
            stage: Stage::Head(HeadParser::default()),
            pending: BytesMut::new(),
            cleared: 0,
            responding: false,
            skipped_line: false,
            ended: false,
            said_all: false,
            wrote_since: false,
            max_head,
            clocks,
            timer: Timer::default(),
            waiting,
            write_since: None,
            opened,
            fresh: true,
        }
    }

    /// What the service shares with this reader.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Waits for as many bytes as tell HTTP/2 from HTTP/1.
    pub async fn opening(&mut self) -> Opening {
        std::future::poll_fn(|cx| self.poll_opening(cx)).await
    }

    /// From now on everything passes unchecked, as HTTP/2 needs it; only stalled writes are timed, and
    /// frames counted.
    pub fn open_up(&mut self) {
        self.stage = Stage::Open(Box::new(FrameGuard::new()));
    }

    /// Refuses whatever comes, as a listener does that does not speak the client's protocol.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.stage = Stage::Refused(refusal);
    }

    /// The refused head that is still to be answered.
    #[must_use]
    pub fn refused(&self) -> Option<Refusal> {
        if let Stage::Refused(refusal) = self.stage { Some(refusal) } else { None }
    }

    /// The error that broke a request's body; its handler has answered, if anyone has.
    #[must_use]
    pub fn broken(&self) -> Option<Refusal> {
        if let Stage::Broken(refusal) = self.stage { Some(refusal) } else { None }
    }

    /// Whether the client may still be sending something nobody will read.
    #[must_use]
    pub fn unread(&self) -> bool {
        let between = matches!(&self.stage, Stage::Head(_) | Stage::Expired) && self.pending.is_empty();
        !self.ended && !between
    }

    /// The connection, for its last words.
    #[must_use]
    pub fn into_stream(self) -> Transport {
        self.stream
    }

    /// The connection, and what came on it that nobody has read as HTTP.
    #[must_use]
    pub fn into_parts(self) -> (Transport, BytesMut) {
        (self.stream, self.pending)
    }

    fn hand_on(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let len = self.cleared.min(cursor.remaining());
        cursor.put_slice(&self.pending[..len]);
        self.pending.advance(len);
        self.cleared -= len;
        if self.pending.is_empty() && self.pending.capacity() > SMALL {
            self.pending = BytesMut::new();
        }
    }

    /// Notes what became of a write; a write that made no progress for too long is an error.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(result) => {
                self.write_since = None;
                self.wrote_since |= self.said_all;
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_stalled(cx).map(Err),
        }
    }

    /// Tells the frame guard of the first `len` bytes of what was to be written.
    fn note_sent(&mut self, mut len: usize, slices: &[io::IoSlice<'_>]) {
        let Stage::Open(guard) = &mut self.stage else { return };
        for slice in slices {
            let sent = len.min(slice.len());
            guard.sent(&slice[..sent]);
            len -= sent;
        }
    }

    /// Sees written bytes off: TLS may still hold some of them.
    fn poll_flush_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() { self.poll_stalled(cx).map(Err) } else { flushed }
    }

    /// The client takes nothing: ready once it has taken nothing for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.write_since.get_or_insert_with(Instant::now);
        if self.timer.passed(cx, since + self.clocks.write) {
            return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "stalled write"));
        }
        Poll::Pending
    }
}

impl Read for Inbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.cleared > 0 {
                this.hand_on(&mut cursor);
                return Poll::Ready(Ok(()));
            }
            match this.stage {
                Stage::Head(_) if this.responding => return this.poll_watch(cx),
                Stage::Refused(_) | Stage::Expired => return Poll::Ready(Ok(())),
                Stage::Broken(refusal) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
                }
                Stage::Flooded(_) => return this.poll_discard(cx).map(Err),
                _ => {}
            }
            if this.advance() {
                continue;
            }
            if matches!(this.stage, Stage::Open(_)) {
                match ready!(this.poll_frames(cx, &mut cursor)) {
                    Ok(()) if matches!(this.stage, Stage::Flooded(_)) => continue,
                    read => return Poll::Ready(read),
                }
            }
            let unchecked = this.unchecked();
            if unchecked == 0 {
                ready!(this.poll_more(cx))?;
                continue;
            }
            let read = this.poll_direct(cx, cursor, unchecked);
            if read.is_pending() && this.poll_clock(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, Refusal::BodyTimeout)));
            }
            return read;
        }
    }
}

impl Write for Inbound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(len)) = written {
            this.note_sent(len, &[io::IoSlice::new(bytes)]);
        }
        this.written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(len)) = written {
            this.note_sent(len, slices);
        }
        this.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when everything it had was written: the moment a finished response is seen.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_flush_stream(cx))?;
        let finished =
            this.responding && matches!(this.stage, Stage::Head(_)) && !this.gate.busy.load(Ordering::Relaxed);
        if finished && !this.gate.switched.load(Ordering::Relaxed) {
            this.responding = false;
            this.waiting.reset();
            // hyper reads the next head only when woken: by what is here already, by the socket, or
            // by the idle clock, which begins now.
            if this.ended || !this.pending.is_empty() || this.head_overdue(cx) {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// HTTP/1 connections are closed by [`super::connection`], after an answer to a refused head.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.stage, Stage::Open(_) | Stage::Flooded(_)) {
            Pin::new(&mut this.stream).poll_shutdown(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}
