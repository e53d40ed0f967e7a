//! The way to the collector: one connection that is kept, HTTP/1.1, with TLS where its address says so.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::otlp::Receipt;
use crate::config::Collector as Settings;

/// Most that is read of an answer, bytes.
const LARGEST: usize = 64 * 1024;

/// Longest pause that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Where spans are sent.
#[derive(Debug)]
pub(super) struct Collector {
    settings: Arc<Settings>,
    connection: Option<Connection>,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There was no connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// It did not last.
    #[error("the connection failed: {0}")]
    Broken(#[from] hyper::Error),
    /// It took too long.
    #[error("no whole answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// It has no room for it now.
    #[error("the collector answers {0}")]
    Busy(StatusCode, Option<Duration>),
    /// It will not take this batch ever.
    #[error("the collector answers {}{}", .0.as_u16(), advice(*.0))]
    Refused(StatusCode),
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; look at `headers` and `token_file`",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "; look at the path of `endpoint`",
        status if status.is_redirection() => "; give the final address",
        _ => "",
    }
}

/// An open connection and the task that moves its bytes, ended with it.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Collector {
    /// Not connected yet.
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, connection: None }
    }

    /// Delivers one batch. Needs a local runtime.
    pub(super) async fn deliver(&mut self, batch: &Bytes) -> Result<Receipt, Failure> {
        let limit = self.settings.timeout;
        let delivered = tokio::time::timeout(limit, self.exchange(batch)).await.unwrap_or(Err(Failure::Timeout(limit)));
        if matches!(delivered, Err(Failure::Broken(_) | Failure::Timeout(_))) {
            self.connection = None;
        }
        delivered
    }

    /// Gives up the connection.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    async fn exchange(&mut self, batch: &Bytes) -> Result<Receipt, Failure> {
        let request = self.request(batch)?;
        let response = match self.kept().await {
            Some(mut kept) => match kept.sender.try_send_request(request).await {
                Ok(response) => {
                    self.connection = Some(kept);
                    response
                }
                // It had ended meanwhile, and nothing was sent.
                Err(mut error) => match error.take_message() {
                    Some(request) => self.send_anew(request).await?,
                    None => return Err(error.into_error().into()),
                },
            },
            None => self.send_anew(request).await?,
        };
        read(response).await
    }

    /// The connection of the batch before, if it still is one.
    async fn kept(&mut self) -> Option<Connection> {
        let mut kept = self.connection.take()?;
        kept.sender.ready().await.ok()?;
        Some(kept)
    }

    async fn send_anew(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let connection = self.connect().await?;
        let connection = self.connection.insert(connection);
        Ok(connection.sender.send_request(request).await?)
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let url = &self.settings.address;
        let socket = TcpStream::connect(&*addresses(&url.host, url.port).await?).await?;
        socket.set_nodelay(true)?;
        let Some((config, name)) = &self.settings.tls else { return Connection::over(socket).await };
        let stream = TlsConnector::from(Arc::clone(config)).connect(name.clone(), socket).await?;
        Connection::over(stream).await
    }

    fn request(&self, batch: &Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let url = &self.settings.address;
        let mut request = Request::post(&*url.target)
            .body(Full::new(batch.clone()))
            .map_err(|error| Failure::Connect(io::Error::other(error)))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, const { HeaderValue::from_static("application/x-protobuf") });
        headers.insert(USER_AGENT, const { HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION"))) });
        if let Ok(host) = HeaderValue::from_str(&url.authority) {
            headers.insert(HOST, host);
        }
        for (name, secret) in &self.settings.headers {
            // They were looked at when the configuration was loaded; a token's file may hold another by now.
            if let Ok(mut value) = HeaderValue::from_str(&secret.held_now("Bearer ")) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        Ok(request)
    }
}

/// The addresses of a host. The system's resolver blocks and cannot be interrupted: it has a thread of its own, which
/// nobody waits for when the process ends.
async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (tell, told) = oneshot::channel();
    let host = host.to_owned();
    std::thread::Builder::new().name("traces-dns".to_owned()).spawn(move || {
        // Whoever asked may have given up meanwhile.
        let _ = tell.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
    })?;
    told.await.map_err(io::Error::other)?
}

impl Connection {
    async fn over<S>(stream: S) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::task::spawn_local(async move {
            // What goes wrong is told to the exchange as well.
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What an answer says (OTLP/HTTP, "OTLP/HTTP Response"). Its body is read to the end, so that the connection can be kept.
async fn read(response: Response<Incoming>) -> Result<Receipt, Failure> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LARGEST).collect().await.map(http_body_util::Collected::to_bytes);
    match head.status {
        status if status.is_success() => Ok(Receipt::read(&body.unwrap_or_default())),
        status if is_temporary(status) => Err(Failure::Busy(status, pause(&head.headers))),
        status => Err(Failure::Refused(status)),
    }
}

/// Whether the same batch may be taken later.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The seconds in Retry-After.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_may_ask_for_a_pause_of_at_most_a_minute() {
        let asked = |text: &'static str| pause(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]));
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("86400"), Some(LONGEST_PAUSE));
        assert_eq!((asked("Wed, 21 Oct 2026 07:28:00 GMT"), asked("-1"), pause(&HeaderMap::new())), (None, None, None));
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        for (status, temporary) in [(429, true), (502, true), (503, true), (504, true), (500, false), (400, false)] {
            assert_eq!(is_temporary(StatusCode::from_u16(status).unwrap()), temporary, "{status}");
        }
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver_and_a_name_has_one() {
        assert_eq!(addresses("::1", 4318).await.unwrap(), ["[::1]:4318".parse().unwrap()]);
        assert!(addresses("localhost", 4318).await.unwrap().iter().all(|address| address.ip().is_loopback()));
        assert!(addresses("no such name", 4318).await.is_err());
    }
}
