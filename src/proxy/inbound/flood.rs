//! Reading HTTP/2 frames past their guard, and what becomes of a connection that sent too many: the
//! client is told to calm down, gets a moment to read that, and is closed on.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::waiting::BUFFER;
use super::{Inbound, Stage};

/// How long a client may take to read why its connection ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Most bytes thrown away meanwhile.
const FAREWELL_BYTES: usize = 1024 * 1024;

impl Inbound {
    /// Reads frames, which are looked at on their way into hyper's buffer.
    pub(super) fn poll_frames(&mut self, cx: &mut Context<'_>, cursor: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let Stage::Open(guard) = &mut self.stage else { return Poll::Ready(Ok(())) };
        let counted = BUFFER.with_borrow_mut(|buffer| {
            let len = buffer.len().min(cursor.remaining());
            let mut scratch = ReadBuf::new(&mut buffer[..len]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch))?;
            let counted = guard.received(scratch.filled());
            if counted.is_ok() {
                cursor.put_slice(scratch.filled());
            }
            Poll::Ready(Ok::<_, io::Error>(counted))
        });
        if ready!(counted)?.is_err() {
            if let Some(frame) = guard.farewell() {
                // Whoever does not read need not be told.
                let _ = Pin::new(&mut self.stream).poll_write(cx, &frame);
                let _ = Pin::new(&mut self.stream).poll_flush(cx);
            }
            self.calm_down();
        }
        Poll::Ready(Ok(()))
    }

    /// Hands nothing on any more.
    pub(super) fn calm_down(&mut self) {
        self.gate.flooded.store(true, Ordering::Relaxed);
        self.stage = Stage::Flooded(FAREWELL_BYTES);
        self.waiting.reset();
    }

    /// Throws away what still comes; ready with the end of the connection.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Stage::Flooded(left) = &mut self.stage else { return Poll::Pending };
        let end = || Poll::Ready(io::Error::new(io::ErrorKind::InvalidData, "too many HTTP/2 frames"));
        let deadline = self.waiting.since() + FAREWELL;
        loop {
            if self.timer.passed(cx, deadline) {
                return end();
            }
            let read = BUFFER.with_borrow_mut(|buffer| {
                let mut scratch = ReadBuf::new(buffer);
                let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch));
                Poll::Ready(read.map_or(0, |()| scratch.filled().len()))
            });
            let read = ready!(read);
            *left = left.saturating_sub(read);
            if read == 0 || *left == 0 {
                return end();
            }
        }
    }
}
