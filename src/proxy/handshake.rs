//! The TLS handshake of a client connection: on the connection's own task, under a clock of its own,
//! so that a slow one is nobody else's concern.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CertificateError, Error, PeerIncompatible, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::linger;
use crate::config::Protocols;
use crate::tls;

/// How long a handshake may take, from the accepted connection on.
const LIMIT: Duration = Duration::from_secs(10);
/// The content type of a handshake record (RFC 8446 §5.1): what a TLS connection begins with.
const HANDSHAKE: u8 = 0x16;

/// What a TLS connection has proved and agreed on.
#[derive(Debug)]
pub struct Secured {
    /// The subject of the client's certificate, when it showed one; it was verified.
    pub subject: Option<Box<str>>,
}

/// A handshake that came to no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client does not speak TLS at all.
    Plaintext(TcpStream),
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

/// Shakes hands. A client that fails is told why by an alert, and given time to read it.
pub(super) async fn accept(stream: TcpStream, config: &Arc<ServerConfig>) -> Result<TlsStream<TcpStream>, Failure> {
    // Fails only on a socket that is already gone, which the first read will tell.
    let _ = stream.set_nodelay(true);
    let (error, stream) = match timeout(LIMIT, shake(stream, config)).await {
        Err(_) => return Err(Failure::Failed("timeout")),
        Ok(Shaken::Done(secured)) => return Ok(*secured),
        Ok(Shaken::Plaintext(stream)) => return Err(Failure::Plaintext(stream)),
        Ok(Shaken::Failed(error, stream)) => (error, stream),
    };
    let kind = kind(&error);
    if let Some(stream) = stream {
        linger(stream).await;
    }
    Err(Failure::Failed(kind))
}

/// How a handshake ended, its socket with it.
enum Shaken {
    Done(Box<TlsStream<TcpStream>>),
    Plaintext(TcpStream),
    Failed(io::Error, Option<TcpStream>),
}

async fn shake(stream: TcpStream, config: &Arc<ServerConfig>) -> Shaken {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Err(error) => return Shaken::Failed(error, None),
        Ok(0) => return Shaken::Failed(io::ErrorKind::UnexpectedEof.into(), None),
        Ok(_) if first[0] != HANDSHAKE => return Shaken::Plaintext(stream),
        Ok(_) => {}
    }
    match TlsAcceptor::from(Arc::clone(config)).accept(stream).into_fallible().await {
        Ok(stream) => Shaken::Done(Box::new(stream)),
        Err((error, stream)) => Shaken::Failed(error, Some(stream)),
    }
}

/// Who the client is, and what it chose to speak. HTTP/2 over TLS is what ALPN says it is and nothing
/// else (RFC 9113 §3.3); a client without ALPN speaks HTTP/1.
pub(super) fn agreed(stream: &TlsStream<TcpStream>, offered: Protocols) -> (Secured, Protocols) {
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let subject = certificate.and_then(tls::subject);
    let protocols = match session.alpn_protocol() {
        Some(tls::H2) => Protocols { h1: false, h2: true },
        _ => Protocols { h2: false, ..offered },
    };
    (Secured { subject }, protocols)
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
