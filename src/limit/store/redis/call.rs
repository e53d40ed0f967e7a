//! Commands beside decisions: rare, in nobody's path, with more time than a decision has.

use std::time::{Duration, Instant};

use redis::Value;

use super::RedisStore;
use super::command::Command;
use super::script::error_kind;
use crate::limit::stats::StoreErrorKind;

/// Until the reply.
const TIMEOUT: Duration = Duration::from_secs(1);

impl RedisStore {
    /// Sends one command, once, while the breaker is closed.
    ///
    /// # Errors
    /// Why there is no reply but an error. After [`StoreErrorKind::Timeout`] and [`StoreErrorKind::Reset`] it may
    /// have been executed all the same.
    pub(in crate::limit) async fn call(&self, command: &Command) -> Result<Value, StoreErrorKind> {
        let state = &self.state;
        let deadline = (Instant::now() + TIMEOUT).into();
        if state.breaker.borrow().is_untried() {
            let _ = tokio::time::timeout_at(deadline, state.tried.notified()).await;
        }
        let Some(connection) = state.connection() else {
            return Err(state.breaker.borrow().cause().unwrap_or(StoreErrorKind::Refused));
        };
        let reply = match tokio::time::timeout_at(deadline, connection.send(command)).await {
            Ok(Ok(Value::ServerError(error))) => Err(error_kind(&error)),
            Ok(reply) => reply,
            Err(_) => Err(StoreErrorKind::Timeout),
        };
        // A right that is missing for this command says nothing about decisions.
        let error = reply.as_ref().err().copied().filter(|kind| *kind != StoreErrorKind::Noperm);
        state.learn(&connection, error);
        reply
    }

    /// What a script is given as its clock, microseconds: 0, the server's, unless the server refuses that.
    pub(in crate::limit) fn clock(&self) -> i64 {
        self.state.clock()
    }
}
