//! A cookie that keeps a client with the endpoint it went to first. It does not tell which one that is: the
//! address is hashed, with the configuration's secret where there is one.

use std::hash::Hasher;
use std::time::Duration;

use http::HeaderValue;
use siphasher::sip::SipHasher13;

use super::Endpoint;

/// How clients are kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: Box<str>,
    /// How long clients keep it; `None`: until they close.
    pub max_age: Option<Duration>,
    key: (u64, u64),
}

impl Sticky {
    /// With a secret, which all proxies of one upstream must share.
    #[must_use]
    pub fn new(cookie: &str, max_age: Option<Duration>, secret: &[u8]) -> Self {
        let hash = blake3::derive_key("tollgate sticky cookie", secret);
        let half = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| (number << 8) | u64::from(byte));
        Self { cookie: cookie.into(), max_age, key: (half(&hash[..8]), half(&hash[8..16])) }
    }

    /// What stands for an endpoint.
    #[must_use]
    pub fn token(&self, endpoint: &Endpoint) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write_u64(endpoint.hash);
        hasher.finish()
    }

    /// The token in a cookie's value, if it holds one.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<u64> {
        let is_token = value.len() == 16 && value.iter().all(u8::is_ascii_hexdigit);
        is_token.then(|| std::str::from_utf8(value).ok().and_then(|text| u64::from_str_radix(text, 16).ok())).flatten()
    }

    /// Set-Cookie for an endpoint; `secure`: the client speaks TLS.
    #[must_use]
    pub fn set_cookie(&self, endpoint: &Endpoint, scheme: &str) -> Option<HeaderValue> {
        let age = self.max_age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
        let secure = if scheme == "https" { "; Secure" } else { "" };
        let (cookie, token) = (&self.cookie, self.token(endpoint));
        HeaderValue::try_from(format!("{cookie}={token:016x}; Path=/; HttpOnly; SameSite=Lax{age}{secure}")).ok()
    }
}
