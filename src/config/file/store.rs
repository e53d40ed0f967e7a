//! The keys of the store.

use std::path::PathBuf;
use std::time::Duration;

use super::OnStoreError;
use crate::config::shape::{OneOrMany, keys, words};
use crate::config::values::{LimitName, RedisNode, RedisUrl};

keys! {
    /// Where limiter state lives.
    Store {
        /// Redis (6.2 or newer) or Valkey. Default: this process' memory.
        redis: Redis,
        /// A file of at least 32 bytes that keys the hash of client-chosen values; the same on all proxies.
        key_secret_file: PathBuf,
        /// When the store does not answer: `local` (default), `allow` or `deny`.
        on_store_error: OnStoreError,
        /// States kept in this process at most. Default: 1000000.
        max_keys: u64,
    }
}

words! {
    /// What of a key decides its Cluster slot.
    HashTag {
        /// What the limit is keyed by.
        Subject = "subject",
        /// The route.
        Route = "route",
    }
}

keys! {
    /// Where Redis is, and how to reach it. One of `url`, `sentinel` and `cluster` is required.
    Redis {
        /// One server: `redis://host:port/database`, or `rediss://` for TLS.
        url: RedisUrl,
        /// A master and its replicas, watched by sentinels.
        sentinel: Sentinel,
        /// Some nodes of a Cluster, `host:port`; the others are found.
        cluster: OneOrMany<RedisNode>,
        /// Database number, with `sentinel`. Default: 0.
        database: u64,
        /// With `cluster`: which states are in one group, decided at once, by one shard: those of one `subject` (default), which is what a request has as the key of a limit (one address, one API key), or those of one `route`.
        hash_tag: HashTag,
        /// ACL user.
        username: String,
        /// Password; better `password_file` or `${NAME}`.
        password: String,
        /// A file that holds the password.
        password_file: PathBuf,
        /// TLS: details of `rediss://`; with `sentinel` and `cluster` its presence (`tls: {}`) turns TLS on.
        tls: RedisTls,
        /// First part of every key. Default: tollgate.
        key_prefix: LimitName,
        /// Deadline of one decision, everything included. Default: 25ms.
        timeout: Duration,
    }
    instead of a value: "write `redis: { url: redis://127.0.0.1:6379/0 }`"
}

keys! {
    /// Sentinels, and the master to ask them for.
    Sentinel {
        /// The master's name. Required.
        master: LimitName,
        /// The sentinels, `host:port`. Required.
        nodes: OneOrMany<RedisNode>,
        /// The sentinels' own ACL user.
        username: String,
        /// The sentinels' own password; better `password_file` or `${NAME}`.
        password: String,
        /// A file that holds the sentinels' own password.
        password_file: PathBuf,
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
