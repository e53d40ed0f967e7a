//! Signals: the first TERM or INT drains, the second ends at once; HUP reloads; USR1 opens log files anew; USR2 has
//! another process take this one's place.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal within this time of the one before is no second thought.
const ECHO: Duration = Duration::from_millis(300);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The end; the signal's name.
    End(&'static str),
    /// The configuration is to be read again.
    Reload,
    /// Another process is to take this one's place.
    Upgrade,
}

/// The signals this process acts on. Needs a runtime with I/O.
#[derive(Debug)]
pub struct Signals {
    /// From service managers.
    terminate: Signal,
    /// From a terminal.
    interrupt: Signal,
    /// From somebody who wants a reload, or a terminal that went away.
    hangup: Signal,
    /// From somebody who has put another program in its place.
    upgrade: Signal,
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
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for another TERM or INT after the first. One that follows at once is the first told
    /// twice, as when a process and its group are both signalled.
    pub async fn end_again(&mut self) -> &'static str {
        let first = Instant::now();
        loop {
            if let Asked::End(signal) = self.next().await
                && first.elapsed() >= ECHO
            {
                return signal;
            }
        }
    }

    /// Waits for a TERM or INT.
    pub async fn end(&mut self) -> &'static str {
        loop {
            if let Asked::End(signal) = self.next().await {
                return signal;
            }
        }
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End("SIGTERM"),
            _ = self.interrupt.recv() => Asked::End("SIGINT"),
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }
}
