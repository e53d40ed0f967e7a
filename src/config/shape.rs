//! How the tree becomes typed settings, and how the same types describe themselves as JSON Schema.
//!
//! A [`Shape`] reads itself from a node and goes on after a mistake, so that one run finds them all:
//! what could not be read is [`Setting::Invalid`], which later checks pass over in silence.

mod forms;
mod keys;

use std::collections::BTreeMap;
use std::ops::Deref;

use serde_json::Value as Json;

use super::document::{Entry, Node, Scalar, Value};
use super::frames::{Diagnostic, Severity, Span};
pub(in crate::config) use forms::{List, Named, OneOrMany, Short};
pub(in crate::config) use keys::{key_name, keys, not_a_word, object, words};

/// A type that can be read from the configuration and described by a schema.
pub(in crate::config) trait Shape: Sized {
    /// Whether a key with nothing behind it is probably a slip: whoever writes `limits:` has limits in mind.
    const IS_MISSED_WHEN_EMPTY: bool = false;

    /// Reads the node; on a mistake it is reported and nothing returned.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;

    /// The JSON Schema of what [`Shape::read`] accepts.
    fn schema(definitions: &mut Definitions) -> Json;
}

/// A type that is written as one scalar.
pub(in crate::config) trait Word: Sized {
    /// Reads the text.
    fn parse(text: &str) -> Result<Self, Problem>;

    /// What to write instead of a list of them.
    const INSTEAD_OF_A_LIST: Option<&str> = None;

    /// The JSON Schema of its texts.
    fn schema() -> Json;
}

/// What is wrong with a text, and what to write instead.
#[derive(Debug)]
pub(in crate::config) struct Problem {
    pub(in crate::config) message: String,
    pub(in crate::config) help: Option<String>,
}

impl Problem {
    pub(in crate::config) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

impl<E: std::error::Error> From<E> for Problem {
    /// Our error texts say what is wrong, then `; ` and what to write.
    fn from(error: E) -> Self {
        let text = error.to_string();
        match text.split_once("; ") {
            Some((message, help)) => Self::new(message, help),
            None => Self { message: text, help: None },
        }
    }
}

/// Named schemas, for `$defs`.
pub(in crate::config) type Definitions = BTreeMap<&'static str, Json>;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(in crate::config) struct Spanned<T> {
    pub(in crate::config) value: T,
    pub(in crate::config) span: Span,
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What the file says of one key.
#[derive(Debug, Clone, Default)]
pub(in crate::config) enum Setting<T> {
    /// Nothing.
    #[default]
    Absent,
    /// Something that was reported as wrong.
    Invalid,
    /// This. The span of the key is where a mistake of the whole value is shown.
    Given { value: Spanned<T>, key: Span },
}

impl<T> Setting<T> {
    pub(in crate::config) fn get(&self) -> Option<&T> {
        self.spanned().map(|spanned| &spanned.value)
    }

    pub(in crate::config) fn spanned(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Given { value, .. } => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(in crate::config) fn key(&self) -> Option<Span> {
        match self {
            Self::Given { key, .. } => Some(*key),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(in crate::config) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: Copy> Setting<T> {
    pub(in crate::config) fn or(&self, default: T) -> T {
        self.get().copied().unwrap_or(default)
    }
}

/// Reads nodes and collects what is wrong with them.
#[derive(Debug, Default)]
pub(in crate::config) struct Reader {
    pub(in crate::config) diagnostics: Vec<Diagnostic>,
    /// Files that were named and read, or were to be.
    pub(in crate::config) files: Vec<std::path::PathBuf>,
}

impl Reader {
    pub(in crate::config) fn error(&mut self, span: Span, problem: Problem) {
        let Problem { message, help } = problem;
        self.diagnostics.push(Diagnostic { severity: Severity::Error, message, span: Some(span), help });
    }

    pub(in crate::config) fn warn(&mut self, span: Span, problem: Problem) {
        let Problem { message, help } = problem;
        self.diagnostics.push(Diagnostic { severity: Severity::Warning, message, span: Some(span), help });
    }

    /// One entry of a mapping as a setting. An empty value is nothing.
    pub(in crate::config) fn setting<T: Shape>(&mut self, entry: &Entry) -> Setting<T> {
        if matches!(entry.node.value, Value::Null) {
            if T::IS_MISSED_WHEN_EMPTY {
                let message = format!("there is nothing below `{}`", entry.key);
                self.warn(entry.key_span, Problem::new(message, "write its items, or leave the key out"));
            }
            return Setting::Absent;
        }
        // A list or mapping has no text of its own to underline: its key stands for it.
        let span = if matches!(entry.node.value, Value::Scalar(_)) { entry.node.span } else { entry.key_span };
        let node = Node { span, value: entry.node.value.clone() };
        match T::read(&node, self) {
            Some(value) => Setting::Given { value: Spanned { value, span }, key: entry.key_span },
            None => Setting::Invalid,
        }
    }

    /// The node's entries, or a report that a mapping was expected.
    pub(in crate::config) fn entries<'a>(&mut self, node: &'a Node, example: &str) -> Option<&'a [Entry]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(&[]),
            Value::Unfilled => None,
            other => {
                self.error(
                    node.span,
                    Problem::new(format!("expected keys and values, found {}", kind(other)), example.to_owned()),
                );
                None
            }
        }
    }

    /// The node's scalar, or a report that one value was expected.
    fn scalar<'a>(&mut self, node: &'a Node, instead_of_a_list: Option<&str>) -> Option<&'a Scalar> {
        match &node.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::Unfilled => None,
            other => {
                let message = format!("expected one value, found {}", kind(other));
                let help = match other {
                    Value::List(_) => instead_of_a_list,
                    Value::Null => Some("write one; where the word `null` is meant, quote it"),
                    _ => Some("quote text that begins with `{`, or move keys that belong elsewhere"),
                };
                self.error(node.span, Problem { message, help: help.map(str::to_owned) });
                None
            }
        }
    }

    /// Reports a key that does not exist, and returns the one that was probably meant. A key that exists
    /// elsewhere is no slip of the pen.
    pub(in crate::config) fn unknown_key<'a>(
        &mut self,
        entry: &Entry,
        known: &[&'a str],
        elsewhere: Option<String>,
    ) -> Option<&'a str> {
        let meant = nearest(&entry.key, known.iter().copied()).filter(|_| elsewhere.is_none());
        let help = match (elsewhere, meant) {
            (Some(elsewhere), _) => elsewhere,
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => format!("keys that exist here: {}", known.join(", ")),
        };
        self.error(entry.key_span, Problem::new(format!("unknown key `{}`", entry.key), help));
        meant
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null | Value::Unfilled => "nothing",
        Value::Scalar(_) => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "keys and values",
    }
}

/// The candidate that was probably meant.
pub(in crate::config) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let text = plain(text);
    let distance = |candidate: &str| {
        let candidate = plain(candidate);
        let begins = text.len() >= 3 && (text.starts_with(&candidate) || candidate.starts_with(&text));
        let distance = strsim::damerau_levenshtein(&text, &candidate);
        let close = distance <= (candidate.len().max(text.len()) / 3).max(1);
        (begins || close).then_some(distance)
    };
    let near = candidates.filter_map(|candidate| distance(candidate).map(|distance| (distance, candidate)));
    near.min_by_key(|&(distance, _)| distance).map(|(_, candidate)| candidate)
}

/// Every scalar type is a shape.
impl<T: Word> Shape for T {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let scalar = reader.scalar(node, T::INSTEAD_OF_A_LIST)?;
        match T::parse(&scalar.text) {
            Ok(value) => Some(value),
            Err(mut problem) => {
                if let Some(template) = &scalar.template {
                    problem.message = without(&problem.message, &scalar.text, template);
                    problem.help = problem.help.map(|help| without(&help, &scalar.text, template));
                }
                reader.error(node.span, problem);
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        T::schema()
    }
}

/// A message without what the environment filled in, which may be a secret.
fn without(message: &str, value: &str, template: &str) -> String {
    if value.is_empty() { message.to_owned() } else { message.replace(value, template) }
}
