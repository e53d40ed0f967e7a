//! Who may use the admin listener: with a token, its holder; without one, this machine. No page of another site
//! may, in anybody's browser.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, Request, header};

use super::answer::Answer;
use crate::config::AdminSettings;

/// What a browser says of the page that sends a request (W3C Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The rules of one listener.
#[derive(Debug)]
pub(super) struct Access {
    /// Hash of the token. Hashes compare in constant time.
    token: ArcSwapOption<blake3::Hash>,
    /// The address it listens on.
    address: IpAddr,
}

impl Access {
    /// From the configuration.
    pub(super) fn new(settings: &AdminSettings) -> Self {
        let access = Self { token: ArcSwapOption::empty(), address: settings.address.ip() };
        access.follow(settings);
        access
    }

    /// From now on the token is this one.
    pub(super) fn follow(&self, settings: &AdminSettings) {
        let hash = settings.token.as_ref().map(|token| blake3::hash(token.reveal().as_bytes()));
        self.token.store(hash.map(Arc::new));
    }

    /// Lets a request pass, or says why not.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Answer> {
        let headers = request.headers();
        let host = only(headers, header::HOST);
        self.check_site(headers)?;
        match &*self.token.load() {
            Some(token) if bearer(headers).is_some_and(|given| blake3::hash(given.as_bytes()) == **token) => Ok(()),
            Some(_) => Err(Answer::unauthorized()),
            // A name that somebody made point here (DNS rebinding) is not one of ours.
            None if host.is_some_and(|host| self.is_own(host)) => Ok(()),
            None => Err(Answer::problem(403, "Forbidden", "Host must be localhost or the admin address.")),
        }
    }

    /// Lets a request pass that no page of another site has sent: by Origin, and by what browsers say themselves
    /// (Fetch Metadata). A link on another page may lead here.
    #[expect(clippy::unused_self, reason = "a rule of the listener like the others")]
    pub(super) fn check_site(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let origin = only(headers, header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, at)| at);
        let is_foreign_origin = headers.contains_key(header::ORIGIN) && origin != only(headers, header::HOST);
        let is_foreign_fetch = match only(headers, FETCH_SITE) {
            None => headers.contains_key(FETCH_SITE),
            Some("same-origin" | "none") => false,
            Some(_) => only(headers, FETCH_MODE) != Some("navigate"),
        };
        if is_foreign_origin || is_foreign_fetch {
            return Err(Answer::problem(403, "Forbidden", "Requests from pages of other sites are refused."));
        }
        Ok(())
    }

    /// Whether a Host field means this machine.
    fn is_own(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address == self.address)
    }
}

/// A field that occurs exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = only(headers, header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
