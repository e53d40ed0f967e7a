//! The values of `tests:`.

use std::net::IpAddr;
use std::time::Duration;

use http::{StatusCode, Uri};
use serde_json::{Value as Json, json};

use crate::config::shape::{Problem, Word};
use crate::units::parse_duration;

impl Word for IpAddr {
    fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || Problem::new(format!("`{text}` is not an address"), "write 192.0.2.7 or 2001:db8::7");
        text.parse::<Self>().map(|address| address.to_canonical()).map_err(|_| wrong())
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Where a request of a test goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct RequestUrl(pub(in crate::config) Uri);

impl Word for RequestUrl {
    fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || {
            Problem::new(format!("`{text}` is not where a request can go"), "write https://host/path, or only /path")
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let known = matches!(uri.scheme_str(), None | Some("http" | "https"));
        if !known || (uri.scheme().is_none() && !text.starts_with('/')) {
            return Err(wrong());
        }
        Ok(Self(uri))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(/|https?://|.*\\$\\{)" })
    }
}

/// The status of an answer that ends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct AnswerStatus(pub(in crate::config) StatusCode);

impl Word for AnswerStatus {
    fn parse(text: &str) -> Result<Self, Problem> {
        let status = text.parse::<u16>().ok().filter(|status| *status == 101 || (200..600).contains(status));
        status.and_then(|status| StatusCode::from_u16(status).ok()).map(Self).ok_or_else(|| {
            Problem::new(format!("`{text}` is not a status of an answer"), "write 101, or a number from 200 to 599")
        })
    }

    fn schema() -> Json {
        json!({ "type": ["integer", "string"], "examples": [200, 401] })
    }
}

/// A Retry-After: whole seconds, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum RetryAfter {
    Seconds(u64),
    Never,
}

impl Word for RetryAfter {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let duration = parse_duration(text)?;
        if duration < Duration::from_secs(1) || duration.subsec_nanos() > 0 {
            return Err(Problem::new(
                format!("`{text}` is not what Retry-After can say"),
                "it holds whole seconds, at least 1 and rounded up: write 1s, 2s, … or `never`",
            ));
        }
        Ok(Self::Seconds(duration.as_secs()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(never|([0-9]+(us|ms|s|m|h|d))+|.*\\$\\{.*)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_requests_go_is_a_path_or_a_web_address() {
        for text in ["/", "/a?b=c", "http://a/b", "https://a:8443/"] {
            assert!(<RequestUrl as Word>::parse(text).is_ok(), "{text}");
        }
        for text in ["a/b", "example.com", "ftp://a/", "", "https:///x y"] {
            assert!(<RequestUrl as Word>::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_ends_its_request() {
        for text in ["101", "200", "401", "599"] {
            assert!(<AnswerStatus as Word>::parse(text).is_ok(), "{text}");
        }
        for text in ["100", "102", "199", "600", "4xx", "", "-1"] {
            assert!(<AnswerStatus as Word>::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_retry_is_whole_seconds_or_never() {
        assert_eq!(<RetryAfter as Word>::parse("1m30s").unwrap(), RetryAfter::Seconds(90));
        assert_eq!(<RetryAfter as Word>::parse("never").unwrap(), RetryAfter::Never);
        for text in ["0s", "500ms", "1s1ms", "2"] {
            assert!(<RetryAfter as Word>::parse(text).is_err(), "{text}");
        }
    }
}
