//! What the configuration says about tokens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
pub use jsonwebtoken::Algorithm;

use super::key_set::{KeySet, KeySetError};

/// Whose tokens are believed.
#[derive(Debug)]
pub struct JwtSettings {
    /// Where the issuer's keys are.
    pub source: KeySource,
    /// The keys that a file held when the configuration was loaded; none for a URL.
    pub first_keys: Arc<KeySet>,
    /// The signatures that are accepted, where a key is fit for them.
    pub algorithms: Vec<Algorithm>,
    /// A token must be meant for one of these; empty: not looked at.
    pub audience: Vec<Box<str>>,
    /// One of these must have issued it; empty: not looked at.
    pub issuer: Vec<Box<str>>,
    /// The field that carries the token.
    pub header: HeaderName,
    /// How far the issuer's clock may be from ours.
    pub leeway: Duration,
    /// Between two fetches from a URL.
    pub refresh: Duration,
}

impl JwtSettings {
    /// Whether the same tokens are believed, whatever keys a file holds by now: those are followed by themselves.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let words = |one: &Self| (one.source.clone(), one.audience.clone(), one.issuer.clone(), one.header.clone());
        words(self) == words(other)
            && self.algorithms == other.algorithms
            && (self.leeway, self.refresh) == (other.leeway, other.refresh)
    }
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JSON Web Key Set on a server.
    Url(JwksUrl),
    /// A JSON Web Key Set in a file.
    File(PathBuf),
    /// Public keys in a PEM file.
    Pem(PathBuf),
}

/// The address of a JSON Web Key Set, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUrl {
    /// As it was written.
    pub text: Box<str>,
    /// Whether it begins with `https`.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: Box<str>,
    /// TCP port.
    pub port: u16,
    /// What Host says: the port only where it is not the scheme's own.
    pub authority: Box<str>,
    /// Path and query.
    pub target: Box<str>,
    /// PEM file of the authorities to trust; the system's when `None`.
    pub ca: Option<PathBuf>,
}

/// The signatures there are, by their names in RFC 7518 §3.1 and RFC 8037. All are made with a private key
/// that the proxy does not have: whoever can verify HS256 can also forge it.
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

impl KeySource {
    /// Makes keys of what was read from there.
    ///
    /// # Errors
    /// When it holds no usable key.
    pub fn read(&self, contents: &[u8], algorithms: &[Algorithm]) -> Result<KeySet, KeySetError> {
        match self {
            Self::Url(_) | Self::File(_) => KeySet::from_json(contents, algorithms),
            Self::Pem(_) => KeySet::from_pem(contents, algorithms),
        }
    }
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&url.text),
            Self::File(path) | Self::Pem(path) => path.display().fmt(f),
        }
    }
}
