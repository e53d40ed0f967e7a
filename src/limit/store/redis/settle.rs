//! What follows a decision in the store: refunds, further charges, slots that are renewed or end.
//!
//! Sent once. When its fate is unknown it is not repeated: a refund that may have been made must not be
//! made twice.

use std::time::Instant;

use super::order::{Asking, Order, Told};
use super::{RedisStore, Topology};
use crate::limit::stats::StoreErrorKind;
use crate::limit::store::Settle;

impl RedisStore {
    /// Settles all of these, by the server's clock, within the configured time: in one call, or in a Cluster
    /// in one call each.
    ///
    /// # Errors
    /// Why the store did not, or not all. After [`StoreErrorKind::Timeout`] and [`StoreErrorKind::Reset`] it may
    /// have been done all the same.
    pub async fn settle(&self, settles: &[Settle<'_>]) -> Result<(), StoreErrorKind> {
        self.settle_by(None, settles).await
    }

    /// The same by a given clock, microseconds since 1970 (tests; 0 is the server's).
    ///
    /// # Errors
    /// As [`RedisStore::settle`].
    pub async fn settle_at(&self, now_us: i64, settles: &[Settle<'_>]) -> Result<(), StoreErrorKind> {
        self.settle_by(Some(now_us), settles).await
    }

    async fn settle_by(&self, now_us: Option<i64>, settles: &[Settle<'_>]) -> Result<(), StoreErrorKind> {
        let deadline = self.shared.deadline();
        match &self.topology {
            Topology::One(kept) => {
                let order = Order::Settle { now_us, settles };
                settled(&kept.node().call(&order, deadline, Asking::No).await?)
            }
            Topology::Cluster(_) => {
                let mut result = Ok(());
                for settle in settles {
                    let one = self.settle_in_cluster(now_us, deadline, settle).await;
                    result = result.and(one);
                }
                result
            }
        }
    }

    async fn settle_in_cluster(
        &self,
        now_us: Option<i64>,
        deadline: Instant,
        settle: &Settle<'_>,
    ) -> Result<(), StoreErrorKind> {
        let Topology::Cluster(cluster) = &self.topology else { return Err(StoreErrorKind::Protocol) };
        let order = Order::Settle { now_us, settles: std::slice::from_ref(settle) };
        settled(&cluster.send(settle.state_id, settle.subject, &order, deadline).await?)
    }
}

fn settled(told: &Told) -> Result<(), StoreErrorKind> {
    match told {
        Told::Settled => Ok(()),
        Told::Elsewhere(_) => Err(StoreErrorKind::Moved),
        Told::Decided(_) | Told::Granted(_) => Err(StoreErrorKind::Protocol),
    }
}
