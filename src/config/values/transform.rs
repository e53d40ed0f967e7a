//! What a route changes and answers: templates, prefixes, origins, statuses of redirects.

use http::{HeaderName, Method, StatusCode};
use serde_json::{Value as Json, json};

use super::pattern;
use crate::config::shape::{Problem, Word};
use crate::route::Template;
use crate::route::cors::OriginPattern;
use crate::route::target::{canonical_host, canonical_path};

/// A text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct TemplateText(pub(in crate::config) Template);

impl Word for TemplateText {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(Self(Template::parse(text)?))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

/// The beginning of a path, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct FixedPath(pub(in crate::config) String);

impl Word for FixedPath {
    fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = |help: String| Problem::new(format!("`{text}` is not the beginning of a path"), help);
        if text.contains(['{', '}', '*']) {
            return Err(wrong(
                "write fixed segments, such as `/v1`; variables can stand in `path: /v2/{path.rest}`".into(),
            ));
        }
        if !text.starts_with('/') {
            return Err(wrong(format!("did you mean `/{text}`?")));
        }
        let canonical = canonical_path(text)?.text;
        let trimmed = canonical.strip_suffix('/').unwrap_or(&canonical);
        if trimmed.is_empty() {
            return Err(wrong("write its segments, such as `/v1`".into()));
        }
        if trimmed != text {
            return Err(wrong(format!("did you mean `{trimmed}`?")));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Json {
        pattern("^(/|.*\\$\\{)")
    }
}

/// The status of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct RedirectStatus(pub(in crate::config) StatusCode);

impl Word for RedirectStatus {
    fn parse(text: &str) -> Result<Self, Problem> {
        let status = text.parse::<u16>().ok().filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308));
        status.and_then(|status| StatusCode::from_u16(status).ok()).map(Self).ok_or_else(|| {
            let help = "write 308 (for good) or 307 (for now); 301, 302 and 303 let clients change POST to GET";
            Problem::new(format!("`{text}` is not a status of a redirect"), help)
        })
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "enum": [301, 302, 303, 307, 308] }, { "type": "string" }] })
    }
}

/// Whose pages: an origin, several, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Origin(pub(in crate::config) OriginPattern);

/// Ports that browsers leave out.
const DEFAULT_PORTS: [(&str, u16); 2] = [("https", 443), ("http", 80)];

impl Word for Origin {
    fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "*" => return Ok(Self(OriginPattern::Any)),
            "null" => return Ok(Self(OriginPattern::Null)),
            _ => {}
        }
        let wrong = |help: String| Problem::new(format!("`{text}` is not an origin"), help);
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong(format!("did you mean `https://{text}`?")));
        };
        if let Some((authority, _)) = rest.split_once('/') {
            return Err(wrong(format!("an origin has no path: write `{scheme}://{authority}`")));
        }
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.');
        let (wildcard, name) = rest.strip_prefix("*.").map_or((false, rest), |name| (true, name));
        let host = canonical_host(name).ok().filter(|_| !scheme.is_empty() && scheme.bytes().all(legal));
        let host = host.ok_or_else(|| wrong("write https://app.example.com or https://*.example.com".into()))?;
        let port = host.port.filter(|port| !DEFAULT_PORTS.contains(&(scheme, *port)));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let star = if wildcard { "*." } else { "" };
        let canonical = format!("{scheme}://{star}{}{port}", host.name);
        if canonical != text {
            return Err(wrong(format!("browsers spell it `{canonical}`: write that")));
        }
        Ok(Self(if wildcard {
            OriginPattern::Wildcard {
                scheme: format!("{scheme}://").into(),
                suffix: format!(".{}{port}", host.name).into(),
            }
        } else {
            OriginPattern::Exact(text.into())
        }))
    }

    fn schema() -> Json {
        json!({ "type": "string", "examples": ["https://app.example.com", "https://*.example.com", "*"] })
    }
}

/// A method that pages may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct CorsMethod(pub(in crate::config) Method);

impl Word for CorsMethod {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "*" {
            return Err(Problem::new("methods are named", "write [GET, HEAD, POST, PUT, PATCH, DELETE], for example"));
        }
        <Method as Word>::parse(text).map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// A field that pages may send; `None`: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct AnnouncedField(pub(in crate::config) Option<HeaderName>);

impl Word for AnnouncedField {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "*" { Ok(Self(None)) } else { <HeaderName as Word>::parse(text).map(|name| Self(Some(name))) }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// A field that pages may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct CorsField(pub(in crate::config) HeaderName);

impl Word for CorsField {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "*" {
            return Err(Problem::new("fields are named", "write [x-total, x-next-page], for example"));
        }
        <HeaderName as Word>::parse(text).map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for text in
            ["https://app.example.com", "https://*.example.com:8443", "http://localhost:3000", "http://[::1]:80a"]
        {
            assert_eq!(<Origin as Word>::parse(text).is_ok(), !text.ends_with('a'), "{text}");
        }
        for (text, expected) in [
            ("app.example.com", "did you mean `https://app.example.com`?"),
            ("https://app.example.com/", "write `https://app.example.com`"),
            ("https://App.example.com", "spell it `https://app.example.com`"),
            ("https://app.example.com:443", "spell it `https://app.example.com`"),
            ("https://", "write https://app.example.com"),
            ("https://a.*.com", "write https://app.example.com"),
            ("https://*", "write https://app.example.com"),
        ] {
            let problem = <Origin as Word>::parse(text).unwrap_err();
            assert!(problem.help.as_ref().unwrap().contains(expected), "{text}: {problem:?}");
        }
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        assert!(<FixedPath as Word>::parse("/v1/api").is_ok());
        for (text, expected) in [
            ("v1", "did you mean `/v1`?"),
            ("/v1/", "did you mean `/v1`?"),
            ("/v1//x", "did you mean `/v1/x`?"),
            ("/", "write its segments"),
            ("/{tenant}", "write fixed segments"),
            ("/v1/*", "write fixed segments"),
        ] {
            let problem = <FixedPath as Word>::parse(text).unwrap_err();
            assert!(problem.help.as_ref().unwrap().contains(expected), "{text}: {problem:?}");
        }
    }
}
