//! The keys of the store.

use std::path::PathBuf;
use std::time::Duration;

use super::OnStoreError;
use crate::config::shape::{keys, words};
use crate::config::values::{LimitName, RedisUrl};

words! {
    /// The store's short form.
    StoreName {
        /// This process.
        Memory = "memory",
    }
}

keys! {
    /// Where limiter state lives.
    Store {
        /// One Redis server (6.2 or newer). Default: this process' memory.
        redis: Redis,
        /// A file of at least 32 bytes that keys the hash of client-chosen values; the same on all proxies.
        key_secret_file: PathBuf,
        /// When the store does not answer: `local` (default), `allow` or `deny`.
        on_store_error: OnStoreError,
        /// States kept in this process at most. Default: 1000000.
        max_keys: u64,
    }
}

keys! {
    /// One Redis server.
    Redis {
        /// `redis://host:port/database`, or `rediss://` for TLS. Required.
        url: RedisUrl,
        /// ACL user.
        username: String,
        /// Password; better `password_file` or `${NAME}`.
        password: String,
        /// A file that holds the password.
        password_file: PathBuf,
        /// TLS, with `rediss://`.
        tls: RedisTls,
        /// First part of every key. Default: tollgate.
        key_prefix: LimitName,
        /// Deadline of one decision, everything included. Default: 25ms.
        timeout: Duration,
    }
}

keys! {
    /// TLS towards Redis.
    RedisTls {
        /// PEM file of the authorities to trust. Default: the system's.
        ca: PathBuf,
        /// PEM file of this client's certificate.
        cert: PathBuf,
        /// PEM file of its key.
        key: PathBuf,
    }
}
