//! Signals: the first TERM or INT drains, the second ends at once; HUP changes nothing yet; USR1 opens log files anew.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal within this time of the one before is no second thought.
const ECHO: Duration = Duration::from_millis(300);

/// The signals this process acts on. Needs a runtime with I/O.
#[derive(Debug)]
pub struct Signals {
    /// From service managers.
    terminate: Signal,
    /// From a terminal.
    interrupt: Signal,
    /// From a terminal that went away, or somebody who wants a reload.
    hangup: Signal,
}

/// USR1: log files have been moved away. Needs a runtime with I/O.
#[derive(Debug)]
pub struct LogsMoved(Signal);

impl LogsMoved {
    /// Takes over the signal from its default action, which ends the process.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::user_defined1()).map(Self)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Signals {
    /// Takes over the signals from their default actions.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for another TERM or INT after the first. One that follows at once is the first told
    /// twice, as when a process and its group are both signalled.
    pub async fn end_again(&mut self) -> &'static str {
        let first = Instant::now();
        loop {
            let signal = self.end().await;
            if first.elapsed() >= ECHO {
                return signal;
            }
        }
    }

    /// Waits for TERM or INT and returns its name. Others are logged and otherwise ignored.
    pub async fn end(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP ignored: a changed configuration takes effect at the next start");
                }
            }
        }
    }
}
