//! What the configuration says about the store.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::key::Hashing;

/// Longest secret that is read again, bytes.
const LONGEST: u64 = 64 * 1024;

/// Where limiter state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Memory or Redis.
    pub backend: Backend,
    /// Upper bound of states kept in this process (memory store and local fallback).
    pub max_keys: usize,
}

impl StoreSettings {
    /// The secret that `key_secret_file` holds, hashed, if there is one.
    #[must_use]
    pub fn key_secret(&self) -> Option<&[u8]> {
        match &self.backend {
            Backend::Redis(redis) => match &redis.hashing {
                Hashing::Hashed(Some(secret)) => Some(&secret[..]),
                Hashing::Hashed(None) | Hashing::Raw => None,
            },
            Backend::Memory => None,
        }
    }

    /// How values enter subjects.
    #[must_use]
    pub fn hashing(&self) -> Hashing {
        match &self.backend {
            Backend::Memory => Hashing::Raw,
            Backend::Redis(redis) => redis.hashing.clone(),
        }
    }

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// This process.
    Memory,
    /// Redis.
    Redis(Box<RedisSettings>),
}

/// How to reach Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where it is.
    pub servers: Servers,
    /// TLS, towards sentinels too.
    pub tls: Option<RedisTls>,
    /// ACL user; `None` is the default user.
    pub username: Option<String>,
    /// Password; one that stands in a file is read again for each connection.
    pub password: Option<Secret>,
    /// First part of every key; printable ASCII without braces.
    pub key_prefix: Box<str>,
    /// What of a key decides its Cluster slot.
    pub hash_tags: HashTags,
    /// Deadline of one decision, everything included.
    pub timeout: Duration,
    /// How client-chosen key values are hashed.
    pub hashing: Hashing,
}

/// The shapes in which Redis is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    One {
        /// Where it is.
        address: ServerAddress,
        /// Database number.
        database: i64,
    },
    /// A master and its replicas, watched by sentinels.
    Sentinel(Box<SentinelSettings>),
    /// A Cluster, known by some of its nodes.
    Cluster(Vec<ServerAddress>),
}

/// Sentinels, and whom to ask them for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelSettings {
    /// Name of the master.
    pub master: Box<str>,
    /// The sentinels; never empty.
    pub nodes: Vec<ServerAddress>,
    /// Database number on the master.
    pub database: i64,
    /// The sentinels' own ACL user; `None` is the default user.
    pub username: Option<String>,
    /// The sentinels' own password.
    pub password: Option<Secret>,
}

/// Host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// Name or address, IPv6 without brackets.
    pub host: Box<str>,
    /// TCP port.
    pub port: u16,
}

/// What of a key stands in braces, so that it decides the key's Cluster slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HashTags {
    /// The subject: limits of one subject share a slot.
    #[default]
    Subject,
    /// The route, for the limits that are listed here by their names; all others are as above.
    Route(Arc<HashMap<Box<str>, Box<str>>>),
}

/// TLS towards Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisTls {
    /// PEM file of the authorities to trust; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// PEM certificate and key of this client.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A text that is never printed. One that stands in a file is the same whatever that holds by now: it may be replaced.
#[derive(Clone, Eq)]
pub struct Secret {
    text: Box<str>,
    file: Option<Arc<Path>>,
}

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), file: None }
    }

    /// The same of one that stands in a file, where it may be replaced.
    #[must_use]
    pub fn in_file(text: &str, file: &Path) -> Self {
        Self { text: text.into(), file: Some(file.into()) }
    }

    /// Where it stands, if in a file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What its file holds by now, behind a prefix; what was read first, where that cannot be read or it stands in
    /// none. Blocks on the disk.
    #[must_use]
    pub fn held_now(&self, prefix: &str) -> Cow<'_, str> {
        let read = |file: &Path| std::fs::File::open(file).and_then(|file| std::io::read_to_string(file.take(LONGEST)));
        match self.file().map(read) {
            Some(Ok(text)) if !text.trim_end().is_empty() => format!("{prefix}{}", text.trim_end()).into(),
            _ => self.reveal().into(),
        }
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        match (&self.file, &other.file) {
            (Some(one), Some(another)) => one == another,
            (None, None) => self.text == other.text,
            _ => false,
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl HashTags {
    /// The route that a state's keys are tagged with, if they are.
    #[must_use]
    pub fn route_of(&self, state_id: &str) -> Option<&str> {
        let Self::Route(routes) = self else { return None };
        // What follows the limit's name in a state id begins with one of these, which no name holds.
        let limit = state_id.split(['@', '~']).next().unwrap_or_default();
        routes.get(limit).map(|route| &**route)
    }
}

impl RedisSettings {
    /// Where the store is, without credentials, for logs: `redis://host:port/0`, or in words.
    #[must_use]
    pub fn display(&self) -> String {
        let list = |nodes: &[ServerAddress]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let secured = if self.tls.is_some() { ", TLS" } else { "" };
        match &self.servers {
            Servers::One { address, database } => self.url(address, *database),
            Servers::Sentinel(sentinel) => {
                format!("redis master {} (sentinels {}{secured})", sentinel.master, list(&sentinel.nodes))
            }
            Servers::Cluster(nodes) => format!("redis cluster ({}{secured})", list(nodes)),
        }
    }

    /// A server as a URL.
    #[must_use]
    pub fn url(&self, address: &ServerAddress, database: i64) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{address}/{database}")
    }
}

impl ServerAddress {
    /// An address; a host in brackets loses them.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.trim_matches(['[', ']']).into(), port }
    }
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}
