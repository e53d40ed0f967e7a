//! YAML as a tree that keeps the order of its keys, and its texts: on one line, or in a block.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    /// Text, a number, `true`, `false` or nothing.
    Scalar(Json),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Tree {
    /// Reads a document.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    /// Its entries, if it is a mapping.
    pub(crate) fn entries(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Map(entries) => Some(entries),
            Self::Scalar(_) | Self::List(_) => None,
        }
    }

    /// As an example of something longer: of a list the first item, of named things all up to the first that is more
    /// than one value.
    pub(crate) fn beginning(&self) -> Self {
        match self {
            Self::List(items) => Self::List(items.iter().take(1).cloned().collect()),
            Self::Map(entries) => {
                let end =
                    entries.iter().position(|(_, value)| value.entries().is_some()).map_or(entries.len(), |at| at + 1);
                Self::Map(entries[..end].to_vec())
            }
            Self::Scalar(_) => self.clone(),
        }
    }

    /// `key: value` on one line.
    pub(crate) fn line(&self, key: &str) -> String {
        format!("{key}: {}", self.in_block())
    }

    /// `key:` and what stands below it, in lines that are at most so wide where that is possible.
    pub(crate) fn block(&self, key: &str, width: usize) -> String {
        let line = self.line(key);
        match self {
            Self::Map(entries) if line.chars().count() > width || entries.iter().any(|(_, below)| below.is_long()) => {
                let below = entries.iter().map(|(key, value)| value.block(key, width.saturating_sub(2)));
                format!("{key}:\n{}", indented(&below.collect::<Vec<_>>().join("\n"), "  "))
            }
            Self::List(items) if line.chars().count() > width => {
                let items = items.iter().map(|item| item.item(width.saturating_sub(4)));
                format!("{key}:\n{}", indented(&items.collect::<Vec<_>>().join("\n"), "  "))
            }
            _ => line,
        }
    }

    /// One item of a list, with its dash.
    fn item(&self, width: usize) -> String {
        let line = self.flow();
        match self {
            Self::Map(entries) if line.chars().count() > width => {
                let lines = entries.iter().map(|(key, value)| value.block(key, width)).collect::<Vec<_>>().join("\n");
                format!("- {}", indented(&lines, "  ").trim_start())
            }
            _ => format!("- {line}"),
        }
    }

    /// Whether it is a mapping with more in it than a line should hold.
    fn is_long(&self) -> bool {
        self.entries().is_some_and(|entries| entries.len() > 6)
    }

    /// Its text behind `key: `.
    fn in_block(&self) -> String {
        match self {
            Self::Scalar(Json::String(text)) => quoted_unless(text, |plain| format!("k: {plain}"), |k| k),
            other => other.flow(),
        }
    }

    /// Its text between brackets.
    fn flow(&self) -> String {
        let joined = |parts: Vec<String>| parts.join(", ");
        match self {
            Self::Scalar(Json::String(text)) => {
                quoted_unless(text, |plain| format!("k: [{plain}]"), |k| Self::List(vec![k]))
            }
            Self::Scalar(other) => other.to_string(),
            Self::List(items) => format!("[{}]", joined(items.iter().map(Self::flow).collect())),
            Self::Map(entries) if entries.is_empty() => "{}".to_owned(),
            Self::Map(entries) => {
                format!(
                    "{{ {} }}",
                    joined(entries.iter().map(|(key, value)| format!("{key}: {}", value.flow())).collect())
                )
            }
        }
    }
}

fn indented(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}")).collect::<Vec<_>>().join("\n")
}

/// A text as it is, where it reads as itself there; else in quotes.
fn quoted_unless(text: &str, place: impl Fn(&str) -> String, expected: impl Fn(Tree) -> Tree) -> String {
    let itself = Tree::Map(vec![("k".to_owned(), expected(Tree::Scalar(Json::String(text.to_owned()))))]);
    if Tree::read(&place(text)).is_ok_and(|read| read == itself) {
        return text.to_owned();
    }
    let prefers_single = text.contains(['"', '\\']) && !text.contains(['\'', '\n']);
    if prefers_single { format!("'{text}'") } else { Json::String(text.to_owned()).to_string() }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Json::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}
