//! As whom a connection logs in. A password that stands in a file is read for every connection: it may have
//! been replaced since the last one.

use std::io;
use std::path::Path;

use super::super::settings::{RedisSettings, Secret, SentinelSettings};
use super::command::Command;

/// The largest password file, bytes.
const LARGEST: u64 = 1 << 16;

/// A user and its password.
#[derive(Debug)]
pub(super) struct Login<'a> {
    /// ACL user; `None` is the default user.
    username: Option<&'a str>,
    /// Without one nobody logs in.
    password: Option<Secret>,
}

impl<'a> Login<'a> {
    /// Towards the servers that decide.
    pub(super) async fn of_servers(settings: &'a RedisSettings) -> Self {
        Self::of(settings.username.as_deref(), settings.password.as_ref()).await
    }

    /// Towards the sentinels, which have users of their own.
    pub(super) async fn of_sentinels(settings: &'a SentinelSettings) -> Self {
        Self::of(settings.username.as_deref(), settings.password.as_ref()).await
    }

    async fn of(username: Option<&'a str>, password: Option<&Secret>) -> Self {
        let password = match password {
            Some(secret) => Some(current(secret).await),
            None => None,
        };
        Self { username, password }
    }

    /// RESP3 and, with a password, the login.
    pub(super) fn hello(&self) -> Command {
        match &self.password {
            None => Command::of(&["HELLO", "3"]),
            Some(password) => {
                Command::of(&["HELLO", "3", "AUTH", self.username.unwrap_or("default"), password.reveal()])
            }
        }
    }
}

/// What its file says now; what it said at first where that cannot be read.
async fn current(secret: &Secret) -> Secret {
    let Some(path) = secret.file() else { return secret.clone() };
    let owned = path.to_owned();
    match tokio::task::spawn_blocking(move || read(&owned)).await.map_err(io::Error::other).flatten() {
        Ok(text) => Secret::new(text.trim_end_matches(['\r', '\n'])),
        Err(error) => {
            tracing::debug!(file = %path.display(), %error, "the password file cannot be read, the last is used");
            secret.clone()
        }
    }
}

/// Blocks on the disk.
fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    if text.trim_end().is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(text)
}
