//! One GET of a key set: its own connection, one time limit, a bounded body, no redirects.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::key_set::LARGEST;
use super::settings::JwksUrl;

/// Name resolution, connection, request and the whole answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("no whole answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the server answers {}{}", .0.as_u16(), if .0.is_redirection() { "; give the final address" } else { "" })]
    Status(StatusCode),
    #[error("the answer is larger than {} KiB", LARGEST / 1024)]
    TooLarge,
    #[error("the connection failed: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

/// Fetches what is at an address. Needs a local runtime.
///
/// # Errors
/// When the whole answer is not there in time, or is none.
pub(super) async fn fetch(url: &JwksUrl) -> Result<Bytes, FetchError> {
    tokio::time::timeout(TIMEOUT, get(url)).await.unwrap_or(Err(FetchError::Timeout))
}

async fn get(url: &JwksUrl) -> Result<Bytes, FetchError> {
    let socket = TcpStream::connect((&*url.host, url.port)).await?;
    if !url.tls {
        return exchange(socket, url).await;
    }
    let name = match url.host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(url.host.to_string()).map_err(io::Error::other)?,
    };
    let connector = TlsConnector::from(Arc::new(trust(url)?));
    exchange(connector.connect(name, socket).await?, url).await
}

/// Whom we believe to be the server. Read each time: authorities change, too.
fn trust(url: &JwksUrl) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &url.ca {
        for certificate in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(io::Error::other("no certificate authority to trust was found"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
}

async fn exchange<S>(stream: S, url: &JwksUrl) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _driver = Driver(tokio::task::spawn_local(async move {
        // What goes wrong is told to the exchange as well.
        let _ = connection.await;
    }));
    let request = Request::get(&*url.target)
        .header(header::HOST, &*url.authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Broken(error.into()))?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(broken)?;
    Ok(body.to_bytes())
}

fn broken(error: Box<dyn std::error::Error + Send + Sync>) -> FetchError {
    if error.is::<LengthLimitError>() { FetchError::TooLarge } else { FetchError::Broken(error) }
}

impl From<hyper::Error> for FetchError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error.into())
    }
}

/// The task that moves a connection's bytes; ended with the exchange.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
