//! The keys of the process: replaced by their keeper, read by the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::key_set::KeySet;
use super::settings::JwtSettings;
use super::stats::{TokenKind, TokenStats};

/// The keys of the process.
#[derive(Debug)]
pub struct Keys {
    settings: Arc<JwtSettings>,
    current: ArcSwap<KeySet>,
    /// Told when a token names a key that is not there.
    missed: Notify,
    /// Whether the source gave keys when it was last asked.
    up: AtomicBool,
    /// When it last did, seconds since 1970; 0 for never.
    last_success: AtomicU64,
    /// What each worker counts.
    workers: Mutex<Vec<Arc<TokenStats>>>,
}

/// What there is to know about the keys at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStatus {
    /// Whether the source gave keys when it was last asked.
    pub up: bool,
    /// Keys in use.
    pub keys: usize,
    /// When the source last gave keys, seconds since 1970; 0 for never.
    pub last_success: u64,
}

impl Keys {
    /// The keys that were there when the configuration was loaded.
    #[must_use]
    pub fn new(settings: Arc<JwtSettings>) -> Self {
        let current = ArcSwap::new(Arc::clone(&settings.first_keys));
        let keys = Self {
            settings,
            current,
            missed: Notify::new(),
            up: AtomicBool::new(false),
            last_success: AtomicU64::new(0),
            workers: Mutex::default(),
        };
        if !keys.current().is_empty() {
            keys.confirm();
        }
        keys
    }

    /// What the configuration says.
    #[must_use]
    pub fn settings(&self) -> &JwtSettings {
        &self.settings
    }

    /// The keys now.
    pub(super) fn current(&self) -> Guard<Arc<KeySet>> {
        self.current.load()
    }

    /// The source gave these; whether they are others than before.
    pub(super) fn replace(&self, set: KeySet) -> bool {
        self.confirm();
        let changed = !self.current().is_same(&set);
        if changed {
            self.current.store(Arc::new(set));
        }
        changed
    }

    /// The source gave none; those that are there stay.
    pub(super) fn fail(&self) {
        self.up.store(false, Ordering::Relaxed);
    }

    fn confirm(&self) {
        self.last_success.store(now().as_secs(), Ordering::Relaxed);
        self.up.store(true, Ordering::Relaxed);
    }

    /// A token was signed with a key that may have been published since the last fetch.
    pub(super) fn miss(&self) {
        self.missed.notify_one();
    }

    /// Returns when a key was missed since this returned last.
    pub(super) async fn missed(&self) {
        self.missed.notified().await;
    }

    /// Adds a worker's counters.
    pub(super) fn enlist(&self, stats: Arc<TokenStats>) {
        self.workers.lock().push(stats);
    }

    /// What the metrics tell of the keys.
    #[must_use]
    pub fn status(&self) -> KeyStatus {
        KeyStatus {
            up: self.up.load(Ordering::Relaxed),
            keys: self.current().len(),
            last_success: self.last_success.load(Ordering::Relaxed),
        }
    }

    /// Tokens of a kind so far, on all workers.
    #[must_use]
    pub fn tokens(&self, kind: TokenKind) -> u64 {
        self.workers.lock().iter().map(|stats| stats.value(kind)).sum()
    }
}

/// The time since 1970; zero on a clock that is earlier.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
