//! A configuration is read again: whole or not at all, and only when something in it is another.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::config::{self, Config, Loaded, Origin, Report};

/// Between two looks at the files. Looking is a call per file, whatever replaced it: an editor, a rename, or the
/// swapped directory of a mounted volume.
const LOOK: Duration = Duration::from_millis(500);

/// What came of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Requests that begin from now on are under the new configuration.
    Reloaded,
    /// It says what the running one says.
    Unchanged,
}

/// Why the running configuration stays.
#[derive(Debug, Clone)]
pub enum Failure {
    /// It is wrong, and where.
    Wrong(Report),
    /// It is right, but cannot take the place of the running one; one sentence.
    Refused(String),
}

/// What is known of reloads.
#[derive(Debug, Clone)]
pub struct State {
    /// When the running configuration was loaded.
    pub loaded: SystemTime,
    /// When somebody tried last to replace it, if anybody did.
    pub at: Option<SystemTime>,
    /// Why the last attempt to replace it failed, if it did.
    pub failure: Option<Arc<Failure>>,
}

/// Where the running configuration came from, and what stood there.
#[derive(Debug)]
pub struct Source {
    origin: Origin,
    seen: blake3::Hash,
    signature: Vec<Option<Signature>>,
    /// Files that a configuration names which could not be used.
    wanted: Vec<PathBuf>,
    /// What was last seen to differ from it, until it has come to rest.
    unrest: Option<Vec<Option<Signature>>>,
}

/// What tells without reading that a file is another, or was written to.
type Signature = (u64, u64, u64, i64, i64);

/// What the process is asked to do, and who waits for what comes of it.
#[derive(Debug)]
pub enum Request {
    /// The configuration is to be read again.
    Reload(Option<oneshot::Sender<Result<Outcome, Arc<Failure>>>>),
    /// Another process is to take this one's place: its number, or why there is none.
    Upgrade(Option<oneshot::Sender<Result<u32, String>>>),
}

impl Request {
    /// Whether whoever asked has left before anything was done.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        match self {
            Self::Reload(waiting) => waiting.as_ref().is_some_and(oneshot::Sender::is_closed),
            Self::Upgrade(waiting) => waiting.as_ref().is_some_and(oneshot::Sender::is_closed),
        }
    }
}

/// Where reloads and upgrades are asked for.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    file: Option<PathBuf>,
}

impl Handle {
    /// A handle, and where its requests arrive; of a process whose configuration came from there.
    #[must_use]
    pub fn new(origin: &Origin) -> (Self, mpsc::Receiver<Request>) {
        let (requests, arriving) = mpsc::channel(16);
        let file = match origin {
            Origin::File(path) => Some(path.clone()),
            Origin::Stdin | Origin::Arguments => None,
        };
        (Self { requests, file }, arriving)
    }

    /// Whether the configuration came from the file of this name; `None` where it came from no file.
    #[must_use]
    pub fn is_of(&self, path: &Path) -> Option<bool> {
        let own = self.file.as_ref()?;
        let is_same = |name: fn(&Path) -> std::io::Result<PathBuf>| matches!((name(own), name(path)), (Ok(own), Ok(other)) if own == other);
        // A link that leads elsewhere by now has still the same name.
        Some(is_same(|path| std::path::absolute(path)) || is_same(Path::canonicalize))
    }

    /// Asks for a reload and waits for what comes of it; `None` when the process is ending.
    pub async fn reload(&self) -> Option<Result<Outcome, Arc<Failure>>> {
        let (done, outcome) = oneshot::channel();
        self.requests.send(Request::Reload(Some(done))).await.ok()?;
        outcome.await.ok()
    }

    /// Asks for another process in this one's place and waits until it serves; `None` when this one is ending.
    pub async fn upgrade(&self) -> Option<Result<u32, String>> {
        let (done, outcome) = oneshot::channel();
        self.requests.send(Request::Upgrade(Some(done))).await.ok()?;
        outcome.await.ok()
    }
}

impl Source {
    /// Of the running configuration.
    #[must_use]
    pub fn new(origin: Origin, running: &Loaded) -> Self {
        let mut source =
            Self { origin, seen: running.fingerprint, signature: Vec::new(), wanted: Vec::new(), unrest: None };
        source.signature = source.look(&running.config);
        source
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether another process could read the same.
    #[must_use]
    pub fn can_be_read_again(&self) -> bool {
        !matches!(self.origin, Origin::Stdin)
    }

    /// Reads it again; `None` when nothing of it is another than before.
    ///
    /// # Errors
    /// A report of what is wrong with it.
    pub fn read(&mut self, running: &Config) -> Result<Option<Loaded>, Report> {
        // What came by arguments or through a pipe cannot have changed.
        if !matches!(self.origin, Origin::File(_)) {
            return Ok(None);
        }
        let loaded = config::load_after(&self.origin, Some(running));
        // Those of a refused one too: it may be right as soon as they are there.
        self.wanted = match &loaded {
            Ok(_) => Vec::new(),
            Err(report) => report.files.clone(),
        };
        self.signature = self.look(running);
        self.unrest = None;
        let loaded = loaded?;
        Ok((loaded.fingerprint != self.seen).then_some(loaded))
    }

    /// What was read runs now.
    pub fn adopted(&mut self, fingerprint: blake3::Hash, running: &Config) {
        self.seen = fingerprint;
        self.signature = self.look(running);
    }

    /// Waits until a file is another than when it was read last, and has been the same for two looks: whoever
    /// writes it has finished. Never ends where there is no file.
    pub async fn change(&mut self, running: &ArcSwap<Config>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if matches!(self.origin, Origin::File(_)) && self.has_changed(&running.load()) {
                return;
            }
        }
    }

    fn has_changed(&mut self, running: &Config) -> bool {
        let now = self.look(running);
        if now == self.signature {
            self.unrest = None;
            return false;
        }
        let rests = self.unrest.as_ref() == Some(&now);
        self.unrest = Some(now);
        rests
    }

    fn look(&self, running: &Config) -> Vec<Option<Signature>> {
        let own = match &self.origin {
            Origin::File(path) => Some(path),
            Origin::Stdin | Origin::Arguments => None,
        };
        own.into_iter().chain(&running.files).chain(&self.wanted).map(signature).collect()
    }
}

fn signature(path: &PathBuf) -> Option<Signature> {
    let of = |file: Metadata| (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec());
    fs::metadata(path).ok().map(of)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(report) => f.write_str(&report.render(config::frames::Colour::Plain)),
            Self::Refused(why) => f.write_str(why),
        }
    }
}
