//! The keys of an upstream.

use std::time::Duration;

use super::UpstreamTls;
use crate::config::shape::{OneOrMany, Short, keys, words};
use crate::config::values::{CookieName, KeyChoice, NameServer, Nothing, RequestPath, Server, Share, StatusRange};

keys! {
    /// A group of servers.
    Upstream {
        /// Its servers: `http://host:port`, `https://host:port`, `unix:/path`, or `srv+http://name` for what SRV records say. Required.
        servers: OneOrMany<Short<Server, ServerKeys>>,
        /// How requests are spread: `round_robin` (default), `least_requests`, `random` or `hash`.
        balance: Balance,
        /// With `hash`: what decides, such as `client_ip` or `header:x-user | client_ip`. Requests without it go in turn. Required with `balance: hash`.
        hash_key: KeyChoice,
        /// Keeps a client with the server that it went to first, by a cookie. Default: none.
        sticky: Sticky,
        /// What is spoken with its servers: `auto` (default: HTTP/1.1 in clear text, what the server prefers over TLS), `h1`, or `h2` (in clear text by prior knowledge).
        protocol: UpstreamProtocol,
        /// TLS towards servers whose address begins with https.
        tls: UpstreamTls,
        /// Tells servers whose connection it is, by the PROXY protocol: `none` (default), `v1` or `v2`. Each request then has a connection of its own.
        proxy_protocol: SentProxyProtocol,
        /// How long a connection to a server may take, its TLS handshake included. Default: 2s.
        connect_timeout: Duration,
        /// How long the response head may take; a route's `timeout` comes first. Not of gRPC, where it may come late. Default: 30s.
        response_timeout: Duration,
        /// Idle connections kept per server and worker. Default: 128.
        max_idle_connections: u64,
        /// How long a connection is kept without a request; shorter than the servers keep theirs. Default: 4s.
        idle_timeout: Duration,
        /// How long a connection takes requests. Default: 1h.
        max_connection_age: Duration,
        /// Requests that one server gets at once, from all workers; more wait. Default: no bound.
        max_requests: u64,
        /// Connections that one server gets at once, from all workers, idle ones too. Default: no bound.
        max_connections: u64,
        /// Where requests wait when every server has `max_requests` or `max_connections`.
        queue: RequestQueue,
        /// When a server is not asked for a while.
        health: HealthKeys,
        /// How long a server that is back gets less than its share, growing. Default: 0s, its share at once.
        slow_start: Duration,
        /// Leaves the upstream alone while too many of its answers fail. Default: none.
        circuit_breaker: CircuitBreaker,
    }
}

words! {
    /// What is spoken with servers.
    UpstreamProtocol {
        /// HTTP/1.1 in clear text; over TLS what the server prefers.
        Auto = "auto",
        /// HTTP/1.1.
        H1 = "h1",
        /// HTTP/2.
        H2 = "h2",
    }
    instead of "h2c": "write `h2`: in clear text it is spoken by prior knowledge"
    instead of "http1": "write `h1`"
    instead of "http2": "write `h2`"
    instead of "grpc": "write `h2`: gRPC is spoken over it"
}

words! {
    /// A version of the PROXY protocol.
    SentProxyProtocol {
        /// It is not spoken.
        None = "none",
        /// A line of text.
        V1 = "v1",
        /// Binary.
        V2 = "v2",
    }
}

keys! {
    /// One server.
    ServerKeys {
        /// `http://host:port`, `https://host:port` or `unix:/path`. Required.
        url: Server,
        /// Its share of the requests in proportion to the others' weights, 1 to 1000. Default: 1.
        weight: u64,
        /// `true`: it is asked only while no other server can be. Default: false.
        backup: bool,
    }
}

words! {
    /// How requests are spread over servers.
    Balance {
        /// One after the other.
        RoundRobin = "round_robin",
        /// The less busy one of two drawn by lot.
        LeastRequests = "least_requests",
        /// By lot.
        Random = "random",
        /// The same value, the same server.
        Hash = "hash",
    }
    instead of "least_conn": "write `least_requests`"
    instead of "least_connections": "write `least_requests`"
    instead of "leastconn": "write `least_requests`"
    instead of "roundrobin": "write `round_robin`"
    instead of "p2c": "write `least_requests`: it draws two by lot"
    instead of "ip_hash": "write `hash`, and `hash_key: client_ip`"
    instead of "consistent_hash": "write `hash`, and `hash_key: client_ip` or another key"
    instead of "cookie": "write `sticky: { cookie: NAME }` instead"
}

keys! {
    /// Keeps clients with their servers.
    Sticky {
        /// The cookie's name. Required.
        cookie: CookieName,
        /// How long the client keeps it. Default: until the browser is closed.
        max_age: Duration,
    }
}

keys! {
    /// Where requests wait for a server.
    RequestQueue {
        /// Most requests that wait. Default: 1024.
        size: u64,
        /// How long one waits. Default: 1s.
        timeout: Duration,
    }
}

keys! {
    /// When a server is not asked for a while.
    HealthKeys {
        /// Checks of our own. Default: none.
        active: Short<Nothing, ActiveHealth>,
        /// By what comes of requests. Default: 5 failures within 10s, for 10s; `none` where there is one address only.
        passive: Short<Nothing, PassiveHealth>,
    }
}

keys! {
    /// Checks of our own.
    ActiveHealth {
        /// `http` (default), `tcp` (a connection opens) or `grpc` (the health service says SERVING).
        r#type: CheckType,
        /// Of `http`: the path to GET. Default: /.
        path: RequestPath,
        /// Of `http`: the Host to ask for. Default: the server's.
        host: String,
        /// Of `http`: statuses of a server that is well. Default: 200-399.
        status: OneOrMany<StatusRange>,
        /// Of `grpc`: the service to ask about. Default: the server as a whole.
        service: String,
        /// Between two checks of a server. Default: 5s.
        interval: Duration,
        /// How long a check may take. Default: 1s.
        timeout: Duration,
        /// So many good checks in a row, and a server is asked again. Default: 2.
        healthy_after: u64,
        /// So many bad ones in a row, and it is not asked any more. Default: 3.
        unhealthy_after: u64,
    }
}

words! {
    /// What a check does.
    CheckType {
        /// A GET.
        Http = "http",
        /// A connection.
        Tcp = "tcp",
        /// A call of the gRPC health service.
        Grpc = "grpc",
    }
}

keys! {
    /// Ejection of servers that fail.
    PassiveHealth {
        /// So many failures: no connection, no answer in time, a broken answer, or one of `status`. Default: 5.
        failures: u64,
        /// Within this time. Default: 10s.
        within: Duration,
        /// How long the server is left alone then. Default: 10s.
        eject_for: Duration,
        /// Share of the servers that may be left alone at once. Default: 50%.
        max_ejected: Share,
        /// Answers that are failures too, such as `5xx`. Default: none.
        status: OneOrMany<StatusRange>,
    }
}

keys! {
    /// Leaves an upstream alone while too many of its answers fail.
    CircuitBreaker {
        /// Share of requests that got no answer or a 5xx. Default: 50%.
        failures: Share,
        /// Of at least so many. Default: 20.
        min_requests: u64,
        /// Within this time. Default: 10s.
        within: Duration,
        /// How long requests are turned away, with 503; then one at a time sees whether it is well. Default: 5s.
        open_for: Duration,
    }
}

keys! {
    /// Who tells the addresses of servers.
    Dns {
        /// Name servers, `10.0.0.2` or `10.0.0.2:53`. Default: those of the system.
        nameservers: OneOrMany<NameServer>,
    }
}

keys! {
    /// Which requests are sent again.
    RetryKeys {
        /// Further attempts, 1 to 10. Required.
        attempts: u64,
        /// After what: `connect_error`, `reset`, `timeout`, and statuses such as `503` or `502-504`. Default: the first two.
        retry_on: OneOrMany<RetryReason>,
        /// How long one attempt may take to the head of its response. Default: as long as all together.
        per_try_timeout: Duration,
        /// Retries in proportion to requests, so that they do not bury an upstream in trouble. Default: 20%.
        budget: Share,
    }
}

/// After what a request is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum RetryReason {
    /// No connection could be had.
    ConnectError,
    /// It ended before the response.
    Reset,
    /// The response did not begin in time.
    Timeout,
    /// One of these statuses.
    Status(StatusRange),
}
