//! OPTIONS that is answered here.

use http::header::{ALLOW, MAX_FORWARDS};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};

use crate::proxy::Body;

/// The methods forwarded without a second look, for Allow.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH");

/// Whether an OPTIONS request goes no further (RFC 9110 §7.6.2); else one hop is counted off.
pub(super) fn is_for_us(head: &mut Parts) -> bool {
    if head.uri.path() == "*" {
        return true;
    }
    let Some(hops) = head.headers.get(MAX_FORWARDS) else { return false };
    match hops.to_str().ok().and_then(|hops| hops.parse::<u32>().ok()) {
        Some(0) => true,
        Some(hops) => {
            head.headers.insert(MAX_FORWARDS, HeaderValue::from(hops - 1));
            false
        }
        None => false,
    }
}

/// What may be asked here.
pub(super) fn options() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, METHODS);
    response
}
