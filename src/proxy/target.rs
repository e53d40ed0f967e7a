//! What a request asks for: its method, host and path, checked and in canonical form.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::headers::{is_loop, is_token};
use super::rejection::Rejection;
use crate::route::target::{CanonicalPath, canonical_host, canonical_path};

/// A checked target.
#[derive(Debug)]
pub(super) struct Target<'h, 'u> {
    /// Canonical host; empty for HTTP/1.0 without one.
    pub(super) host: Cow<'h, str>,
    /// Canonical path; `*` for OPTIONS of the whole server.
    pub(super) path: CanonicalPath<'u>,
}

/// Checks what hyper and `inbound` leave to us, and finds the target. `head` has Host set (see
/// [`adopt_authority`]); `uri` is its target.
pub(super) fn examine<'h, 'u>(head: &'h Parts, uri: &'u Uri) -> Result<Target<'h, 'u>, Rejection<'static>> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Rejection::Method);
    }
    let expects = head.headers.get(EXPECT);
    if expects.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Rejection::Expectation);
    }
    if is_loop(&head.headers) {
        return Err(Rejection::Loop);
    }
    Ok(Target { host: host(head)?, path: path(&head.method, uri)? })
}

/// Most fields of a request over HTTP/2, Cookie lines as one: what HTTP/1 requests may have.
const MAX_FIELDS: usize = 100;

/// What `inbound` checks of HTTP/1 requests and neither h2 nor [`examine`] of HTTP/2 ones: fields are
/// counted, two lengths, though equal, would be forwarded as two, and a query is forwarded as it was sent.
fn examine_http2(head: &Parts, uri: &Uri) -> Result<(), Rejection<'static>> {
    if head.headers.len() > MAX_FIELDS {
        return Err(Rejection::TooManyFields);
    }
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Rejection::BadBody);
    }
    if !head.headers.keys().all(is_token) {
        return Err(Rejection::BadFieldName);
    }
    let harmless = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    if uri.query().is_some_and(|query| !query.bytes().all(harmless)) {
        return Err(Rejection::BadTarget);
    }
    Ok(())
}

/// HTTP/2 names the host in `:authority`: makes it the Host field, which must not say otherwise
/// (RFC 9113 §8.3.1). Refuses what HTTP/2 requests alone can still be wrong in.
pub(super) fn adopt_authority(head: &mut Parts, uri: &Uri) -> Result<(), Rejection<'static>> {
    if head.version != Version::HTTP_2 || head.method == Method::CONNECT {
        return Ok(());
    }
    examine_http2(head, uri)?;
    let Some(authority) = uri.authority() else { return Ok(()) };
    let authority = authority.as_str();
    match one_host(&head.headers)? {
        None => {
            let value = HeaderValue::try_from(authority).map_err(|_| Rejection::BadHost)?;
            head.headers.insert(HOST, value);
        }
        Some(host) if host == authority => {}
        Some(host) => {
            let same = canonical_host(host).ok().zip(canonical_host(authority).ok());
            same.filter(|(host, authority)| host == authority).ok_or(Rejection::BadHost)?;
        }
    }
    Ok(())
}

/// The target in origin form, as it is forwarded: the canonical path and the query as sent.
pub(super) fn forwarded_uri(uri: &Uri, path: &str) -> Result<Uri, Rejection<'static>> {
    let target = match (uri.path_and_query(), uri.query()) {
        (Some(sent), _) if sent.path() == path => sent.clone(),
        (_, None) => PathAndQuery::try_from(path).map_err(|_| Rejection::BadTarget)?,
        (_, Some(query)) => PathAndQuery::try_from(format!("{path}?{query}")).map_err(|_| Rejection::BadTarget)?,
    };
    Ok(Uri::from(target))
}

fn one_host(headers: &HeaderMap) -> Result<Option<&str>, Rejection<'static>> {
    let mut values = headers.get_all(HOST).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(host), None) => host.to_str().map(Some).map_err(|_| Rejection::BadHost),
        (Some(_), Some(_)) => Err(Rejection::BadHost),
    }
}

fn host(head: &Parts) -> Result<Cow<'_, str>, Rejection<'static>> {
    match one_host(&head.headers)? {
        Some(host) => Ok(canonical_host(host).map_err(|_| Rejection::BadHost)?.name),
        None if head.version == Version::HTTP_10 => Ok(Cow::Borrowed("")),
        None => Err(Rejection::BadHost),
    }
}

fn path<'a>(method: &Method, uri: &'a Uri) -> Result<CanonicalPath<'a>, Rejection<'static>> {
    match uri.path() {
        "*" if method == Method::OPTIONS => Ok(CanonicalPath { text: Cow::Borrowed("*"), encoded_separators: false }),
        path => canonical_path(path).map_err(|_| Rejection::BadTarget),
    }
}
