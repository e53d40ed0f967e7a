//! Another process takes the place of this one, which then lets its connections finish and ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::inherited::{ADMIN, Inherited};
use super::sockets::Opened;
use super::{RunError, Server, notify};
use crate::config::Config;
use crate::handover::{FileId, Label, Passed, Predecessor, Successor};
use crate::reload::{Handle, Source};
use crate::signal::Signals;
use crate::upstream::Upstream;
use crate::worker::{Phase, SocketFile};

/// For a new process to learn what the one before knows.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at that.
const PAUSE: Duration = Duration::from_millis(5);
/// What tokens are verified with.
const KEYS: &str = "the keys of tokens";

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
            let why = "another process is starting already";
            tracing::warn!("{why}");
            let _ = waiting.map(|waiting| waiting.send(Err(why.to_owned())));
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

    /// Waits until the new process serves: the files it looks after; `None` if it will not. For ever where none starts.
    pub(super) async fn ready(&mut self) -> Option<Vec<FileId>> {
        let Some((successor, waiting)) = &mut self.0 else { return std::future::pending().await };
        let (outcome, pid, mut waiting) = (successor.ready().await, successor.pid(), waiting.take());
        self.0 = None;
        let files = outcome.map_err(|why| refuse(waiting.take(), why)).ok()?;
        // A service manager watches the new one from here on.
        notify(NotifyState::MainPid(pid));
        tracing::info!(pid, "another process has taken over, the connections of this one may finish");
        let _ = waiting.map(|waiting| waiting.send(Ok(pid)));
        Some(files)
    }
}

fn addresses_of(upstream: &Upstream) -> String {
    format!("an address of the upstream {}", upstream.name)
}

/// Nobody takes over.
fn refuse(waiting: Waiting, why: String) {
    tracing::error!(why, "no other process has taken over, this one goes on");
    let _ = waiting.map(|waiting| waiting.send(Err(why)));
}

impl Server {
    /// Starts in the place of another process, which serves until this one knows as much.
    ///
    /// # Errors
    /// Why it goes on; it was told.
    pub(super) async fn succeed(
        mut predecessor: Predecessor,
        config: &Arc<Config>,
        handle: Handle,
        signals: &mut Signals,
    ) -> Result<Self, RunError> {
        let inherited = Inherited::of_predecessor(predecessor.sockets()).map_err(RunError::Given);
        let started = inherited.and_then(|inherited| {
            Self::start(config, inherited, Some(handle), Phase::Starting).map_err(RunError::Start)
        });
        let server = match started {
            Ok(server) => server,
            Err(error) => {
                predecessor.failed(&error.to_string());
                return Err(error);
            }
        };
        let ready = tokio::select! {
            biased;
            signal = signals.end() => Err(format!("{signal} came while it started")),
            ready = server.learn(&predecessor.knows) => ready,
        };
        if let Err(why) = ready {
            predecessor.failed(&why);
            server.stop();
            server.wait();
            return Err(RunError::NotReady(why));
        }
        server.phase.send_replace(Phase::Running);
        let files: Vec<_> = server.open.iter().flat_map(Opened::files).map(SocketFile::identity).collect();
        for opened in &server.open {
            if let Err(error) = opened.keep_files() {
                tracing::warn!(listener = &*opened.listener.name, %error, "the socket's file keeps its mode");
            }
        }
        // It may have ended meanwhile, and this process goes on all the same.
        let _ = predecessor.ready(&files);
        Ok(server)
    }

    /// Waits until what the process before `knows` and this one needs, too, is known here.
    async fn learn(&self, knows: &[String]) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (known, needed) = (self.knowledge(), self.needs());
            let lacks = knows.iter().filter(|each| needed.contains(each) && !known.contains(each));
            let lacks: Vec<&str> = lacks.map(String::as_str).collect();
            if lacks.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let (seconds, lacks) = (PATIENCE.as_secs(), lacks.join(", "));
                return Err(format!("the new process has not learned within {seconds} s: {lacks}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What this process has to learn from others, in words.
    fn needs(&self) -> Vec<String> {
        let config = self.shared.config.load();
        let keys = self.shared.keys.is_some().then(|| KEYS.to_owned());
        keys.into_iter().chain(config.upstreams.iter().map(|upstream| addresses_of(upstream))).collect()
    }

    /// What of it this process knows.
    fn knowledge(&self) -> Vec<String> {
        let config = self.shared.config.load();
        let keys = self.shared.keys.as_ref().filter(|keys| keys.status().keys > 0).map(|_| KEYS.to_owned());
        let has_one = |upstream: &Arc<Upstream>| upstream.servers.iter().any(|server| server.lookup.is_known());
        let resolved = config.upstreams.iter().filter(|upstream| has_one(upstream));
        keys.into_iter().chain(resolved.map(|upstream| addresses_of(upstream))).collect()
    }

    /// Whether another process accepts what comes.
    pub(super) fn is_handed_over(&self) -> bool {
        *self.handed_over.borrow()
    }

    /// Leaves accepting to the process that took over, and these files.
    pub(super) fn hand_over(&mut self, files: &[FileId]) {
        let all = self.open.iter().flat_map(Opened::files);
        all.filter(|file| files.contains(&file.identity())).for_each(SocketFile::leave);
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
        Successor::start(sockets, self.knowledge()).map_err(|error| {
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
            let label = Label { name, configured, file: None };
            all.push(Passed { label, socket: admin.try_clone()?.into() });
        }
        Ok(all)
    }
}
