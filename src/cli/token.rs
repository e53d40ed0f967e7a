//! The token of a request that nobody sends: its claims are imagined to be verified.

use super::request::Asked;
use crate::config::Config;
use crate::jwt::{ClaimSet, only_token};
use crate::limit::key::{AmbiguousKey, Claim, Claims};

/// The token that the request is imagined to carry.
#[derive(Debug)]
pub(in crate::cli) struct Token<'a> {
    claims: Option<&'a ClaimSet>,
    /// Whether the request carries fields that would be two of them.
    ambiguous: Option<AmbiguousKey>,
}

impl<'a> Token<'a> {
    /// What the request carries, under a configuration.
    pub(in crate::cli) fn new(config: &Config, request: &Asked<'a>) -> Self {
        let found = config.jwt.as_ref().map(|jwt| only_token(request.headers, &jwt.header));
        Self { claims: request.claims, ambiguous: found.and_then(Result::err) }
    }
}

impl Claims for Token<'_> {
    fn claim(&self, path: &str) -> Result<Option<Claim<'_>>, AmbiguousKey> {
        self.ambiguous.map_or_else(|| Ok(self.claims.and_then(|claims| claims.find(path))), Err)
    }
}
