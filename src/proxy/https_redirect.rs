//! A clear-text listener that sends everybody to https, and what it answers all the same.

use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::rejection::Rejection;
use super::{Body, Downstream};
use crate::route::Route;

/// Below this, authorities look for proofs that a host is its owner's (RFC 8555 §8.3); they come in
/// clear text.
const ACME: &str = "/.well-known/acme-challenge/";
/// The port that https has without saying.
const HTTPS: u16 = 443;

/// The port a request is redirected to, if it is. Not redirected is what asks for a proof of ownership on
/// a route that is for nothing else, what came to a trusted proxy through TLS, and what has no path.
pub(super) fn due(downstream: &Downstream, headers: &HeaderMap, (route, path): (&Route, &str)) -> Option<u16> {
    let port = downstream.listener.redirect_to_https?;
    let is_secure = || headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let is_proof = path.starts_with(ACME) && route.matches.paths.iter().any(|one| one.text().starts_with(ACME));
    (path != "*" && !is_proof && !is_secure()).then_some(port)
}

/// 308 to the same place: a method and a body stay what they are (RFC 9110 §15.4.9).
pub(super) fn answer(
    port: u16,
    host: &str,
    path: &str,
    query: Option<&str>,
) -> Result<Response<Body>, Rejection<'static>> {
    if host.is_empty() {
        return Err(Rejection::BadHost);
    }
    let port = if port == HTTPS { String::new() } else { format!(":{port}") };
    let (mark, query) = query.map_or(("", ""), |query| ("?", query));
    let location = HeaderValue::try_from(format!("https://{host}{port}{path}{mark}{query}"));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, location.map_err(|_| Rejection::BadTarget)?);
    Ok(response)
}
