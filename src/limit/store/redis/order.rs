//! What a server is told to do, and what it said to that.

use redis::Value;

use super::super::super::stats::StoreErrorKind;
use super::super::settings::ServerAddress;
use super::super::{Ask, Reply};
use super::command::Command;
use super::connection::Connection;
use super::keys::KeyForm;
use super::redirect::Redirect;
use super::refund::Refund;
use super::script::{self, Script};

/// One call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order<'a> {
    /// Decide these, all or none.
    Decide {
        /// Microseconds since 1970; `None` is the server's clock.
        now_us: Option<i64>,
        asks: &'a [Ask<'a>],
    },
    /// Give back what was charged.
    Refund(&'a Refund),
}

/// What came of a call.
#[derive(Debug)]
pub(super) enum Told {
    Decided(Reply),
    Refunded,
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
            Self::Decide { now_us, .. } => *now_us,
            Self::Refund(refund) => refund.now_us(),
        }
    }

    /// The call by the script's name, where the server knows it by one.
    pub(super) fn by_sha(&self, connection: &Connection, form: KeyForm<'_>, now_us: i64) -> Command {
        match self {
            Self::Decide { asks, .. } => {
                let script = Script::for_asks(asks);
                script.by_sha(connection.sha(script), form, now_us, asks)
            }
            Self::Refund(refund) => refund.call(now_us),
        }
    }

    /// The same call with the script's text.
    pub(super) fn by_text(&self, form: KeyForm<'_>, now_us: i64) -> Command {
        match self {
            Self::Decide { asks, .. } => Script::for_asks(asks).by_text(form, now_us, asks),
            Self::Refund(refund) => refund.call(now_us),
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
            (Self::Decide { asks, .. }, value) => script::read_reply(value, asks).map(Told::Decided),
            (Self::Refund(_), Value::ServerError(error)) => Err(script::error_kind(&error)),
            (Self::Refund(_), _) => Ok(Told::Refunded),
        }
    }
}
