//! What requests are told apart by: fields, methods, hosts and paths.

use std::str::FromStr;

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value as Json, json};

use super::pattern;
use crate::config::shape::{Problem, Word};
use crate::limit::policy::PathPattern;
use crate::route::{HostPattern, PathTemplate, target};

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
pub(in crate::config) struct HeaderText(pub(in crate::config) HeaderValue);

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

/// A value that may look like a number or a boolean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct PlainText(pub(in crate::config) String);

impl Word for PlainText {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(Self(text.to_owned()))
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
        if text.starts_with(['~', '^']) {
            let regex = text.trim_start_matches(['~', '*', ' ']);
            let help = format!("write `path: {{ regex: '{regex}' }}`; it must fit the whole path");
            return Err(Problem::new(format!("`{text}` is not a path"), help));
        }
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
