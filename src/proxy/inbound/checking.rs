//! From received bytes to bytes that may be handed on: the order of heads and bodies.

use std::sync::atomic::Ordering;

use bytes::Buf;

use super::chunked::Chunked;
use super::head::{Framing, HeadParser};
use super::{Inbound, Stage};

/// Largest head and body, together, of which hyper surely drops an unread body in one read.
const DRAINED: usize = 8 * 1024;

impl Inbound {
    /// Checks what is pending; true when bytes were cleared or the stage changed.
    pub(super) fn advance(&mut self) -> bool {
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
            Stage::Open(guard) => {
                let len = self.pending.len();
                if guard.received(&self.pending).is_err() {
                    self.calm_down();
                    return true;
                }
                self.cleared = len;
                len > 0
            }
            Stage::Refused(_) | Stage::Broken(_) | Stage::Flooded(_) | Stage::Expired => false,
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
                let cleared = head.len + usize::try_from(here).unwrap_or(0);
                let open = length > here || (length > 0 && cleared > DRAINED);
                self.let_through(cleared, Stage::Length(length - here), open);
                self.waiting.received(here);
            }
            Framing::Chunked if head.expects => self.let_through(head.len, Stage::Chunked(Chunked::default()), true),
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
        self.let_through(cleared, Stage::Chunked(body), true);
        true
    }

    /// Clears a head and what of its body was checked with it; `open` when hyper could not drop the
    /// rest of the body in passing.
    fn let_through(&mut self, cleared: usize, body: Stage, open: bool) {
        self.cleared = cleared;
        self.stage = body;
        self.responding = true;
        self.skipped_line = false;
        self.fresh = false;
        self.waiting.reset();
        self.gate.busy.store(true, Ordering::Relaxed);
        self.gate.open.store(open, Ordering::Relaxed);
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
    pub(super) fn end_message(&mut self) {
        let ended = match &self.stage {
            Stage::Length(left) => *left == 0,
            Stage::Chunked(body) => body.done(),
            _ => false,
        };
        if ended {
            self.stage = Stage::Head(HeadParser::default());
            self.waiting.reset();
        }
    }
}
