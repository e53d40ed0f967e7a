//! Single values that stand below an upstream or a route's retries.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use super::StatusRange;
use crate::config::file::RetryReason;
use crate::config::shape::{Problem, Word, nearest};

/// Nothing at all: `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Nothing;

impl Word for Nothing {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "none" {
            return Ok(Self);
        }
        Err(Problem::new(format!("`{text}` is not known here"), "write `none`, or keys and values below it"))
    }

    fn schema() -> Json {
        json!({ "enum": ["none"] })
    }
}

/// A name server; its port is 53 unless it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct NameServer(pub(in crate::config) SocketAddr);

impl Word for NameServer {
    fn parse(text: &str) -> Result<Self, Problem> {
        let address = text.trim_matches(['[', ']']).parse().map(|address| SocketAddr::new(address, 53));
        address.or_else(|_| text.parse()).map(Self).map_err(|_| {
            Problem::new(format!("`{text}` is no name server"), "write its address: 10.0.0.2, 10.0.0.2:53 or [::1]:53")
        })
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// A path to ask for, with its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct RequestPath(pub(in crate::config) String);

impl Word for RequestPath {
    fn parse(text: &str) -> Result<Self, Problem> {
        let valid = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if valid && text.parse::<http::uri::PathAndQuery>().is_ok() {
            return Ok(Self(text.to_owned()));
        }
        Err(Problem::new(format!("`{text}` is no path to ask for"), "write one that begins with /, such as /healthz"))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(/.*|.*\\$\\{.*)$" })
    }
}

/// A cookie's name (RFC 6265 §4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct CookieName(pub(in crate::config) String);

impl Word for CookieName {
    fn parse(text: &str) -> Result<Self, Problem> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(is_token) {
            return Ok(Self(text.to_owned()));
        }
        Err(Problem::new(format!("`{text}` cannot be a cookie's name"), "use letters, digits, `-` and `_`"))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

const REASONS: [&str; 3] = ["connect_error", "reset", "timeout"];

impl Word for RetryReason {
    fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "connect_error" => Ok(Self::ConnectError),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            _ => StatusRange::parse(text).map(Self::Status).map_err(|_| {
                let help = nearest(text, REASONS.into_iter()).map_or_else(
                    || format!("write one of {}, or a status such as 503 or 502-504", REASONS.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                Problem::new(format!("nothing is sent again after `{text}`"), help)
            }),
        }
    }

    fn schema() -> Json {
        json!({ "type": ["string", "integer"], "examples": ["connect_error", "reset", "timeout", 503] })
    }
}

impl std::fmt::Display for RetryReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ConnectError => f.write_str("connect_error"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(StatusRange(range)) => write!(f, "{}-{}", range.first, range.last),
        }
    }
}
