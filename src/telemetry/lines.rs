//! Lines on their way out of the process: a bounded queue and one thread that writes them, so that
//! a slow, full or closed output never holds a worker up. What is lost is counted, and told once.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How many lines may wait; one that finds the queue full is dropped and counted.
const CAPACITY: usize = 8_192;

/// Bytes that are written together at most, but for a single longer line.
const TOGETHER: usize = 64 * 1024;

/// How long [`Lines::flush`] waits for an output that takes nothing.
const FLUSH: Duration = Duration::from_secs(1);

/// No line was lost for so long: the trouble is over.
const CALM: Duration = Duration::from_secs(10);

/// Where lines go.
pub trait Output: Write + Send + 'static {
    /// Opens it anew, where it is a file that may have been moved away.
    ///
    /// # Errors
    /// When that fails; then it goes on as it is.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for File {}
impl Output for io::Stderr {}
impl Output for io::Sink {}

/// A handle that enqueues lines. Cheap to clone; the thread ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Lines {
    /// To the thread that writes.
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
}

/// What handles and the thread both know.
#[derive(Debug, Default)]
struct Shared {
    /// What the log is called.
    log: String,
    /// Lines lost so far: the queue was full or the output failed.
    dropped: AtomicU64,
    /// Whether losses were told: how many lines had been lost before, plus one; 0 when not.
    told: AtomicU64,
    /// Whether the output is to be opened anew.
    reopen: AtomicBool,
}

/// What the writing thread is told.
#[derive(Debug)]
enum Item {
    /// Write this.
    Line(Vec<u8>),
    /// Drop the sender when all before is written.
    Flush(SyncSender<()>),
    /// Look what else there is to do.
    Wake,
}

/// The thread's side.
struct Writer<O> {
    output: O,
    shared: Arc<Shared>,
    /// Lines lost at the last look.
    seen: u64,
    /// When some were lost last.
    last: Instant,
    /// To be written together.
    text: Vec<u8>,
    /// Where its lines end.
    ends: Vec<usize>,
    /// The output ends within a line.
    torn: bool,
}

impl Lines {
    /// Starts a thread of this name that writes to `output`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(thread: &str, output: impl Output) -> io::Result<Self> {
        let (queue, items) = sync_channel(CAPACITY);
        let shared = Arc::new(Shared { log: thread.to_owned(), ..Shared::default() });
        let mut writer = Writer {
            output,
            shared: Arc::clone(&shared),
            seen: 0,
            last: Instant::now(),
            text: Vec::new(),
            ends: Vec::new(),
            torn: false,
        };
        std::thread::Builder::new().name(thread.to_owned()).spawn(move || writer.run(&items))?;
        Ok(Self { queue, shared })
    }

    /// Enqueues a whole line, its line feed included. Never blocks.
    pub fn send(&self, line: Vec<u8>) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.shared.lose(1, None);
        }
    }

    /// Has the output opened anew, before the lines that are sent from now on. Never blocks.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // Where there is no room, the thread has items enough to see it.
        let _ = self.queue.try_send(Item::Wake);
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
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl<O: Output> Writer<O> {
    /// Writes until every sender is gone; flushes whenever nothing more is waiting.
    fn run(&mut self, items: &Receiver<Item>) {
        loop {
            match items.recv_timeout(CALM) {
                Ok(first) => std::iter::once(first).chain(items.try_iter()).for_each(|item| self.take(item)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.flush();
        }
    }

    fn take(&mut self, item: Item) {
        if self.shared.reopen.swap(false, Ordering::Acquire) {
            self.reopen();
        }
        match item {
            Item::Line(line) => {
                if self.text.len() + line.len() > TOGETHER {
                    self.flush();
                }
                self.text.extend_from_slice(&line);
                self.ends.push(self.text.len());
            }
            Item::Flush(written) => {
                self.flush();
                drop(written);
            }
            Item::Wake => {}
        }
    }

    fn reopen(&mut self) {
        self.flush();
        match self.output.reopen() {
            Ok(()) => self.torn = false,
            Err(error) => {
                tracing::warn!(log = self.shared.log, %error, "a log cannot be opened anew, the file that is open is written on");
            }
        }
    }

    /// Writes what has come together. What the output does not take is lost: waiting for it would lose more.
    fn flush(&mut self) {
        let (written, error) = self.write();
        let lost = self.ends.iter().filter(|end| **end > written).count();
        if lost > 0 {
            self.shared.lose(lost as u64, error.as_ref());
        }
        if written > 0 {
            self.torn = self.text.get(written - 1) != Some(&b'\n');
        }
        self.text.clear();
        self.ends.clear();
        self.look();
    }

    /// Tells when no more lines are lost.
    fn look(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        if dropped > std::mem::replace(&mut self.seen, dropped) {
            self.last = Instant::now();
        } else if self.last.elapsed() >= CALM {
            let told = self.shared.told.swap(0, Ordering::Relaxed);
            if let Some(before) = told.checked_sub(1) {
                tracing::info!(log = self.shared.log, lost = dropped - before, "no more lines of a log are lost");
            }
        }
    }

    /// How much the output took, and why not all.
    fn write(&mut self) -> (usize, Option<io::Error>) {
        let mut written = 0;
        if self.torn && !self.text.is_empty() {
            if let Err(error) = self.output.write_all(b"\n") {
                return (0, Some(error));
            }
            self.torn = false;
        }
        while written < self.text.len() {
            match self.output.write(&self.text[written..]) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, self.output.flush().err())
    }
}

impl Shared {
    /// Counts lost lines, and tells of the first: from a worker too, as the thread may be stuck in its output.
    fn lose(&self, lines: u64, error: Option<&io::Error>) {
        let before = self.dropped.fetch_add(lines, Ordering::Relaxed);
        if self.told.compare_exchange(0, before + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let cause = error.map_or_else(|| "the output is too slow".to_owned(), ToString::to_string);
            tracing::warn!(log = self.log, cause, "lines of a log are lost, requests go on");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.bytes().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Kept {}

    struct Closed;

    impl Output for Closed {}

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
        let output = Kept::default();
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

    /// Takes so many bytes, then none until it is emptied.
    #[derive(Clone, Default)]
    struct Disk {
        held: Arc<Mutex<Vec<u8>>>,
        room: Arc<std::sync::atomic::AtomicUsize>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut held = self.held.lock().unwrap();
            let room = self.room.load(Ordering::SeqCst).saturating_sub(held.len()).min(bytes.len());
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            held.extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Disk {}

    #[test]
    fn a_full_disk_loses_lines_and_what_follows_begins_on_a_line_of_its_own() {
        let disk = Disk::default();
        disk.room.store(9, Ordering::SeqCst);
        let lines = Lines::start("test", disk.clone()).unwrap();
        for line in ["one 1\n", "two 2\n", "three\n"] {
            lines.send(line.as_bytes().to_vec());
            lines.flush();
        }
        assert_eq!(lines.dropped(), 2);
        disk.room.store(100, Ordering::SeqCst);
        lines.send(b"four\n".to_vec());
        lines.flush();
        assert_eq!(String::from_utf8_lossy(&disk.held.lock().unwrap()), "one 1\ntwo\nfour\n");
        assert_eq!(lines.dropped(), 2);
    }
}
