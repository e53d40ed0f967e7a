//! The single values of the file: how each is written, and what is wrong when it is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::shape::{Problem, Word};
use crate::limit::algorithm::fixed_window::Align;
use crate::limit::algorithm::zone::Zone;
use crate::limit::policy::{self, PathPattern, Statuses};
use crate::route::{HostPattern, PathTemplate, target};
use crate::units::{Rate, Size, parse_duration};

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
        json!({ "type": "string" })
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

impl Word for Duration {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(parse_duration(text)?)
    }

    fn schema() -> Json {
        pattern("^(([0-9]+(us|ms|s|m|h|d))+|.*\\$\\{.*)$")
    }
}

impl Word for Size {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(text.parse()?)
    }

    fn schema() -> Json {
        pattern("^([0-9]+ ?(B|KiB|MiB|GiB|kB|KB|MB|GB)|.*\\$\\{.*)$")
    }
}

/// A text with this form (or one that the environment fills in).
fn pattern(regex: &str) -> Json {
    json!({ "type": "string", "pattern": regex })
}

/// A rate, or no limit at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowance {
    Unlimited,
    Rate(Rate),
}

impl Word for Allowance {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text.trim() == "unlimited" {
            return Ok(Self::Unlimited);
        }
        Ok(Self::Rate(text.parse()?))
    }

    fn schema() -> Json {
        pattern("^(unlimited|[0-9]+ ?/ ?([0-9]+(us|ms|s|m|h|d))*(us|ms|s|m|h|d)?|.*\\$\\{.*)$")
    }
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

/// Status codes of answers: `401`, `4xx` or `500-503`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatusRange(pub(super) Statuses);

impl Word for StatusRange {
    fn parse(text: &str) -> Result<Self, Problem> {
        let code = |text: &str| text.parse::<u16>().ok().filter(|code| (100..600).contains(code));
        let range = match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(hundred), _) => code(&format!("{hundred}00")).map(|first| (first, first + 99)),
            (None, Some((first, last))) => code(first).zip(code(last)).filter(|(first, last)| first <= last),
            (None, None) => code(text).map(|code| (code, code)),
        };
        range.map(|(first, last)| Self(Statuses { first, last })).ok_or_else(|| {
            Problem::new(
                format!("`{text}` is not a status"),
                "write a code such as 401, a range such as 500-503, or 4xx",
            )
        })
    }

    fn schema() -> Json {
        json!({ "type": ["integer", "string"], "examples": [401, "5xx", "500-503"] })
    }
}

/// Where fixed windows begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alignment(pub(super) Align);

impl Word for Alignment {
    fn parse(text: &str) -> Result<Self, Problem> {
        let align = match text {
            "clock" | "UTC" => Some(Align::Utc),
            "first_request" => Some(Align::FirstRequest),
            zone => Zone::find(zone).map(Align::Zone),
        };
        align.map(Self).ok_or_else(|| {
            Problem::new(
                format!("`{text}` is no alignment and no time zone"),
                "write clock, first_request, or a zone of the IANA database such as Europe/Berlin",
            )
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "examples": ["clock", "first_request", "Europe/Berlin"] })
    }
}

/// `host:port` or `:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address(pub(super) SocketAddr);

impl Word for Address {
    fn parse(text: &str) -> Result<Self, Problem> {
        const HELP: &str =
            "write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080, or `:8080` for every address";
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse().map_err(|_| Problem::new(format!("`{text}` has no valid port"), HELP))?;
            return Ok(Self(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)));
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        if let Ok(port) = text.parse::<u16>() {
            return Err(Problem::new(format!("`{text}` is only a port"), format!("did you mean `:{port}`?")));
        }
        let wrong = || Problem::new(format!("`{text}` is not an address to listen on"), HELP);
        text.parse().map(Self).map_err(|_| wrong())
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// One entry of `trusted_proxies`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks(pub(super) Vec<IpNet>);

/// What `private` stands for: loopback, RFC 1918, link-local (RFC 3927), unique local (RFC 4193).
const PRIVATE: [&str; 8] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

impl Word for Blocks {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "private" {
            return Ok(Self(PRIVATE.iter().filter_map(|block| block.parse().ok()).collect()));
        }
        let wrong = || {
            Problem::new(format!("`{text}` is not an address block"), "write 203.0.113.0/24, 2001:db8::/32 or private")
        };
        network(text).map(|block| Self(vec![block])).ok_or_else(wrong)
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// An address or an address block.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|block| block.trunc()).or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// One entry of an override's `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OverrideKey {
    pub(super) text: String,
    /// The address block that it reads as, if it does.
    pub(super) network: Option<IpNet>,
}

impl Word for OverrideKey {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::new("an empty key value", "write the value of the key, or an address block"));
        }
        Ok(Self { text: text.to_owned(), network: network(text) })
    }

    fn schema() -> Json {
        json!({ "type": ["string", "integer"] })
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

impl Word for HeaderName {
    fn parse(text: &str) -> Result<Self, Problem> {
        Self::from_str(text).map_err(|_| {
            Problem::new(format!("`{text}` is not a field name"), "write letters, digits and `-`, such as x-api-key")
        })
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// A field's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderText(pub(super) HeaderValue);

impl Word for HeaderText {
    fn parse(text: &str) -> Result<Self, Problem> {
        HeaderValue::from_str(text).map(Self).map_err(|_| {
            Problem::new("a field's value cannot hold control characters or line ends", "write it on one line")
        })
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

impl Word for Method {
    fn parse(text: &str) -> Result<Self, Problem> {
        let upper = text.to_ascii_uppercase();
        if upper != text {
            return Err(Problem::new(
                format!("`{text}` is not a method; methods are upper-case"),
                format!("did you mean `{upper}`?"),
            ));
        }
        Self::from_str(text).map_err(|_| Problem::new(format!("`{text}` is not a method"), "write GET, POST, …"))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Word for HostPattern {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(Self::parse(text)?)
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Word for PathTemplate {
    fn parse(text: &str) -> Result<Self, Problem> {
        if !text.starts_with('/') {
            return Err(Problem::new(format!("`{text}` is not a path"), format!("did you mean `/{text}`?")));
        }
        Ok(Self::parse(text)?)
    }

    fn schema() -> Json {
        pattern("^(/|.*\\$\\{)")
    }
}

impl Word for PathPattern {
    fn parse(text: &str) -> Result<Self, Problem> {
        let (fixed, below) = text.strip_suffix('*').map_or((text, false), |fixed| (fixed, true));
        if !fixed.starts_with('/') || fixed.contains(['*', '{', '}']) || (below && !fixed.ends_with('/')) {
            return Err(Problem::new(
                format!("`{text}` is not a path of this kind"),
                "write `/exact` or `/prefix/*`; parameters are for a route's own `match`",
            ));
        }
        let canonical = target::canonical_path(fixed)?.text;
        if canonical != fixed {
            return Err(Problem::new(
                format!("no request's path is spelled like `{text}` once it is normalised"),
                format!("write `{canonical}{}`", if below { "*" } else { "" }),
            ));
        }
        let compared = target::comparable(fixed).into();
        Ok(if below { Self::Prefix(compared) } else { Self::Exact(compared) })
    }

    fn schema() -> Json {
        pattern("^(/|.*\\$\\{)")
    }
}

/// A status of a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(pub(super) StatusCode);

impl Word for Status {
    fn parse(text: &str) -> Result<Self, Problem> {
        let status = text.parse::<u16>().ok().filter(|status| (400..600).contains(status));
        status.and_then(|status| StatusCode::from_u16(status).ok()).map(Self).ok_or_else(|| {
            Problem::new(format!("`{text}` is not a status of a refusal"), "write 429, or another from 400 to 599")
        })
    }

    fn schema() -> Json {
        json!({ "type": ["integer", "string"], "minimum": 400, "maximum": 599 })
    }
}

/// A share, 0 to 1, written as a percentage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share(pub(super) f64);

impl Share {
    /// In parts per million, rounded.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 1")]
    pub(super) fn parts(self) -> policy::Share {
        policy::Share::of((self.0 * f64::from(policy::Share::WHOLE)).round() as u32)
    }
}

impl Word for Share {
    fn parse(text: &str) -> Result<Self, Problem> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        percent.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| Self(percent / 100.0)).ok_or_else(
            || Problem::new(format!("`{text}` is not a share"), "write a percentage from 0% to 100%, such as 1%"),
        )
    }

    fn schema() -> Json {
        pattern("^([0-9.]+ ?%|.*\\$\\{.*)$")
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
        json!({ "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] })
    }
}

mod jwt;
mod key;
mod time;
mod trial;
mod url;

pub(super) use jwt::{JwksAddress, Signature};
pub(super) use key::KeyChoice;
pub(super) use time::{DaySpan, Hour, ZoneName};
pub(super) use trial::{AnswerStatus, RequestUrl, RetryAfter};
pub(super) use url::{RedisNode, RedisUrl, Server};
