//! What the log says of a Redis that goes and comes: each change once for the whole process, though
//! every worker notices it on a connection of its own.

use parking_lot::Mutex;
use tracing::{info, warn};

use super::super::super::stats::StoreErrorKind;

/// What the workers of a process have told together.
#[derive(Debug, Default)]
pub struct StoreLog(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Workers that have no store now.
    away: usize,
    /// The causes of this outage that were told, one bit each.
    causes: u32,
    /// Whether the first connection was told.
    connected: bool,
}

/// One worker's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Said {
    /// Nothing yet.
    #[default]
    Nothing,
    /// The store answers.
    Back,
    /// It does not.
    Away,
}

impl StoreLog {
    /// This worker has no store because of `cause`; `error` is what exactly happened.
    pub(super) fn away(&self, said: &mut Said, store: &str, cause: StoreErrorKind, error: &str) {
        let mut told = self.0.lock();
        if std::mem::replace(said, Said::Away) != Said::Away {
            told.away += 1;
        }
        let first = told.causes == 0;
        if told.causes & bit(cause) != 0 {
            return;
        }
        told.causes |= bit(cause);
        let (cause, help) = (cause.label(), cause.advice());
        if first {
            warn!(store, cause, error, help, "redis is away, on_store_error applies");
        } else {
            info!(store, cause, error, help, "redis is still away");
        }
    }

    /// This worker's store answers.
    pub(super) fn back(&self, said: &mut Said, store: &str) {
        let mut told = self.0.lock();
        if std::mem::replace(said, Said::Back) == Said::Away {
            told.away -= 1;
            if told.away == 0 {
                told.causes = 0;
                info!(store, "redis is back, limits are exact again");
            }
        } else if !told.connected && told.causes == 0 {
            info!(store, "connected to redis");
        }
        told.connected = true;
    }
}

fn bit(cause: StoreErrorKind) -> u32 {
    1 << (cause as usize)
}
