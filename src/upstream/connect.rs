//! From a server's address to a connection that HTTP can be spoken on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::announce::Origin;
use super::stream::Stream;
use super::{Address, Endpoint, Security, Upstream};

/// When a silent connection to a server is probed.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Which protocols a connection may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Whatever the server prefers of what the upstream allows.
    Any,
    /// HTTP/1.1: what a connection needs that is to change protocols.
    Http1,
}

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("no address found: {0}")]
    Resolve(#[source] io::Error),
    /// Refused or unreachable.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// Not within the connect timeout.
    #[error("no connection within the timeout")]
    Timeout,
    /// The server's certificate is not to be believed.
    #[error("the server's certificate cannot be believed: {0}")]
    Certificate(#[source] io::Error),
    /// The handshake failed otherwise.
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// The server speaks no protocol that was asked for.
    #[error("the server does not speak the protocol that is needed")]
    Protocol,
    /// The server has as many connections as it may have, and none was closed in time.
    #[error("there are as many connections as there may be")]
    Full,
    /// An endpoint that this process does not have.
    #[error("the built-in echo server is not running")]
    NoEcho,
}

/// A connection that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The upstream …
    pub upstream: &'a Upstream,
    /// … and which of its endpoints.
    pub endpoint: &'a Arc<Endpoint>,
    /// Which protocols it may speak.
    pub wanted: Wanted,
    /// Whose request it is for, where the server is to be told.
    pub origin: Option<Origin>,
}

impl Call<'_> {
    /// Opens the connection. `echo` is where the built-in echo server listens.
    ///
    /// # Errors
    /// When there is none within the connect timeout; see [`ConnectError`].
    pub async fn open(&self, echo: Option<SocketAddr>) -> Result<Stream, ConnectError> {
        let Self { upstream, endpoint, wanted, origin } = *self;
        let connecting = async {
            let mut stream = dial(endpoint, echo).await?;
            if let Some(version) = upstream.settings.proxy_protocol {
                stream.write_all(&version.header(origin)).await.map_err(ConnectError::Connect)?;
            }
            match (&endpoint.server.security, stream) {
                (Some(security), Stream::Tcp(stream)) => secure(stream, security, wanted).await,
                (_, stream) => Ok(stream),
            }
        };
        tokio::time::timeout(upstream.settings.connect_timeout, connecting).await.map_err(|_| ConnectError::Timeout)?
    }
}

async fn dial(endpoint: &Endpoint, echo: Option<SocketAddr>) -> Result<Stream, ConnectError> {
    let unknown = || ConnectError::Resolve(endpoint.server.lookup.error());
    match &endpoint.address {
        Address::Echo => dial_address(echo.ok_or(ConnectError::NoEcho)?).await,
        Address::Srv(_) => Err(unknown()),
        Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix).map_err(ConnectError::Connect),
        Address::Tcp { host, port } => match host.parse() {
            Ok(address) => dial_address(SocketAddr::new(address, *port)).await,
            Err(_) => Err(unknown()),
        },
    }
}

async fn dial_address(address: SocketAddr) -> Result<Stream, ConnectError> {
    let stream = TcpStream::connect(address).await.map_err(ConnectError::Connect)?;
    stream.set_nodelay(true).map_err(ConnectError::Connect)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(ConnectError::Connect)?;
    Ok(Stream::Tcp(stream))
}

async fn secure(stream: TcpStream, security: &Security, wanted: Wanted) -> Result<Stream, ConnectError> {
    let config = match wanted {
        Wanted::Any => &security.any,
        Wanted::Http1 => security.http1.as_ref().ok_or(ConnectError::Protocol)?,
    };
    let stream = shake(stream, config, security.name.clone()).await?;
    let stream = Stream::Tls(Box::new(stream));
    // A server without ALPN speaks HTTP/1.1 (RFC 9113 §3.3: HTTP/2 over TLS is what ALPN says it is).
    if security.http1.is_none() && !stream.agreed_on_h2() {
        return Err(ConnectError::Protocol);
    }
    Ok(stream)
}

async fn shake(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(|error| {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
                ConnectError::Certificate(plainly(error))
            }
            _ => ConnectError::Tls(error),
        }
    })
}

/// What is wrong with a certificate, without the bytes that rustls would show.
fn plainly(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(cause)) = cause else { return error };
    let words = match cause {
        CertificateError::UnknownIssuer => "it is signed by nobody that is believed here",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => "it is for another name",
        _ => return error,
    };
    io::Error::other(words)
}
