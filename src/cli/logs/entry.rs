//! One request as a log tells it.

use std::net::IpAddr;

use http::{HeaderMap, Method, StatusCode};

use crate::explain::request::Asked;
use crate::limit::replay::Answered;

/// A request of a log.
#[derive(Debug)]
pub(in crate::cli) struct Entry {
    /// When its limits were asked, as far as the log tells: microseconds since 1970.
    pub(in crate::cli) at_us: i64,
    pub(in crate::cli) format: Format,
    pub(in crate::cli) client: IpAddr,
    pub(in crate::cli) method: Method,
    /// As the log tells it; most do not.
    pub(in crate::cli) host: Option<Box<str>>,
    /// Path and query, as sent.
    pub(in crate::cli) target: Box<str>,
    /// The fields that are wanted and that the log holds.
    pub(in crate::cli) headers: HeaderMap,
    /// What the proxy decided then.
    pub(in crate::cli) logged: Logged,
    /// How it was answered, and by whom; `None` where the log does not tell, and of requests that were
    /// limited then: nobody knows how they would have been answered.
    pub(in crate::cli) answer: Option<(StatusCode, Answered)>,
}

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Format {
    /// Common or combined, or Traefik's CLF.
    Combined,
    /// Caddy's JSON.
    Caddy,
    /// Traefik's JSON.
    Traefik,
    /// Tollgate's JSON.
    Tollgate,
}

/// What a log says of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Logged {
    /// Nothing.
    Unknown,
    /// The limits admitted the request.
    Passed,
    /// A limit denied it.
    Denied,
}

/// Why a line is no request that reached the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It cannot be read, for this reason.
    Line(&'static str),
    /// What it tells of was no HTTP request.
    NoRequest,
    /// The proxy refused the request before it asked a limit.
    NeverAsked,
}

impl Format {
    pub(in crate::cli) const ALL: [(Self, &str); 4] = [
        (Self::Combined, "combined"),
        (Self::Caddy, "caddy"),
        (Self::Traefik, "traefik"),
        (Self::Tollgate, "tollgate"),
    ];
}

impl Entry {
    /// The request; `host` where the log does not name one.
    pub(in crate::cli) fn asked<'r>(&'r self, host: Option<&'r str>) -> Asked<'r> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        Asked {
            method: &self.method,
            host: self.host.as_deref().or(host),
            path,
            query,
            headers: &self.headers,
            client: self.client,
            tls_subject: None,
            claims: None,
            clock: crate::limit::plan::Clock::Wall,
            scheme: "http",
        }
    }
}

/// What an upstream answered, as far as a log knows.
pub(super) fn answer(status: Option<u16>) -> Option<(StatusCode, Answered)> {
    let status = StatusCode::from_u16(status?).ok()?;
    (status != StatusCode::TOO_MANY_REQUESTS).then_some((status, Answered::Upstream))
}

/// A client's address; in brackets and with a port, too.
pub(super) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let plain = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    plain().or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}
