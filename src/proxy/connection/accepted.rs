//! An accepted socket becomes a connection: what is known of the client, and the TLS handshake where
//! the listener has one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Version};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

use super::{Connection, PanicCount, Phase, closing, farewell};
use crate::config::{Listener, ListenerTls};
use crate::proxy::handshake::{self, Desk, Failure};
use crate::proxy::inbound::{Clocks, Refusal};
use crate::proxy::socket::{Peer, Socket};
use crate::proxy::transport::Transport;
use crate::proxy::{Downstream, Proxy};

/// Serves one accepted connection until it ends.
pub async fn serve(
    socket: Socket,
    peer: Peer,
    listener: Arc<Listener>,
    proxy: Rc<Proxy>,
    phase: watch::Receiver<Phase>,
) {
    let mut settings = Listener::clone(&listener);
    let mut downstream = Downstream {
        peer,
        peer_text: peer_text(peer),
        local: socket.local(),
        listener,
        trusted: proxy.config.load().trusts(peer.ip()),
        in_flight: Cell::new(0),
        close: Cell::new(false),
        version: Cell::new(Version::HTTP_11),
        secured: None,
        tunnel: RefCell::default(),
        stats: Arc::clone(&proxy.stats),
        phase: Rc::new(phase.clone()),
    };
    let transport = match settings.tls.clone() {
        None => Transport::Plain(socket),
        Some(tls) => {
            // Boxed: in clear text a connection need not have room for a handshake.
            let shaken = Box::pin(shake(socket, &tls, &downstream, &proxy, phase.clone())).await;
            let Some(stream) = shaken else { return };
            secure(&mut downstream, &mut settings, &stream, &tls);
            Transport::Tls(Box::new(stream))
        }
    };
    let clocks = Clocks::new(settings.header_timeout, settings.idle_timeout);
    let connection = Connection { downstream: Rc::new(downstream), clocks, phase };
    let handler = move |request, downstream| Rc::clone(&proxy).handle(request, downstream);
    connection.serve(transport, &settings, handler).await;
}

/// Notes what a handshake has proved and agreed on.
fn secure(downstream: &mut Downstream, settings: &mut Listener, stream: &TlsStream<Socket>, tls: &ListenerTls) {
    let (secured, protocols) = handshake::agreed(stream, tls, settings.protocols);
    downstream.secured = Some(secured);
    settings.protocols = protocols;
}

fn peer_text(peer: Peer) -> HeaderValue {
    let text = peer.ip().and_then(|address| HeaderValue::try_from(address.to_string()).ok());
    text.unwrap_or(const { HeaderValue::from_static("unknown") })
}

/// Shakes hands, unless the process ends meanwhile; a failure is counted.
async fn shake(
    socket: Socket,
    tls: &ListenerTls,
    downstream: &Downstream,
    proxy: &Proxy,
    phase: watch::Receiver<Phase>,
) -> Option<TlsStream<Socket>> {
    let _panics = PanicCount(Arc::clone(&downstream.stats));
    let turns = proxy.handshakes.of(downstream.listener.ordinal, tls.max_handshakes);
    let desk = Desk { tls, turns: &turns, stats: &downstream.stats, listener: downstream.listener.ordinal };
    let shaken = tokio::select! {
        biased;
        shaken = handshake::accept(socket, desk) => shaken,
        () = farewell(phase) => return None,
    };
    let failure = match shaken {
        Ok(stream) => return Some(stream),
        Err(failure) => failure,
    };
    tracing::debug!(peer = %downstream.peer, reason = failure.kind(), "TLS handshake failed");
    downstream.stats.handshake_failed(downstream.listener.ordinal, failure.kind());
    if let Failure::Plaintext(socket) = failure {
        closing::turn_away(socket, Refusal::Plaintext, downstream).await;
    }
    None
}
