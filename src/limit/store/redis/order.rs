//! What a server is told to do, and what it said to that.

use redis::Value;

use super::super::super::stats::StoreErrorKind;
use super::super::grant::Granted;
use super::super::settings::ServerAddress;
use super::super::{Ask, Reply, Settle};
use super::answers;
use super::command::Command;
use super::connection::Connection;
use super::grant;
use super::keys::KeyForm;
use super::redirect::Redirect;
use super::script::Script;

/// One call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order<'a> {
    /// Decide these, all or none.
    Decide {
        /// Microseconds since 1970; `None` is the server's clock.
        now_us: Option<i64>,
        asks: &'a [Ask<'a>],
    },
    /// Decide so many requests that all ask this.
    Grant {
        /// Likewise.
        now_us: Option<i64>,
        count: u64,
        asks: &'a [Ask<'a>],
    },
    /// What follows decisions.
    Settle {
        /// Likewise.
        now_us: Option<i64>,
        settles: &'a [Settle<'a>],
    },
}

/// What came of a call.
#[derive(Debug)]
pub(super) enum Told {
    Decided(Reply),
    Granted(Granted),
    Settled,
    /// Nothing was executed: the keys are another server's.
    Elsewhere(Redirect),
}

/// Whether a call goes to a server that is only about to get the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    No,
    Yes,
}

impl Order<'_> {
    /// The clock that the caller gives.
    pub(super) fn now_us(&self) -> Option<i64> {
        match self {
            Self::Decide { now_us, .. } | Self::Grant { now_us, .. } | Self::Settle { now_us, .. } => *now_us,
        }
    }

    /// The call by the script's name.
    pub(super) fn by_sha(&self, connection: &Connection, form: KeyForm<'_>, now_us: i64) -> Command {
        match self {
            Self::Decide { asks, .. } => {
                let script = Script::for_asks(asks);
                script.by_sha(connection.sha(script), form, now_us, asks)
            }
            Self::Grant { count, asks, .. } => {
                Script::grant_by_sha(connection.sha(Script::Grant), form, (now_us, *count), asks)
            }
            Self::Settle { settles, .. } => {
                Script::settle_by_sha(connection.sha(Script::Release), form, now_us, settles)
            }
        }
    }

    /// The same call with the script's text.
    pub(super) fn by_text(&self, form: KeyForm<'_>, now_us: i64) -> Command {
        match self {
            Self::Decide { asks, .. } => Script::for_asks(asks).by_text(form, now_us, asks),
            Self::Grant { count, asks, .. } => Script::grant_by_text(form, (now_us, *count), asks),
            Self::Settle { settles, .. } => Script::settle_by_text(form, now_us, settles),
        }
    }

    /// What a node of a Cluster answered.
    pub(super) fn read_from_shard(&self, value: Value, from: &ServerAddress) -> Result<Told, StoreErrorKind> {
        match Redirect::of(&value, from) {
            Some(redirect) => Ok(Told::Elsewhere(redirect)),
            None => self.read(value),
        }
    }

    /// What a server answered.
    pub(super) fn read(&self, value: Value) -> Result<Told, StoreErrorKind> {
        match (self, value) {
            (_, Value::ServerError(error)) => Err(answers::error_kind(&error)),
            (Self::Decide { asks, .. }, value) => answers::read_reply(value, asks).map(Told::Decided),
            (Self::Grant { count, asks, .. }, Value::Array(items)) => {
                grant::read(&items, *count, asks).map(Told::Granted).ok_or(StoreErrorKind::Protocol)
            }
            (Self::Settle { .. }, Value::Int(1)) => Ok(Told::Settled),
            _ => Err(StoreErrorKind::Protocol),
        }
    }
}
