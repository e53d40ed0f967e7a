//! How many proxies there are: each process tells Redis that it lives, and counts those that did lately.
//!
//! A sorted set, process -> when it was last seen, by the server's clock. A refusal of it says nothing
//! about decisions.

use redis::Value;

use super::RedisStore;
use crate::limit::stats::StoreErrorKind;

/// Who was not seen for so long is gone.
const GONE_MS: u64 = 3_500;
/// The set itself goes when nobody is left.
const FORGOTTEN_MS: u64 = 10_000;
/// What stands in the braces of the set's key.
const TAG: &str = "~proxies";
/// Writes and counts in one step (see its head).
const SCRIPT: &str = include_str!("../../../../lua/beat.lua");

impl RedisStore {
    /// Tells the store that `process` lives; how many do.
    ///
    /// # Errors
    /// Why the store did not say.
    pub async fn beat(&self, process: &str) -> Result<u64, StoreErrorKind> {
        let beaten = self.beat_once(process).await;
        self.shared.stats.store_log.counted(beaten.err());
        beaten
    }

    async fn beat_once(&self, process: &str) -> Result<u64, StoreErrorKind> {
        let key = format!("{}:{{{TAG}}}", self.prefix());
        let words = [process, &GONE_MS.to_string(), &FORGOTTEN_MS.to_string()];
        match self.evaluate(SCRIPT, (TAG, &key), &words).await? {
            Value::Int(count) => u64::try_from(count).map_err(|_| StoreErrorKind::Protocol),
            _ => Err(StoreErrorKind::Protocol),
        }
    }
}
