//! A server has only so much to say before its answer. hyper reads over informational
//! heads (RFC 9110 §15.2) for as long as they come, without a bound and without a pause.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::connection::MAX_BUFFER;
use super::overheard::Listens;

/// Most bytes that are read between a request and the head of its response. That head fits into one
/// buffer; with it comes the beginning of its body, in at most two more.
const MOST: usize = 4 * MAX_BUFFER;

/// No head is waited for: whatever comes is read.
const ANY: usize = usize::MAX;

/// What a server may still say before its answer, in bytes. It is used by one thread; a connection that
/// changes its protocol has to be `Send`.
#[derive(Debug)]
pub(super) struct Prelude(AtomicUsize);

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

impl Listens for Arc<Prelude> {
    fn may_read(&self) -> io::Result<()> {
        if self.is_over() {
            return Err(io::Error::other("too many informational heads before the answer"));
        }
        Ok(())
    }

    fn heard(&self, bytes: usize) {
        self.read(bytes);
    }
}
