//! How values are combined: one or many, lists, names of the user's choice, short and long forms.

use serde_json::{Value as Json, json};

use super::{Definitions, Problem, Reader, Setting, Shape, Spanned, kind};
use crate::config::document::{Node, Value};
use crate::config::frames::Span;

/// One value, or a list of them.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct OneOrMany<T>(pub(in crate::config) Vec<Spanned<T>>);

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
pub(in crate::config) struct List<T>(pub(in crate::config) Vec<Spanned<T>>);

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
    const IS_MISSED_WHEN_EMPTY: bool = true;

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
pub(in crate::config) struct Named<T>(pub(in crate::config) Vec<(Spanned<String>, Setting<T>)>);

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
pub(in crate::config) enum Short<S, L> {
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
