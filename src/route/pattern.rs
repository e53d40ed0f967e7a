//! Host and path patterns: what a route's conditions look like, and when they hold.

use super::Params;
use super::regex::RegexError;
use super::target::{self, TargetError, canonical_host, canonical_path};

/// A host condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host, lower-case.
    Exact(Box<str>),
    /// `*.suffix`: one or more labels before the suffix (kept with its leading dot, lower-case).
    Wildcard(Box<str>),
}

/// A path condition: `/static/{param}/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    /// The template as written.
    pub text: Box<str>,
    /// Its segments; a trailing slash is an empty static segment.
    pub segments: Vec<Segment>,
    /// Whether it ends in `/*` (matches the rest, also empty).
    pub rest: bool,
}

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this, in the form segments are compared in.
    Static(Box<str>),
    /// Anything but empty, captured by name.
    Param(Box<str>),
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a path at all.
    #[error("not a path: {0}")]
    Path(TargetError),
    /// No request ever has this spelling.
    #[error("no request's path is spelled like this once it is normalised; write `{canonical}`")]
    NotCanonical {
        /// The template in canonical form.
        canonical: String,
    },
    /// A brace beside other text.
    #[error("a parameter is a whole segment: `/{{name}}/`, not `{0}`")]
    PartialParam(Box<str>),
    /// A name that could not be referred to.
    #[error("`{0}` is no parameter name: use letters, digits, `_` and `-`, beginning with a letter or `_`")]
    ParamName(Box<str>),
    /// One name for two values.
    #[error("the parameter `{0}` occurs twice")]
    DuplicateParam(Box<str>),
    /// The name that `*` has.
    #[error("`rest` is the name of what `*` matches; give the parameter another name")]
    ReservedParam,
    /// A star elsewhere.
    #[error("`*` stands only as the whole last segment: `/assets/*`")]
    MisplacedStar,
    /// A regular expression that is none.
    #[error(transparent)]
    Regex(RegexError),
    /// Not a host.
    #[error("not a host name or address; write `example.com` or `*.example.com`")]
    Host,
    /// What others write for any host.
    #[error("`{0}` is no host; leave `host` out: without it every host matches")]
    AnyHost(Box<str>),
    /// A port on a host.
    #[error("a host condition has no port: every listener's port matches")]
    Port,
}

impl HostPattern {
    /// Reads `example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`; letter case and a
    /// trailing dot do not matter.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if matches!(text, "_" | "*") {
            return Err(PatternError::AnyHost(text.into()));
        }
        let (wildcard, name) = text.strip_prefix("*.").map_or((false, text), |suffix| (true, suffix));
        let host = canonical_host(name).map_err(|error| match error {
            TargetError::Port if !name.contains('/') => PatternError::Port,
            _ => PatternError::Host,
        })?;
        if host.port.is_some() || name.ends_with(':') {
            return Err(PatternError::Port);
        }
        if wildcard && host.name.starts_with('[') {
            return Err(PatternError::Host);
        }
        Ok(if wildcard { Self::Wildcard(format!(".{}", host.name).into()) } else { Self::Exact(host.name.into()) })
    }

    /// Whether a canonical host is meant.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => host == &**exact,
            Self::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => out.write_str(host),
            Self::Wildcard(suffix) => write!(out, "*{suffix}"),
        }
    }
}

impl PathTemplate {
    /// Reads `/static/{param}/*`. It must be in canonical form; letter case and a trailing slash matter.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        require_canonical(text)?;
        let (fixed, rest) = match text.strip_suffix("/*") {
            Some(fixed) => (fixed, true),
            None => (text, false),
        };
        let segments = fixed.split('/').skip(1).map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        let template = Self { text: text.into(), segments, rest };
        template.require_distinct_names()?;
        Ok(template)
    }

    /// Names of its parameters, in order; without `rest`.
    pub fn param_names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Param(name) => Some(&**name),
            Segment::Static(_) => None,
        })
    }

    /// Whether a canonical path is meant.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut remaining = path.strip_prefix('/');
        for segment in &self.segments {
            let Some(text) = remaining else { return false };
            let (first, after) = split_segment(text);
            if !segment.matches(first) {
                return false;
            }
            remaining = after;
        }
        self.rest || remaining.is_none()
    }

    /// The parameters of a path that it matches.
    pub(super) fn capture<'a>(&'a self, path: &'a str) -> Params<'a> {
        let mut params = Params::new();
        let mut remaining = path.strip_prefix('/');
        for segment in &self.segments {
            let Some(text) = remaining else { break };
            let (first, after) = split_segment(text);
            if let Segment::Param(name) = segment {
                params.push((name, first));
            }
            remaining = after;
        }
        if self.rest {
            params.push(("rest", remaining.unwrap_or_default()));
        }
        params
    }

    fn require_distinct_names(&self) -> Result<(), PatternError> {
        for (position, name) in self.param_names().enumerate() {
            if self.rest && name == "rest" {
                return Err(PatternError::ReservedParam);
            }
            if self.param_names().take(position).any(|earlier| earlier == name) {
                return Err(PatternError::DuplicateParam(name.into()));
            }
        }
        Ok(())
    }
}

/// The first segment, and what follows its slash, if there is one.
pub(super) fn split_segment(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(first, after)| (first, Some(after)))
}

/// A template that is not canonical would never match; say so at load.
fn require_canonical(text: &str) -> Result<(), PatternError> {
    let canonical = canonical_path(text).map_err(PatternError::Path)?.text;
    let with_braces = canonical.replace("%7B", "{").replace("%7D", "}");
    if with_braces == text { Ok(()) } else { Err(PatternError::NotCanonical { canonical: with_braces }) }
}

/// Whether a path parameter may be called so.
pub(super) fn is_param_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            return if is_param_name(name) {
                Ok(Self::Param(name.into()))
            } else {
                Err(PatternError::ParamName(name.into()))
            };
        }
        if text.contains(['{', '}']) {
            return Err(PatternError::PartialParam(text.into()));
        }
        if text.contains('*') {
            return Err(PatternError::MisplacedStar);
        }
        Ok(Self::Static(target::comparable(text).into()))
    }

    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Static(expected) => segment == &**expected || target::comparable(segment) == **expected,
            Self::Param(_) => !segment.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> PathTemplate {
        PathTemplate::parse(text).unwrap()
    }

    #[test]
    fn a_template_matches_whole_segments() {
        for (text, path, expected) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a/", "/a/", true),
            ("/a/", "/a", false),
            ("/a", "/A", false),
            ("/a", "/ab", false),
            ("/{x}", "/a", true),
            ("/{x}", "/", false),
            ("/{x}", "/a/b", false),
            ("/{x}/b", "/a/b", true),
            ("/*", "/", true),
            ("/*", "/a/b/", true),
            ("/a/*", "/a", true),
            ("/a/*", "/a/", true),
            ("/a/*", "/a/b/c", true),
            ("/a/*", "/ab", false),
            ("/a/{x}/*", "/a/", false),
            ("/a/{x}/*", "/a/b", true),
            ("/users/@me", "/users/%40me", true),
            ("/a%2Fb", "/a%2Fb", true),
            ("/a%2Fb", "/a/b", false),
        ] {
            assert_eq!(template(text).matches(path), expected, "{text} {path}");
        }
    }

    #[test]
    fn parameters_are_captured_in_path_order() {
        let orders = template("/t/{tenant}/orders/{id}/*");
        assert_eq!(orders.capture("/t/acme/orders/7/a/b").to_vec(), [("tenant", "acme"), ("id", "7"), ("rest", "a/b")]);
        assert_eq!(orders.capture("/t/acme/orders/7").to_vec(), [("tenant", "acme"), ("id", "7"), ("rest", "")]);
        assert_eq!(template("/*").capture("/").to_vec(), [("rest", "")]);
    }

    #[test]
    fn templates_that_could_mislead_are_refused() {
        let not_canonical = |canonical: &str| PatternError::NotCanonical { canonical: canonical.into() };
        for (text, error) in [
            ("", PatternError::Path(TargetError::NotAbsolute)),
            ("a/*", PatternError::Path(TargetError::NotAbsolute)),
            ("/a?b", PatternError::Path(TargetError::Byte(b'?'))),
            ("/a//{x}", not_canonical("/a/{x}")),
            ("/%61/../{x}/*", not_canonical("/{x}/*")),
            ("/caf%c3%a9", not_canonical("/caf%C3%A9")),
            ("/v{n}", PatternError::PartialParam("v{n}".into())),
            ("/{}", PatternError::ParamName("".into())),
            ("/{1a}", PatternError::ParamName("1a".into())),
            ("/{a.b}", PatternError::ParamName("a.b".into())),
            ("/{a}/{a}", PatternError::DuplicateParam("a".into())),
            ("/{rest}/*", PatternError::ReservedParam),
            ("/*/a", PatternError::MisplacedStar),
            ("/a*", PatternError::MisplacedStar),
            ("/**", PatternError::MisplacedStar),
        ] {
            assert_eq!(PathTemplate::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_wildcard_host_needs_a_label_before_its_suffix() {
        let wildcard = HostPattern::parse("*.Example.COM.").unwrap();
        assert_eq!(wildcard.to_string(), "*.example.com");
        assert!(wildcard.matches("a.example.com") && wildcard.matches("a.b.example.com"));
        assert!(
            !wildcard.matches("example.com") && !wildcard.matches("aexample.com") && !wildcard.matches(".example.com")
        );
        assert!(HostPattern::parse("[::1]").unwrap().matches("[::1]"));
    }

    #[test]
    fn a_host_pattern_is_a_host_without_a_port() {
        for (text, error) in [
            ("a:80", PatternError::Port),
            ("a:", PatternError::Port),
            ("a:http", PatternError::Port),
            ("", PatternError::Host),
            ("*", PatternError::AnyHost("*".into())),
            ("_", PatternError::AnyHost("_".into())),
            ("*.", PatternError::Host),
            ("a.*.b", PatternError::Host),
            ("*.[::1]", PatternError::Host),
            ("http://a", PatternError::Host),
        ] {
            assert_eq!(HostPattern::parse(text), Err(error), "{text}");
        }
    }
}
