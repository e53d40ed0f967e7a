//! The Redis store: one decision is one call of one atomic script (`lua/`), wherever Redis keeps the keys.
//!
//! One worker owns one store, with connections and breakers of its own: one server, the master behind
//! sentinels, or the shards of a Cluster. A decision is sent once, within its deadline, and never
//! again when its fate is unknown: a charge that may have been made is not repeated. When the
//! breaker is open a decision fails without waiting; nothing is queued for later.

mod answers;
mod call;
mod clock;
mod cluster;
pub mod command;
pub mod connection;
mod control;
mod dial;
mod grant;
mod heartbeat;
mod keeper;
pub mod keys;
pub mod log;
mod login;
mod node;
mod order;
mod permit;
mod pipeline;
mod place;
mod quality;
mod redirect;
mod refund;
mod reply;
pub mod script;
mod sentinel;
mod settle;
mod shared;
mod silence;
mod tls;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use self::cluster::Cluster;
use self::node::Kept;
use self::order::{Asking, Order, Told};
use self::place::Place;
use self::sentinel::Sentinels;
use self::shared::Shared;
use super::super::stats::{LimitStats, StoreErrorKind};
use super::settings::{RedisSettings, Servers};
use super::{Ask, Reply, Stray};

/// How often a worker tells the log how its calls go.
const REPORT: Duration = Duration::from_secs(1);

/// One worker's store. Ends its background tasks when dropped.
#[derive(Debug)]
pub struct RedisStore {
    shared: Rc<Shared>,
    topology: Topology,
    reporting: JoinHandle<()>,
}

/// Where the keys are.
#[derive(Debug)]
enum Topology {
    /// On one server at a time.
    One(Kept),
    /// On several.
    Cluster(Cluster),
}

impl RedisStore {
    /// Starts connecting in the background. Must be called inside a worker's runtime.
    #[must_use]
    pub fn start(settings: &RedisSettings, stats: Arc<LimitStats>) -> Rc<Self> {
        stats.store_up.store(0, Ordering::Relaxed);
        let shared = Shared::new(settings, stats);
        let topology = match &settings.servers {
            Servers::One { address, .. } => Topology::One(Kept::start(&shared, Place::Alone(address.clone()))),
            Servers::Sentinel(sentinel) => Topology::One(Kept::start(&shared, Place::Master(Sentinels::new(sentinel)))),
            Servers::Cluster(seeds) => Topology::Cluster(Cluster::start(&shared, seeds)),
        };
        let reporting = tokio::task::spawn_local(report(Rc::clone(&shared)));
        Rc::new(Self { shared, topology, reporting })
    }

    /// Decides all of `asks` at once, by the server's clock, within the configured time.
    ///
    /// # Errors
    /// As [`RedisStore::decide_before`].
    pub async fn decide(&self, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
        self.decide_before(self.shared.deadline(), asks).await
    }

    /// The same before a deadline, of which other waiting has taken a part.
    ///
    /// # Errors
    /// Why the store did not decide. At once while the breaker is open, otherwise within the deadline.
    /// After [`StoreErrorKind::Timeout`] and [`StoreErrorKind::Reset`] it may have charged all the same;
    /// so it has, in a Cluster, where limits of one shard were granted and another one failed.
    pub async fn decide_before(&self, deadline: Instant, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
        self.decide_by(None, deadline, asks, &Stray::default()).await
    }

    /// The same; what was surely charged when it fails is noted.
    ///
    /// # Errors
    /// As [`RedisStore::decide_before`].
    pub async fn decide_noting(
        &self,
        deadline: Instant,
        asks: &[Ask<'_>],
        stray: &Stray,
    ) -> Result<Reply, StoreErrorKind> {
        self.decide_by(None, deadline, asks, stray).await
    }

    /// The same by a given clock, microseconds since 1970 (tests; 0 is the server's).
    ///
    /// # Errors
    /// As [`RedisStore::decide`].
    pub async fn decide_at(&self, now_us: i64, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
        self.decide_by(Some(now_us), self.shared.deadline(), asks, &Stray::default()).await
    }

    async fn decide_by(
        &self,
        now_us: Option<i64>,
        deadline: Instant,
        asks: &[Ask<'_>],
        stray: &Stray,
    ) -> Result<Reply, StoreErrorKind> {
        match &self.topology {
            Topology::One(kept) => {
                match kept.node().call(&Order::Decide { now_us, asks }, deadline, Asking::No).await? {
                    Told::Decided(reply) => Ok(reply),
                    Told::Granted(_) | Told::Settled | Told::Elsewhere(_) => Err(StoreErrorKind::Protocol),
                }
            }
            Topology::Cluster(cluster) => cluster.decide((now_us, deadline), asks, stray).await,
        }
    }

    /// A request waited too long behind others to be asked for at all.
    pub(in crate::limit) fn count_unasked(&self) {
        self.shared.count_error(StoreErrorKind::Timeout);
        if self.up() {
            self.shared.tally.count(Some(StoreErrorKind::Timeout));
        }
    }

    /// What the worker counts.
    pub(in crate::limit) fn stats(&self) -> &LimitStats {
        &self.shared.stats
    }

    /// Whether decisions are asked (the breaker is closed); in a Cluster, all of them.
    #[must_use]
    pub fn up(&self) -> bool {
        match &self.topology {
            Topology::One(kept) => kept.node().is_up(),
            Topology::Cluster(cluster) => cluster.is_up(),
        }
    }

    /// Whether nothing about this state is sent (the breaker of its server is open).
    #[must_use]
    pub fn is_away_for(&self, ask: &Ask<'_>) -> bool {
        match &self.topology {
            Topology::One(kept) => kept.node().is_away(),
            Topology::Cluster(cluster) => cluster.is_away_for(ask),
        }
    }

    /// First part of every key.
    pub(super) fn prefix(&self) -> &str {
        &self.shared.settings.key_prefix
    }

    /// Whether all of these are decided by one call.
    #[must_use]
    pub fn decides_at_once(&self, asks: &[Ask<'_>]) -> bool {
        match &self.topology {
            Topology::One(_) => true,
            Topology::Cluster(cluster) => cluster.has_in_one_slot(asks),
        }
    }

    /// How long at most a denial of these asks proves that they stay denied. It is no proof for long where
    /// what another request was charged may be given back to it.
    #[must_use]
    pub fn proof_lasts(&self, asks: &[Ask<'_>]) -> Duration {
        match &self.topology {
            Topology::Cluster(cluster) if !cluster.has_in_one_slot(asks) => self.shared.settings.timeout,
            Topology::One(_) | Topology::Cluster(_) => Duration::MAX,
        }
    }

    /// A number that changes each time the store, or a part of it, goes away. What was remembered of it
    /// before is void then.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.reporting.abort();
    }
}

/// Tells the log how calls go, until it is aborted.
async fn report(shared: Rc<Shared>) {
    let store = shared.settings.display();
    loop {
        tokio::time::sleep(REPORT).await;
        let counts = shared.tally.take();
        shared.stats.store_log.hear(&store, shared.is_whole().then_some(&counts));
    }
}
