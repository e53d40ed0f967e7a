//! Identical requests asked in one call (`lua/grant.lua`).

use std::time::Instant;

use redis::Value;
use smallvec::SmallVec;

use super::connection::Connection;
use super::script::{self, Script, error_kind};
use super::{InFlight, RedisStore, State};
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
        self.grant_by(self.state.clock(), deadline, (count, asks)).await
    }

    /// The same by a given clock, microseconds since 1970 (tests; 0 is the server's), within the configured time.
    ///
    /// # Errors
    /// As [`RedisStore::grant_before`].
    pub async fn grant_at(&self, now_us: i64, count: u64, asks: &[Ask<'_>]) -> Result<Granted, StoreErrorKind> {
        self.grant_by(now_us, self.state.deadline(), (count, asks)).await
    }

    async fn grant_by(
        &self,
        now_us: i64,
        deadline: Instant,
        question: (u64, &[Ask<'_>]),
    ) -> Result<Granted, StoreErrorKind> {
        let state = &self.state;
        let Some(connection) = state.connection() else {
            return Err(state.breaker.borrow().cause().unwrap_or(StoreErrorKind::Refused));
        };
        let Some(_permit) = InFlight::enter(&state.in_flight) else {
            state.count_error(StoreErrorKind::Timeout);
            return Err(StoreErrorKind::Timeout);
        };
        let granted = state.send_grant(&connection, now_us, question);
        let result = match tokio::time::timeout_at(deadline.into(), granted).await {
            Ok(result) => result,
            Err(_) => Err(StoreErrorKind::Timeout),
        };
        let error = result.as_ref().err().copied();
        if let Some(kind) = error {
            state.count_error(kind);
        }
        state.count_silence(error);
        state.learn(&connection, error);
        result
    }
}

impl State {
    /// One call, sent again only where the server says that it executed nothing: it refuses its clock
    /// to scripts, or does not know this one.
    async fn send_grant(
        &self,
        connection: &Connection,
        now_us: i64,
        (count, asks): (u64, &[Ask<'_>]),
    ) -> Result<Granted, StoreErrorKind> {
        let prefix = &self.settings.key_prefix;
        let sha = connection.sha(Script::Grant);
        let mut now_us = now_us;
        self.stats.store_calls.increment();
        let mut value = connection.send(&Script::grant_by_sha(sha, prefix, (now_us, count), asks)).await?;
        if script::refuses_time(&value) && now_us == 0 {
            self.use_own_clock();
            now_us = self.clock();
            self.stats.store_calls.increment();
            value = connection.send(&Script::grant_by_sha(sha, prefix, (now_us, count), asks)).await?;
        }
        if script::is_unknown_script(&value) {
            self.count_error(StoreErrorKind::Noscript);
            self.scripts_missing.set(true);
            self.attention.notify_one();
            self.stats.store_calls.increment();
            value = connection.send(&Script::grant_by_text(prefix, (now_us, count), asks)).await?;
        }
        match value {
            Value::Array(items) => read(&items, count, asks).ok_or(StoreErrorKind::Protocol),
            Value::ServerError(error) => Err(error_kind(&error)),
            _ => Err(StoreErrorKind::Protocol),
        }
    }
}

/// The script's answer; `None` when it cannot have said this.
fn read(items: &[Value], count: u64, asks: &[Ask<'_>]) -> Option<Granted> {
    if items.len() != HEAD + PER_LIMIT * asks.len() {
        return None;
    }
    let (head, rest) = items.split_at(HEAD);
    let limits: SmallVec<[Left; 2]> =
        rest.chunks_exact(PER_LIMIT).zip(asks).map(|(items, ask)| left(items, ask)).collect::<Option<_>>()?;
    let granted = Granted { count: script::unsigned(&head[0])?, now_us: script::integer(&head[1], 0)?, limits };
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
    let mut next: Answer = script::answer(answer)?;
    let mut deficit = 0;
    if let Algorithm::TokenBucket(bucket) = ask.algorithm {
        deficit = next.reset_us;
        next.reset_us = bucket.reset_us(deficit);
    }
    Some(Left { charged: script::unsigned(&charged[0])?, next, deficit })
}
