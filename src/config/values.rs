//! The single values of the file: how each is written, and what is wrong when it is not.

mod claims;
mod jwt;
mod key;
mod listen;
mod network;
mod quantity;
mod regex;
mod request;
mod server;
mod short;
mod status;
mod time;
mod transform;
mod trial;
mod upstream;
mod url;
mod web;

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::shape::{Problem, Word};
pub(super) use claims::Claims;
pub(super) use jwt::{JwksAddress, Signature};
pub(super) use key::KeyChoice;
pub(super) use listen::{HttpsRedirect, Listening, SocketMode, Trusted};
pub(super) use network::{Address, Blocks, OverrideKey, network, without_host_bits};
pub(super) use quantity::{Allowance, Share};
pub(super) use regex::{RegexPart, RegexText, WholePath};
pub(super) use request::{HeaderText, PlainText};
pub(super) use server::{Scheme, Server, ServerNameText};
pub(super) use short::{InMemory, Off};
pub(super) use status::{Status, StatusRange};
pub(super) use time::{Alignment, DaySpan, Hour, ZoneName};
pub(super) use transform::{AnnouncedField, CorsField, CorsMethod, FixedPath, Origin, RedirectStatus, TemplateText};
pub(super) use trial::{AnswerStatus, RequestUrl, RetryAfter};
pub(super) use upstream::{CookieName, NameServer, Nothing, RequestPath};
pub(super) use url::{RedisNode, RedisUrl};
pub(super) use web::OtlpAddress;

impl Word for String {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(text.to_owned())
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Word for PathBuf {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::new("this names no file", "write a path"));
        }
        Ok(Self::from(text))
    }

    fn schema() -> Json {
        json!({ "type": "string", "title": "Path of a file" })
    }
}

impl Word for bool {
    fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Problem::new(format!("`{text}` is neither `true` nor `false`"), "write `true` or `false`")),
        }
    }

    fn schema() -> Json {
        json!({ "type": ["boolean", "string"] })
    }
}

impl Word for u64 {
    fn parse(text: &str) -> Result<Self, Problem> {
        text.parse()
            .map_err(|_| Problem::new(format!("`{text}` is not a whole number"), "write digits only, such as 200"))
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^([0-9]+|.*\\$\\{.*)$" }] })
    }
}

/// A text with this form (or one that the environment fills in).
fn pattern(regex: &str) -> Json {
    json!({ "type": "string", "pattern": regex })
}

/// What stands under one key of a cost; the key decides how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CostText(pub(super) String);

impl std::ops::Deref for CostText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A name: printable ASCII without what has a meaning in state ids and fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LimitName(pub(super) String);

impl LimitName {
    /// Whether a character may stand in a name.
    pub(super) fn allows(character: char) -> bool {
        character.is_ascii_graphic() && !matches!(character, '"' | '\'' | '`' | '\\' | '{' | '}' | ':' | '@' | '~')
            || character == ' '
    }
}

impl Word for LimitName {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text.is_empty() || text.trim() != text || text.len() > 128 || !text.chars().all(Self::allows) {
            return Err(Problem::new(
                format!("`{text}` cannot be a name here"),
                "use up to 128 letters, digits and `-_./`; not quotes, backslashes, braces, `:`, `@` or `~`",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "integer"] })
    }
}

/// How many workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workers {
    Auto,
    Count(usize),
}

impl Word for Workers {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let wrong = || Problem::new(format!("`{text}` is not a number of workers"), "write `auto`, or 1 to 1024");
        text.parse().ok().filter(|count| (1..=1024).contains(count)).map(Self::Count).ok_or_else(wrong)
    }

    fn schema() -> Json {
        json!({ "anyOf": [pattern("^(auto|[0-9]+|.*\\$\\{.*)$"), { "type": "integer", "minimum": 1, "maximum": 1024 }] })
    }
}
