//! The shape of the file: every key that exists, with the text that documents it in the schema.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method};

use super::shape::{List, Named, OneOrMany, Short, keys, words};
use super::values::{
    Address, Allowance, Blocks, HeaderText, KeyChoice, LimitName, OverrideKey, RedisUrl, Server, Share, Status, Workers,
};
use crate::limit::policy::PathPattern;
use crate::route::{HostPattern, PathTemplate};
use crate::units::Size;

keys! {
    /// A configuration of Tollgate.
    File {
        /// Short form: the one address to listen on, such as `:8080` (every address, IPv4 and IPv6), `127.0.0.1:8080` or `[::1]:8080`.
        listen: Address,
        /// Short form: where every request goes: `http://host:port`, the name of an upstream, or `echo` (built in; answers with the request it received).
        upstream: String,
        /// Where clients connect, by name.
        listeners: Named<Short<Address, Listener>>,
        /// Whose X-Forwarded-* fields to believe: address blocks, or `private` (loopback, RFC 1918, link-local, unique local). Default: nobody.
        trusted_proxies: OneOrMany<Blocks>,
        /// How the client's address is found behind trusted proxies.
        client_ip: ClientIp,
        /// Groups of servers that answer alike, by name.
        upstreams: Named<Short<Server, Upstream>>,
        /// What is forwarded where. The most specific match wins.
        routes: List<Route>,
        /// Limits of every request, unmatched paths too: one shared bucket per key.
        limits: List<Limit>,
        /// Which rate-limit fields clients see: `draft` (default), `legacy`, `both` or `none`.
        rate_limit_headers: RateLimitHeaders,
        /// Where limiter state lives: `memory` (default) or a Redis server.
        store: Short<StoreName, Store>,
        /// The process log, on standard error.
        log: Log,
        /// The access log, on standard output. Default: off.
        access_log: AccessLog,
        /// Prometheus metrics, on the admin listener.
        metrics: Metrics,
        /// The admin listener: health, metrics. Default: 127.0.0.1:9901.
        admin: Short<Off, Admin>,
        /// How the process ends.
        shutdown: Shutdown,
        /// Number of workers: `auto` (default, one per core) or a number.
        workers: Workers,
    }
}

keys! {
    /// A socket that clients connect to.
    Listener {
        /// `host:port` with an IP address, or `:port` for every address. Required.
        address: Address,
        /// `h1` (HTTP/1.1) and `h2` (HTTP/2 in clear text, by prior knowledge). Default: both.
        protocols: OneOrMany<Protocol>,
        /// Connections open at once. Default: 20000.
        max_connections: u64,
        /// Connections open at once from one client address; never applied to trusted proxies. Default: no bound.
        max_connections_per_ip: u64,
        /// Time from the first byte of a request to the end of its head. Default: 10s.
        header_timeout: Duration,
        /// Time between requests of a kept-alive connection. Default: 75s.
        idle_timeout: Duration,
        /// Largest request head. Default: 32KiB.
        max_header_size: Size,
    }
}

words! {
    /// A protocol of a listener.
    Protocol {
        /// HTTP/1.1 and 1.0.
        H1 = "h1",
        /// HTTP/2 in clear text.
        H2 = "h2",
    }
}

keys! {
    /// How the client's address is found.
    ClientIp {
        /// The field that trusted proxies write it into: `x-forwarded-for` (default), `forwarded`, or one that holds a single address, such as `cf-connecting-ip`.
        header: HeaderName,
        /// Bits of an IPv6 address that make one client, 1 to 128. Default: 64.
        ipv6_prefix: u64,
    }
}

keys! {
    /// A group of servers.
    Upstream {
        /// Its servers, `http://host:port`. Required.
        servers: OneOrMany<Short<Server, ServerKeys>>,
        /// How requests are spread: `round_robin`.
        balance: Balance,
        /// How long a connection to a server may take. Default: 2s.
        connect_timeout: Duration,
        /// How long the response head may take; a route's `timeout` comes first. Default: 30s.
        response_timeout: Duration,
        /// Idle connections kept per server and worker. Default: 128.
        max_idle_connections: u64,
    }
}

keys! {
    /// One server.
    ServerKeys {
        /// `http://host:port`. Required.
        url: Server,
    }
}

words! {
    /// How requests are spread over servers.
    Balance {
        /// One after the other.
        RoundRobin = "round_robin",
    }
}

keys! {
    /// What is forwarded where, and under which limits.
    Route {
        /// Its name; unique. Required.
        name: LimitName,
        /// What it matches; all conditions must hold. Default: everything.
        r#match: Match,
        /// The name of an upstream, `http://host:port`, or `echo`. Required.
        upstream: String,
        /// Until the response head. Default: the upstream's `response_timeout`.
        timeout: Duration,
        /// Percent-encoded separators in the path (`%2F`, `%5C`, `%00`, `%25`): `reject` (default, 400) or `keep`.
        encoded_path: EncodedPath,
        /// Its limits, beside the global ones.
        limits: List<Limit>,
    }
}

keys! {
    /// What a route matches.
    Match {
        /// A host or several: `api.example.com` or `*.example.com`.
        host: OneOrMany<HostPattern>,
        /// A path or several: `/v1/orders`, `/v1/{tenant}/orders` or `/assets/*`.
        path: OneOrMany<PathTemplate>,
        /// A method or several. GET means HEAD too.
        method: OneOrMany<Method>,
        /// Fields and the values they must have.
        headers: Named<HeaderText>,
    }
}

words! {
    /// What to do with percent-encoded separators.
    EncodedPath {
        /// 400.
        Reject = "reject",
        /// Forwarded still encoded.
        Keep = "keep",
    }
}

keys! {
    /// A limit.
    Limit {
        /// Its name; unique. Default: `<route>/<key>`.
        name: LimitName,
        /// What is counted separately: `client_ip`, `header:NAME`, `cookie:NAME`, `query:NAME`, `path:PARAM`, `host`, `method`, `route` or `global`; `a | b` is the first one present; a list is a combined key. Required.
        key: OneOrMany<KeyChoice>,
        /// What happens when the key is not present: `client_ip` (default), `deny` or `skip`.
        missing: Missing,
        /// `token_bucket` (default) or `leaky_bucket` (admitted requests leave one by one).
        algorithm: AlgorithmName,
        /// How much is earned back: `100/s`, `5/10s`, `1000/m`, `0/s` (never) or `unlimited`. Required.
        rate: Allowance,
        /// The most at once. Default: the count of the rate.
        burst: u64,
        /// leaky_bucket: how many go through without delay. Default: 1.
        delay_after: u64,
        /// leaky_bucket: the longest a request may be held. Default: 10s, never above the route's timeout.
        max_wait: Duration,
        /// What a request costs: a number, or one per method. Default: 1.
        cost: Short<u64, Named<u64>>,
        /// `enforce` (default) or `shadow` (counted in the metrics, denies nothing).
        mode: Mode,
        /// What a shadow limit shows.
        shadow: Shadow,
        /// Other rates for some keys; the first that matches wins.
        overrides: List<Override>,
        /// When the store does not answer: `local`, `allow` or `deny`. Default: the store's.
        on_store_error: OnStoreError,
        /// Which paths it counts.
        r#match: LimitMatch,
        /// The answer instead of the usual 429.
        response: Response,
    }
}

words! {
    /// What happens to a request without the key.
    Missing {
        /// Counted by its client address.
        ClientIp = "client_ip",
        /// Denied.
        Deny = "deny",
        /// Not counted.
        Skip = "skip",
    }
}

words! {
    /// How a limit counts.
    AlgorithmName {
        /// Up to the burst at once, then at the rate.
        TokenBucket = "token_bucket",
        /// The same, and admitted requests are held for their turn.
        LeakyBucket = "leaky_bucket",
    }
}

words! {
    /// Whether a limit denies.
    Mode {
        /// It denies.
        Enforce = "enforce",
        /// It only watches.
        Shadow = "shadow",
    }
}

keys! {
    /// What a shadow limit shows.
    Shadow {
        /// Whether its rate-limit fields are sent.
        headers: bool,
    }
}

keys! {
    /// Another rate for some keys.
    Override {
        /// Key values, or address blocks where the key is `client_ip`. Required.
        key: OneOrMany<OverrideKey>,
        /// A rate, `0/s` (deny) or `unlimited`. Required.
        rate: Allowance,
        /// The most at once. Default: the count of the rate.
        burst: u64,
    }
}

words! {
    /// What to do when the store does not answer.
    OnStoreError {
        /// Decide in this process.
        Local = "local",
        /// Let it pass.
        Allow = "allow",
        /// Answer 503.
        Deny = "deny",
    }
}

keys! {
    /// Which paths a limit counts.
    LimitMatch {
        /// Only these: `/exact` or `/prefix/*`.
        path: OneOrMany<PathPattern>,
        /// Never these.
        not_path: OneOrMany<PathPattern>,
    }
}

keys! {
    /// The answer to a denied request.
    Response {
        /// 400 to 599. Default: 429.
        status: Status,
        /// Its media type. Default: text/plain; charset=utf-8.
        content_type: HeaderText,
        /// Its body; `{limit.name}`, `{limit.retry_after}` and `{request.id}` are filled in.
        body: String,
    }
}

words! {
    /// Which rate-limit fields clients see.
    RateLimitHeaders {
        /// `RateLimit-Policy` and `RateLimit`.
        Draft = "draft",
        /// `X-RateLimit-*`.
        Legacy = "legacy",
        /// Both.
        Both = "both",
        /// Neither.
        None = "none",
    }
}

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

keys! {
    /// The process log.
    Log {
        /// `error`, `warn`, `info` (default), `debug` or `trace`.
        level: LogLevel,
        /// `auto` (default: pretty on a terminal, JSON otherwise), `pretty` or `json`.
        format: LogFormat,
    }
}

words! {
    /// How much is logged.
    LogLevel {
        /// Failures.
        Error = "error",
        /// And oddities.
        Warn = "warn",
        /// And changes of state.
        Info = "info",
        /// And details.
        Debug = "debug",
        /// And everything.
        Trace = "trace",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// Pretty on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Pretty = "pretty",
        /// For machines.
        Json = "json",
    }
}

keys! {
    /// The access log.
    AccessLog {
        /// `json` (default) or `combined`.
        format: AccessLogFormat,
        /// Only these requests (and the sampled share of the others): `limited`, `errors`.
        only: OneOrMany<AccessLogClass>,
        /// Share of the other requests that is logged, such as `1%`. Default: 100%, or 0% with `only`.
        sample: Share,
    }
}

words! {
    /// How access log lines look.
    AccessLogFormat {
        /// One JSON object per line.
        Json = "json",
        /// The combined format.
        Combined = "combined",
    }
}

words! {
    /// Which requests are logged.
    AccessLogClass {
        /// Denied by a limit.
        Limited = "limited",
        /// Failed.
        Errors = "errors",
    }
}

keys! {
    /// Prometheus metrics.
    Metrics {
        /// Their path on the admin listener. Default: /metrics.
        path: PathPattern,
    }
}

words! {
    /// No admin listener.
    Off {
        /// None.
        None = "none",
    }
}

keys! {
    /// The admin listener.
    Admin {
        /// Its address; anything but loopback needs a token. Default: 127.0.0.1:9901.
        address: Address,
        /// A file that holds the bearer token.
        token_file: PathBuf,
    }
}

keys! {
    /// How the process ends.
    Shutdown {
        /// From the signal to the closing of the listeners, not ready any more. Default: 0s.
        delay: Duration,
        /// From then until the remaining connections are cut. Default: 30s.
        grace: Duration,
    }
}
