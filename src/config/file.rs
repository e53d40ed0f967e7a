//! The shape of the file: every key that exists, with the text that documents it in the schema.

mod foreign;
mod homes;
mod jwt;
mod limit;
mod matching;
mod process;
mod store;
mod tls;
mod transform;
mod trial;
mod upstream;
mod variants;

use std::time::Duration;

use http::HeaderName;

use super::shape::{List, Named, OneOrMany, Short, keys, words};
use super::values::{HttpsRedirect, InMemory, LimitName, Listening, Off, Server, SocketMode, Trusted, Workers};
use crate::units::Size;
pub(in crate::config) use homes::elsewhere;
pub(in crate::config) use jwt::Jwt;
pub(in crate::config) use limit::{AlgorithmName, Limit, Missing, Mode, OnStoreError, Override, Penalty, Response};
pub(in crate::config) use matching::{Condition, Match, PathKeys};
pub(in crate::config) use process::{
    AccessLog, AccessLogClass, AccessLogFormat, Admin, Log, LogFormat, LogLevel, Memory, Metrics, MetricsToken, Otlp,
    Shutdown, Tracing,
};
pub(in crate::config) use store::{HashTag, Redis, Sentinel, Store};
pub(in crate::config) use tls::{
    CertificateFiles, ClientAuth, ClientAuthMode, MinVersion, Tls, UnknownName, UpstreamTls,
};
pub(in crate::config) use transform::{
    Access, Cors, FieldEdits, QueryRewrite, Redirect, RegexRewrite, Respond, Rewrite,
};
pub(in crate::config) use trial::{Answer, Expectation, Sending, Trial};
pub(in crate::config) use upstream::{
    ActiveHealth, Balance, CheckType, Dns, PassiveHealth, RetryKeys, RetryReason, SentProxyProtocol, ServerKeys,
    Upstream, UpstreamProtocol,
};
pub(in crate::config) use variants::{DynamicOverrides, Schedule, TierTerms, Tiers};

keys! {
    /// A configuration of Tollgate.
    File {
        /// Short form: the one address to listen on: `:8080` (every address, IPv4 and IPv6), an IP address (`127.0.0.1:8080`, `"[::1]:8080"`), `localhost:8080` (only 127.0.0.1; no other name) or `unix:/path`.
        listen: Listening,
        /// Short form: where every request goes: a server's address (`http://host:port`, `https://host:port` or `unix:/path`), the name of an upstream, or `echo` (built in; answers with the request it received).
        upstream: String,
        /// Where clients connect, by name.
        listeners: Named<Short<Listening, Listener>>,
        /// Whose X-Forwarded-* fields and PROXY headers to believe: address blocks, `private` (loopback, RFC 1918, link-local, unique local) or `unix` (who connects to a Unix socket). Default: nobody.
        trusted_proxies: OneOrMany<Trusted>,
        /// How the client's address is found behind trusted proxies.
        client_ip: ClientIp,
        /// Groups of servers that answer alike, by name.
        upstreams: Named<Short<Server, Upstream>>,
        /// Who tells the addresses of servers that are given by name. Default: what the system is told to ask.
        dns: Dns,
        /// What is forwarded where. The most specific match wins.
        routes: List<Route>,
        /// Who may ask at all, by the client's address: 403 before anything else, for unmatched paths too.
        access: Access,
        /// Limits of every request, unmatched paths too: one shared bucket per key.
        limits: List<Limit>,
        /// Which rate-limit fields clients see: `draft` (default), `legacy`, `both` or `none`.
        rate_limit_headers: RateLimitHeaders,
        /// Where limiter state lives: `memory` (default) or Redis.
        store: Short<InMemory, Store>,
        /// Whose tokens to believe, for `jwt:CLAIM` in the keys of limits and `{jwt.CLAIM}` in fields.
        jwt: Jwt,
        /// The process log, on standard error.
        log: Log,
        /// The access log, on standard output or in a file. Default: off.
        access_log: AccessLog,
        /// Traces of requests, for OpenTelemetry. Default: off.
        tracing: Tracing,
        /// Prometheus metrics, on the admin listener.
        metrics: Metrics,
        /// The admin listener: health, metrics. Default: 127.0.0.1:9901.
        admin: Short<Off, Admin>,
        /// How the process ends.
        shutdown: Shutdown,
        /// How much memory the process may use before it sheds load.
        memory: Memory,
        /// Number of workers: `auto` (default, one per core) or a number.
        workers: Workers,
        /// Tests of the limits, on a virtual clock: `tollgate test`.
        tests: List<Trial>,
    }
}

keys! {
    /// A socket that clients connect to.
    Listener {
        /// `host:port` with an IP address or `localhost` (only 127.0.0.1; no other name), `:port` for every address, or `unix:/path`. Required.
        address: Listening,
        /// Permissions of a Unix socket. Default: "0660".
        mode: SocketMode,
        /// `h1` (HTTP/1.1) and `h2` (HTTP/2: in clear text by prior knowledge, over TLS by ALPN). Default: both.
        protocols: OneOrMany<Protocol>,
        /// TLS towards clients. Default: none, clear text.
        tls: Tls,
        /// Answers every request with 308 to https: `true` (to the listener that speaks TLS) or the port that clients reach TLS on. Default: false.
        redirect_to_https: HttpsRedirect,
        /// The PROXY protocol, versions 1 and 2, from trusted proxies: `never` (default), `optional` or `required`.
        proxy_protocol: ProxyProtocol,
        /// Connections open at once. Default: 20000.
        max_connections: u64,
        /// Connections open at once from one client address; never applied to trusted proxies. Default: no bound.
        max_connections_per_ip: u64,
        /// Time from the first byte of a request to the end of its head. Default: 10s.
        header_timeout: Duration,
        /// Time between requests of a kept-alive connection. Default: 75s.
        idle_timeout: Duration,
        /// How long an event stream, a gRPC stream or a WebSocket may be silent. Default: 1h.
        stream_idle_timeout: Duration,
        /// Largest request head. Default: 32KiB.
        max_header_size: Size,
    }
}

words! {
    /// A protocol of a listener.
    Protocol {
        /// HTTP/1.1 and 1.0.
        H1 = "h1",
        /// HTTP/2.
        H2 = "h2",
    }
}

words! {
    /// Whether a header of the PROXY protocol comes first.
    ProxyProtocol {
        /// None does.
        Never = "never",
        /// One may.
        Optional = "optional",
        /// One must.
        Required = "required",
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
    /// What is forwarded where, and under which limits.
    Route {
        /// Its name; unique. Required.
        name: LimitName,
        /// What it matches; all conditions must hold. Default: everything.
        r#match: Match,
        /// The name of an upstream, a server's address, or `echo`. Required, unless there is `redirect` or `respond`.
        upstream: String,
        /// Instead of an upstream: sends requests elsewhere.
        redirect: Redirect,
        /// Instead of an upstream: a fixed answer.
        respond: Respond,
        /// What becomes of path, query and host before a request is forwarded.
        rewrite: Rewrite,
        /// What is changed in the fields of requests.
        request_headers: FieldEdits,
        /// What is changed in the fields of answers, the proxy's own too.
        response_headers: FieldEdits,
        /// Largest request body; larger ones are answered with 413. Default: no bound.
        max_body_size: Size,
        /// Who may use this route, by the client's address: 403 before any limit counts.
        access: Access,
        /// Which pages of other origins may read the answers; browsers that ask beforehand are answered, and not counted.
        cors: Cors,
        /// Until the response head. Default: the upstream's `response_timeout`.
        timeout: Duration,
        /// Which requests are sent again. Default: those of which nothing was written, to the next server.
        retries: RetryKeys,
        /// Percent-encoded separators in the path (`%2F`, `%5C`, `%00`, `%25`): `reject` (default, 400) or `keep`.
        encoded_path: EncodedPath,
        /// Its limits, beside the global ones.
        limits: List<Limit>,
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
