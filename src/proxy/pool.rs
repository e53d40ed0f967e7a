//! This worker's connections to endpoints: idle ones are kept, last in first out.

use std::net::SocketAddr;

/// Idle and new connections to endpoints. One per worker; not `Send`.
#[derive(Debug)]
pub struct Pool {
    /// Where the built-in echo server of this process listens.
    echo: Option<SocketAddr>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(echo: Option<SocketAddr>) -> Self {
        Self { echo }
    }
}
