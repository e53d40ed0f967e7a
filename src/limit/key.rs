//! What a limit is keyed by: from a request's facts to one canonical subject.
//!
//! A subject of one part reads `ip=192.0.2.1`, `header:x-api-key=#<32 hex digits>`, `jwt:sub=#…`, `path:tenant=acme`,
//! `route=orders`, `host=…`, `method=…`, `tls:subject=…` or `global`; one of several parts is each part behind its
//! length (`10:ip=1.2.3.412:route=orders`), so that no value can pass for another.

mod claims;
mod named;
mod network;
mod shown;
mod subject;
mod text;
mod value;

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

/// What the limiter may know of a request. Everything is canonical already: the host is lower-case
/// without port, the path normalised, the client address resolved and v4-mapped IPv6 unmapped.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's address, after `trusted_proxies`; none of one behind a Unix socket whom nobody tells of.
    pub client_ip: Option<IpAddr>,
    /// The request method.
    pub method: &'a Method,
    /// Canonical host, empty for HTTP/1.0 without one.
    pub host: &'a str,
    /// Canonical path, in the form in which paths are compared: what a limit's `match` is held against.
    pub path: &'a str,
    /// Query without `?`, as sent.
    pub query: Option<&'a str>,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// Whether a body follows whose length nothing tells beforehand.
    pub has_unsized_body: bool,
    /// The subject of the client's certificate (RFC 4514), when it showed one that was verified.
    pub tls_subject: Option<&'a [u8]>,
    /// Path parameters of the matched route, in canonical form: name and value.
    pub params: &'a [(&'a str, &'a str)],
    /// The matched route's name, empty when none matched.
    pub route: &'a str,
    /// What the request's token says; found out when a key first asks.
    pub claims: &'a dyn Claims,
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
    /// A parameter of the route's path, percent-decoded.
    Path(Box<str>),
    /// The subject of the client's certificate, when it showed one that was verified.
    TlsSubject,
    /// A claim of the verified token, by its dotted path.
    Jwt(Box<str>),
    /// The canonical host.
    Host,
    /// The method: HEAD is GET, and all that HTTP and PATCH do not define are one, `OTHER`.
    Method,
    /// The matched route's name.
    Route,
    /// One bucket for all.
    Global,
}

/// The canonical bytes a limit counts by: printable ASCII without braces, safe inside a Redis hash tag.
pub type Subject = SmallVec<[u8; 64]>;

/// How client-chosen values enter a subject.
#[derive(Clone, PartialEq, Eq)]
pub enum Hashing {
    /// As they are, at any length: the memory store, whose keys never leave the process.
    Raw,
    /// As a 128-bit BLAKE3 hash, keyed when there is a secret (contract of `store.key_secret_file`).
    Hashed(Option<Box<[u8; 32]>>),
}

/// What a key makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once; a box would be an allocation per request")]
pub enum Found<'a> {
    /// Every part is present.
    Present {
        /// What is counted by.
        subject: Subject,
        /// The parts and their decoded values, in order (overrides are matched against them).
        values: Values<'a>,
    },
    /// A part has none of its alternatives in this request.
    Missing,
}

/// The parts that decided, each with its value.
pub type Values<'a> = SmallVec<[(&'a KeyPart, KeyValue<'a>); 2]>;

/// The value of one part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// Decoded; empty for a client address.
    pub bytes: Cow<'a, [u8]>,
    /// Stands before the bytes in a subject: `"` before a claim that is text, which tells `"1"` from 1.
    pub mark: Option<u8>,
    /// The whole client address, when that is the part.
    pub address: Option<IpAddr>,
}

/// A part of the key occurs twice in the request, so that two readers could see two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a part of the key occurs more than once in the request")]
pub struct AmbiguousKey;

pub use claims::{Claim, Claims, NoClaims};
pub use named::{CLIENT_IP, part_of, spellings};
pub(in crate::limit) use network::enter;
pub use network::{Network, network_of, own};
pub use shown::{counted, shown};
pub(in crate::limit) use subject::{write as write_part, write_address};
pub use text::{KeyError, MAX_NAME};
pub use value::{is_parameter, parameter};

impl KeyValue<'_> {
    /// The client's address; empty when it has none.
    pub(super) fn client(facts: &Facts<'_>) -> Self {
        Self { bytes: Cow::Borrowed(b""), mark: None, address: facts.client_ip.map(|address| address.to_canonical()) }
    }
}

impl KeyPart {
    /// Whether a request may come without it.
    #[must_use]
    pub fn may_be_missing(&self) -> bool {
        self.is_client_chosen() || matches!(self, Self::TlsSubject | Self::Jwt(_))
    }

    /// Whether the client writes there what it likes, and nothing verifies it.
    #[must_use]
    pub fn is_client_chosen(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Cookie(_) | Self::Query(_))
    }

    /// Whether its value enters Redis hashed only: it may be a secret or personal, or is the client's to
    /// choose freely.
    #[must_use]
    pub fn is_hashed(&self) -> bool {
        self.is_client_chosen() || matches!(self, Self::Jwt(_))
    }
}

impl Key {
    /// Whether a request may come without one of the parts.
    #[must_use]
    pub fn may_be_missing(&self) -> bool {
        self.parts.iter().any(|alternatives| alternatives.iter().all(KeyPart::may_be_missing))
    }

    /// The subject of a request.
    ///
    /// # Errors
    /// When the part that decides occurs twice.
    pub fn subject<'a>(&'a self, facts: &Facts<'a>, hashing: &Hashing) -> Result<Found<'a>, AmbiguousKey> {
        let mut subject = Subject::new();
        let mut values = SmallVec::new();
        for alternatives in &self.parts {
            let Some((part, value)) = first_present(alternatives, facts)? else { return Ok(Found::Missing) };
            if self.parts.len() == 1 {
                subject::write(&mut subject, part, &value, hashing);
            } else {
                let mut one = Subject::new();
                subject::write(&mut one, part, &value, hashing);
                subject::write_counted(&mut subject, &one);
            }
            values.push((part, value));
        }
        Ok(Found::Present { subject, values })
    }
}

/// The first alternative that the request carries, with its value.
fn first_present<'k, 'a>(
    alternatives: &'k [KeyPart],
    facts: &Facts<'a>,
) -> Result<Option<(&'k KeyPart, KeyValue<'a>)>, AmbiguousKey> {
    for part in alternatives {
        if let Some(value) = value::of(part, facts)? {
            return Ok(Some((part, value)));
        }
    }
    Ok(None)
}

/// The value of the first of these parts that the request carries.
///
/// # Errors
/// When that part occurs twice.
pub fn value_of<'a>(alternatives: &[KeyPart], facts: &Facts<'a>) -> Result<Option<KeyValue<'a>>, AmbiguousKey> {
    Ok(first_present(alternatives, facts)?.map(|(_, value)| value))
}

/// The subject of a client address alone, for requests that carry no part of the key. Clients without
/// an address are one.
#[must_use]
pub fn client_subject(facts: &Facts<'_>, ipv6_prefix: u8) -> Subject {
    let mut subject = Subject::new();
    match facts.client_ip {
        Some(address) => subject::write_address(&mut subject, address, ipv6_prefix),
        None => subject.extend_from_slice(b"ip=none"),
    }
    subject
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

#[cfg(test)]
#[path = "key/tests.rs"]
mod tests;
