//! One connection for decisions: socket, TLS, login, version, role, scripts.
//!
//! Everything a connection needs is done before it is published, so a decision never waits for a
//! handshake. It never reconnects by itself; `keeper.rs` does that.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use rustls::ClientConfig;

use super::super::super::stats::StoreErrorKind;
use super::super::settings::{RedisSettings, ServerAddress, Servers};
use super::answers::error_kind;
use super::command::Command;
pub use super::dial::{ConnectError, Driver};
use super::dial::{accepted, dial, text, unexpected};
use super::login::Login;
use super::pipeline::Pipeline;
use super::reply::LONGEST;
use super::script::Script;

/// Until TCP, TLS, login and scripts are done.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection that is ready for decisions.
#[derive(Debug)]
pub struct Connection {
    pipeline: Pipeline,
    address: ServerAddress,
    shas: [Box<str>; Script::ALL.len()],
}

impl Connection {
    /// Connects, logs in, checks the server's version and role and gives it the scripts, within
    /// [`CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// Says what failed.
    pub async fn open(
        settings: &RedisSettings,
        address: &ServerAddress,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<(Self, Driver), ConnectError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, open(settings, address, tls)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::timeout(CONNECT_TIMEOUT)),
        }
    }

    /// Whom it leads to.
    #[must_use]
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// The name under which the server knows a script.
    #[must_use]
    pub fn sha(&self, script: Script) -> &str {
        &self.shas[script as usize]
    }

    /// Sends one command at once; the future waits for its reply. No retry; a reply that comes after
    /// the caller has left is dropped, and replies are matched by their order.
    ///
    /// # Errors
    /// [`StoreErrorKind::Reset`] when the connection ended, [`StoreErrorKind::Protocol`] when its bytes
    /// were no reply, [`StoreErrorKind::Timeout`] when too many replies are overdue.
    pub fn send(&self, command: &Command) -> impl Future<Output = Result<Value, StoreErrorKind>> + use<> {
        self.pipeline.send(command)
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

/// Logs in, names the connection and gives the server the scripts, in one write.
async fn open(
    settings: &RedisSettings,
    address: &ServerAddress,
    tls: Option<Arc<ClientConfig>>,
) -> Result<(Connection, Driver), ConnectError> {
    let (pipeline, driver) = dial(address, tls, LONGEST).await?;
    let (database, master_only) = match &settings.servers {
        Servers::One { database, .. } => (*database, false),
        Servers::Sentinel(sentinel) => (sentinel.database, true),
        Servers::Cluster(_) => (0, false),
    };
    let login = Login::of_servers(settings).await;
    let hello = pipeline.send(&login.hello());
    let select = |database: i64| pipeline.send(&Command::of(&["SELECT", &database.to_string()]));
    let selected = (database != 0).then(|| select(database));
    let role = master_only.then(|| pipeline.send(&Command::of(&["ROLE"])));
    let named = pipeline.send(&Command::of(&["CLIENT", "SETNAME", "tollgate"]));
    let loading = Script::ALL.map(|script| pipeline.send(&script.load()));
    let greeting = hello.await.map_err(|kind| pipeline.explain(kind))?;
    check_version(&accepted(greeting, "HELLO")?)?;
    if let Some(selected) = selected {
        accepted(selected.await?, "SELECT")?;
    }
    if let Some(role) = role {
        check_role(&accepted(role.await?, "ROLE")?)?;
    }
    // A server that takes no names does without.
    named.await?;
    let mut shas = Vec::with_capacity(Script::ALL.len());
    for loaded in loading {
        shas.push(sha(&accepted(loaded.await?, "SCRIPT LOAD")?)?);
    }
    let shas = shas.try_into().map_err(|_| ConnectError::protocol("the server did not take all scripts"))?;
    Ok((Connection { pipeline, address: address.clone(), shas }, driver))
}

/// SET … PXAT needs Redis 6.2. Valkey, which counts its versions by itself, had it from the first on.
fn check_version(hello: &Value) -> Result<(), ConnectError> {
    let Value::Map(fields) = hello else { return Err(unexpected(hello, "HELLO")) };
    let field = |wanted: &str| fields.iter().find(|(name, _)| text(name) == Some(wanted)).and_then(|(_, it)| text(it));
    if field("server") == Some("valkey") {
        return Ok(());
    }
    let version = field("version").ok_or_else(|| ConnectError::protocol("the server does not say its version"))?;
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 2) {
        return Err(ConnectError::protocol(&format!("Redis {version} is too old: version 6.2 or newer is needed")));
    }
    Ok(())
}

/// A sentinel may name a server that is not the master any more, or not yet.
fn check_role(role: &Value) -> Result<(), ConnectError> {
    let Value::Array(items) = role else { return Err(unexpected(role, "ROLE")) };
    match items.first().and_then(text) {
        Some("master") => Ok(()),
        Some(other) => Err(ConnectError::new(
            StoreErrorKind::Readonly,
            format!("a sentinel names this server as the master, but its role is {other}"),
        )),
        None => Err(unexpected(role, "ROLE")),
    }
}

fn sha(loaded: &Value) -> Result<Box<str>, ConnectError> {
    match text(loaded) {
        Some(sha) if sha.len() == 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(sha.into()),
        _ => Err(unexpected(loaded, "SCRIPT LOAD")),
    }
}
