//! Why a process does not start, or ends other than it should.

use std::io;
use std::path::PathBuf;

use crate::config::ListenAddress;

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address} ({what}): {}", obstacle(address, cause))]
    Bind {
        /// The address.
        address: ListenAddress,
        /// Which listener.
        what: String,
        /// Why.
        cause: std::io::Error,
    },
    /// The access log's file could not be opened.
    #[error("cannot write the access log {}: {cause}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// Why a process did not run to its ordinary end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system gave no event queue or no signal handlers.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// The process whose place it should take goes on, and why.
    #[error("another process goes on: {0}")]
    NotReady(String),
    /// The process before gave what nobody understands.
    #[error("cannot take the sockets of another process: {0}")]
    Given(io::Error),
    /// No worker is left; the log says why.
    #[error("every worker has failed")]
    Failed,
}

/// Why an address cannot be bound, and what to do.
fn obstacle(address: &ListenAddress, cause: &io::Error) -> String {
    let is_unix = matches!(address, ListenAddress::Unix(_));
    let help = match cause.kind() {
        io::ErrorKind::AddrInUse if is_unix => "another process listens there; end that one, or choose another path",
        io::ErrorKind::PermissionDenied if is_unix => "this user may not write there; choose another directory",
        io::ErrorKind::NotFound if is_unix => "the directory does not exist; create it first",
        io::ErrorKind::AddrInUse => "already in use by another process; end that one, or choose another port",
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher one",
        _ => return cause.to_string(),
    };
    help.to_owned()
}
