//! The claims of a token that a limit can be keyed by.

use serde_json::{Map, Number, Value};

use crate::limit::key::{Claim, MAX_NAME};

/// Levels of objects within objects that are looked into.
const DEEPEST: usize = 8;
/// From here on a float cannot tell two neighbouring integers apart.
const INEXACT: f64 = 9_007_199_254_740_992.0;

/// Texts, numbers and booleans by their path: members of objects within objects, joined with dots. Lists and
/// nulls are left out, and so are numbers that cannot be read exactly: a limit could not count by them.
///
/// A claim whose own name has dots (`https://example.com/tenant`) is found by that name, ahead of a nested
/// one with the same path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimSet(
    /// Sorted by path, each path once.
    Vec<(Box<str>, Scalar)>,
);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scalar {
    Text(Box<str>),
    Number(Box<str>),
    Boolean(bool),
}

impl ClaimSet {
    /// The claims of a JSON object.
    #[must_use]
    pub fn of(claims: &Map<String, Value>) -> Self {
        let mut found: Vec<(Box<str>, Scalar)> = Vec::new();
        let mut level = vec![(None::<String>, claims)];
        for _ in 0..DEEPEST {
            let mut deeper = Vec::new();
            for (above, object) in level {
                for (name, value) in object {
                    let path = above.as_ref().map_or_else(|| name.clone(), |above| format!("{above}.{name}"));
                    match value {
                        _ if path.len() > MAX_NAME => {}
                        Value::Object(inner) => deeper.push((Some(path), inner)),
                        value => found.extend(Scalar::of(value).map(|value| (path.into(), value))),
                    }
                }
            }
            level = deeper;
        }
        // A stable order: of equal paths the one nearer to the root comes first, and stays.
        found.sort_by(|(path, _), (other, _)| path.cmp(other));
        found.dedup_by(|(path, _), (before, _)| path == before);
        Self(found)
    }

    /// The claim at a path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Claim<'_>> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(path)).ok()?;
        Some(match &self.0.get(at)?.1 {
            Scalar::Text(text) => Claim::Text(text),
            Scalar::Number(number) => Claim::Literal(number),
            Scalar::Boolean(true) => Claim::Literal("true"),
            Scalar::Boolean(false) => Claim::Literal("false"),
        })
    }
}

impl Scalar {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.as_str().into())),
            Value::Number(number) => exactly(number).map(Self::Number),
            Value::Bool(boolean) => Some(Self::Boolean(*boolean)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// A number in its one spelling: 1, 1.0 and 1e0 are the same.
fn exactly(number: &Number) -> Option<Box<str>> {
    if number.is_i64() || number.is_u64() {
        return Some(number.to_string().into());
    }
    let float = number.as_f64().filter(|float| float.abs() < INEXACT)?;
    // Adding zero makes -0 a 0.
    Some((float + 0.0).to_string().into())
}

impl std::str::FromStr for ClaimSet {
    type Err = &'static str;

    /// Reads a JSON object.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match serde_json::from_str(text) {
            Ok(Value::Object(claims)) => Ok(Self::of(&claims)),
            _ => Err("write the claims as a JSON object, such as '{\"sub\": \"ann\"}'"),
        }
    }
}
