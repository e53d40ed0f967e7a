//! Another process takes the place of this one, which then lets its connections finish and ends.

use std::io;

use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::inherited::ADMIN;
use super::{Server, notify};
use crate::handover::{Label, Passed, Successor};
use crate::reload::Source;

/// A successor that starts, if one does, and who waits for it. Dropped, it is told to end.
#[derive(Debug, Default)]
pub(super) struct Upgrade(Option<(Successor, Waiting)>);

type Waiting = Option<oneshot::Sender<Result<u32, String>>>;

impl Upgrade {
    /// Whether a process is starting.
    pub(super) fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    /// Starts another process.
    pub(super) fn begin(&mut self, server: &Server, source: &Source, waiting: Waiting) {
        if self.is_under_way() {
            tracing::warn!("another process is starting already");
            return;
        }
        match server.successor(source) {
            Ok(successor) => {
                tracing::info!(pid = successor.pid(), "another process starts to take the place of this one");
                self.0 = Some((successor, waiting));
            }
            Err(why) => refuse(waiting, why),
        }
    }

    /// Waits until the new process serves, and where; `None` if it will not. For ever where none starts.
    pub(super) async fn ready(&mut self) -> Option<Vec<String>> {
        let Some((successor, waiting)) = &mut self.0 else { return std::future::pending().await };
        let (outcome, pid, mut waiting) = (successor.ready().await, successor.pid(), waiting.take());
        self.0 = None;
        let addresses = outcome.map_err(|why| refuse(waiting.take(), why)).ok()?;
        // A service manager watches the new one from here on.
        notify(NotifyState::MainPid(pid));
        tracing::info!(pid, "another process has taken over, the connections of this one may finish");
        let _ = waiting.map(|waiting| waiting.send(Ok(pid)));
        Some(addresses)
    }
}

/// Nobody takes over.
fn refuse(waiting: Waiting, why: String) {
    tracing::error!(why, "no other process has taken over, this one goes on");
    let _ = waiting.map(|waiting| waiting.send(Err(why)));
}

impl Server {
    /// Whether another process accepts what comes.
    pub(super) fn is_handed_over(&self) -> bool {
        *self.handed_over.borrow()
    }

    /// Leaves accepting to the process that serves at these addresses.
    pub(super) fn hand_over(&mut self, addresses: &[String]) {
        for opened in &self.open {
            if addresses.contains(&opened.listener.address.to_string()) {
                opened.leave_file();
            }
        }
        self.admin = None;
        self.handed_over.send_replace(true);
    }

    fn successor(&self, source: &Source) -> Result<Successor, String> {
        if !source.can_be_read_again() {
            return Err("the configuration came through a pipe, which nobody can read again".to_owned());
        }
        if std::process::id() == 1 {
            let why = "this is the first process of its container, which ends with it: start another container";
            return Err(why.to_owned());
        }
        let sockets = self.lend().map_err(|error| format!("the sockets cannot be copied: {error}"))?;
        Successor::start(sockets).map_err(|error| {
            let program = std::env::args_os().next().unwrap_or_default();
            format!("{} cannot be started: {error}", program.display())
        })
    }

    fn lend(&self) -> io::Result<Vec<Passed>> {
        let mut all = Vec::new();
        for opened in &self.open {
            all.extend(opened.lend()?);
        }
        let settings = self.shared.config.load();
        if let (Some(admin), Some(settings)) = (&self.admin, &settings.admin) {
            let (name, configured) = (ADMIN.to_owned(), settings.address.to_string());
            let label = Label { name, configured, owns_file: false };
            all.push(Passed { label, socket: admin.try_clone()?.into() });
        }
        Ok(all)
    }
}
