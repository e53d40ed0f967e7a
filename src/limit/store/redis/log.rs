//! What the log says of a Redis that goes and comes: each change once for the whole process, though
//! every worker notices it on a connection of its own; and few lines of one that comes and goes again and again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{info, warn};

use super::super::super::stats::StoreErrorKind;
use super::super::settings::ServerAddress;
use super::quality::{Counts, Judgement, Quality};

/// After a line that says that a server is back: outages that begin and end within this are only counted.
const QUIET: Duration = Duration::from_secs(5);

/// What the workers of a process have told together.
#[derive(Debug, Default)]
pub struct StoreLog {
    servers: Mutex<HashMap<Box<str>, Told>>,
    quality: Mutex<Quality>,
    /// Workers that no sentinel answers.
    unheard: Mutex<usize>,
    /// Why this process could not be counted among the proxies, the last time.
    uncounted: Mutex<Option<StoreErrorKind>>,
}

/// Of one server.
#[derive(Debug, Default)]
struct Told {
    /// Workers for which it is away now.
    away: usize,
    /// The causes of this outage that were told, one bit each.
    causes: u32,
    /// An outage that began too soon after the last one to be told yet.
    untold: Option<Outage>,
    /// Outages that came and went untold.
    outages: u64,
    quiet_until: Option<Instant>,
    /// Whether the first connection was told.
    connected: bool,
    /// Whether it was told that scripts cannot read the clock.
    keeps_clock: bool,
    /// The master that the workers were last led to.
    master: Option<ServerAddress>,
}

/// Why a server is away.
#[derive(Debug, Clone)]
pub(super) struct Outage {
    pub(super) cause: StoreErrorKind,
    /// What exactly happened.
    pub(super) error: String,
    /// What to do.
    pub(super) help: &'static str,
}

/// One worker's view of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Said {
    /// Nothing yet.
    #[default]
    Nothing,
    /// The server answers.
    Back,
    /// It does not.
    Away,
}

impl StoreLog {
    /// For this worker a server is away. Returns what was said.
    pub(super) fn away(&self, said: Said, store: &str, outage: &Outage) -> Said {
        let mut servers = self.servers.lock();
        let told = servers.entry(store.into()).or_default();
        if said != Said::Away {
            told.away += 1;
        }
        if told.causes == 0 && told.is_quiet(Instant::now()) {
            told.untold = Some(outage.clone());
        } else {
            told.tell(store, outage);
        }
        Said::Away
    }

    /// For this worker a server answers. Returns what was said.
    pub(super) fn back(&self, said: Said, store: &str) -> Said {
        let mut servers = self.servers.lock();
        let told = servers.entry(store.into()).or_default();
        if said == Said::Away {
            told.away = told.away.saturating_sub(1);
            if told.away == 0 {
                told.is_back(store);
            }
        } else if !told.connected && told.causes == 0 {
            info!(store, "connected to redis");
        }
        told.connected = true;
        Said::Back
    }

    /// For this worker a server has no part in the store any more.
    pub(super) fn dismissed(&self, said: Said, store: &str) {
        let mut servers = self.servers.lock();
        let Some(told) = servers.get_mut(store) else { return };
        if said == Said::Away {
            told.away = told.away.saturating_sub(1);
        }
        if told.away == 0 {
            if told.causes != 0 {
                info!(store, "this redis is no part of the cluster any more");
            }
            servers.remove(store);
        }
    }

    /// What a worker has counted while the store was there; `None` where it is not. To be called about once a
    /// second: what was held back until now is told.
    pub(super) fn hear(&self, store: &str, counts: Option<&Counts>) {
        let now = Instant::now();
        self.servers.lock().iter_mut().for_each(|(store, told)| told.catch_up(store, now));
        let mut quality = self.quality.lock();
        let Some(counts) = counts else { return quality.forget() };
        match quality.hear(now, counts) {
            Some(Judgement::Poor { failed, calls, seconds, cause }) => {
                let (cause, help) = (cause.label(), cause.advice());
                warn!(
                    store,
                    failed, calls, seconds, cause, help, "calls to redis fail, on_store_error applies to them"
                );
            }
            Some(Judgement::Well) => info!(store, "calls to redis do not fail any more"),
            None => {}
        }
    }

    /// A server's scripts cannot read its clock.
    pub(super) fn keeps_clock(&self, store: &str) {
        let mut servers = self.servers.lock();
        if !std::mem::replace(&mut servers.entry(store.into()).or_default().keeps_clock, true) {
            warn!(store, "redis does not let scripts read its clock: this proxy's clock is used, keep it synchronised");
        }
    }

    /// A server's scripts can.
    pub(super) fn gives_clock(&self, store: &str) {
        let mut servers = self.servers.lock();
        if servers.get_mut(store).is_some_and(|told| std::mem::take(&mut told.keeps_clock)) {
            info!(store, "redis lets scripts read its clock again");
        }
    }

    /// The master that a worker was led to.
    pub(super) fn led_to(&self, store: &str, master: &ServerAddress) {
        let mut servers = self.servers.lock();
        let before = servers.entry(store.into()).or_default().master.replace(master.clone());
        if let Some(before) = before.filter(|before| before != master) {
            info!(store, from = %before, to = %master, "the master is another server now");
        }
    }

    /// No sentinel answers this worker any more.
    pub(super) fn unheard(&self, store: &str, error: &str) {
        let mut unheard = self.unheard.lock();
        *unheard += 1;
        if *unheard == 1 {
            let help = "start the sentinels, or correct store.redis.sentinel";
            warn!(store, error, help, "no sentinel answers: another master would not be found");
        }
    }

    /// A sentinel answers it again.
    pub(super) fn heard(&self, store: &str) {
        let mut unheard = self.unheard.lock();
        *unheard = unheard.saturating_sub(1);
        if *unheard == 0 {
            info!(store, "a sentinel answers again");
        }
    }

    /// Whether this process was counted among the proxies, and why not. While the store is away that is no news.
    pub(super) fn counted(&self, failure: Option<StoreErrorKind>) {
        let mut uncounted = self.uncounted.lock();
        match failure.filter(|kind| kind.is_said()) {
            Some(cause) if *uncounted != Some(cause) => {
                *uncounted = Some(cause);
                let (cause, help) = (cause.label(), cause.advice());
                warn!(cause, help, "proxies cannot be counted: while redis is away each admits as if it was alone");
            }
            None if failure.is_none() && uncounted.take().is_some() => info!("proxies are counted again"),
            _ => {}
        }
    }
}

impl Told {
    fn is_quiet(&self, now: Instant) -> bool {
        self.quiet_until.is_some_and(|until| now < until)
    }

    /// Logs an outage, or another cause of it.
    fn tell(&mut self, store: &str, outage: &Outage) {
        let first = self.causes == 0;
        let bit = 1 << (outage.cause as usize);
        if self.causes & bit != 0 {
            return;
        }
        self.causes |= bit;
        let Outage { cause, error, help } = outage;
        let cause = cause.label();
        if first {
            // Those before it that nobody was told of.
            let outages = Some(std::mem::take(&mut self.outages)).filter(|&outages| outages > 0);
            warn!(store, cause, error, help, outages, "redis is away, on_store_error applies");
        } else {
            info!(store, cause, error, help, "redis is still away");
        }
    }

    /// It answers every worker again.
    fn is_back(&mut self, store: &str) {
        if self.untold.take().is_some() {
            self.outages += 1;
        }
        if std::mem::take(&mut self.causes) != 0 {
            self.quiet_until = Some(Instant::now() + QUIET);
            info!(store, "redis is back, limits are exact again");
        }
    }

    /// Tells what was held back, once it has been quiet for long enough.
    fn catch_up(&mut self, store: &str, now: Instant) {
        if self.is_quiet(now) {
            return;
        }
        if let Some(outage) = self.untold.take() {
            self.tell(store, &outage);
        } else if self.causes == 0 && self.outages > 0 {
            let outages = std::mem::take(&mut self.outages);
            self.quiet_until = Some(now + QUIET);
            info!(store, outages, "redis was away again and came back");
        }
    }
}

impl StoreErrorKind {
    /// Whether the server itself said so: it is there, and refuses.
    fn is_said(self) -> bool {
        !matches!(self, Self::Refused | Self::Reset | Self::Timeout | Self::Tls)
    }
}
