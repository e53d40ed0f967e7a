//! How many proxies there are: each process tells Redis that it lives, and counts those that did lately.
//!
//! A sorted set, process -> when it was last seen, by the server's clock. A refusal of it says nothing
//! about decisions.

use redis::Value;

use super::RedisStore;
use super::command::Command;
use crate::limit::stats::StoreErrorKind;

/// Who was not seen for so long is gone.
const GONE_MS: u64 = 3_500;
/// The set itself goes when nobody is left.
const FORGOTTEN_MS: u64 = 10_000;
/// What stands in the braces of the set's key.
const TAG: &str = "~proxies";

impl RedisStore {
    /// Tells the store that `process` lives; how many do.
    ///
    /// # Errors
    /// Why the store did not say.
    pub async fn beat(&self, process: &str) -> Result<u64, StoreErrorKind> {
        let key = format!("{}:{{{TAG}}}", self.prefix());
        let time = self.call(TAG.as_bytes(), &Command::of(&["TIME"])).await?;
        let now_ms = milliseconds(&time).ok_or(StoreErrorKind::Protocol)?;
        let (now, gone) = (now_ms.to_string(), now_ms.saturating_sub(GONE_MS).to_string());
        for command in [
            Command::of(&["ZADD", &key, &now, process]),
            Command::of(&["PEXPIRE", &key, &FORGOTTEN_MS.to_string()]),
            Command::of(&["ZREMRANGEBYSCORE", &key, "-inf", &gone]),
        ] {
            self.call(TAG.as_bytes(), &command).await?;
        }
        match self.call(TAG.as_bytes(), &Command::of(&["ZCARD", &key])).await? {
            Value::Int(count) => u64::try_from(count).map_err(|_| StoreErrorKind::Protocol),
            _ => Err(StoreErrorKind::Protocol),
        }
    }
}

/// The reply to TIME: seconds and microseconds.
fn milliseconds(time: &Value) -> Option<u64> {
    let Value::Array(parts) = time else { return None };
    let number = |value: &Value| match value {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let (seconds, micros) = (number(parts.first()?)?, number(parts.get(1)?)?);
    Some(seconds.saturating_mul(1000) + micros / 1000)
}
