//! Fields on their way through: what belongs to one connection only is taken away, what clients must
//! not say is taken away, and only then is our own added. In this order a `Connection` line can
//! never remove what we set. Routes and limits are asked in between: they see the fields that the
//! upstream will see, so that no client is counted by a field that it hides from the upstream.
//!
//! End-to-end fields named in a `Connection` line (Host, Content-Length, Authorization, …) are kept:
//! RFC 9110 §7.6.1 forbids senders to name them there.

use std::net::IpAddr;
use std::sync::LazyLock;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, VIA,
};
use smallvec::SmallVec;

use super::client_certificate::tells_certificate;

/// Id of a request, sent both ways.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Names to remove; a usual request has fewer.
type Names = SmallVec<[HeaderName; 8]>;

/// What we call ourselves in Via: unique per process, so that a chain of several proxies is no loop.
static PSEUDONYM: LazyLock<&'static str> =
    LazyLock::new(|| Box::leak(format!("tollgate-{:08x}", fastrand::u32(..)).into_boxed_str()));

/// Our entry in Via (RFC 9110 §7.6.3). We always speak HTTP/1.1 to upstreams; towards the client the
/// entry names the protocol the upstream answered in, which is the same.
static VIA_ENTRY: LazyLock<HeaderValue> = LazyLock::new(|| via_entry("1.1"));

/// The same for requests that came over HTTP/2.
static VIA_ENTRY_H2: LazyLock<HeaderValue> = LazyLock::new(|| via_entry("2"));

/// Whose word about a request's origin is believed.
#[derive(Debug, Clone, Copy)]
pub struct Belief<'a> {
    /// Whether the peer is a trusted proxy, whose forwarded fields are kept.
    pub trusted: bool,
    /// A field of its own that carries the client's address (`client_ip`); believed like the others.
    pub client_field: Option<&'a HeaderName>,
}

/// What the fields added to a request say.
#[derive(Debug)]
pub struct Forwarded<'a> {
    /// The peer's address, if it has one: a process behind a Unix socket is no hop of a network.
    pub peer: Option<IpAddr>,
    /// The same as text: what X-Forwarded-For gets appended.
    pub peer_text: &'a HeaderValue,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// Whether the client spoke HTTP/2.
    pub version: http::Version,
    /// `https` when it came through TLS, else `http`.
    pub scheme: &'static str,
}

fn via_entry(protocol: &str) -> HeaderValue {
    HeaderValue::from_static(Box::leak(format!("{protocol} {}", *PSEUDONYM).into_boxed_str()))
}

/// Whether this process has forwarded the request before (RFC 9110 §7.6.3).
#[must_use]
pub fn is_loop(headers: &HeaderMap) -> bool {
    let entries = headers.get_all(VIA).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    entries.into_iter().any(|entry| {
        let mut words = entry.trim_ascii().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1) == Some(PSEUDONYM.as_bytes())
    })
}

/// Adds our fields to the sanitised ones of a client.
pub fn complete_request(headers: &mut HeaderMap, forwarded: &Forwarded<'_>) {
    // Expect is between the client and us.
    headers.remove(EXPECT);
    append_address(headers, forwarded);
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO.clone(), HeaderValue::from_static(forwarded.scheme));
    }
    if !headers.contains_key(&X_FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST.clone(), host);
    }
    headers.insert(X_REQUEST_ID.clone(), forwarded.request_id.clone());
    let h2 = forwarded.version == http::Version::HTTP_2;
    headers.append(VIA, if h2 { VIA_ENTRY_H2.clone() } else { VIA_ENTRY.clone() });
}

/// Turns an upstream's fields into those for the client.
pub fn prepare_response(headers: &mut HeaderMap) {
    let unfit = |name: &&HeaderName| is_hop_by_hop(name.as_str()) || !is_token(name);
    let mut drop: Names = headers.keys().filter(unfit).cloned().collect();
    drop_connection_names(headers, &mut drop);
    // RFC 9112 §6.3: with Transfer-Encoding the length is a lie.
    if drop.contains(&TRANSFER_ENCODING) {
        drop.push(CONTENT_LENGTH);
    }
    remove_all(headers, &drop);
    settle_length(headers);
}

/// Whether a response's body is framed as we understand it: we ask for no transfer coding, so any but
/// `chunked` changes what the body means (RFC 9112 §7.4).
#[must_use]
pub fn is_coded_as_asked(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let first = lines.next().is_none_or(|line| line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    first && lines.next().is_none()
}

/// Makes one Content-Length of a repeated one; lengths that differ tell nothing (RFC 9112 §6.3).
fn settle_length(headers: &mut HeaderMap) {
    let lines = || headers.get_all(CONTENT_LENGTH).iter();
    if !lines().enumerate().any(|(position, line)| position > 0 || line.as_bytes().contains(&b',')) {
        return;
    }
    let mut lengths = lines().flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    let first = lengths.next().unwrap_or_default();
    let settled = lengths.all(|length| length == first).then(|| HeaderValue::from_bytes(first));
    match settled {
        Some(Ok(length)) => drop(headers.insert(CONTENT_LENGTH, length)),
        _ => drop(headers.remove(CONTENT_LENGTH)),
    }
}

/// What every response of this process carries.
pub fn sign_response(headers: &mut HeaderMap, request_id: HeaderValue) {
    headers.append(VIA, VIA_ENTRY.clone());
    headers.insert(X_REQUEST_ID.clone(), request_id);
}

/// Says that the request passed although a limit could not be decided (Proxy-Status, RFC 9209).
pub fn mark_undecided(headers: &mut HeaderMap) {
    let status = HeaderValue::from_static("tollgate; details=\"rate limit not checked\"");
    headers.append(PROXY_STATUS.clone(), status);
}

/// Removes what must not travel in trailers (RFC 9110 §6.5.1): framing, routing, authentication,
/// what changes how the message is read, rate-limit fields.
pub fn filter_trailers(trailers: &mut HeaderMap) {
    let refused: Names = trailers.keys().filter(|name| !is_token(name) || !may_trail(name.as_str())).cloned().collect();
    remove_all(trailers, &refused);
}

/// Removes hop-by-hop fields, aliases and, from untrusted peers, everything that claims to know
/// where the request came from.
pub fn sanitise_request(headers: &mut HeaderMap, belief: Belief<'_>) {
    let mut drop = Names::new();
    for name in headers.keys() {
        let text = name.as_str();
        let told = !belief.trusted && (tells_origin(text) || Some(name) == belief.client_field);
        if told || is_hop_by_hop(text) || is_alias(text) || tells_certificate(text) {
            drop.push(name.clone());
        }
    }
    let wants_trailers = drop.contains(&TE) && accepts_trailers(headers);
    drop_connection_names(headers, &mut drop);
    remove_all(headers, &drop);
    join_cookies(headers);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Makes one line of several Cookie lines, as HTTP/2 clients send them (RFC 9113 §8.2.3): upstreams
/// may look at the first one only.
fn join_cookies(headers: &mut HeaderMap) {
    let joined = {
        let lines: SmallVec<[&[u8]; 4]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        (lines.len() > 1).then(|| lines.join(&b"; "[..]))
    };
    if let Some(Ok(joined)) = joined.as_deref().map(HeaderValue::from_bytes) {
        headers.insert(COOKIE, joined);
    }
}

fn remove_all(headers: &mut HeaderMap, names: &Names) {
    for name in names {
        headers.remove(name);
    }
}

/// Adds every name on every Connection line that may be removed, when Connection itself is to be.
fn drop_connection_names(headers: &HeaderMap, drop: &mut Names) {
    if !drop.contains(&CONNECTION) {
        return;
    }
    for line in headers.get_all(CONNECTION) {
        let names = line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        // Keep-Alive, the commonest by far, is dropped without being named.
        let names = names.filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"));
        let names = names.filter_map(|name| HeaderName::from_bytes(name).ok());
        drop.extend(names.filter(|name| !is_end_to_end(name.as_str())));
    }
}

/// Whether the client takes trailers (RFC 9110 §10.1.4).
fn accepts_trailers(headers: &HeaderMap) -> bool {
    let items = headers.get_all(TE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    items.into_iter().any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Fields of one connection (RFC 9110 §7.6.1). Trailer is passed on: the trailers it announces are.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Fields that a Connection line cannot take away.
fn is_end_to_end(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "content-range"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "www-authenticate"
            | "cache-control"
            | "date"
            | "expires"
            | "vary"
            | "location"
            | "trailer"
            | "via"
            | "x-request-id"
            | "retry-after"
            | "proxy-status"
    ) || tells_origin(name)
        || tells_certificate(name)
        || is_rate_limit(name)
}

/// Fields that tell where a request came from.
fn tells_origin(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "true-client-ip" | "x-request-id")
}

fn is_rate_limit(name: &str) -> bool {
    name.starts_with("ratelimit") || name.starts_with("x-ratelimit-") || name == "retry-after"
}

/// Whether a name that came over HTTP/2 may be written into HTTP/1: `http` takes a quotation mark for part
/// of a token, which it is not (RFC 9110 §5.6.2).
#[must_use]
pub fn is_token(name: &HeaderName) -> bool {
    !name.as_str().contains('"')
}

/// Names that some servers fold into another one (`x_forwarded_for`, `x.forwarded.for`).
fn is_alias(name: &str) -> bool {
    name.bytes().any(|byte| matches!(byte, b'_' | b'.'))
}

fn may_trail(name: &str) -> bool {
    let refused = is_hop_by_hop(name)
        || is_end_to_end(name)
        || is_alias(name)
        || matches!(
            name,
            "age"
                | "accept-ranges"
                | "expect"
                | "max-forwards"
                | "pragma"
                | "range"
                | "warning"
                | "proxy-authorization"
                | "authentication-info"
                | "alt-svc"
                | "strict-transport-security"
        )
        || name.starts_with("if-")
        || name.starts_with("access-control-");
    !refused
}

/// `X-Forwarded-For`, and `Forwarded` where there is one: what is there by now came from a trusted peer.
fn append_address(headers: &mut HeaderMap, forwarded: &Forwarded<'_>) {
    let Some(peer) = forwarded.peer else { return };
    if headers.contains_key(&X_FORWARDED_FOR) {
        let lines = headers.get_all(&X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        let list = lines.chain([forwarded.peer_text.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
        if let Ok(value) = HeaderValue::from_bytes(&list) {
            headers.insert(X_FORWARDED_FOR.clone(), value);
        }
    } else {
        headers.insert(X_FORWARDED_FOR.clone(), forwarded.peer_text.clone());
    }
    if headers.contains_key(FORWARDED) {
        let scheme = forwarded.scheme;
        let element = match peer {
            IpAddr::V4(peer) => format!("for={peer};proto={scheme}"),
            IpAddr::V6(peer) => format!("for=\"[{peer}]\";proto={scheme}"),
        };
        if let Ok(element) = HeaderValue::try_from(element) {
            headers.append(FORWARDED, element);
        }
    }
}

#[cfg(test)]
mod tests;
