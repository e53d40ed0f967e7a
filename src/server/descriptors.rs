//! How many sockets this process may have open: as many as the system grants, and a warning where
//! that is fewer than the configuration promises.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Raises the soft limit on open files to the hard one (the soft one is low for the sake of programs
/// that use `select`), and warns when it is too low still.
pub(super) fn raise_limit(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    let connections: u64 = config.listeners.iter().map(|listener| listener.max_connections as u64).sum();
    if let Some(limit) = limit.filter(|limit| *limit < connections) {
        tracing::warn!(
            limit,
            max_connections = connections,
            "fewer files may be open than connections: raise the limit (LimitNOFILE, ulimit -n), or lower max_connections"
        );
    }
}
