//! Commands beside decisions: rare, in nobody's path, with more time than a decision has.

use std::rc::Rc;
use std::time::{Duration, Instant};

use redis::Value;

use super::answers::{error_kind, refuses_time};
use super::clock::own_clock;
use super::command::Command;
use super::keys::KeyForm;
use super::script::with_key;
use super::{RedisStore, Topology};
use crate::limit::algorithm::Algorithm;
use crate::limit::stats::StoreErrorKind;

/// Until the reply; longer where decisions have more.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Ends one state (see its head).
const RESET: &str = include_str!("../../../../lua/reset.lua");

impl RedisStore {
    /// Makes a state equal to "never seen".
    ///
    /// # Errors
    /// As [`RedisStore::decide`].
    pub async fn reset(&self, state_id: &str, algorithm: &Algorithm, subject: &[u8]) -> Result<(), StoreErrorKind> {
        let form = KeyForm::of(&self.shared.settings);
        let key = with_key(form, (state_id, subject), algorithm, |pieces| pieces.concat());
        let key = String::from_utf8_lossy(&key);
        let tag = key.get(form.prefix.len() + 2..).and_then(|rest| rest.split('}').next()).unwrap_or_default();
        self.evaluate(RESET, (tag, &key), &[]).await.map(drop)
    }

    /// Runs a script about one key, which has this tag in its braces, once, while the breaker is closed. The
    /// script's first argument is its clock, microseconds: 0, the server's, or this process' where the server
    /// refuses that; `words` follow.
    ///
    /// # Errors
    /// Why there is no reply but an error. After [`StoreErrorKind::Timeout`] and [`StoreErrorKind::Reset`] it may
    /// have been executed all the same.
    pub(in crate::limit) async fn evaluate(
        &self,
        script: &str,
        (tag, key): (&str, &str),
        words: &[&str],
    ) -> Result<Value, StoreErrorKind> {
        let deadline = Instant::now() + TIMEOUT.max(self.shared.settings.timeout);
        let node = match &self.topology {
            Topology::One(kept) => Rc::clone(kept.node()),
            Topology::Cluster(cluster) => cluster.owner_of(tag.as_bytes(), deadline).await?,
        };
        let eval = |now_us: i64| {
            let now_us = now_us.unsigned_abs().to_string();
            let head = ["EVAL", script, "1", key, &now_us];
            Command::of(&head.into_iter().chain(words.iter().copied()).collect::<Vec<_>>())
        };
        let now_us = node.clock.now_us();
        let mut reply = node.command(&eval(now_us), deadline).await?;
        if now_us == 0 && refuses_time(&reply) {
            reply = node.command(&eval(own_clock()), deadline).await?;
            // Rights that are missing in general are missing with our clock as well.
            if !matches!(reply, Value::ServerError(_)) {
                node.use_own_clock();
            }
        }
        let Value::ServerError(error) = &reply else { return Ok(reply) };
        let kind = error_kind(error);
        self.shared.count_error(kind);
        Err(kind)
    }
}
