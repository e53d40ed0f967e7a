//! Which server a node is.

use std::rc::Rc;

use super::super::settings::ServerAddress;
use super::sentinel::Sentinels;
use super::shared::Shared;

/// Where a node is.
#[derive(Debug)]
pub(super) enum Place {
    /// Here.
    Alone(ServerAddress),
    /// Wherever the sentinels say.
    Master(Rc<Sentinels>),
    /// Here; a part of a Cluster.
    Shard(ServerAddress),
}

impl Place {
    /// For the log, without credentials.
    pub(super) fn name(&self, shared: &Shared) -> String {
        match self {
            Self::Alone(_) | Self::Master(_) => shared.settings.display(),
            Self::Shard(address) => shared.settings.url(address, 0),
        }
    }
}
