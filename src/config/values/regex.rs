//! Regular expressions.

use serde_json::{Value as Json, json};

use crate::config::shape::{Problem, Word};
use crate::route::{PathRegex, Pattern};

/// One that a value fits as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct RegexText(pub(in crate::config) Pattern);

/// One that a path fits as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct WholePath(pub(in crate::config) PathRegex);

/// One that is looked for in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct RegexPart(pub(in crate::config) Pattern);

impl Word for RegexText {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(Self(Pattern::whole(text)?))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "integer"] })
    }
}

impl Word for WholePath {
    fn parse(text: &str) -> Result<Self, Problem> {
        let read = PathRegex::parse(text)?;
        let begins = text.trim_start_matches(['^', '(']);
        if begins.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return Err(Problem::new(
                format!("no path fits `{text}`: paths begin with a slash"),
                format!("did you mean `/{begins}`? It must fit the whole path"),
            ));
        }
        Ok(Self(read))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Word for RegexPart {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(Self(Pattern::part(text)?))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}
