//! A path condition: a template, or a regular expression.

use std::fmt;

use super::pattern::Segment;
use super::regex::PathRegex;
use super::{Head, Params, PathTemplate};

/// A path condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// `/static/{param}/*`.
    Template(PathTemplate),
    /// A regular expression that the whole path fits.
    Regex(PathRegex),
}

impl PathMatch {
    /// As written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Template(template) => &template.text,
            Self::Regex(regex) => regex.pattern.text(),
        }
    }

    /// The names of its parameters, in order; without `rest` of a template.
    #[must_use]
    pub fn param_names(&self) -> Vec<&str> {
        match self {
            Self::Template(template) => template.param_names().collect(),
            Self::Regex(regex) => regex.pattern.names().collect(),
        }
    }

    /// Whether it captures a parameter of this name.
    #[must_use]
    pub fn has_param(&self, name: &str) -> bool {
        let is_rest = name == "rest" && matches!(self, Self::Template(template) if template.rest);
        is_rest || self.param_names().contains(&name)
    }

    /// Whether a request's path is meant.
    pub(super) fn matches(&self, head: &Head<'_, '_>) -> bool {
        match self {
            Self::Template(template) => template.matches(head.path),
            Self::Regex(regex) => regex.pattern.matches(head.compared.as_bytes()),
        }
    }

    /// The parameters of a path that it matches.
    pub(super) fn capture<'a>(&'a self, head: &Head<'a, '_>) -> Params<'a> {
        match self {
            Self::Template(template) => template.capture(head.path),
            Self::Regex(regex) => regex.capture(head.compared),
        }
    }

    /// The static segments that it begins with; `None` stands for any one segment.
    pub(super) fn segments(&self) -> impl Iterator<Item = Option<&str>> {
        let (template, regex) = match self {
            Self::Template(template) => (Some(&template.segments), None),
            Self::Regex(regex) => (None, Some(&regex.fixed)),
        };
        let segments = template.into_iter().flatten().map(|segment| match segment {
            Segment::Static(text) => Some(&**text),
            Segment::Param(_) => None,
        });
        segments.chain(regex.into_iter().flatten().map(|text| Some(&**text)))
    }
}

impl fmt::Display for PathMatch {
    /// `/v1/*`, or `~ /v[0-9]+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(template) => f.write_str(&template.text),
            Self::Regex(regex) => write!(f, "~ {}", regex.pattern.text()),
        }
    }
}
