//! What a request says of the server it should go to, and the cookie that lets its client say it again.

use http::HeaderValue;
use http::header::COOKIE;

use super::rejection::Rejection;
use crate::limit::Facts;
use crate::limit::key::{Found, Hashing, Key};
use crate::route::Route;
use crate::upstream::balance::{Balance, hash};
use crate::upstream::selection::Wish;
use crate::upstream::sticky::Sticky;
use crate::upstream::{Endpoint, Upstream};

/// Where this request would rather go.
pub(super) fn wish(route: &Route, facts: &Facts<'_>) -> Result<Wish, Rejection<'static>> {
    let Some(upstream) = &route.upstream else { return Ok(Wish::default()) };
    let hash = match &upstream.settings.balance {
        Balance::Hash(key) => value(key, facts)?,
        Balance::RoundRobin | Balance::LeastRequests | Balance::Random => None,
    };
    Ok(Wish { hash, stays_with: upstream.settings.sticky.as_ref().and_then(|sticky| token(sticky, facts)) })
}

fn value(key: &Key, facts: &Facts<'_>) -> Result<Option<u64>, Rejection<'static>> {
    match key.subject(facts, &Hashing::Raw).map_err(|_| Rejection::AmbiguousKey)? {
        Found::Present { subject, .. } => Ok(Some(hash(&subject))),
        Found::Missing => Ok(None),
    }
}

/// The token in the client's cookie.
fn token(sticky: &Sticky, facts: &Facts<'_>) -> Option<u64> {
    let lines = facts.headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    let mut pairs = lines.map(<[u8]>::trim_ascii).filter_map(|pair| {
        let (name, value) = pair.split_at_checked(sticky.cookie.len())?;
        (name == sticky.cookie.as_bytes()).then_some(value)?.strip_prefix(b"=")
    });
    pairs.find_map(Sticky::read)
}

/// The cookie for a client that went to this endpoint, unless it has it.
pub(super) fn cookie(
    upstream: &Upstream,
    wish: Wish,
    endpoint: Option<&Endpoint>,
    scheme: &str,
) -> Option<HeaderValue> {
    let (sticky, endpoint) = (upstream.settings.sticky.as_ref()?, endpoint?);
    if wish.stays_with == Some(sticky.token(endpoint)) { None } else { sticky.set_cookie(endpoint, scheme) }
}
