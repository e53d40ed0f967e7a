//! The claims of an imagined token: any keys and values.

use serde_json::{Map, Number, Value as Json, json};

use crate::config::document::{Entry, Node, Scalar, Value};
use crate::config::shape::{Definitions, Problem, Reader, Shape};

/// A JSON object, written as YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Claims(pub(in crate::config) Map<String, Json>);

impl Shape for Claims {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let entries = reader.entries(node, "write the claims of the token, such as `{ sub: ann, plan: pro }`")?;
        object(entries, reader).map(Self)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "object" })
    }
}

fn object(entries: &[Entry], reader: &mut Reader) -> Option<Map<String, Json>> {
    let read: Vec<_> = entries.iter().map(|entry| (entry.key.clone(), value(&entry.node, reader))).collect();
    read.into_iter().map(|(key, value)| value.map(|value| (key, value))).collect()
}

fn value(node: &Node, reader: &mut Reader) -> Option<Json> {
    match &node.value {
        Value::Null => Some(Json::Null),
        Value::Unfilled => None,
        Value::Map(entries) => object(entries, reader).map(Json::Object),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| value(item, reader)).collect();
            items.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
        }
        Value::Scalar(scalar) => match literal(scalar) {
            Ok(literal) => Some(literal),
            Err(problem) => {
                reader.error(node.span, problem);
                None
            }
        },
    }
}

/// Text, or a number or boolean as JSON writes it: a token is JSON.
fn literal(scalar: &Scalar) -> Result<Json, Problem> {
    let text = scalar.text.as_str();
    if !scalar.plain {
        return Ok(text.into());
    }
    let boolean = text.to_ascii_lowercase().parse().map(Json::Bool);
    boolean.or_else(|_| text.parse::<Number>().map(Json::Number)).map_err(|_| {
        Problem::new(format!("`{text}` is not a number that JSON has"), "write decimal digits, or quotes around text")
    })
}
