//! The TLS handshake of a client connection: on the connection's own task, under a clock of its own,
//! so that a slow one is nobody else's concern.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{CertificateError, Error, PeerIncompatible};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::client_certificate::CertificateFields;
use super::connection::linger;
use super::socket::Socket;
use crate::config::{ListenerTls, Protocols};
use crate::telemetry::WorkerStats;
use crate::telemetry::metrics::HandshakeState;
use crate::tls::{self, Credentials, UnknownName};

/// How long a handshake may take, from the accepted connection on.
const LIMIT: Duration = Duration::from_secs(10);
/// What one gets of that when there is no other place left. Most clients need less than a second.
const SHORTEST: Duration = Duration::from_secs(3);
/// The content type of a handshake record (RFC 8446 §5.1): what a TLS connection begins with.
const HANDSHAKE: u8 = 0x16;
/// Enough to see what a connection begins with; the rest is read by whoever understands it.
const FIRST: usize = 4096;
/// The fatal alert `unrecognized_name` as a record (RFC 8446 §5.1, §6; RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// What a TLS connection has proved and agreed on.
#[derive(Debug)]
pub struct Secured {
    /// The subject of the client's certificate, when it showed one; it was verified.
    pub subject: Option<Box<str>>,
    /// What upstreams are told of that certificate, where they are.
    pub told: Option<Box<CertificateFields>>,
}

/// A handshake that came to no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client does not speak TLS at all.
    Plaintext(Socket),
    /// Anything else; the word for the metrics.
    Failed(&'static str),
}

impl Failure {
    /// The word for logs and metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Plaintext(_) => "plaintext",
            Self::Failed(kind) => kind,
        }
    }
}

/// The handshakes of one listener on one worker. Only so many are under way at once: each holds
/// buffers, and the work of its keys. A client that has not even asked is none of them. The fewer places
/// are left, the less time a handshake gets, so that those who ask and then stall cannot keep all
/// others out.
#[derive(Debug)]
pub struct Turns {
    places: Semaphore,
    all: usize,
    /// As configured.
    wanted: usize,
}

impl Turns {
    /// Room for this many.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let all = places.min(Semaphore::MAX_PERMITS);
        Self { places: Semaphore::new(all), all, wanted: places }
    }

    /// How long a handshake may take that has just got its place.
    fn patience(&self) -> Duration {
        let left = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        let all = u32::try_from(self.all).unwrap_or(u32::MAX).max(1);
        SHORTEST + LIMIT.saturating_sub(SHORTEST) / all * left
    }
}

/// The handshakes of a worker's listeners.
#[derive(Debug, Default)]
pub struct Handshakes(RefCell<HashMap<usize, Rc<Turns>>>);

impl Handshakes {
    /// Those of a listener (its ordinal) that has this many places; those under a bound that held before go on.
    pub(super) fn of(&self, listener: usize, places: usize) -> Rc<Turns> {
        let mut all = self.0.borrow_mut();
        match all.get(&listener) {
            Some(turns) if turns.wanted == places => Rc::clone(turns),
            _ => {
                let turns = Rc::new(Turns::new(places));
                all.insert(listener, Rc::clone(&turns));
                turns
            }
        }
    }
}

/// A handshake's listener: what it shows, and who counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Desk<'a> {
    pub(super) tls: &'a ListenerTls,
    pub(super) turns: &'a Turns,
    pub(super) stats: &'a WorkerStats,
    /// Ordinal of the listener.
    pub(super) listener: usize,
}

/// Shakes hands. A client that fails is told why by an alert, and given time to read it.
pub(super) async fn accept(socket: Socket, desk: Desk<'_>) -> Result<TlsStream<Socket>, Failure> {
    socket.set_nodelay();
    let (kind, socket) = match timeout(LIMIT, desk.shake(socket)).await {
        Err(_) => return Err(Failure::Failed("timeout")),
        Ok(Shaken::Done(secured)) => return Ok(*secured),
        Ok(Shaken::Plaintext(socket)) => return Err(Failure::Plaintext(socket)),
        Ok(Shaken::Failed(kind, socket)) => (kind, socket),
    };
    if let Some(socket) = socket {
        linger(socket).await;
    }
    Err(Failure::Failed(kind))
}

/// How a handshake ended, its socket with it.
enum Shaken {
    Done(Box<TlsStream<Socket>>),
    Plaintext(Socket),
    Failed(&'static str, Option<Socket>),
}

impl Shaken {
    fn failed(error: &io::Error, socket: Option<Socket>) -> Self {
        Self::Failed(kind(error), socket)
    }
}

impl Desk<'_> {
    async fn shake(self, mut socket: Socket) -> Shaken {
        if socket.early().is_empty() {
            match socket.wait_for_more(FIRST).await {
                Err(error) => return Shaken::failed(&error, None),
                Ok(false) => return Shaken::failed(&io::ErrorKind::UnexpectedEof.into(), None),
                Ok(true) => {}
            }
        }
        if socket.early().first() != Some(&HANDSHAKE) {
            return Shaken::Plaintext(socket);
        }
        let mut hello = LazyConfigAcceptor::new(Acceptor::default(), socket);
        let hello = match (&mut hello).await {
            Ok(hello) => hello,
            Err(error) => return Shaken::failed(&error, hello.take_io()),
        };
        // From here on the handshake has one certificate and one set of authorities, whatever changes.
        let credentials = self.tls.live.now();
        if !self.serves(&hello, &credentials) {
            return refuse_name(hello.io).await;
        }
        let _running = self.take_turn().await;
        let rest = hello.into_stream(Arc::clone(&credentials.server)).into_fallible();
        match timeout(self.turns.patience(), rest).await {
            Ok(Ok(stream)) => Shaken::Done(Box::new(stream)),
            Ok(Err((error, socket))) => Shaken::failed(&error, Some(socket)),
            Err(_) => Shaken::Failed("crowded_out", None),
        }
    }

    /// Whether the name that the client asks for gets a certificate. One that names nobody asks for
    /// none that is known.
    fn serves(self, hello: &StartHandshake<Socket>, credentials: &Credentials) -> bool {
        self.tls.live.terms().unknown_name == UnknownName::Default
            || hello.client_hello().server_name().is_some_and(|name| credentials.know(name))
    }

    /// Waits until fewer handshakes are under way; the clock runs on.
    async fn take_turn(&self) -> impl Sized + use<'_> {
        let waiting = Counted::new(self, HandshakeState::Waiting);
        // Nobody closes the semaphore.
        let place = self.turns.places.acquire().await.ok();
        drop(waiting);
        (place, Counted::new(self, HandshakeState::Running))
    }
}

/// A handshake in one of its states, for the metrics.
struct Counted<'a>(&'a Desk<'a>, HandshakeState);

impl<'a> Counted<'a> {
    fn new(desk: &'a Desk<'a>, state: HandshakeState) -> Self {
        desk.stats.handshake_entered(desk.listener, state);
        Self(desk, state)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.stats.handshake_left(self.0.listener, self.1);
    }
}

/// Tells a client that there is nothing under this name.
async fn refuse_name(mut socket: Socket) -> Shaken {
    // A client that is gone needs no alert.
    let _ = socket.write_all(&UNRECOGNIZED_NAME).await;
    Shaken::Failed("unrecognized_name", Some(socket))
}

/// Who the client is, and what it chose to speak. HTTP/2 over TLS is what ALPN says it is and nothing
/// else (RFC 9113 §3.3); a client without ALPN speaks HTTP/1.
pub(super) fn agreed(stream: &TlsStream<Socket>, tls: &ListenerTls, offered: Protocols) -> (Secured, Protocols) {
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let subject = certificate.and_then(tls::subject);
    let forwarded = certificate.filter(|_| tls.forward_client_certificate);
    let told = forwarded.and_then(|certificate| CertificateFields::of(certificate, subject.as_deref())).map(Box::new);
    let protocols = match session.alpn_protocol() {
        Some(tls::H2) => Protocols { h1: false, h2: true },
        _ => Protocols { h2: false, ..offered },
    };
    (Secured { subject, told }, protocols)
}

/// Why a handshake failed, from a closed list of words.
fn kind(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        None if error.kind() == io::ErrorKind::UnexpectedEof => "closed",
        None => "connection",
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(Error::InvalidCertificate(error)) => certificate_kind(error),
        Some(Error::NoApplicationProtocol) => "no_application_protocol",
        Some(Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        )) => "protocol_version",
        Some(Error::PeerIncompatible(_)) => "incompatible",
        Some(Error::AlertReceived(_)) => "alert",
        Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. } | Error::PeerMisbehaved(_)) => "malformed",
        Some(_) => "other",
    }
}

fn certificate_kind(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate_expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "certificate_not_yet_valid",
        CertificateError::UnknownIssuer => "certificate_unknown_issuer",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "certificate_purpose",
        _ => "certificate_invalid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewer_places_are_left_the_less_time_a_handshake_gets() {
        let turns = Turns::new(7);
        assert_eq!(turns.patience(), LIMIT);
        let mut held = Vec::new();
        for left in (0..7).rev() {
            held.push(turns.places.try_acquire().unwrap());
            assert_eq!(turns.patience(), SHORTEST + Duration::from_secs(left));
        }
    }
}
