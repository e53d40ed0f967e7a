//! What the log says of a Redis that goes and comes: each change once for the whole process, though
//! every worker notices it on a connection of its own.

use std::collections::HashMap;

use parking_lot::Mutex;
use tracing::{info, warn};

use super::super::super::stats::StoreErrorKind;

/// What the workers of a process have told together, by server.
#[derive(Debug, Default)]
pub struct StoreLog(Mutex<HashMap<Box<str>, Told>>);

#[derive(Debug, Default)]
struct Told {
    /// Workers for which this server is away now.
    away: usize,
    /// The causes of this outage that were told, one bit each.
    causes: u32,
    /// Whether the first connection was told.
    connected: bool,
}

/// One worker's view of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Said {
    /// Nothing yet.
    #[default]
    Nothing,
    /// The server answers.
    Back,
    /// It does not.
    Away,
}

impl StoreLog {
    /// For this worker a server is away because of `cause`; `error` is what exactly happened. Returns
    /// what was said.
    pub(super) fn away(&self, said: Said, store: &str, cause: StoreErrorKind, error: &str) -> Said {
        let mut servers = self.0.lock();
        let told = servers.entry(store.into()).or_default();
        if said != Said::Away {
            told.away += 1;
        }
        let first = told.causes == 0;
        if told.causes & bit(cause) != 0 {
            return Said::Away;
        }
        told.causes |= bit(cause);
        let (cause, help) = (cause.label(), cause.advice());
        if first {
            warn!(store, cause, error, help, "redis is away, on_store_error applies");
        } else {
            info!(store, cause, error, help, "redis is still away");
        }
        Said::Away
    }

    /// For this worker a server answers. Returns what was said.
    pub(super) fn back(&self, said: Said, store: &str) -> Said {
        let mut servers = self.0.lock();
        let told = servers.entry(store.into()).or_default();
        if said == Said::Away {
            told.away = told.away.saturating_sub(1);
            if told.away == 0 {
                told.causes = 0;
                info!(store, "redis is back, limits are exact again");
            }
        } else if !told.connected && told.causes == 0 {
            info!(store, "connected to redis");
        }
        told.connected = true;
        Said::Back
    }

    /// For this worker a server has no part in the store any more.
    pub(super) fn dismissed(&self, said: Said, store: &str) {
        let mut servers = self.0.lock();
        let Some(told) = servers.get_mut(store) else { return };
        if said == Said::Away {
            told.away = told.away.saturating_sub(1);
        }
        if told.away == 0 {
            if told.causes != 0 {
                info!(store, "this redis is no part of the cluster any more");
            }
            servers.remove(store);
        }
    }
}

fn bit(cause: StoreErrorKind) -> u32 {
    1 << (cause as usize)
}
