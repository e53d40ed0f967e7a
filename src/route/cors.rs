//! Which pages of other origins may read a route's answers (the Fetch standard's CORS protocol).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderName, Method};

/// What pages of other origins may do, ready to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// What the route says.
    pub rules: CorsRules,
    /// Its lists as they are sent.
    lists: Lists,
}

/// What a route's `cors` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsRules {
    /// Whose pages.
    pub origins: Vec<OriginPattern>,
    /// With which methods.
    pub methods: Vec<Method>,
    /// With which fields, beside those that need no leave.
    pub headers: Announced,
    /// Which fields of answers they may read, beside those that need no leave and the limits' own.
    pub expose: Vec<HeaderName>,
    /// Whether cookies and the like come along.
    pub credentials: bool,
    /// For how many seconds a browser need not ask again.
    pub max_age: u64,
}

/// Fields that pages may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// Those that they announce.
    Any,
    /// These.
    These(Vec<HeaderName>),
}

impl Default for Announced {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

/// The values of the fields that are the same in every answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lists {
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    expose: HeaderValue,
}

/// An origin, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`.
    Any,
    /// `null`, which sandboxed pages and files have.
    Null,
    /// Exactly this.
    Exact(Box<str>),
    /// `https://*.example.com`: one or more labels between the two.
    Wildcard {
        /// `https://`.
        scheme: Box<str>,
        /// `.example.com`, and perhaps a port.
        suffix: Box<str>,
    },
}

/// Fields about limits: a page that is told to slow down must be able to read for how long.
const OWN: &str = "ratelimit, ratelimit-policy, retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, \
                   x-ratelimit-warning, x-request-id";

/// Beginning of the names that only we write.
const PREFIX: &str = "access-control-";

impl OriginPattern {
    /// Whether an Origin field names such an origin.
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Null => origin == "null",
            Self::Exact(exact) => origin == &**exact,
            Self::Wildcard { scheme, suffix } => {
                let labels = origin.strip_prefix(&**scheme).and_then(|rest| rest.strip_suffix(&**suffix));
                labels.is_some_and(is_labels)
            }
        }
    }
}

/// Labels of a host name, as browsers write them: nothing that could end the host before the suffix.
fn is_labels(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    text.split('.').all(|label| !label.is_empty() && label.bytes().all(legal))
}

impl std::fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Null => f.write_str("null"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Wildcard { scheme, suffix } => write!(f, "{scheme}*{suffix}"),
        }
    }
}

impl Cors {
    /// Ready to answer.
    #[must_use]
    pub fn new(rules: CorsRules) -> Self {
        let list = |names: Vec<&str>| HeaderValue::from_str(&names.join(", ")).ok();
        let fallback = HeaderValue::from_static(OWN);
        let headers = match &rules.headers {
            Announced::Any => Vec::new(),
            Announced::These(names) => names.iter().map(HeaderName::as_str).collect(),
        };
        let any_header = !headers.is_empty();
        let lists = Lists {
            methods: list(rules.methods.iter().map(Method::as_str).collect()).unwrap_or(HeaderValue::from_static("")),
            headers: list(headers).filter(|_| any_header),
            expose: list([OWN].into_iter().chain(rules.expose.iter().map(HeaderName::as_str)).collect())
                .unwrap_or(fallback),
        };
        Self { rules, lists }
    }

    /// Writes what pages of the request's origin may do with this answer, in place of what an upstream says of it.
    pub fn write(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let theirs: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
        for name in theirs {
            headers.remove(name);
        }
        if self.write_origin(origin, headers) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.lists.expose.clone());
        }
    }

    /// Writes the answer to a browser that asks beforehand; nothing for other origins.
    pub fn write_preflight(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        if !self.write_origin(origin_of(asked), headers) {
            return;
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.lists.methods.clone());
        let allowed = match self.rules.headers {
            // The word `*` would leave Authorization out, and mean nothing beside credentials.
            Announced::Any => asked.get(ACCESS_CONTROL_REQUEST_HEADERS),
            Announced::These(_) => self.lists.headers.as_ref(),
        };
        if let Some(allowed) = allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.rules.max_age));
    }

    /// Whether pages of an origin may read answers.
    #[must_use]
    pub fn admits(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.rules.origins.iter().any(|pattern| pattern.matches(origin)))
    }

    /// Whether the origin may, which is written down; answers to others may not be taken from a cache for it.
    fn write_origin(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        let everybody = !self.rules.credentials && self.rules.origins.contains(&OriginPattern::Any);
        if everybody {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return true;
        }
        vary_by_origin(headers);
        let Some(origin) = origin.filter(|origin| self.admits(origin)) else { return false };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.rules.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }
}

/// The only Origin of a request.
#[must_use]
pub fn origin_of(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(ORIGIN).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// The method that a browser asks about beforehand, if this request does that.
#[must_use]
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// Adds Origin to Vary, unless it says as much.
fn vary_by_origin(headers: &mut HeaderMap) {
    let names = headers.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let said = names.map(<[u8]>::trim_ascii).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"));
    if !said {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_origin_has_labels_in_its_place_and_nothing_else() {
        let pattern = OriginPattern::Wildcard { scheme: "https://".into(), suffix: ".example.com".into() };
        for (origin, expected) in [
            ("https://a.example.com", true),
            ("https://a.b-1.example.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://a..example.com", false),
            ("http://a.example.com", false),
            ("https://a.example.com:8443", false),
            ("https://evil.test/.example.com", false),
            ("https://evil.test#.example.com", false),
            ("https://u@a.example.com", false),
            ("https://evil.test:1.example.com", false),
            ("https://aexample.com", false),
            ("https://a.example.com.evil.test", false),
            ("null", false),
        ] {
            assert_eq!(pattern.matches(origin), expected, "{origin}");
        }
    }

    #[test]
    fn vary_is_said_once() {
        let vary = |lines: &[&str]| {
            let mut headers: HeaderMap = lines.iter().map(|line| (VARY, line.parse().unwrap())).collect();
            vary_by_origin(&mut headers);
            headers.get_all(VARY).iter().map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(vary(&[]), ["origin"]);
        assert_eq!(vary(&["accept-encoding"]), ["accept-encoding", "origin"]);
        assert_eq!(vary(&["accept, Origin"]), ["accept, Origin"]);
        assert_eq!(vary(&["*"]), ["*"]);
    }
}
