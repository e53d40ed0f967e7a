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
use super::super::settings::{Secret, ServerAddress};
use super::command::Command;
use super::pipeline::Pipeline;
use super::script::error_kind;

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
}

/// As whom to log in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login<'a> {
    /// ACL user; `None` is the default user.
    pub(super) username: Option<&'a str>,
    /// Without one nobody logs in.
    pub(super) password: Option<&'a Secret>,
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

impl Login<'_> {
    /// RESP3 and, with a password, the login.
    pub(super) fn hello(self) -> Command {
        match self.password {
            None => Command::of(&["HELLO", "3"]),
            Some(password) => {
                Command::of(&["HELLO", "3", "AUTH", self.username.unwrap_or("default"), password.reveal()])
            }
        }
    }
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
        Value::ServerError(error) => ConnectError {
            kind: error_kind(error),
            message: format!("{command} was answered with {} {}", error.code(), error.details().unwrap_or_default()),
        },
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
    pub(super) fn protocol(message: &str) -> Self {
        Self { kind: StoreErrorKind::Protocol, message: message.to_owned() }
    }

    pub(super) fn timeout(limit: Duration) -> Self {
        Self { kind: StoreErrorKind::Timeout, message: format!("no answer within {} ms", limit.as_millis()) }
    }

    /// The same error, said of this server.
    pub(super) fn at(self, server: &str) -> Self {
        Self { message: format!("{server}: {}", self.message), ..self }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => StoreErrorKind::Timeout,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                StoreErrorKind::Reset
            }
            _ => StoreErrorKind::Refused,
        };
        Self { kind, message: error.to_string() }
    }
}

impl From<StoreErrorKind> for ConnectError {
    fn from(kind: StoreErrorKind) -> Self {
        let message = match kind {
            StoreErrorKind::Reset => "the server closed the connection",
            _ => "the server does not answer as Redis does",
        };
        Self { kind, message: message.to_owned() }
    }
}
