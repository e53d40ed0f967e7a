//! The token of a request that nobody sends: its claims are imagined to be verified.

use super::request::Asked;
use crate::config::Config;
use crate::jwt::{ClaimSet, only_token};
use crate::limit::key::{AmbiguousKey, Claim, Claims};

/// The token that the request is imagined to carry.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    claims: Option<&'a ClaimSet>,
    /// Whether the request carries fields that would be two of them.
    ambiguous: Option<AmbiguousKey>,
    /// Whether a field carries a token and nothing is said of its claims.
    unverified: bool,
}

impl<'a> Token<'a> {
    /// What the request carries, under a configuration.
    pub(crate) fn new(config: &Config, request: &Asked<'a>) -> Self {
        let found = config.jwt.as_ref().map(|jwt| only_token(request.headers, &jwt.header));
        let is_carried = config.jwt.as_ref().is_some_and(|jwt| request.headers.contains_key(&jwt.header));
        let is_told = request.claims.is_some_and(|claims| *claims != ClaimSet::default());
        Self { claims: request.claims, ambiguous: found.and_then(Result::err), unverified: is_carried && !is_told }
    }

    /// Whether it counts as none because nobody verifies it here.
    pub(crate) fn is_unverified(&self) -> bool {
        self.unverified
    }
}

impl Claims for Token<'_> {
    fn claim(&self, path: &str) -> Result<Option<Claim<'_>>, AmbiguousKey> {
        self.ambiguous.map_or_else(|| Ok(self.claims.and_then(|claims| claims.find(path))), Err)
    }
}
