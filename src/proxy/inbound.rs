//! Between the socket and hyper: lets one strictly valid HTTP/1 request head through at a time,
//! follows the framing to the next one, and owns the connection's clocks.
//!
//! # What passes
//!
//! Bytes are read into a small buffer, checked by [`head`] and [`chunked`], and only what was
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
//! kernel answers them with a reset if nobody is there. This is why hyper's own `half_close` stays
//! off: with it on, hyper would stop reading and never see the reset either.

mod chunked;
mod clock;
mod head;
mod refusal;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use chunked::Chunked;
pub use clock::Clocks;
use clock::{Timer, Waiting};
use head::{Framing, HeadParser};
pub use refusal::Refusal;

/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read from a socket at once, unless straight into hyper's buffer.
const SCRATCH: usize = 16 * 1024;
/// Most bytes buffered while a response is being written; a larger buffer than
/// [`SMALL`] is given back when it is empty.
const AHEAD: usize = 16 * 1024;
/// Largest empty buffer worth keeping, bytes.
const SMALL: usize = 4 * 1024;

thread_local! {
    /// Where this worker's sockets are read to before the connection keeps what arrived.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// What the two sides of hyper, this reader and the service, tell each other. All accesses are from
/// one thread; atomics because hyper's upgrades want the reader to be `Send`.
#[derive(Debug, Default)]
pub struct Gate {
    /// A request was let through and its response has not been produced to its end.
    busy: AtomicBool,
    /// The request's body has not arrived to its end.
    open: AtomicBool,
    /// The connection is too old for another request.
    retired: AtomicBool,
}

impl Gate {
    /// The response was produced to its end (or dropped).
    pub fn responded(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }

    /// Whether body bytes of the current request have yet to arrive.
    #[must_use]
    pub fn body_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the connection is to end with the next response.
    #[must_use]
    pub fn retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
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
    /// HTTP/2: everything passes.
    Open,
    /// Idle for too long, or never used.
    Expired,
}

/// The reader and writer hyper gets instead of the socket.
#[derive(Debug)]
pub struct Inbound {
    stream: TcpStream,
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
    /// Wraps an accepted socket; heads of more than `max_head` bytes are refused.
    #[must_use]
    pub fn new(stream: TcpStream, max_head: usize, clocks: Clocks) -> Self {
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

    /// From now on everything passes unchecked, as HTTP/2 needs it; only stalled writes are timed.
    pub fn open_up(&mut self) {
        self.stage = Stage::Open;
        self.cleared = self.pending.len();
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

    /// The socket, for the connection's last words.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<Opening> {
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

    /// Checks what is pending; true when bytes were cleared or the stage changed.
    fn advance(&mut self) -> bool {
        match &mut self.stage {
            Stage::Head(_) => self.advance_head(),
            Stage::FirstChunk { .. } => self.advance_first_chunk(),
            Stage::Length(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(self.pending.len());
                *left -= len as u64;
                self.cleared = len;
                self.received(len)
            }
            Stage::Chunked(body) => match body.read(&self.pending) {
                Ok(len) => {
                    self.cleared = len;
                    self.received(len)
                }
                Err(refusal) => {
                    self.stage = Stage::Broken(refusal);
                    true
                }
            },
            Stage::Open => {
                self.cleared = self.pending.len();
                self.cleared > 0
            }
            Stage::Refused(_) | Stage::Broken(_) | Stage::Expired => false,
        }
    }

    fn advance_head(&mut self) -> bool {
        if !self.skipped_line && self.pending.starts_with(b"\r\n") {
            self.skipped_line = true;
            self.pending.advance(2);
        }
        // A lone CR may become the empty line that is skipped.
        if self.pending.is_empty() || (!self.skipped_line && self.pending[..] == *b"\r") {
            return false;
        }
        let Stage::Head(parser) = &mut self.stage else { return false };
        let head = match parser.read(&self.pending, self.max_head) {
            Ok(Some(head)) => head,
            Ok(None) => return false,
            Err(refusal) => {
                self.stage = Stage::Refused(refusal);
                return true;
            }
        };
        match head.framing {
            Framing::Length(length) => {
                // A body that is here already goes along with its head.
                let here = length.min((self.pending.len() - head.len) as u64);
                self.let_through(head.len + usize::try_from(here).unwrap_or(0), Stage::Length(length - here));
                self.waiting.received(here);
            }
            Framing::Chunked if head.expects => self.let_through(head.len, Stage::Chunked(Chunked::default())),
            Framing::Chunked => {
                self.stage = Stage::FirstChunk { head: head.len, read: 0, body: Chunked::default() };
            }
        }
        true
    }

    fn advance_first_chunk(&mut self) -> bool {
        let Stage::FirstChunk { head, read, body } = &mut self.stage else { return false };
        match body.read(&self.pending[*head + *read..]) {
            Ok(len) => *read += len,
            Err(refusal) => {
                self.stage = Stage::Refused(refusal);
                return true;
            }
        }
        if !body.began() {
            return false;
        }
        let (cleared, body) = (*head + *read, std::mem::take(body));
        self.let_through(cleared, Stage::Chunked(body));
        true
    }

    /// Clears a head and what of its body was checked with it.
    fn let_through(&mut self, cleared: usize, body: Stage) {
        self.cleared = cleared;
        self.stage = body;
        self.responding = true;
        self.skipped_line = false;
        self.fresh = false;
        self.waiting.reset();
        self.gate.busy.store(true, Ordering::Relaxed);
        self.gate.open.store(true, Ordering::Relaxed);
        self.end_message();
    }

    /// Notes body bytes; true when there were any.
    fn received(&mut self, len: usize) -> bool {
        if len > 0 {
            self.waiting.received(len as u64);
            self.end_message();
        }
        len > 0
    }

    /// Turns to the next head when the body has been seen to its end.
    fn end_message(&mut self) {
        let ended = match &self.stage {
            Stage::Length(left) => *left == 0,
            Stage::Chunked(body) => body.done(),
            _ => false,
        };
        if ended {
            self.stage = Stage::Head(HeadParser::default());
            self.gate.open.store(false, Ordering::Relaxed);
            self.waiting.reset();
        }
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

    /// Bytes that may be read straight into hyper's buffer.
    fn unchecked(&self) -> u64 {
        match &self.stage {
            Stage::Length(left) => *left,
            Stage::Chunked(body) => body.data_left(),
            Stage::Open => u64::MAX,
            _ => 0,
        }
    }

    fn poll_direct(&mut self, cx: &mut Context<'_>, cursor: ReadBufCursor<'_>, limit: u64) -> Poll<io::Result<()>> {
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
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ended && self.pending.len() < AHEAD {
            ready!(self.poll_fill(cx))?;
        }
        if self.ended && self.pending.is_empty() && !self.wrote_since {
            let deadline = self.waiting.since() + self.clocks.half_closed;
            if self.timer.passed(cx, deadline) {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    /// Whether the head (or the pause before it) has taken too long; the stage then says so.
    fn head_overdue(&mut self, cx: &mut Context<'_>) -> bool {
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
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let overdue = match self.stage {
            Stage::Head(_) | Stage::FirstChunk { .. } => self.head_overdue(cx),
            Stage::Length(_) | Stage::Chunked(_) => {
                let deadline = self.waiting.body_deadline(&self.clocks);
                let overdue = self.timer.passed(cx, deadline);
                if overdue {
                    self.stage = Stage::Broken(Refusal::BodyTimeout);
                }
                overdue
            }
            Stage::Refused(_) | Stage::Broken(_) | Stage::Open | Stage::Expired => false,
        };
        if overdue { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Notes what became of a write; a write that made no progress for too long is an error.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(result) => {
                self.write_since = None;
                self.wrote_since |= self.ended;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let since = *self.write_since.get_or_insert_with(Instant::now);
                if self.timer.passed(cx, since + self.clocks.write) {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "stalled write")));
                }
                Poll::Pending
            }
        }
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
                _ => {}
            }
            if this.advance() {
                continue;
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
        this.written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when everything it had was written: the moment a finished response is seen.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.responding && matches!(this.stage, Stage::Head(_)) && !this.gate.busy.load(Ordering::Relaxed) {
            this.responding = false;
            this.waiting.reset();
            // hyper asks for the next head only when woken.
            if this.ended || !this.pending.is_empty() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// HTTP/1 connections are closed by [`super::connection`], after an answer to a refused head.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.stage, Stage::Open) {
            Pin::new(&mut this.stream).poll_shutdown(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}
