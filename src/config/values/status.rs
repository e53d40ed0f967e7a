//! Status codes.

use http::StatusCode;
use serde_json::{Value as Json, json};

use crate::config::shape::{Problem, Word};
use crate::limit::policy::Statuses;

/// Status codes of answers: `401`, `4xx` or `500-503`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct StatusRange(pub(in crate::config) Statuses);

impl Word for StatusRange {
    fn parse(text: &str) -> Result<Self, Problem> {
        let code = |text: &str| text.parse::<u16>().ok().filter(|code| (100..600).contains(code));
        let range = match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(hundred), _) => code(&format!("{hundred}00")).map(|first| (first, first + 99)),
            (None, Some((first, last))) => code(first).zip(code(last)).filter(|(first, last)| first <= last),
            (None, None) => code(text).map(|code| (code, code)),
        };
        range.map(|(first, last)| Self(Statuses { first, last })).ok_or_else(|| {
            let lower = text.to_ascii_lowercase();
            let help = if lower != text && Self::parse(&lower).is_ok() {
                format!("did you mean `{lower}`?")
            } else {
                "write a code such as 401, a range such as 500-503, or 4xx".to_owned()
            };
            Problem::new(format!("`{text}` is not a status"), help)
        })
    }

    fn schema() -> Json {
        json!({ "type": ["integer", "string"], "examples": [401, "5xx", "500-503"] })
    }
}

/// A status of a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Status(pub(in crate::config) StatusCode);

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
