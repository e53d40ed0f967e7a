//! Identical requests asked in one call (`lua/grant.lua`).

use std::time::Instant;

use redis::Value;
use smallvec::SmallVec;

use super::answers;
use super::order::{Asking, Order, Told};
use super::{RedisStore, Topology};
use crate::limit::algorithm::Algorithm;
use crate::limit::stats::StoreErrorKind;
use crate::limit::store::grant::{Granted, Left};
use crate::limit::store::{Answer, Ask};

/// Numbers in a reply before those of the limits, and per limit.
const HEAD: usize = 2;
const PER_LIMIT: usize = 5;

impl RedisStore {
    /// Decides `count` requests that all ask this, as if one after the other, by the server's clock. No
    /// state may be asked for twice, and every ask [may be coalesced](Ask::is_coalesced).
    ///
    /// # Errors
    /// As [`RedisStore::decide_before`], for all of them.
    pub async fn grant_before(
        &self,
        deadline: Instant,
        count: u64,
        asks: &[Ask<'_>],
    ) -> Result<Granted, StoreErrorKind> {
        self.grant_by(None, deadline, (count, asks)).await
    }

    /// The same by a given clock, microseconds since 1970 (tests; 0 is the server's), within the configured time.
    ///
    /// # Errors
    /// As [`RedisStore::grant_before`].
    pub async fn grant_at(&self, now_us: i64, count: u64, asks: &[Ask<'_>]) -> Result<Granted, StoreErrorKind> {
        self.grant_by(Some(now_us), self.shared.deadline(), (count, asks)).await
    }

    async fn grant_by(
        &self,
        now_us: Option<i64>,
        deadline: Instant,
        (count, asks): (u64, &[Ask<'_>]),
    ) -> Result<Granted, StoreErrorKind> {
        let order = Order::Grant { now_us, count, asks };
        let told = match &self.topology {
            Topology::One(kept) => kept.node().call(&order, deadline, Asking::No).await?,
            Topology::Cluster(cluster) => {
                let first = asks.first().ok_or(StoreErrorKind::Protocol)?;
                cluster.send(first.state_id, first.subject, &order, deadline).await?
            }
        };
        match told {
            Told::Granted(granted) => Ok(granted),
            Told::Elsewhere(_) => Err(StoreErrorKind::Moved),
            Told::Decided(_) | Told::Settled => Err(StoreErrorKind::Protocol),
        }
    }
}

/// The script's answer; `None` when it cannot have said this.
pub(super) fn read(items: &[Value], count: u64, asks: &[Ask<'_>]) -> Option<Granted> {
    if items.len() != HEAD + PER_LIMIT * asks.len() {
        return None;
    }
    let (head, rest) = items.split_at(HEAD);
    let limits: SmallVec<[Left; 2]> =
        rest.chunks_exact(PER_LIMIT).zip(asks).map(|(items, ask)| left(items, ask)).collect::<Option<_>>()?;
    let granted = Granted { count: answers::unsigned(&head[0])?, now_us: answers::integer(&head[1], 0)?, limits };
    let denies = |(ask, left): (&Ask<'_>, &Left)| !ask.is_shadow() && !left.next.allowed;
    let all_denied = asks.iter().zip(&granted.limits).any(denies);
    let is_charged = |(ask, left): (&Ask<'_>, &Left)| {
        left.charged <= granted.count && (ask.is_shadow() || ask.cost == 0 || left.charged == granted.count)
    };
    let sound = granted.count <= count
        && (granted.count == count || all_denied)
        && asks.iter().zip(&granted.limits).all(is_charged);
    sound.then_some(granted)
}

fn left(items: &[Value], ask: &Ask<'_>) -> Option<Left> {
    let (answer, charged) = items.split_at(PER_LIMIT - 1);
    let mut next: Answer = answers::answer(answer)?;
    let mut deficit = 0;
    if let Algorithm::TokenBucket(bucket) = ask.algorithm {
        deficit = next.reset_us;
        next.reset_us = bucket.reset_us(deficit);
    }
    Some(Left { charged: answers::unsigned(&charged[0])?, next, deficit })
}
