//! The keys of limits: `client_ip`, `header:x-api-key | client_ip`.

use serde_json::{Value as Json, json};

use crate::config::shape::{Problem, Word};
use crate::limit::key::{Key, KeyPart};

/// One part of a key: the first of these that is present. Addresses are whole until the limit's IPv6
/// prefix is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct KeyChoice(pub(in crate::config) Vec<KeyPart>);

/// Bits of a whole IPv6 address.
const WHOLE: u8 = 128;

impl Word for KeyChoice {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(Self(Key::parse_part(text, WHOLE)?))
    }

    fn schema() -> Json {
        json!({
            "type": "string",
            "pattern": "^ *(client_ip|tls:subject|host|method|route|global|(header|cookie|query|path|jwt):[^|]+|.*\\$\\{.*)( *\\| *(client_ip|tls:subject|host|method|route|global|(header|cookie|query|path|jwt):[^|]+))* *$",
            "examples": ["client_ip", "header:x-api-key | client_ip", "jwt:sub"],
        })
    }
}

impl KeyChoice {
    /// The live form, with the bits of an IPv6 address that make one client.
    pub(in crate::config) fn live(&self, ipv6_prefix: u8) -> Vec<KeyPart> {
        let live = |part: &KeyPart| match part {
            KeyPart::ClientIp { .. } => KeyPart::ClientIp { ipv6_prefix },
            part => part.clone(),
        };
        self.0.iter().map(live).collect()
    }
}

impl std::fmt::Display for KeyChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, part) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("|")?;
            }
            part.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_their_alternatives() {
        let key = <KeyChoice as Word>::parse("header:X-Api-Key | client_ip").unwrap();
        assert_eq!(key.to_string(), "header:x-api-key|client_ip");
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        for (text, help) in [
            ("clientip", "`client_ip`"),
            ("headers:x", "`header:NAME`"),
            ("header", "`header:NAME`"),
            ("tls:issuer", "write `tls:subject`"),
            ("tls", "such as `tls:subject`"),
            ("jwt", "such as `jwt:sub`"),
            ("header:", "such as `header:x-api-key`"),
            ("query:{x}", "printable ASCII"),
            ("cookie:a=b", "printable ASCII"),
            ("", "write client_ip"),
        ] {
            let problem = <KeyChoice as Word>::parse(text).unwrap_err();
            assert!(problem.help.as_ref().unwrap().contains(help), "{text}: {problem:?}");
        }
    }
}
