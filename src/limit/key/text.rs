//! Keys as the configuration writes them: `header:x-api-key | client_ip`.

use std::fmt;

use http::HeaderName;

use super::{Key, KeyPart};

/// What is wrong with the text of a key, with the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing, or nothing between two `|`.
    #[error("an empty key part; write {KINDS}")]
    Empty,
    /// A kind we do not know.
    #[error("`{kind}` is not something a limit can be keyed by; {}", cure(*.suggestion))]
    Unknown {
        /// What was written.
        kind: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// `header`, `cookie`, `query`, `path` or `jwt` without a name.
    #[error("`{kind}` needs a name; write `{kind}:NAME`, such as `{kind}:{example}`")]
    NameMissing {
        /// The kind.
        kind: &'static str,
        /// A name such as people use.
        example: &'static str,
    },
    /// A name where none belongs.
    #[error("`{kind}` takes no name; write just `{kind}`")]
    NameUnexpected {
        /// The kind.
        kind: &'static str,
    },
    /// A name other than the only one.
    #[error("`{kind}:{name}` is nothing that a request has; write `{kind}:{only}`")]
    NoSuchName {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// The one there is.
        only: &'static str,
    },
    /// A name that no request can carry.
    #[error("`{name}` cannot be the name of a {kind}; use printable ASCII without blanks and {{}}|=&;\"\\,")]
    BadName {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
    },
}

/// For error messages.
const KINDS: &str = "client_ip, header:NAME, cookie:NAME, query:NAME, path:PARAM, jwt:CLAIM, tls:subject, host, method, route or \
     global, or several with |";

/// Kinds that take a name, each with an example.
const NAMED: [(&str, &str); 6] = [
    ("header", "x-api-key"),
    ("cookie", "session"),
    ("query", "api_key"),
    ("path", "tenant"),
    ("jwt", "sub"),
    ("tls", "subject"),
];

/// Kinds that stand alone.
const PLAIN: [&str; 5] = ["client_ip", "host", "method", "route", "global"];

/// The longest name of a field, cookie, parameter or claim.
pub const MAX_NAME: usize = 256;

fn cure(suggestion: Option<&'static str>) -> String {
    match suggestion {
        Some("tls") => "did you mean `tls:subject`?".to_owned(),
        Some(kind) if NAMED.iter().any(|(named, _)| *named == kind) => format!("did you mean `{kind}:NAME`?"),
        Some(kind) => format!("did you mean `{kind}`?"),
        None => format!("write {KINDS}"),
    }
}

impl Key {
    /// Reads one part of a key: one thing, or several with `|`, of which the first present counts.
    /// Addresses are cut to `ipv6_prefix` bits.
    ///
    /// # Errors
    /// When the text names nothing that a request can be keyed by.
    pub fn parse_part(text: &str, ipv6_prefix: u8) -> Result<Vec<KeyPart>, KeyError> {
        text.split('|').map(|alternative| parse_alternative(alternative.trim(), ipv6_prefix)).collect()
    }
}

fn parse_alternative(text: &str, ipv6_prefix: u8) -> Result<KeyPart, KeyError> {
    let (kind, name) = match text.split_once(':') {
        Some((kind, name)) => (kind.trim_end(), Some(name.trim_start())),
        None => (text, None),
    };
    if let Some(&(kind, example)) = NAMED.iter().find(|(named, _)| *named == kind) {
        let name = name.filter(|name| !name.is_empty()).ok_or(KeyError::NameMissing { kind, example })?;
        return named(kind, name);
    }
    let Some(&kind) = PLAIN.iter().find(|plain| **plain == kind) else {
        return Err(if text.is_empty() { KeyError::Empty } else { unknown(kind) });
    };
    if name.is_some() {
        return Err(KeyError::NameUnexpected { kind });
    }
    Ok(match kind {
        "client_ip" => KeyPart::ClientIp { ipv6_prefix },
        "host" => KeyPart::Host,
        "method" => KeyPart::Method,
        "route" => KeyPart::Route,
        _ => KeyPart::Global,
    })
}

fn named(kind: &'static str, name: &str) -> Result<KeyPart, KeyError> {
    let bad = || KeyError::BadName { kind, name: name.to_owned() };
    // Names stand in subjects as they are: printable, without what divides or tags one.
    let safe = |byte: u8| byte.is_ascii_graphic() && !b"{}|=&;\"\\,".contains(&byte);
    if name.len() > MAX_NAME || !name.bytes().all(safe) {
        return Err(bad());
    }
    Ok(match kind {
        "header" => KeyPart::Header(HeaderName::try_from(name).map_err(|_| bad())?),
        "cookie" => KeyPart::Cookie(name.into()),
        "query" => KeyPart::Query(name.into()),
        "tls" if name == "subject" => KeyPart::TlsSubject,
        "tls" => return Err(KeyError::NoSuchName { kind, name: name.to_owned(), only: "subject" }),
        "path" => KeyPart::Path(name.into()),
        _ => KeyPart::Jwt(name.into()),
    })
}

fn unknown(kind: &str) -> KeyError {
    let words = PLAIN.into_iter().chain(NAMED.into_iter().map(|(named, _)| named));
    let similar = words.map(|word| (strsim::jaro_winkler(&kind.to_lowercase().replace('-', "_"), word), word));
    let aliases = [("ip", "client_ip"), ("remote_addr", "client_ip"), ("address", "client_ip"), ("all", "global")];
    let alias = aliases.into_iter().find(|(alias, _)| *alias == kind).map(|(_, word)| word);
    let nearest = similar.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word);
    KeyError::Unknown { kind: kind.to_owned(), suggestion: alias.or(nearest) }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, alternatives) in self.parts.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            for (position, part) in alternatives.iter().enumerate() {
                if position > 0 {
                    f.write_str(" | ")?;
                }
                part.fmt(f)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp { .. } => f.write_str("client_ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Path(name) => write!(f, "path:{name}"),
            Self::TlsSubject => f.write_str("tls:subject"),
            Self::Jwt(path) => write!(f, "jwt:{path}"),
            Self::Host => f.write_str("host"),
            Self::Method => f.write_str("method"),
            Self::Route => f.write_str("route"),
            Self::Global => f.write_str("global"),
        }
    }
}
