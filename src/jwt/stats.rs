//! What one worker counts about tokens.

use super::token::Refusal;
use crate::limit::stats::Counter;

/// What was made of a token: the `result` label of `tollgate_jwt_tokens_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum TokenKind {
    /// Verified.
    Valid,
    /// Verified before, and remembered.
    Remembered,
    /// Longer than anything that is looked at.
    TooLong,
    /// Not a signed token with claims.
    Malformed,
    /// There were no keys yet.
    NoKeys,
    /// Signed with a key that is not in the set.
    UnknownKey,
    /// Signed in a way that its key is not for.
    Algorithm,
    /// Not signed by any key that was tried.
    Signature,
    /// Expired.
    Expired,
    /// Not valid yet.
    NotYetValid,
    /// Meant for somebody else.
    Audience,
    /// Issued by somebody else.
    Issuer,
}

/// What one worker has counted.
#[derive(Debug, Default)]
pub struct TokenStats([Counter; TokenKind::ALL.len()]);

impl TokenKind {
    /// Every kind with its label, in order.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::Valid, "valid"),
        (Self::Remembered, "remembered"),
        (Self::TooLong, "too_long"),
        (Self::Malformed, "malformed"),
        (Self::NoKeys, "no_keys"),
        (Self::UnknownKey, "unknown_key"),
        (Self::Algorithm, "algorithm"),
        (Self::Signature, "signature"),
        (Self::Expired, "expired"),
        (Self::NotYetValid, "not_yet_valid"),
        (Self::Audience, "audience"),
        (Self::Issuer, "issuer"),
    ];

    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl TokenStats {
    /// Counts a token.
    pub(super) fn count(&self, kind: TokenKind) {
        self.0[kind as usize].increment();
    }

    /// Tokens of this kind so far.
    #[must_use]
    pub fn value(&self, kind: TokenKind) -> u64 {
        self.0[kind as usize].value()
    }
}

impl From<Refusal> for TokenKind {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLong => Self::TooLong,
            Refusal::Malformed => Self::Malformed,
            Refusal::NoKeys => Self::NoKeys,
            Refusal::UnknownKey => Self::UnknownKey,
            Refusal::Algorithm => Self::Algorithm,
            Refusal::Signature => Self::Signature,
            Refusal::Expired => Self::Expired,
            Refusal::NotYetValid => Self::NotYetValid,
            Refusal::Audience => Self::Audience,
            Refusal::Issuer => Self::Issuer,
        }
    }
}
