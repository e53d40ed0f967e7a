//! The keys of limits: `client_ip`, `header:x-api-key | client_ip`.

use http::HeaderName;
use serde_json::{Value as Json, json};

use crate::config::shape::{Problem, Word, nearest};
use crate::limit::key::KeyPart;

/// One part of a key: the first of these that is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct KeyChoice(pub(in crate::config) Vec<Part>);

/// One thing to be keyed by, before the IPv6 prefix is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Part {
    ClientIp,
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    Path(Box<str>),
    Host,
    Method,
    Route,
    Global,
}

/// The words without a name behind them, and those with one.
const PLAIN: [&str; 5] = ["client_ip", "host", "method", "route", "global"];
const WITH_NAME: [&str; 4] = ["header", "cookie", "query", "path"];

impl Word for KeyChoice {
    fn parse(text: &str) -> Result<Self, Problem> {
        text.split('|').map(|part| Part::parse(part.trim())).collect::<Result<_, _>>().map(Self)
    }

    fn schema() -> Json {
        json!({
            "type": "string",
            "pattern": "^ *(client_ip|host|method|route|global|(header|cookie|query|path):[^|]+|.*\\$\\{.*)( *\\| *(client_ip|host|method|route|global|(header|cookie|query|path):[^|]+))* *$",
            "examples": ["client_ip", "header:x-api-key | client_ip"],
        })
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, Problem> {
        if let Some((kind, name)) = text.split_once(':') {
            return Self::named(kind.trim(), name.trim());
        }
        Ok(match text {
            "client_ip" => Self::ClientIp,
            "host" => Self::Host,
            "method" => Self::Method,
            "route" => Self::Route,
            "global" => Self::Global,
            _ => return Err(unknown(text)),
        })
    }

    fn named(kind: &str, name: &str) -> Result<Self, Problem> {
        if name.is_empty() || name.len() > 256 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Problem::new(
                format!("`{kind}:{name}` has no usable name"),
                "write printable ASCII behind the colon, such as header:x-api-key",
            ));
        }
        Ok(match kind {
            "header" => Self::Header(<HeaderName as Word>::parse(name)?),
            "cookie" => Self::Cookie(name.into()),
            "query" => Self::Query(name.into()),
            "path" => Self::Path(name.into()),
            _ => return Err(unknown(kind)),
        })
    }

    /// Whether a request may come without it.
    pub(in crate::config) fn may_be_missing(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Cookie(_) | Self::Query(_))
    }

    /// The live form, with the bits of an IPv6 address that make one client.
    pub(in crate::config) fn live(&self, ipv6_prefix: u8) -> KeyPart {
        match self {
            Self::ClientIp => KeyPart::ClientIp { ipv6_prefix },
            Self::Header(name) => KeyPart::Header(name.clone()),
            Self::Cookie(name) => KeyPart::Cookie(name.clone()),
            Self::Query(name) => KeyPart::Query(name.clone()),
            Self::Path(name) => KeyPart::Path(name.clone()),
            Self::Host => KeyPart::Host,
            Self::Method => KeyPart::Method,
            Self::Route => KeyPart::Route,
            Self::Global => KeyPart::Global,
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client_ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Path(name) => write!(f, "path:{name}"),
            Self::Host => f.write_str("host"),
            Self::Method => f.write_str("method"),
            Self::Route => f.write_str("route"),
            Self::Global => f.write_str("global"),
        }
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

fn unknown(text: &str) -> Problem {
    let help = match nearest(text, PLAIN.iter().chain(&WITH_NAME).copied()) {
        Some(near) if WITH_NAME.contains(&near) => format!("did you mean `{near}:NAME`?"),
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            "write client_ip, header:NAME, cookie:NAME, query:NAME, path:PARAM, host, method, route or global".into()
        }
    };
    Problem::new(format!("`{text}` is not something a limit can be keyed by"), help)
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
            ("jwt:sub", "write client_ip"),
            ("header:", "behind the colon"),
            ("", "write client_ip"),
        ] {
            let problem = <KeyChoice as Word>::parse(text).unwrap_err();
            assert!(problem.help.as_ref().unwrap().contains(help), "{text}: {problem:?}");
        }
    }
}
