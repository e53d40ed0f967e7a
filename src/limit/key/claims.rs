//! What a limit may ask of a request's token.

use super::{AmbiguousKey, KeyValue};

/// The claims of a request's token, if a verified one came with it. Whoever implements this does the
/// work of verifying when first asked, and only once.
pub trait Claims: std::fmt::Debug {
    /// The claim at this dotted path; `None` unless a verified token says something there that a limit
    /// can be keyed by.
    ///
    /// # Errors
    /// When the request carries more than one token.
    fn claim(&self, path: &str) -> Result<Option<Claim<'_>>, AmbiguousKey>;
}

/// The value of one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim<'a> {
    /// A text.
    Text(&'a str),
    /// A number or a boolean, spelled in one way only.
    Literal(&'a str),
}

/// The claims of a request whose tokens nobody reads.
#[derive(Debug, Clone, Copy)]
pub struct NoClaims;

impl Claims for NoClaims {
    fn claim(&self, _: &str) -> Result<Option<Claim<'_>>, AmbiguousKey> {
        Ok(None)
    }
}

impl<'a> From<Claim<'a>> for KeyValue<'a> {
    fn from(claim: Claim<'a>) -> Self {
        let (text, mark) = match claim {
            Claim::Text(text) => (text, Some(b'"')),
            Claim::Literal(text) => (text, None),
        };
        Self { bytes: text.as_bytes().into(), mark, address: None }
    }
}
