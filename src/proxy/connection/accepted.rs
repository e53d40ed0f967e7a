//! An accepted socket becomes a connection: what is known of the client, and the TLS handshake where
//! the listener has one.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Version};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

use super::{Connection, PanicCount, Phase, closing, farewell};
use crate::proxy::handshake::{self, Failure};
use crate::proxy::inbound::{Clocks, Refusal};
use crate::proxy::transport::Transport;
use crate::proxy::{Downstream, Proxy};

/// Serves one accepted connection until it ends.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    listener: usize,
    proxy: Rc<Proxy>,
    phase: watch::Receiver<Phase>,
) {
    let config = proxy.config.load_full();
    let Some(mut settings) = config.listeners.get(listener).cloned() else { return };
    let Ok(local) = stream.local_addr() else { return };
    let address = peer.ip().to_canonical();
    let mut downstream = Downstream {
        peer,
        peer_text: peer_text(address),
        local,
        listener,
        trusted: config.trusted_proxies.iter().any(|network| network.contains(&address)),
        in_flight: Cell::new(0),
        close: Cell::new(false),
        version: Cell::new(Version::HTTP_11),
        secured: None,
        tunnel: RefCell::default(),
        stats: Arc::clone(&proxy.stats),
    };
    drop(config);
    let transport = match &settings.tls {
        None => Transport::from(stream),
        Some(tls) => {
            // Boxed: in clear text a connection need not have room for a handshake.
            let shaken = Box::pin(shake(stream, &tls.config, &downstream, phase.clone())).await;
            let Some(stream) = shaken else { return };
            let (secured, protocols) = handshake::agreed(&stream, settings.protocols);
            downstream.secured = Some(secured);
            settings.protocols = protocols;
            Transport::Tls(Box::new(stream))
        }
    };
    let clocks = Clocks::new(settings.header_timeout, settings.idle_timeout);
    let connection = Connection { downstream: Rc::new(downstream), clocks, phase };
    let handler = move |request, downstream| Rc::clone(&proxy).handle(request, downstream);
    connection.serve(transport, &settings, handler).await;
}

fn peer_text(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).unwrap_or(const { HeaderValue::from_static("unknown") })
}

/// Shakes hands, unless the process ends meanwhile; a failure is counted.
async fn shake(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    downstream: &Downstream,
    phase: watch::Receiver<Phase>,
) -> Option<TlsStream<TcpStream>> {
    let _panics = PanicCount(Arc::clone(&downstream.stats));
    let shaken = tokio::select! {
        biased;
        shaken = handshake::accept(stream, config) => shaken,
        () = farewell(phase) => return None,
    };
    let failure = match shaken {
        Ok(stream) => return Some(stream),
        Err(failure) => failure,
    };
    tracing::debug!(peer = %downstream.peer, reason = failure.kind(), "TLS handshake failed");
    downstream.stats.handshake_failed(downstream.listener, failure.kind());
    if let Failure::Plaintext(stream) = failure {
        closing::turn_away(stream, Refusal::Plaintext, downstream).await;
    }
    None
}
