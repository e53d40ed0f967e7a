//! The values of `jwt`: where keys are, and signatures.

use serde_json::{Value as Json, json};

use super::web::take_apart;
use crate::config::shape::{Problem, Word, not_a_word};
use crate::jwt::settings::{ALGORITHMS, Algorithm, JwksUrl};

/// An algorithm of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Signature(pub(in crate::config) Algorithm);

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct JwksAddress(pub(in crate::config) JwksUrl);

impl Word for Signature {
    fn parse(text: &str) -> Result<Self, Problem> {
        const HELP: &str = "have the issuer sign with RS256, ES256 or EdDSA, and give its public key";
        if let Some(&(_, algorithm)) = ALGORITHMS.iter().find(|(name, _)| *name == text) {
            return Ok(Self(algorithm));
        }
        if text.len() == 5 && text.to_ascii_uppercase().starts_with("HS") {
            let message = format!("`{text}` needs a shared secret, and whoever holds it can forge tokens");
            return Err(Problem::new(message, HELP));
        }
        if text.eq_ignore_ascii_case("none") {
            return Err(Problem::new("a token without a signature proves nothing", HELP));
        }
        Err(not_a_word(text, &ALGORITHMS.map(|(name, _)| name)))
    }

    fn schema() -> Json {
        json!({ "enum": ALGORITHMS.map(|(name, _)| name) })
    }
}

const ADDRESS: &str = "write https://host/path, such as https://login.example.com/.well-known/jwks.json";

impl Word for JwksAddress {
    fn parse(text: &str) -> Result<Self, Problem> {
        let address = take_apart(text, ADDRESS)?;
        if !address.tls && !address.is_this_machine() {
            let rest = text.trim_start_matches("http://");
            return Err(Problem::new(
                format!("`{text}`: whoever sits on the way can replace keys that are fetched without TLS"),
                format!("write https://{rest}; http:// is for this machine only"),
            ));
        }
        Ok(Self(JwksUrl {
            text: text.into(),
            tls: address.tls,
            host: address.host,
            port: address.port,
            authority: address.authority,
            target: address.target,
            ca: None,
        }))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(https?://.*|.*\\$\\{.*)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> JwksUrl {
        <JwksAddress as Word>::parse(text).unwrap().0
    }

    #[test]
    fn an_address_is_taken_apart() {
        let url = address("https://Login.Example.com/.well-known/jwks.json?v=1");
        assert_eq!(
            (&*url.host, url.port, &*url.authority, url.tls),
            ("login.example.com", 443, "login.example.com", true)
        );
        assert_eq!(&*url.target, "/.well-known/jwks.json?v=1");
        let url = address("http://[::1]:8080?keys");
        assert_eq!((&*url.host, url.port, &*url.authority, &*url.target), ("::1", 8080, "[::1]:8080", "/?keys"));
        assert_eq!(&*address("https://a").target, "/");
    }

    #[test]
    fn what_is_no_address_says_what_to_write() {
        for (text, message) in [
            ("login.example.com/jwks", "does not begin with https://"),
            ("ftp://a/b", "does not begin with https://"),
            ("https:///jwks", "has no valid host"),
            ("https://a:0/", "has no valid host"),
            ("https://a:x/", "has no valid host"),
            ("https://a/b#c", "has a fragment"),
            ("https://a/b c", "has no valid path"),
            ("https://u:hunter2@a/b", "carries credentials"),
            ("http://login.example.com/jwks", "whoever sits on the way"),
            ("http://10.0.0.1/jwks", "whoever sits on the way"),
        ] {
            let problem = <JwksAddress as Word>::parse(text).unwrap_err();
            assert!(problem.message.contains(message), "{text}: {problem:?}");
            assert!(!problem.message.contains("hunter2"));
        }
    }

    #[test]
    fn only_signatures_with_a_public_key_are_accepted() {
        for (name, algorithm) in ALGORITHMS {
            assert_eq!(<Signature as Word>::parse(name).unwrap(), Signature(algorithm));
        }
        for (text, message) in [
            ("HS256", "shared secret"),
            ("hs512", "shared secret"),
            ("none", "proves nothing"),
            ("RS265", "not known here"),
        ] {
            let problem = <Signature as Word>::parse(text).unwrap_err();
            assert!(problem.message.contains(message), "{text}: {problem:?}");
        }
    }
}
