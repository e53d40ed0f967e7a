//! A socket to a Redis server or a sentinel, with TLS where it is wanted: what every connection begins with.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::super::super::stats::StoreErrorKind;
use super::super::settings::ServerAddress;
use super::answers::error_kind;
use super::log::Outage;
use super::pipeline::Pipeline;

/// The kernel gives up a peer that acknowledges nothing for this long.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    /// For the metric and for the breaker.
    pub kind: StoreErrorKind,
    /// For the log; never holds a secret.
    pub message: String,
    /// What whoever runs the proxy can do about it.
    pub help: &'static str,
}

/// The task that moves a connection's bytes. Dropping it ends the connection.
#[derive(Debug)]
pub struct Driver(JoinHandle<()>);

/// Connects. A reply of more than `longest` bytes will end the connection.
///
/// # Errors
/// Says what failed.
pub(super) async fn dial(
    address: &ServerAddress,
    tls: Option<Arc<ClientConfig>>,
    longest: usize,
) -> Result<(Pipeline, Driver), ConnectError> {
    let socket = TcpStream::connect((&*address.host, address.port)).await?;
    tune(&socket)?;
    let Some(tls) = tls else { return Ok(drive(socket, longest)) };
    let name = match address.host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(address.host.to_string()).map_err(io::Error::other)?,
    };
    Ok(drive(TlsConnector::from(tls).connect(name, socket).await?, longest))
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3));
    #[cfg(not(target_os = "openbsd"))]
    let keepalive = keepalive.with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    Ok(())
}

fn drive<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S, longest: usize) -> (Pipeline, Driver) {
    let (pipeline, driving) = Pipeline::new(stream, longest);
    (pipeline, Driver(tokio::task::spawn_local(driving)))
}

/// The reply to a command, unless it is an error.
pub(super) fn accepted(reply: Value, command: &str) -> Result<Value, ConnectError> {
    match reply {
        Value::ServerError(_) => Err(unexpected(&reply, command)),
        _ => Ok(reply),
    }
}

/// The error that an unexpected reply to a command is.
pub(super) fn unexpected(reply: &Value, command: &str) -> ConnectError {
    match reply {
        Value::ServerError(error) => ConnectError::new(
            error_kind(error),
            format!("{command} was answered with {} {}", error.code(), error.details().unwrap_or_default()),
        ),
        _ => ConnectError::protocol(&format!("{command} was not answered as Redis does")),
    }
}

/// A reply as text, where it is one.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

impl Driver {
    /// Returns when the connection has ended.
    pub async fn ended(&mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ConnectError {
    pub(super) fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: kind.advice() }
    }

    pub(super) fn protocol(message: &str) -> Self {
        Self::new(StoreErrorKind::Protocol, message)
    }

    pub(super) fn timeout(limit: Duration) -> Self {
        Self::new(StoreErrorKind::Timeout, format!("no answer within {} ms", limit.as_millis()))
    }

    /// The same error, said of this server.
    pub(super) fn at(self, server: &str) -> Self {
        Self { message: format!("{server}: {}", self.message), ..self }
    }

    /// The same error, met at a sentinel, which has settings of its own.
    pub(super) fn of_sentinel(self) -> Self {
        let help = match self.kind {
            StoreErrorKind::Noauth => {
                "correct store.redis.sentinel.username and its password: sentinels have their own"
            }
            StoreErrorKind::Refused | StoreErrorKind::Reset | StoreErrorKind::Timeout => {
                "start the sentinels, or correct store.redis.sentinel: its nodes, its master"
            }
            StoreErrorKind::Noperm => {
                "give the user of store.redis.sentinel the rights of tollgate-watch in deploy/redis/users.acl"
            }
            _ => self.help,
        };
        Self { help, ..self }
    }
}

/// Whether a connection failed because one side does not trust the other, or does not speak TLS.
pub(super) fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            _ if is_of_tls(&error) => StoreErrorKind::Tls,
            io::ErrorKind::TimedOut => StoreErrorKind::Timeout,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                StoreErrorKind::Reset
            }
            _ => StoreErrorKind::Refused,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StoreErrorKind> for ConnectError {
    fn from(kind: StoreErrorKind) -> Self {
        let message = match kind {
            StoreErrorKind::Reset => "the server closed the connection",
            _ => "the server does not answer as Redis does",
        };
        Self::new(kind, message)
    }
}

impl From<ConnectError> for Outage {
    fn from(error: ConnectError) -> Self {
        Self { cause: error.kind, error: error.message, help: error.help }
    }
}
