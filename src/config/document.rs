//! From YAML text to a tree that remembers where everything stands. The only module that knows the
//! YAML library; its limits on depth, size and aliases are set here.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

use super::frames::{Diagnostic, Severity, Span};

/// The largest file accepted, bytes.
pub(super) const LARGEST: usize = 4 << 20;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A value that was to come from the environment and did not; reported already.
    Unfilled,
    /// Text, a number or a boolean, as written.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in file order, without duplicates.
    Map(Vec<Entry>),
}

/// A scalar's text, and what the file says where the environment filled it in.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Whether it reads as a number or a boolean where it stands, and not as text.
    pub(super) plain: bool,
    /// The text with its `${…}`, when there were any: what messages may show.
    pub(super) template: Option<String>,
}

/// One key of a mapping and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

/// Reads one YAML document.
///
/// # Errors
/// When the text is not YAML, has duplicate keys, or is larger, deeper or more aliased than any
/// configuration is.
pub(super) fn parse(text: &str) -> Result<Node, Box<Diagnostic>> {
    if text.len() > LARGEST {
        return Err(Box::new(Diagnostic {
            severity: Severity::Error,
            message: format!("the configuration is larger than {} MiB", LARGEST >> 20),
            span: None,
            help: None,
        }));
    }
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_events: 400_000,
            max_nodes: 200_000,
            max_depth: 24,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 2,
        },
        with_snippet: false,
        strict_booleans: true,
    };
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(root) => Ok(node(root, text)),
        Err(error) => Err(Box::new(syntax_error(&error, text))),
    }
}

/// The library's error as ours: its sentence, its place.
fn syntax_error(error: &serde_yaml::Error, text: &str) -> Diagnostic {
    let error = error.without_snippet();
    let span = error.location().and_then(|location| span_of(location, text));
    let span = span.map(|span| tab_near(text, span, &error.to_string()).unwrap_or(span));
    let (message, help) = match error {
        serde_yaml::Error::DuplicateMappingKey { key, .. } => (
            key.as_ref().map_or_else(|| "a key is given twice".into(), |key| format!("`{key}` is given twice")),
            Some("keep one of the two".into()),
        ),
        serde_yaml::Error::MultipleDocuments { .. } => {
            ("there is a second YAML document".into(), Some("keep one document, without `---` between parts".into()))
        }
        serde_yaml::Error::Budget { .. }
        | serde_yaml::Error::AliasReplayLimitExceeded { .. }
        | serde_yaml::Error::AliasExpansionLimitExceeded { .. }
        | serde_yaml::Error::AliasReplayStackDepthExceeded { .. } => (
            "this nests or repeats more than any configuration does".into(),
            Some("write the values out, without anchors and aliases".into()),
        ),
        other => sentence(&other.to_string(), span.map_or("", |span| line_at(text, span))),
    };
    Diagnostic { severity: Severity::Error, message, span, help }
}

/// The tab that the library complains of, which may stand lines behind the place that it names: in the indentation
/// of the first line from there on that is indented so.
fn tab_near(text: &str, span: Span, message: &str) -> Option<Span> {
    if !message.to_ascii_lowercase().contains("tab") {
        return None;
    }
    let mut start = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    for line in text.get(start..)?.split_inclusive('\n') {
        let indentation = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        if let Some(at) = indentation.find('\t') {
            return Some(Span { start: start + at, end: start + at + 1 });
        }
        start += line.len();
    }
    None
}

/// The library's message without its trailing place, with a cure for the commonest slips.
fn sentence(message: &str, line: &str) -> (String, Option<String>) {
    let message = message.split(" at line ").next().unwrap_or(message).trim_end_matches('.').to_owned();
    let lower = message.to_ascii_lowercase();
    let help = if line.contains("${") && line.contains('{') {
        Some("between braces, quote what holds `${…}`: { password: \"${NAME}\" }")
    } else if lower.contains("tab") {
        Some("indent with spaces; YAML allows no tabs")
    } else if lower.contains("quoted scalar") {
        Some("close the quote that was opened here or on a line above")
    } else if lower.contains("'-' indicator") {
        Some("the items of one list start in one column, and the keys of an item in the column of its first key")
    } else if lower.contains("simple key") || lower.contains("':'") || lower.contains("mapping") {
        Some(
            "keys of one mapping start in one column, each `key: value` with a space after the colon; \
             quote values that contain `: ` or ` #`, and between braces those with `{`, `}` or `,`",
        )
    } else {
        None
    };
    (format!("this is not valid YAML: {message}"), help.map(str::to_owned))
}

/// The line that a span begins in.
fn line_at(text: &str, span: Span) -> &str {
    let before = text.get(..span.start).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    text[start..].lines().next().unwrap_or_default()
}

/// The byte span of a location; where the library knows only line and column, it is computed.
fn span_of(location: Location, text: &str) -> Option<Span> {
    if location == Location::UNKNOWN {
        return None;
    }
    if let (Some(start), Some(length)) = (location.span().byte_offset(), location.span().byte_len()) {
        let start = usize::try_from(start).ok()?.min(text.len());
        let length = usize::try_from(length).ok()?;
        return Some(Span { start, end: start.saturating_add(length).min(text.len()) });
    }
    let line = usize::try_from(location.line()).ok()?.checked_sub(1)?;
    let column = usize::try_from(location.column()).ok()?.saturating_sub(1);
    let line_start = text.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
    let offset = text.get(line_start..)?.chars().take(column).map(char::len_utf8).sum::<usize>();
    let start = (line_start + offset).min(text.len());
    Some(Span { start, end: start })
}

/// What the library hands over, before places are attached to text.
enum Raw {
    Null,
    /// A quoted scalar or one that can be nothing but text.
    Text(String),
    /// A plain scalar that also reads as a number or a boolean: its text is taken from the file.
    Plain,
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let span = span_of(raw.referenced, text).unwrap_or_default();
    let scalar = |text: String, plain: bool| Value::Scalar(Scalar { text, plain, template: None });
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(string) => scalar(string, false),
        Raw::Plain => {
            let defined = span_of(raw.defined, text).unwrap_or_default();
            scalar(text.get(defined.start..defined.end).unwrap_or_default().to_owned(), true)
        }
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => Value::Map(entries.into_iter().map(|(key, value)| entry(key, value, text)).collect()),
    };
    Node { span, value }
}

fn entry(key: Spanned<String>, value: Spanned<Raw>, text: &str) -> Entry {
    let key_span = span_of(key.referenced, text).unwrap_or_default();
    Entry { key: key.value, key_span, node: node(value, text) }
}
