//! What the servers of one worker's store have in common.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::Notify;

use super::super::super::stats::{LimitStats, StoreErrorKind};
use super::super::settings::RedisSettings;
use super::quality::Tally;
use super::tls::Tls;

/// Settings, statistics, and what concerns all servers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: RedisSettings,
    pub(super) stats: Arc<LimitStats>,
    pub(super) tls: Tls,
    /// Tells whoever keeps the map of a Cluster that it may be out of date.
    pub(super) changed: Notify,
    /// How calls went while the store was there, for the log.
    pub(super) tally: Tally,
    epoch: Cell<u64>,
    away: Cell<usize>,
}

impl Shared {
    pub(super) fn new(settings: &RedisSettings, stats: Arc<LimitStats>) -> Rc<Self> {
        Rc::new(Self {
            settings: settings.clone(),
            stats,
            tls: Tls::new(settings.tls.as_ref()),
            changed: Notify::new(),
            tally: Tally::default(),
            epoch: Cell::new(0),
            away: Cell::new(0),
        })
    }

    /// When a decision that begins now has to be made.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    pub(super) fn count_error(&self, kind: StoreErrorKind) {
        self.stats.errors[kind as usize].increment();
    }

    /// Changes each time a server goes away, or another takes its place.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// What is remembered of the store's state is void from now on.
    pub(super) fn begin_epoch(&self) {
        self.epoch.set(self.epoch.get() + 1);
    }

    /// Whether every server answers.
    pub(super) fn is_whole(&self) -> bool {
        self.away.get() == 0
    }
}

/// Something of the store does not answer, as long as this lives.
#[derive(Debug)]
pub(super) struct Absence(Rc<Shared>);

impl Absence {
    pub(super) fn begin(shared: &Rc<Shared>) -> Self {
        shared.away.set(shared.away.get() + 1);
        shared.stats.store_up.store(0, Ordering::Relaxed);
        // What led to it is told as an outage.
        let _ = shared.tally.take();
        Self(Rc::clone(shared))
    }
}

impl Drop for Absence {
    fn drop(&mut self) {
        self.0.away.set(self.0.away.get() - 1);
        self.0.stats.store_up.store(u64::from(self.0.is_whole()), Ordering::Relaxed);
    }
}
