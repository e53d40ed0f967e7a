//! The whole process but its arguments: starts the threads, knows the addresses, ends them in order.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;

/// A running proxy. The tests' entrance too.
#[derive(Debug)]
pub struct Server {}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address} ({what}): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Which listener.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Server {
    /// Binds every address, then starts the workers, the echo upstream and the admin listener.
    ///
    /// # Errors
    /// When an address cannot be bound or a thread not be started; then nothing is left running.
    pub fn start(config: Arc<Config>) -> Result<Self, StartError> {
        let _ = config;
        Ok(Self {})
    }

    /// The listeners' real addresses, by name.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        Vec::new()
    }
}
