//! One connection of a worker, accounted for from its acceptance to its end.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;

use super::caps::{self, Permit};
use super::{Open, Phase};
use crate::config::{Listener, ProxyProtocol};
use crate::proxy::proxy_protocol::{self, Expected, Refused};
use crate::proxy::socket::{Peer, Socket};
use crate::proxy::{Proxy, connection};
use crate::telemetry::WorkerStats;

/// Accounts for one connection until its task ends, however it ends.
pub(super) struct Connection {
    /// Makes room for another when dropped.
    pub(super) permit: Permit,
    /// Where it is counted.
    pub(super) open: Rc<Open>,
    /// Likewise, for the metrics.
    pub(super) stats: Arc<WorkerStats>,
    /// Its listener.
    pub(super) listener: Arc<Listener>,
}

impl Connection {
    /// Serves it until it ends, once it is clear who the client is.
    pub(super) async fn serve(
        mut self,
        mut socket: Socket,
        peer: Peer,
        proxy: Rc<Proxy>,
        phase: watch::Receiver<Phase>,
    ) {
        let introduced = tokio::select! {
            biased;
            introduced = self.introduced(&mut socket, peer, &proxy) => introduced,
            () = connection::farewell(phase.clone()) => return,
        };
        match introduced {
            Ok(peer) => connection::serve(socket, peer, Arc::clone(&self.listener), proxy, phase).await,
            Err(reason) => {
                tracing::debug!(%peer, reason, "connection refused");
                self.stats.turned_away(self.listener.ordinal, reason);
            }
        }
    }

    /// The client: the peer, or whom a load balancer tells of; that one is counted by its own address.
    async fn introduced(&mut self, socket: &mut Socket, peer: Peer, proxy: &Proxy) -> Result<Peer, &'static str> {
        let config = proxy.config.load_full();
        let settings = Arc::clone(&self.listener);
        let expected = match settings.proxy_protocol {
            ProxyProtocol::Never => return Ok(peer),
            ProxyProtocol::Optional => Expected::Perhaps,
            ProxyProtocol::Required => Expected::Always,
        };
        if !config.trusts(peer.ip()) {
            // Where there may be none, its header is read as a request, and is a bad one.
            return if expected == Expected::Perhaps { Ok(peer) } else { Err(Refused::Untrusted.label()) };
        }
        let limit = settings.header_timeout;
        let client = proxy_protocol::read(socket, peer, expected, limit).await.map_err(Refused::label)?;
        let counted = client.ip().filter(|address| !config.trusts(Some(*address)));
        self.permit
            .count(settings.max_connections_per_ip, counted, config.client_ip.ipv6_prefix)
            .map_err(caps::Full::label)?;
        Ok(client)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stats.closed(self.listener.ordinal);
        let count = self.open.count.get() - 1;
        self.open.count.set(count);
        if count == 0 {
            self.open.none.notify_waiters();
        }
    }
}
