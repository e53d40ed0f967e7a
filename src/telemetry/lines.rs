//! Lines on their way out of the process: a bounded queue and one thread that writes them, so that
//! a slow or closed output never holds a worker up.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How many lines may wait; one that finds the queue full is dropped and counted.
const CAPACITY: usize = 8_192;

/// How long [`Lines::flush`] waits for an output that takes nothing.
const FLUSH: Duration = Duration::from_secs(1);

/// A handle that enqueues lines. Cheap to clone; the thread ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Lines {
    /// To the thread that writes.
    queue: SyncSender<Item>,
    /// Lines lost so far: the queue was full or the output failed.
    dropped: Arc<AtomicU64>,
}

/// What the writing thread is told.
#[derive(Debug)]
enum Item {
    /// Write this.
    Line(Vec<u8>),
    /// Drop the sender when all before is written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts a thread of this name that writes to `output`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(thread: &str, output: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, items) = sync_channel(CAPACITY);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        std::thread::Builder::new().name(thread.to_owned()).spawn(move || write_all(&items, output, &lost))?;
        Ok(Self { queue, dropped })
    }

    /// Enqueues a whole line, its line feed included. Never blocks.
    pub fn send(&self, line: Vec<u8>) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything sent before is written, at most a second.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH;
        let (written, done) = sync_channel(0);
        let mut marker = Item::Flush(written);
        while let Err(full) = self.queue.try_send(marker) {
            let (std::sync::mpsc::TrySendError::Full(item) | std::sync::mpsc::TrySendError::Disconnected(item)) = full;
            if Instant::now() >= deadline {
                return;
            }
            marker = item;
            std::thread::sleep(Duration::from_millis(1));
        }
        // Either nobody answers in time, or the sender is dropped, which is the answer.
        let _ = done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    /// Lines lost so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Writes until every sender is gone; flushes whenever nothing more is waiting.
fn write_all(items: &Receiver<Item>, output: impl Write, lost: &AtomicU64) {
    let mut output = BufWriter::with_capacity(64 * 1024, output);
    while let Ok(first) = items.recv() {
        let mut unflushed = 0;
        for item in std::iter::once(first).chain(items.try_iter()) {
            let result = match item {
                Item::Line(line) => {
                    unflushed += 1;
                    output.write_all(&line)
                }
                Item::Flush(written) => {
                    let flushed = output.flush();
                    drop(written);
                    flushed
                }
            };
            if result.is_err() {
                lost.fetch_add(std::mem::take(&mut unflushed), Ordering::Relaxed);
            }
        }
        if output.flush().is_err() {
            lost.fetch_add(unflushed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.bytes().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_flush_returns_after_every_line_sent_before_it() {
        let output = Shared::default();
        let lines = Lines::start("test", output.clone()).unwrap();
        for number in 0..1_000 {
            lines.send(format!("{number}\n").into_bytes());
        }
        lines.flush();
        assert_eq!(String::from_utf8_lossy(&output.bytes()).lines().count(), 1_000);
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn lines_to_a_closed_output_are_counted_and_harm_nobody() {
        let lines = Lines::start("test", Closed).unwrap();
        for _ in 0..10 {
            lines.send(b"lost\n".to_vec());
        }
        lines.flush();
        lines.flush();
        assert_eq!(lines.dropped(), 10);
    }
}
