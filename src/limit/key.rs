//! What a limit is keyed by: from a request's facts to one canonical subject.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

/// What the limiter may know of a request. Everything is canonical already: the host is lower-case
/// without port, the path normalised, the client address resolved and v4-mapped IPv6 unmapped.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's address, after `trusted_proxies`.
    pub client_ip: IpAddr,
    /// The request method.
    pub method: &'a Method,
    /// Canonical host, empty for HTTP/1.0 without one.
    pub host: &'a str,
    /// Canonical path.
    pub path: &'a str,
    /// Query without `?`, as sent.
    pub query: Option<&'a str>,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// Path parameters of the matched route, in canonical form: name and value.
    pub params: &'a [(&'a str, &'a str)],
    /// The matched route's name, empty when none matched.
    pub route: &'a str,
}

/// A key: one choice, or several that are combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Combined in this order; each is the first present of its alternatives. Never empty.
    pub parts: Vec<Vec<KeyPart>>,
}

/// One thing a request can be keyed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// The client's address; IPv6 is cut to this prefix length.
    ClientIp {
        /// Bits of an IPv6 address that count, 1 to 128.
        ipv6_prefix: u8,
    },
    /// A request field's value; for Authorization without the scheme.
    Header(HeaderName),
    /// A cookie, percent-decoded.
    Cookie(Box<str>),
    /// A query parameter, percent-decoded.
    Query(Box<str>),
    /// A parameter of the route's path.
    Path(Box<str>),
    /// The canonical host.
    Host,
    /// The method.
    Method,
    /// The matched route's name.
    Route,
    /// One bucket for all.
    Global,
}

/// The canonical bytes a limit counts by: printable ASCII without braces, safe inside a Redis hash tag.
pub type Subject = SmallVec<[u8; 64]>;

/// How client-chosen values enter a subject.
#[derive(Clone)]
pub enum Hashing {
    /// As they are, at any length: the memory store, whose keys never leave the process.
    Raw,
    /// As a 128-bit BLAKE3 hash, keyed when there is a secret (contract of `store.key_secret_file`).
    Hashed(Option<Box<[u8; 32]>>),
}

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw => "Raw",
            Self::Hashed(None) => "Hashed(unkeyed)",
            Self::Hashed(Some(_)) => "Hashed(***)",
        })
    }
}
