//! What follows a decision in the store: refunds, further charges, slots that are renewed or end.
//!
//! Sent once. When its fate is unknown it is not repeated: a refund that may have been made must not be
//! made twice.

use std::time::Instant;

use redis::Value;

use super::connection::Connection;
use super::script::{self, Script, error_kind};
use super::{RedisStore, State};
use crate::limit::stats::StoreErrorKind;
use crate::limit::store::Settle;

impl RedisStore {
    /// Settles all of these in one call, by the server's clock, within the configured time.
    ///
    /// # Errors
    /// Why the store did not. After [`StoreErrorKind::Timeout`] and [`StoreErrorKind::Reset`] it may have
    /// been done all the same.
    pub async fn settle(&self, settles: &[Settle<'_>]) -> Result<(), StoreErrorKind> {
        self.settle_at(self.state.clock(), settles).await
    }

    /// The same by a given clock, microseconds since 1970 (tests; 0 is the server's).
    ///
    /// # Errors
    /// As [`RedisStore::settle`].
    pub async fn settle_at(&self, now_us: i64, settles: &[Settle<'_>]) -> Result<(), StoreErrorKind> {
        let Some(connection) = self.state.connection() else {
            return Err(self.state.breaker.borrow().cause().unwrap_or(StoreErrorKind::Refused));
        };
        let deadline = Instant::now() + self.state.settings.timeout;
        let settled = self.state.send_settles(&connection, now_us, settles);
        let result = match tokio::time::timeout_at(deadline.into(), settled).await {
            Ok(result) => result,
            Err(_) => Err(StoreErrorKind::Timeout),
        };
        if let Err(kind) = result {
            self.state.count_error(kind);
        }
        self.state.learn(&connection, result.err());
        result
    }
}

impl State {
    async fn send_settles(
        &self,
        connection: &Connection,
        now_us: i64,
        settles: &[Settle<'_>],
    ) -> Result<(), StoreErrorKind> {
        let prefix = &self.settings.key_prefix;
        self.stats.store_calls.increment();
        let sha = connection.sha(Script::Release);
        let mut value = connection.send(&Script::settle_by_sha(sha, prefix, now_us, settles)).await?;
        if script::is_unknown_script(&value) {
            self.scripts_missing.set(true);
            self.attention.notify_one();
            self.stats.store_calls.increment();
            value = connection.send(&Script::settle_by_text(prefix, now_us, settles)).await?;
        }
        match value {
            Value::Int(1) => Ok(()),
            Value::ServerError(error) => Err(error_kind(&error)),
            _ => Err(StoreErrorKind::Protocol),
        }
    }
}
