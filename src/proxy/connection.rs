//! One client connection, from its first byte to its last.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Proxy;

/// How far the process is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Not ready any more, still accepting (`shutdown.delay`).
    Leaving,
    /// Listeners closed; connections finish the request they have.
    Draining,
    /// The rest is cut.
    Stopped,
}

/// Serves one accepted connection until it ends.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    listener: usize,
    proxy: Rc<Proxy>,
    phase: watch::Receiver<Phase>,
) {
    let _ = (stream, peer, listener, proxy, phase);
}
