//! The value of one key part in one request, decoded.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use http::{HeaderMap, Method};
use percent_encoding::percent_decode;

use super::{AmbiguousKey, Facts, KeyPart, KeyValue};

/// The part's value; `None` when the request does not carry it or carries it empty.
pub(super) fn of<'a>(part: &KeyPart, facts: &Facts<'a>) -> Result<Option<KeyValue<'a>>, AmbiguousKey> {
    let bytes = match part {
        KeyPart::ClientIp { .. } => {
            return Ok(facts.client_ip.map(|_| KeyValue::client(facts)));
        }
        KeyPart::Header(name) => header(facts.headers, name)?,
        KeyPart::Cookie(name) => cookie(facts.headers, name)?,
        KeyPart::Query(name) => query(facts.query.unwrap_or_default(), name)?,
        KeyPart::Path(name) => {
            let found = facts.params.iter().find(|(param, _)| *param == &**name);
            found.map(|(_, value)| percent_decode(value.as_bytes()).into())
        }
        KeyPart::TlsSubject => facts.tls_subject.map(Cow::Borrowed),
        KeyPart::Jwt(path) => {
            let claim = facts.claims.claim(path)?.map(KeyValue::from);
            return Ok(claim.filter(|value| !value.bytes.is_empty()));
        }
        KeyPart::Host => Some(Cow::Borrowed(facts.host.as_bytes())),
        KeyPart::Method => Some(Cow::Borrowed(method(facts.method))),
        // The requests that matched no route are one group as well.
        KeyPart::Route => return Ok(Some(plain(Cow::Borrowed(facts.route.as_bytes())))),
        KeyPart::Global => return Ok(Some(plain(Cow::Borrowed(b"")))),
    };
    Ok(bytes.filter(|bytes| !bytes.is_empty()).map(plain))
}

fn plain(bytes: Cow<'_, [u8]>) -> KeyValue<'_> {
    KeyValue { bytes, mark: None, address: None }
}

/// A client may make up methods without end, so what is not known is one.
fn method(method: &Method) -> &'static [u8] {
    match *method {
        Method::GET | Method::HEAD => b"GET",
        Method::POST => b"POST",
        Method::PUT => b"PUT",
        Method::DELETE => b"DELETE",
        Method::PATCH => b"PATCH",
        Method::OPTIONS => b"OPTIONS",
        _ => b"OTHER",
    }
}

/// A field's only line, without white space around it; of Authorization what follows the scheme.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Cow<'a, [u8]>>, AmbiguousKey> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(AmbiguousKey);
    }
    let mut value = line.as_bytes().trim_ascii();
    if name == AUTHORIZATION
        && let Some(space) = value.iter().position(u8::is_ascii_whitespace)
    {
        value = value[space..].trim_ascii();
    }
    Ok(Some(Cow::Borrowed(value)))
}

/// A cookie's value, percent-decoded and without quotes (RFC 6265 §4.2, §5.4).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<Cow<'a, [u8]>>, AmbiguousKey> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let (found, value) = split_pair(pair.trim_ascii());
        (found.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
    });
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AmbiguousKey);
    }
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Ok(Some(percent_decode(unquoted.unwrap_or(value)).into()))
}

/// A query parameter's value, decoded as forms are.
fn query<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, [u8]>>, AmbiguousKey> {
    let mut values = parameter(query, name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AmbiguousKey);
    }
    Ok(Some(value))
}

/// The values of a parameter in a query (without `?`), decoded as forms are: percent-encoded, `+` a space.
pub fn parameter<'a>(query: &'a str, name: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    let pairs = query.as_bytes().split(|&byte| byte == b'&').filter(move |pair| is_parameter(pair, name));
    pairs.map(|pair| form_decode(split_pair(pair).1))
}

/// Whether a pair of a query is of the parameter with this name.
#[must_use]
pub fn is_parameter(pair: &[u8], name: &str) -> bool {
    *form_decode(split_pair(pair).0) == *name.as_bytes()
}

/// `name=value` at the first `=`; without one the value is empty.
fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|&byte| byte == b'=') {
        Some(position) => (&pair[..position], &pair[position + 1..]),
        None => (pair, b""),
    }
}

/// Percent-decoding in which `+` is a space.
fn form_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}
