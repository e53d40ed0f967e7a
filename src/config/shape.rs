//! How the tree becomes typed settings, and how the same types describe themselves as JSON Schema.
//!
//! A [`Shape`] reads itself from a node and goes on after a mistake, so that one run finds them all:
//! what could not be read is [`Setting::Invalid`], which later checks pass over in silence.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde_json::{Value as Json, json};

use super::document::{Entry, Node, Scalar, Value};
use super::frames::{Diagnostic, Severity, Span};

/// A type that can be read from the configuration and described by a schema.
pub(super) trait Shape: Sized {
    /// Reads the node; on a mistake it is reported and nothing returned.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;

    /// The JSON Schema of what [`Shape::read`] accepts.
    fn schema(definitions: &mut Definitions) -> Json;
}

/// A type that is written as one scalar.
pub(super) trait Word: Sized {
    /// Reads the text.
    fn parse(text: &str) -> Result<Self, Problem>;

    /// The JSON Schema of its texts.
    fn schema() -> Json;
}

/// What is wrong with a text, and what to write instead.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
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
pub(super) type Definitions = BTreeMap<&'static str, Json>;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What the file says of one key.
#[derive(Debug, Clone, Default)]
pub(super) enum Setting<T> {
    /// Nothing.
    #[default]
    Absent,
    /// Something that was reported as wrong.
    Invalid,
    /// This. The span of the key is where a mistake of the whole value is shown.
    Given { value: Spanned<T>, key: Span },
}

impl<T> Setting<T> {
    pub(super) fn get(&self) -> Option<&T> {
        self.spanned().map(|spanned| &spanned.value)
    }

    pub(super) fn spanned(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Given { value, .. } => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(super) fn key(&self) -> Option<Span> {
        match self {
            Self::Given { key, .. } => Some(*key),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: Copy> Setting<T> {
    pub(super) fn or(&self, default: T) -> T {
        self.get().copied().unwrap_or(default)
    }
}

/// Reads nodes and collects what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Reader {
    pub(super) fn error(&mut self, span: Span, problem: Problem) {
        let Problem { message, help } = problem;
        self.diagnostics.push(Diagnostic { severity: Severity::Error, message, span: Some(span), help });
    }

    pub(super) fn warn(&mut self, span: Span, problem: Problem) {
        let Problem { message, help } = problem;
        self.diagnostics.push(Diagnostic { severity: Severity::Warning, message, span: Some(span), help });
    }

    /// One entry of a mapping as a setting. An empty value is nothing.
    pub(super) fn setting<T: Shape>(&mut self, entry: &Entry) -> Setting<T> {
        if matches!(entry.node.value, Value::Null) {
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
    pub(super) fn entries<'a>(&mut self, node: &'a Node, example: &str) -> Option<&'a [Entry]> {
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
    fn scalar<'a>(&mut self, node: &'a Node) -> Option<&'a Scalar> {
        match &node.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::Unfilled => None,
            other => {
                let message = format!("expected one value, found {}", kind(other));
                self.error(node.span, Problem { message, help: None });
                None
            }
        }
    }

    /// Reports a key that does not exist, and returns the one that was probably meant.
    pub(super) fn unknown_key<'a>(&mut self, entry: &Entry, known: &[&'a str]) -> Option<&'a str> {
        let meant = nearest(&entry.key, known.iter().copied());
        let help = meant.map_or_else(
            || format!("keys that exist here: {}", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
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
pub(super) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
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
        let scalar = reader.scalar(node)?;
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

/// One value, or a list of them.
#[derive(Debug, Clone, Default)]
pub(super) struct OneOrMany<T>(pub(super) Vec<Spanned<T>>);

impl<T: Shape> Shape for OneOrMany<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if let Value::List(items) = &node.value {
            return List::read_items(items, reader).map(Self);
        }
        let value = T::read(node, reader)?;
        Some(Self(vec![Spanned { value, span: node.span }]))
    }

    fn schema(definitions: &mut Definitions) -> Json {
        let one = T::schema(definitions);
        json!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
    }
}

/// A list.
#[derive(Debug, Clone, Default)]
pub(super) struct List<T>(pub(super) Vec<Spanned<T>>);

impl<T: Shape> List<T> {
    /// Every item; nothing when one of them is wrong, after all were looked at.
    fn read_items(items: &[Node], reader: &mut Reader) -> Option<Vec<Spanned<T>>> {
        let read: Vec<_> =
            items.iter().map(|item| T::read(item, reader).map(|value| Spanned { value, span: place(item) })).collect();
        read.into_iter().collect()
    }
}

/// Where a list's item is shown: its text, or the first key of its mapping.
fn place(item: &Node) -> Span {
    match &item.value {
        Value::Map(entries) => entries.first().map_or(item.span, |entry| entry.key_span),
        _ => item.span,
    }
}

impl<T: Shape> Shape for List<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::List(items) = &node.value else {
            if matches!(node.value, Value::Unfilled) {
                return None;
            }
            let message = format!("expected a list, found {}", kind(&node.value));
            reader.error(node.span, Problem::new(message, "begin each item with `- `"));
            return None;
        };
        // One bad item does not hide what is wrong with the others' relations: keep the good ones.
        let good = items
            .iter()
            .filter_map(|item| T::read(item, reader).map(|value| Spanned { value, span: place(item) }))
            .collect();
        Some(Self(good))
    }

    fn schema(definitions: &mut Definitions) -> Json {
        json!({ "type": "array", "items": T::schema(definitions) })
    }
}

/// A mapping from names of the user's choice.
#[derive(Debug, Clone)]
pub(super) struct Named<T>(pub(super) Vec<(Spanned<String>, Setting<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Shape> Shape for Named<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let entries = reader.entries(node, "write `name: value` lines below it")?;
        let named = entries
            .iter()
            .map(|entry| (Spanned { value: entry.key.clone(), span: entry.key_span }, reader.setting(entry)));
        Some(Self(named.collect()))
    }

    fn schema(definitions: &mut Definitions) -> Json {
        json!({ "type": "object", "additionalProperties": T::schema(definitions) })
    }
}

/// A short form (one value) or a long one (keys and values).
#[derive(Debug, Clone)]
pub(super) enum Short<S, L> {
    Short(S),
    Long(L),
}

impl<S: Shape, L: Shape> Shape for Short<S, L> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.value {
            Value::Unfilled => None,
            Value::Map(_) => L::read(node, reader).map(Self::Long),
            _ => S::read(node, reader).map(Self::Short),
        }
    }

    fn schema(definitions: &mut Definitions) -> Json {
        json!({ "anyOf": [S::schema(definitions), L::schema(definitions)] })
    }
}

/// A mapping with known keys: a struct of [`Setting`]s that reads itself and describes itself, its
/// documentation being the schema's descriptions.
macro_rules! keys {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $text:literal])+ $key:ident: $type:ty,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Default)]
        pub(super) struct $name {
            $($(#[doc = $text])+ pub(super) $key: $crate::config::shape::Setting<$type>,)+
        }

        impl $crate::config::shape::Shape for $name {
            fn read(
                node: &$crate::config::document::Node,
                reader: &mut $crate::config::shape::Reader,
            ) -> Option<Self> {
                const KNOWN: &[&str] = &[$($crate::config::shape::key_name(stringify!($key)),)+];
                let mut shape = Self::default();
                for entry in reader.entries(node, &format!("keys that exist here: {}", KNOWN.join(", ")))? {
                    match entry.key.as_str() {
                        $(key if key == $crate::config::shape::key_name(stringify!($key)) => {
                            shape.$key = reader.setting(entry);
                        })+
                        _ => {
                            // The key that was meant is not missed as well.
                            let meant = reader.unknown_key(entry, KNOWN);
                            $(if meant == Some($crate::config::shape::key_name(stringify!($key)))
                                && shape.$key.is_absent()
                            {
                                shape.$key = $crate::config::shape::Setting::Invalid;
                            })+
                        }
                    }
                }
                Some(shape)
            }

            fn schema(definitions: &mut $crate::config::shape::Definitions) -> serde_json::Value {
                if !definitions.contains_key(stringify!($name)) {
                    definitions.insert(stringify!($name), serde_json::Value::Null);
                    let properties = [$((
                        $crate::config::shape::key_name(stringify!($key)),
                        [$($text),+].concat(),
                        <$type as $crate::config::shape::Shape>::schema(definitions),
                    ),)+];
                    let schema = $crate::config::shape::object(&[$($doc),+].concat(), properties);
                    definitions.insert(stringify!($name), schema);
                }
                serde_json::json!({ "$ref": concat!("#/$defs/", stringify!($name)) })
            }
        }
    };
}

/// A word from a closed list.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $text:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum $name {
            $($(#[doc = $text])+ $variant,)+
        }

        impl $crate::config::shape::Word for $name {
            fn parse(text: &str) -> Result<Self, $crate::config::shape::Problem> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::config::shape::not_a_word(text, &[$($word),+])),
                }
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({ "enum": [$($word),+] })
            }
        }
    };
}

pub(super) use {keys, words};

/// `match` is written `r#match` in Rust.
pub(super) const fn key_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// The report of a word that is not in its list.
pub(super) fn not_a_word(text: &str, known: &[&str]) -> Problem {
    let list = known.join(", ");
    let help = nearest(text, known.iter().copied())
        .map_or_else(|| format!("write one of: {list}"), |near| format!("did you mean `{near}`? ({list})"));
    Problem::new(format!("`{text}` is not known here"), help)
}

/// The schema of a mapping with known keys.
pub(super) fn object<const N: usize>(description: &str, properties: [(&str, String, Json); N]) -> Json {
    let properties: serde_json::Map<String, Json> =
        properties.into_iter().map(|(name, text, schema)| (name.to_owned(), described(schema, text.trim()))).collect();
    json!({
        "type": "object",
        "description": description.trim(),
        "additionalProperties": false,
        "properties": properties,
    })
}

/// A schema with a description and, as every key may be left empty, `null` allowed.
fn described(schema: Json, text: &str) -> Json {
    json!({ "description": text, "anyOf": [schema, { "type": "null" }] })
}
