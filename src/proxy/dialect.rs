//! A request in the form of the protocol that its connection to the upstream speaks. Nothing else about
//! it changes, and it can change back: a request that was not written goes to another connection.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, Version};

use super::rejection::Rejection;
use super::request_body::RequestBody;

/// Makes it a request of HTTP/1.1: the target in origin form, Host, and exactly one framing.
pub(super) fn to_http1(request: &mut Request<RequestBody>) {
    if request.version() == Version::HTTP_11 {
        return;
    }
    if let Some(host) = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    if request.headers().contains_key(http::header::TE) {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("te"));
    }
    frame(request);
    *request.version_mut() = Version::HTTP_11;
}

/// Says how long a body of HTTP/1.1 is, where hyper would not: it sends none with GET unless told so.
pub(super) fn frame(request: &mut Request<RequestBody>) {
    if request.body().is_unsized() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        request.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// Makes it a request of HTTP/2 (RFC 9113 §8.3.1): the host as `:authority`, no field of a connection.
pub(super) fn to_http2(request: &mut Request<RequestBody>, scheme: Scheme) -> Result<(), Rejection<'static>> {
    let host = request.headers().get(HOST).map(|host| Authority::try_from(host.as_bytes()));
    let authority = host.transpose().map_err(|_| Rejection::BadHost)?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = authority.or(parts.authority);
    parts.scheme = parts.authority.is_some().then_some(scheme);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Rejection::BadTarget)?;
    for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
        request.headers_mut().remove(name);
    }
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}
