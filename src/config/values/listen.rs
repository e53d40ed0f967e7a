//! Where a listener listens, whom it trusts there, and where it sends clients that came in clear text.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::network::{Address, Blocks};
use crate::config::ListenAddress;
use crate::config::shape::{Problem, Word};

/// The longest path of a Unix socket that every system takes, bytes.
const LONGEST_PATH: usize = 100;

/// `host:port`, `:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Listening(pub(in crate::config) ListenAddress);

impl Word for Listening {
    const INSTEAD_OF_A_LIST: Option<&str> =
        Some("give each a name: `listeners: { web: \":8080\", internal: \"127.0.0.1:8081\" }`");

    fn parse(text: &str) -> Result<Self, Problem> {
        let Some(path) = text.strip_prefix("unix:") else {
            return Address::parse(text).map(|address| Self(ListenAddress::Tcp(address.0)));
        };
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(Problem::new(
                format!("`{text}` names no socket"),
                "write the whole path, such as unix:/run/tollgate.sock",
            ));
        }
        if path.len() > LONGEST_PATH {
            let message = format!("this path is longer than {LONGEST_PATH} bytes, more than a socket's may be");
            return Err(Problem::new(message, "choose a shorter one, such as unix:/run/tollgate.sock"));
        }
        Ok(Self(ListenAddress::Unix(PathBuf::from(path))))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// One entry of `trusted_proxies`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Trusted {
    /// Whoever has one of these addresses.
    Networks(Blocks),
    /// Whoever connects to a Unix socket.
    Unix,
}

impl Word for Trusted {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "unix" { Ok(Self::Unix) } else { Blocks::parse(text).map(Self::Networks) }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Whether a clear-text listener redirects, and to which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum HttpsRedirect {
    /// It does not.
    No,
    /// To the listener that speaks TLS.
    Yes,
    /// To this port.
    Port(u16),
}

impl Word for HttpsRedirect {
    fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "true" => Ok(Self::Yes),
            "false" => Ok(Self::No),
            _ => match text.parse() {
                Ok(port) if port > 0 => Ok(Self::Port(port)),
                _ => Err(Problem::new(
                    format!("`{text}` is no port, nor `true` or `false`"),
                    "write `true`, or the port that clients reach TLS on, such as 8443",
                )),
            },
        }
    }

    fn schema() -> Json {
        json!({ "type": ["boolean", "integer", "string"] })
    }
}

/// Who may connect to a Unix socket: the permissions of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct SocketMode(pub(in crate::config) u32);

impl Word for SocketMode {
    fn parse(text: &str) -> Result<Self, Problem> {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if is_octal && mode <= 0o777 => Ok(Self(mode)),
            _ => Err(Problem::new(format!("`{text}` is no file mode"), "write it in octal and in quotes: \"0660\"")),
        }
    }

    fn schema() -> Json {
        json!({ "type": ["string", "integer"] })
    }
}
