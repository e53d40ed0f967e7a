//! How many proxies there are: each process tells Redis that it lives, and counts those that did lately.
//!
//! A sorted set, process -> when it was last seen, by the server's clock. None of this touches the breaker.

use std::time::Duration;

use redis::Value;

use super::command::Command;
use super::connection::Connection;
use super::{RedisStore, State};
use crate::limit::stats::StoreErrorKind;

/// Who was not seen for so long is gone.
const GONE_MS: u64 = 3_500;
/// The set itself goes when nobody is left.
const FORGOTTEN_MS: u64 = 10_000;
/// Until the server has answered all of it.
const PATIENCE: Duration = Duration::from_millis(500);

impl RedisStore {
    /// Tells the store that `process` lives; how many do.
    ///
    /// # Errors
    /// Why the store did not say.
    pub async fn beat(&self, process: &str) -> Result<u64, StoreErrorKind> {
        let Some(connection) = self.state.connection() else { return Err(StoreErrorKind::Refused) };
        let beat = self.state.send_beat(&connection, process);
        tokio::time::timeout(PATIENCE, beat).await.unwrap_or(Err(StoreErrorKind::Timeout))
    }
}

impl State {
    async fn send_beat(&self, connection: &Connection, process: &str) -> Result<u64, StoreErrorKind> {
        let key = format!("{}:{{~proxies}}", self.settings.key_prefix);
        let time = connection.send(&Command::of(&["TIME"])).await?;
        let now_ms = milliseconds(&time).ok_or(StoreErrorKind::Protocol)?;
        let (now, gone) = (now_ms.to_string(), now_ms.saturating_sub(GONE_MS).to_string());
        let commands = [
            Command::of(&["ZADD", &key, &now, process]),
            Command::of(&["PEXPIRE", &key, &FORGOTTEN_MS.to_string()]),
            Command::of(&["ZREMRANGEBYSCORE", &key, "-inf", &gone]),
        ];
        for command in &commands {
            if let Value::ServerError(error) = connection.send(command).await? {
                return Err(super::script::error_kind(&error));
            }
        }
        match connection.send(&Command::of(&["ZCARD", &key])).await? {
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
