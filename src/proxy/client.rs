//! Who the client is: its address behind trusted proxies, and the id of its request.
//!
//! A field is evidence only when a trusted proxy wrote it. Each proxy appends the address it saw,
//! so the list is walked from its end: the first address that is not a trusted proxy is the client.
//! Whatever stands before it could have been written by anyone.

mod forwarded;

use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::Downstream;
use super::headers::X_REQUEST_ID;
use crate::config::{ClientIpSource, Config};

/// Longest request id that is taken over from a trusted proxy, bytes.
const MAX_REQUEST_ID: usize = 128;
/// Most addresses of a forwarded field that are walked; beyond, the last trusted one counts.
const MAX_HOPS: usize = 64;

/// What is known of the sender of a request.
#[derive(Debug)]
pub struct Client {
    /// Its address; IPv4-mapped IPv6 is IPv4. None that came over a Unix socket alone.
    pub address: Option<IpAddr>,
    /// The request's id, sent both ways.
    pub request_id: HeaderValue,
}

impl Client {
    /// Finds the client of a request with these fields.
    #[must_use]
    pub fn find(config: &Config, downstream: &Downstream, headers: &HeaderMap) -> Self {
        let peer = downstream.peer.ip();
        if !downstream.trusted {
            return Self { address: peer, request_id: new_request_id() };
        }
        let trusted = &config.trusted_proxies;
        let address = match &config.client_ip.source {
            ClientIpSource::XForwardedFor => walk(peer, trusted, forwarded_for(headers)),
            ClientIpSource::Forwarded => walk(peer, trusted, forwarded(headers)),
            ClientIpSource::Header(name) => single(headers, name).or(peer),
        };
        Self { address, request_id: request_id(headers) }
    }
}

/// Walks addresses from the nearest to the farthest while they are trusted proxies. An entry that is
/// no address ends the walk: then the last proxy that is known counts as the client.
fn walk<'a>(peer: Option<IpAddr>, trusted: &[IpNet], hops: impl Iterator<Item = &'a [u8]>) -> Option<IpAddr> {
    let mut last = peer;
    for hop in hops.take(MAX_HOPS) {
        let Some(address) = parse_address(hop) else { return last };
        last = Some(address);
        if !trusted.iter().any(|network| network.contains(&address)) {
            break;
        }
    }
    last
}

/// Entries of every X-Forwarded-For line, last first.
fn forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all("x-forwarded-for").iter();
    lines.rev().flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','))
}

/// The `for` parameters of every Forwarded line, last first (RFC 7239 §5.2). An element without one, or a line that
/// cannot be read, yields an empty entry, which ends the walk.
fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(http::header::FORWARDED).iter();
    lines.rev().flat_map(|line| {
        let hops = forwarded::hops(line.as_bytes()).unwrap_or_else(|| forwarded::Hops::from_slice(&[b""]));
        hops.into_iter().rev()
    })
}

/// The one address in a field of its own; a field that occurs twice proves nothing.
fn single(headers: &HeaderMap, name: &HeaderName) -> Option<IpAddr> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    parse_address(value.as_bytes())
}

/// An address as proxies write it: `1.2.3.4`, `1.2.3.4:56`, `2001:db8::1`, `[2001:db8::1]` and
/// `[2001:db8::1]:56`. Zones, names and `unknown` are no addresses.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6))
        .or_else(|| text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%')).map(|socket| socket.ip()))?;
    Some(address.to_canonical())
}

/// The id a trusted proxy gave the request, when it is short and harmless; else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let mut values = headers.get_all(&X_REQUEST_ID).iter();
    match (values.next(), values.next()) {
        (Some(id), None) if is_request_id(id.as_bytes()) => id.clone(),
        _ => new_request_id(),
    }
}

/// Ids are written into logs and bodies of many formats: nothing that any of them gives a meaning.
fn is_request_id(id: &[u8]) -> bool {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.iter().all(harmless)
}

/// A `UUIDv7` (RFC 9562 §5.7): the time in milliseconds, then random bits.
fn new_request_id() -> HeaderValue {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    let mut random = [0; 10];
    random[..8].copy_from_slice(&fastrand::u64(..).to_ne_bytes());
    random[8..].copy_from_slice(&fastrand::u16(..).to_ne_bytes());
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut text = uuid::Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or(const { HeaderValue::from_static("-") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "fd00::/8"].iter().map(|network| network.parse().unwrap()).collect()
    }

    fn fields(name: &'static str, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (HeaderName::from_static(name), line.parse().unwrap())).collect()
    }

    fn by_forwarded_for(lines: &[&str]) -> String {
        let headers = fields("x-forwarded-for", lines);
        walk("10.0.0.1".parse().ok(), &trusted(), forwarded_for(&headers)).unwrap().to_string()
    }

    fn by_forwarded(lines: &[&str]) -> String {
        let headers = fields("forwarded", lines);
        walk("10.0.0.1".parse().ok(), &trusted(), forwarded(&headers)).unwrap().to_string()
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        assert_eq!(by_forwarded_for(&["6.6.6.6, 203.0.113.7, 10.1.1.1"]), "203.0.113.7");
        assert_eq!(by_forwarded_for(&["6.6.6.6", "203.0.113.7", "10.1.1.1, 10.2.2.2"]), "203.0.113.7");
        assert_eq!(by_forwarded_for(&[]), "10.0.0.1");
        assert_eq!(by_forwarded_for(&["10.9.9.9"]), "10.9.9.9");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_read() {
        assert_eq!(by_forwarded_for(&["203.0.113.7:4711"]), "203.0.113.7");
        assert_eq!(by_forwarded_for(&["[2001:db8::7]:4711"]), "2001:db8::7");
        assert_eq!(by_forwarded_for(&["[2001:db8::7]"]), "2001:db8::7");
        assert_eq!(by_forwarded_for(&["::ffff:203.0.113.7"]), "203.0.113.7");
        assert_eq!(by_forwarded_for(&["203.0.113.7, ::ffff:10.0.0.9"]), "203.0.113.7");
    }

    #[test]
    fn garbage_ends_the_walk_at_the_last_trusted_proxy() {
        assert_eq!(by_forwarded_for(&["203.0.113.7, unknown, 10.1.1.1"]), "10.1.1.1");
        assert_eq!(by_forwarded_for(&["203.0.113.7, ,10.1.1.1"]), "10.1.1.1");
        assert_eq!(by_forwarded_for(&["203.0.113.7, fe80::1%eth0"]), "10.0.0.1");
        assert_eq!(by_forwarded_for(&["203.0.113.7, 1.2.3.4.5"]), "10.0.0.1");
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let long = vec!["10.1.1.1"; 5_000].join(",");
        assert_eq!(by_forwarded_for(&[&format!("6.6.6.6,{long}")]), "10.1.1.1");
    }

    #[test]
    fn the_for_parameters_of_forwarded_are_walked_the_same_way() {
        assert_eq!(
            by_forwarded(&["for=6.6.6.6, for=203.0.113.7;proto=https", "proto=http; For=10.1.1.1"]),
            "203.0.113.7"
        );
        assert_eq!(by_forwarded(&["for=\"[2001:db8::7]:80\""]), "2001:db8::7");
        assert_eq!(by_forwarded(&["for=203.0.113.7, proto=http"]), "10.0.0.1");
        assert_eq!(by_forwarded(&["for=203.0.113.7, for=_hidden, for=10.1.1.1"]), "10.1.1.1");
    }

    #[test]
    fn only_short_harmless_ids_are_taken_over() {
        let kept = fields("x-request-id", &["abc-1"]);
        assert_eq!(request_id(&kept), "abc-1");
        for bad in [&["a b"][..], &["a\"b"], &["<a>"], &[""], &["a", "b"], &[&*"x".repeat(129)]] {
            let id = request_id(&fields("x-request-id", bad));
            assert_eq!(uuid::Uuid::parse_str(id.to_str().unwrap()).unwrap().get_version_num(), 7, "{bad:?}");
        }
    }
}
