//! What the configuration says about the store.

use std::path::PathBuf;
use std::time::Duration;

use super::super::key::Hashing;

/// Where limiter state lives.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Memory or Redis.
    pub backend: Backend,
    /// Upper bound of states kept in this process (memory store and local fallback).
    pub max_keys: usize,
}

impl StoreSettings {
    /// How client-chosen values are shown to people: never as they are, they may be secrets.
    #[must_use]
    pub fn shown_hashing(&self) -> Hashing {
        match &self.backend {
            Backend::Memory => Hashing::Hashed(None),
            Backend::Redis(redis) => redis.hashing.clone(),
        }
    }
}

/// Which store.
#[derive(Debug, Clone)]
pub enum Backend {
    /// This process.
    Memory,
    /// Redis.
    Redis(Box<RedisSettings>),
}

/// How to reach one Redis server.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database number.
    pub database: i64,
    /// TLS, when the scheme is `rediss`.
    pub tls: Option<RedisTls>,
    /// ACL user; `None` is the default user.
    pub username: Option<String>,
    /// Password, read from the environment or a file when the configuration was loaded.
    pub password: Option<Secret>,
    /// First part of every key; printable ASCII without braces.
    pub key_prefix: Box<str>,
    /// Deadline of one decision, everything included.
    pub timeout: Duration,
    /// How client-chosen key values are hashed.
    pub hashing: Hashing,
}

/// TLS towards Redis.
#[derive(Debug, Clone)]
pub struct RedisTls {
    /// PEM file of the authorities to trust; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// PEM certificate and key of this client.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl RedisSettings {
    /// `redis://host:port/db`, without credentials, for logs.
    #[must_use]
    pub fn display_url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}:{}/{}", self.host, self.port, self.database)
    }
}
