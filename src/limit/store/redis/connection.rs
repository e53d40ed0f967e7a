//! One connection to Redis: socket, TLS, login, version, scripts.
//!
//! Everything a connection needs is done before it is published, so a decision never waits for a
//! handshake. It never reconnects by itself; `keeper.rs` does that.

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
use super::super::settings::RedisSettings;
use super::command::Command;
use super::pipeline::Pipeline;
use super::script::{Script, error_kind};

/// Until TCP, TLS, login and scripts are done.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The kernel gives up a peer that acknowledges nothing for this long.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that is ready for decisions.
#[derive(Debug)]
pub struct Connection {
    pipeline: Pipeline,
    shas: [Box<str>; Script::ALL.len()],
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    /// For the metric and for the breaker.
    pub kind: StoreErrorKind,
    /// For the log; never holds a secret.
    pub message: String,
}

impl Connection {
    /// Connects, logs in, checks the server's version and gives it the scripts, within [`CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// Says what failed.
    pub async fn open(
        settings: &RedisSettings,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<(Self, Driver), ConnectError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, open(settings, tls)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError {
                kind: StoreErrorKind::Timeout,
                message: format!("no answer within {} ms", CONNECT_TIMEOUT.as_millis()),
            }),
        }
    }

    /// The name under which the server knows a script.
    #[must_use]
    pub fn sha(&self, script: Script) -> &str {
        &self.shas[script as usize]
    }

    /// Sends one command and waits for its reply. No retry; a reply that comes after the caller has
    /// left is dropped, and replies are matched by their order.
    ///
    /// # Errors
    /// [`StoreErrorKind::Reset`] when the connection ended, [`StoreErrorKind::Protocol`] when its bytes
    /// were no reply, [`StoreErrorKind::Timeout`] when too many replies are overdue.
    pub async fn send(&self, command: &Command) -> Result<Value, StoreErrorKind> {
        self.pipeline.send(command).await
    }

    /// Gives the server a script again, after it forgot it.
    ///
    /// # Errors
    /// The reply's kind.
    pub async fn load(&self, script: Script) -> Result<(), StoreErrorKind> {
        match self.send(&script.load()).await? {
            Value::ServerError(error) => Err(error_kind(&error)),
            _ => Ok(()),
        }
    }
}

async fn open(settings: &RedisSettings, tls: Option<Arc<ClientConfig>>) -> Result<(Connection, Driver), ConnectError> {
    let host = settings.host.trim_start_matches('[').trim_end_matches(']');
    let socket = TcpStream::connect((host, settings.port)).await?;
    tune(&socket)?;
    let Some(tls) = tls else { return greet(settings, socket).await };
    let name = match host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
    };
    let stream = TlsConnector::from(tls).connect(name, socket).await?;
    greet(settings, stream).await
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

/// Logs in, names the connection and gives the server the scripts, in one write.
async fn greet<S>(settings: &RedisSettings, stream: S) -> Result<(Connection, Driver), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (pipeline, driving) = Pipeline::new(stream);
    let driver = Driver(tokio::task::spawn_local(driving));
    let hello = pipeline.send(&hello(settings));
    let select = |database: i64| pipeline.send(&Command::of(&["SELECT", &database.to_string()]));
    let selected = (settings.database != 0).then(|| select(settings.database));
    let named = pipeline.send(&Command::of(&["CLIENT", "SETNAME", "tollgate"]));
    let loading = Script::ALL.map(|script| pipeline.send(&script.load()));
    check_version(&accepted(hello.await?, "HELLO")?)?;
    if let Some(selected) = selected {
        accepted(selected.await?, "SELECT")?;
    }
    // A server that takes no names does without.
    named.await?;
    let mut shas = Vec::with_capacity(Script::ALL.len());
    for loaded in loading {
        shas.push(sha(&accepted(loaded.await?, "SCRIPT LOAD")?)?);
    }
    let shas = shas.try_into().map_err(|_| ConnectError::protocol("the server did not take all scripts"))?;
    Ok((Connection { pipeline, shas }, driver))
}

/// RESP3 and, with a password, the login.
fn hello(settings: &RedisSettings) -> Command {
    match &settings.password {
        None => Command::of(&["HELLO", "3"]),
        Some(password) => {
            let username = settings.username.as_deref().unwrap_or("default");
            Command::of(&["HELLO", "3", "AUTH", username, password.reveal()])
        }
    }
}

/// The reply to a command of the handshake, unless it is an error.
fn accepted(reply: Value, command: &str) -> Result<Value, ConnectError> {
    match reply {
        Value::ServerError(_) => Err(unexpected(&reply, command)),
        _ => Ok(reply),
    }
}

/// SET … PXAT needs Redis 6.2.
fn check_version(hello: &Value) -> Result<(), ConnectError> {
    let Value::Map(fields) = hello else { return Err(unexpected(hello, "HELLO")) };
    let version = fields.iter().find_map(|(name, value)| match (text(name)?, text(value)?) {
        ("version", version) => Some(version),
        _ => None,
    });
    let Some(version) = version else { return Err(ConnectError::protocol("the server does not say its version")) };
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 2) {
        return Err(ConnectError::protocol(&format!("Redis {version} is too old: version 6.2 or newer is needed")));
    }
    Ok(())
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

fn sha(loaded: &Value) -> Result<Box<str>, ConnectError> {
    match text(loaded) {
        Some(sha) if sha.len() == 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(sha.into()),
        _ => Err(unexpected(loaded, "SCRIPT LOAD")),
    }
}

fn unexpected(reply: &Value, command: &str) -> ConnectError {
    match reply {
        Value::ServerError(error) => ConnectError {
            kind: error_kind(error),
            message: format!("{command} was answered with {} {}", error.code(), error.details().unwrap_or_default()),
        },
        _ => ConnectError::protocol(&format!("{command} was not answered as Redis does")),
    }
}

impl ConnectError {
    fn protocol(message: &str) -> Self {
        Self { kind: StoreErrorKind::Protocol, message: message.to_owned() }
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

/// The task that moves a connection's bytes. Dropping it ends the connection.
#[derive(Debug)]
pub struct Driver(JoinHandle<()>);

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
