//! One token: what must hold before its claims are believed.

use std::time::Duration;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{DecodingKey, crypto, decode_header};
use serde_json::{Map, Value};

use super::claims::ClaimSet;
use super::key_set::{Candidates, KeySet};
use super::settings::JwtSettings;

/// A token whose signature was verified.
#[derive(Debug, Default)]
pub(super) struct Verified {
    pub(super) claims: ClaimSet,
    not_before: Option<Duration>,
    expires: Option<Duration>,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Longer than anything that is looked at.
    TooLong,
    /// Not a signed token with claims.
    Malformed,
    /// There are no keys yet.
    NoKeys,
    /// It names a key that nobody has told us about.
    UnknownKey,
    /// Its algorithm is not one that its key is for.
    Algorithm,
    /// No key of ours made its signature.
    Signature,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is meant for somebody else.
    Audience,
    /// Somebody else issued it.
    Issuer,
}

impl Verified {
    /// Whether the token holds at this time, since 1970. A token expires at `exp`, not after it (RFC 7519
    /// §4.1.4).
    pub(super) fn holds(&self, now: Duration, leeway: Duration) -> Result<(), Refusal> {
        if self.expires.is_some_and(|expires| now >= expires.saturating_add(leeway)) {
            return Err(Refusal::Expired);
        }
        if self.not_before.is_some_and(|begins| now.saturating_add(leeway) < begins) {
            return Err(Refusal::NotYetValid);
        }
        Ok(())
    }
}

/// Verifies a token at a time, since 1970.
pub(super) fn verify(token: &[u8], keys: &KeySet, rules: &JwtSettings, now: Duration) -> Result<Verified, Refusal> {
    let token = std::str::from_utf8(token).map_err(|_| Refusal::Malformed)?;
    let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
    // Extensions that must be understood, and are not (RFC 7515 §4.1.11).
    if header.crit.is_some() {
        return Err(Refusal::Malformed);
    }
    if keys.is_empty() {
        return Err(Refusal::NoKeys);
    }
    let candidates = match keys.candidates(header.alg, header.kid.as_deref()) {
        Candidates::Try(candidates) => candidates,
        Candidates::OtherAlgorithm => return Err(Refusal::Algorithm),
        Candidates::Unknown => return Err(Refusal::UnknownKey),
    };
    // Read before the signature is verified, because a token that cannot be accepted anyway is refused for a
    // tenth of the work; believed only after.
    let claims = insecure_decode_claims(token).map_err(|_| Refusal::Malformed)?;
    let unproven = read(&claims, rules)?;
    unproven.holds(now, rules.leeway)?;
    let signed = |key: &&DecodingKey| {
        let (message, signature) = token.rsplit_once('.').unwrap_or_default();
        crypto::verify(signature, message.as_bytes(), key, header.alg).unwrap_or(false)
    };
    if candidates.iter().any(signed) { Ok(unproven) } else { Err(Refusal::Signature) }
}

/// Reads the claims, and checks those that do not depend on the time.
fn read(claims: &Map<String, Value>, rules: &JwtSettings) -> Result<Verified, Refusal> {
    if !rules.issuer.is_empty() && !claims.get("iss").is_some_and(|issuer| is_one_of(issuer, &rules.issuer)) {
        return Err(Refusal::Issuer);
    }
    let is_meant = |audience: &Value| match audience {
        Value::Array(several) => several.iter().any(|one| is_one_of(one, &rules.audience)),
        one => is_one_of(one, &rules.audience),
    };
    if !rules.audience.is_empty() && !claims.get("aud").is_some_and(is_meant) {
        return Err(Refusal::Audience);
    }
    let time = |name| claims.get(name).map(numeric_date).transpose();
    Ok(Verified { not_before: time("nbf")?, expires: time("exp")?, claims: ClaimSet::of(claims) })
}

fn is_one_of(value: &Value, accepted: &[Box<str>]) -> bool {
    value.as_str().is_some_and(|value| accepted.iter().any(|accepted| **accepted == *value))
}

/// Seconds since 1970, perhaps with a fraction (RFC 7519 §2).
fn numeric_date(value: &Value) -> Result<Duration, Refusal> {
    let whole = value.as_u64().map(Duration::from_secs);
    let fraction = || value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    whole.or_else(fraction).ok_or(Refusal::Malformed)
}
