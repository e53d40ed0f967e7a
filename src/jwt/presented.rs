//! The token of one request.

use std::cell::OnceCell;
use std::rc::Rc;

use http::{HeaderMap, HeaderName};

use super::token::Verified;
use super::tokens::Tokens;
use crate::limit::key::{AmbiguousKey, Claim, Claims};

/// The token that came with a request, verified when a limit first asks for one of its claims.
pub struct Presented<'a> {
    tokens: Option<&'a Tokens>,
    headers: &'a HeaderMap,
    verified: OnceCell<Result<Option<Rc<Verified>>, AmbiguousKey>>,
}

impl<'a> Presented<'a> {
    /// A request's token, not looked at yet. Without `tokens` nobody's are believed.
    #[must_use]
    pub fn new(tokens: Option<&'a Tokens>, headers: &'a HeaderMap) -> Self {
        Self { tokens, headers, verified: OnceCell::new() }
    }

    fn verify(&self) -> Result<Option<Rc<Verified>>, AmbiguousKey> {
        let Some(tokens) = self.tokens else { return Ok(None) };
        let token = only_token(self.headers, &tokens.keys().settings().header)?;
        Ok(token.and_then(|token| tokens.read(token)))
    }
}

impl Claims for Presented<'_> {
    fn claim(&self, path: &str) -> Result<Option<Claim<'_>>, AmbiguousKey> {
        match self.verified.get_or_init(|| self.verify()) {
            Ok(verified) => Ok(verified.as_ref().and_then(|verified| verified.claims.find(path))),
            Err(ambiguous) => Err(*ambiguous),
        }
    }
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the token nor what it says is anybody else's business.
        f.write_str("Presented(***)")
    }
}

/// The text of a request's token, without a scheme before it: `Bearer x` and `x` are the same.
///
/// # Errors
/// When the field occurs twice: who reads the request next may take the other one.
pub fn only_token<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, AmbiguousKey> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(AmbiguousKey);
    }
    let value = line.as_bytes().trim_ascii();
    let token = value.iter().position(u8::is_ascii_whitespace).map_or(value, |space| value[space..].trim_ascii());
    Ok(Some(token).filter(|token| !token.is_empty()))
}
