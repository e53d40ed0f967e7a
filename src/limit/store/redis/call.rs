//! Commands beside decisions: rare, in nobody's path, with more time than a decision has.

use std::time::{Duration, Instant};

use redis::Value;

use super::command::Command;
use super::script::error_kind;
use super::{RedisStore, Topology};
use crate::limit::stats::StoreErrorKind;

/// Until the reply.
const TIMEOUT: Duration = Duration::from_secs(1);

impl RedisStore {
    /// Sends one command about the key with this in its braces, once, while the breaker is closed; minus this
    /// process' clock, or 0 for the server's, is filled in by the caller (see [`RedisStore::clock`]).
    ///
    /// # Errors
    /// Why there is no reply but an error. After [`StoreErrorKind::Timeout`] and [`StoreErrorKind::Reset`] it may
    /// have been executed all the same.
    pub(in crate::limit) async fn call(&self, tag: &[u8], command: &Command) -> Result<Value, StoreErrorKind> {
        let deadline = Instant::now() + TIMEOUT;
        let reply = match &self.topology {
            Topology::One(kept) => kept.node().command(command, deadline).await?,
            Topology::Cluster(cluster) => cluster.owner_of(tag, deadline).await?.command(command, deadline).await?,
        };
        match reply {
            Value::ServerError(error) => Err(error_kind(&error)),
            reply => Ok(reply),
        }
    }

    /// What a script is given as its clock, microseconds: 0, the server's, unless the server refuses that.
    pub(in crate::limit) fn clock(&self) -> i64 {
        match &self.topology {
            Topology::One(kept) => kept.node().clock(),
            Topology::Cluster(_) => 0,
        }
    }
}
