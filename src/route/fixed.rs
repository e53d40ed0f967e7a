//! Answers that a route gives without an upstream: redirects and fixed ones.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::fields::FieldValue;
use super::target::canonical_path;
use super::template::{FillError, Part, Template, Values, Variable};

/// An answer without an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FixedAnswer {
    /// Go elsewhere.
    Redirect(Redirect),
    /// This.
    Respond(Respond),
}

/// Where requests are sent instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    to: Template,
}

/// An answer that is always the same, but for variables in its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: StatusCode,
    /// Its media type, unless it has no body.
    pub content_type: HeaderValue,
    /// Its other fields.
    pub headers: Vec<(HeaderName, FieldValue)>,
    /// May be empty.
    pub body: Bytes,
}

/// Why a redirect is refused: clients could choose where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// Begins with neither a scheme nor a slash.
    #[error(
        "a redirect leads to `https://host/…`, `http://host/…` or `/…`; write one of these, without a variable in front"
    )]
    Beginning,
    /// `//`.
    #[error("what begins with `//` leads to another host; write `https://` before it, or one slash only")]
    TwoSlashes,
    /// A variable that is not `{host}`.
    #[error(
        "a variable in the host lets clients choose where they are sent; only `{{host}}` may stand there, which is where they are"
    )]
    HostVariable,
    /// No host.
    #[error("there is no host behind the scheme; write `https://example.com/…` or `https://{{host}}{{path}}`")]
    NoHost,
    /// A byte that no URL has.
    #[error("a URL holds only visible ASCII characters, and no backslash; percent-encode others")]
    Byte,
}

impl Redirect {
    /// A redirect whose variables cannot lead elsewhere than it says.
    ///
    /// # Errors
    /// When they could.
    pub fn new(to: Template, status: StatusCode) -> Result<Self, RedirectError> {
        for part in &to.parts {
            if let Part::Text(text) = part
                && !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
            {
                return Err(RedirectError::Byte);
            }
        }
        let Some(Part::Text(first)) = to.parts.first() else { return Err(RedirectError::Beginning) };
        match first.strip_prefix("https://").or_else(|| first.strip_prefix("http://")) {
            Some(authority) => check_authority(authority, &to.parts[1..])?,
            None if first.starts_with("//") => return Err(RedirectError::TwoSlashes),
            None if !first.starts_with('/') => return Err(RedirectError::Beginning),
            None => {}
        }
        Ok(Self { status, to })
    }

    /// As written.
    #[must_use]
    pub fn to(&self) -> &Template {
        &self.to
    }

    /// Where one request is sent.
    ///
    /// # Errors
    /// When a variable occurs twice in the request, or there is no host to lead to.
    pub fn location(&self, values: &Values<'_>) -> Result<HeaderValue, FillError> {
        let mut url = self.to.fill_url(values)?;
        if values.facts.query.is_none_or(str::is_empty) && self.to.text().ends_with("?{query}") {
            url.truncate(url.len() - 1);
        }
        if url.starts_with('/') {
            url = within_host(&url)?;
        } else if !names_host(&url) {
            return Err(FillError::Invalid);
        }
        HeaderValue::try_from(url).map_err(|_| FillError::Invalid)
    }
}

/// What stands between the scheme and the path: `{host}`, or no variable at all.
fn check_authority(beginning: &str, behind: &[Part]) -> Result<(), RedirectError> {
    let ends = |text: &str| text.contains(['/', '?', '#']);
    let first = beginning.split(['/', '?', '#']).next().unwrap_or_default();
    let mut empty = first.is_empty();
    if !ends(beginning) {
        for part in behind {
            match part {
                Part::Text(text) => {
                    empty &= text.starts_with(['/', '?', '#']);
                    if ends(text) {
                        break;
                    }
                }
                // Its value begins with a slash.
                Part::Variable(Variable::Path) => break,
                Part::Variable(Variable::Host) => empty = false,
                Part::Variable(_) => return Err(RedirectError::HostVariable),
            }
        }
    }
    if empty { Err(RedirectError::NoHost) } else { Ok(()) }
}

/// Whether a host stands behind the scheme: browsers take what follows `https:///` for one. Requests of HTTP/1.0 may
/// name none.
fn names_host(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, authority)| authority);
    !authority.is_empty() && !authority.starts_with(['/', '?', '#', ':'])
}

/// The URL without anything that browsers read as another host: `//evil` and its spellings.
fn within_host(url: &str) -> Result<String, FillError> {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let path = canonical_path(&url[..end]).map_err(|_| FillError::Invalid)?;
    Ok(format!("{}{}", path.text, &url[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(to: &str) -> Result<Redirect, RedirectError> {
        Redirect::new(Template::parse(to).unwrap(), StatusCode::PERMANENT_REDIRECT)
    }

    #[test]
    fn nobody_but_the_configuration_says_to_which_host() {
        for to in [
            "https://example.com/{path.rest}",
            "https://{host}{path}",
            "https://{host}",
            "https://www.{host}:8443/x?{query}",
            "http://example.com{path}?{query}",
            "https://example.com?x={query.x}",
            "/{path.rest}",
            "/new{path}",
        ] {
            assert!(redirect(to).is_ok(), "{to}");
        }
        for (to, error) in [
            ("{path}", RedirectError::Beginning),
            ("example.com/", RedirectError::Beginning),
            ("ftp://example.com/", RedirectError::Beginning),
            ("javascript:alert(1)", RedirectError::Beginning),
            ("", RedirectError::Beginning),
            ("//example.com/", RedirectError::TwoSlashes),
            ("https://{query.to}/", RedirectError::HostVariable),
            ("https://example.com{path.rest}", RedirectError::HostVariable),
            ("https://example.com{query.x}/", RedirectError::HostVariable),
            ("https://{header.host}/", RedirectError::HostVariable),
            ("https:///x", RedirectError::NoHost),
            ("https://", RedirectError::NoHost),
            ("https://{path}", RedirectError::NoHost),
            ("/a\\b", RedirectError::Byte),
            ("/ä", RedirectError::Byte),
            ("/a b", RedirectError::Byte),
        ] {
            assert_eq!(redirect(to), Err(error), "{to}");
        }
    }

    #[test]
    fn two_slashes_at_the_beginning_are_one() {
        assert_eq!(within_host("//evil.example/x?a=//b").unwrap(), "/evil.example/x?a=//b");
        assert_eq!(within_host("/%2F/evil#x").unwrap(), "/%2F/evil#x");
    }
}
