//! One connection to Redis: socket, TLS, login, version, scripts.
//!
//! Everything a connection needs is done before it is published, so a decision never waits for a
//! handshake. It never reconnects by itself; [`super::keeper`] does that.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError, Value};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::super::super::stats::StoreErrorKind;
use super::super::settings::RedisSettings;
use super::bounded::Bounded;
use super::script::{Script, error_kind};

/// Until TCP, TLS, login and scripts are done.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Decisions that may wait in memory to be written.
const WRITE_QUEUE: usize = 1024;
/// Bytes of decisions that leave in one write.
const WRITE_BATCH: usize = 64 * 1024;
/// The kernel gives up a peer that acknowledges nothing for this long.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// Commands of the handshake, see [`greet`].
const GREETINGS: usize = 2 + Script::ALL.len();

/// A connection that is ready for decisions.
#[derive(Debug)]
pub struct Connection {
    multiplexed: MultiplexedConnection,
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
    /// [`StoreErrorKind::Reset`] when the connection ended, [`StoreErrorKind::Protocol`] when its bytes were no reply.
    pub async fn send(&self, cmd: &Cmd) -> Result<Value, StoreErrorKind> {
        let mut multiplexed = self.multiplexed.clone();
        multiplexed.send_packed_command(cmd).await.map_err(|error| match error.kind() {
            ErrorKind::Parse => StoreErrorKind::Protocol,
            _ => StoreErrorKind::Reset,
        })
    }

    /// Gives the server a script again, after it forgot it.
    ///
    /// # Errors
    /// The reply's kind.
    pub async fn load(&self, script: Script) -> Result<(), StoreErrorKind> {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(script.text());
        match self.send(&load).await? {
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

/// HELLO, AUTH and SELECT are redis-rs' part; then CLIENT SETNAME, HELLO again for the version (redis-rs
/// keeps the first one's answer to itself) and the scripts, in one write.
async fn greet<S>(settings: &RedisSettings, stream: S) -> Result<(Connection, Driver), ConnectError>
where
    S: Unpin + AsyncRead + AsyncWrite + Send + 'static,
{
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(WRITE_QUEUE)
        .set_write_backpressure_boundary(WRITE_BATCH);
    let (mut multiplexed, driver) =
        MultiplexedConnection::new_with_config(&login(settings), Bounded::new(stream), config).await?;
    let driver = Driver(tokio::task::spawn_local(driver));
    let mut greeting = redis::pipe();
    greeting.cmd("CLIENT").arg("SETNAME").arg("tollgate");
    greeting.cmd("HELLO").arg("3");
    for script in Script::ALL {
        greeting.cmd("SCRIPT").arg("LOAD").arg(script.text());
    }
    let replies = multiplexed.send_packed_commands(&greeting, 0, GREETINGS).await?;
    let (Some(hello), Some(loaded)) = (replies.get(1), replies.get(2..)) else {
        return Err(ConnectError::protocol("the server's greeting is incomplete"));
    };
    check_version(hello)?;
    let shas: Vec<Box<str>> = loaded.iter().map(sha).collect::<Result<_, _>>()?;
    let shas = shas.try_into().map_err(|_| ConnectError::protocol("the server did not take all scripts"))?;
    Ok((Connection { multiplexed, shas }, driver))
}

fn login(settings: &RedisSettings) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(settings.database)
        .set_skip_set_lib_name();
    if let Some(username) = &settings.username {
        login = login.set_username(username);
    }
    if let Some(password) = &settings.password {
        login = login.set_password(password.reveal());
    }
    login
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

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        let message = error.to_string();
        let kind = match error.kind() {
            ErrorKind::AuthenticationFailed => StoreErrorKind::Noauth,
            ErrorKind::Io => StoreErrorKind::Reset,
            _ => redis::ServerError::try_from(error).map_or(StoreErrorKind::Protocol, |error| error_kind(&error)),
        };
        Self { kind, message }
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
