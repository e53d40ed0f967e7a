//! What a route changes in fields: first `remove`, then `set`, `add` and `default`.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::template::{FillError, Template, Values};

/// The changes that a route makes, values to be filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Taken away.
    pub remove: Vec<HeaderName>,
    /// Given this one value.
    pub set: Vec<(HeaderName, FieldValue)>,
    /// Given one more line.
    pub add: Vec<(HeaderName, FieldValue)>,
    /// Given this value unless there is one.
    pub default: Vec<(HeaderName, FieldValue)>,
}

impl FieldEdits {
    /// Every field that it changes.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let given = self.set.iter().chain(&self.add).chain(&self.default).map(|(name, _)| name);
        self.remove.iter().chain(given)
    }
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// The same for every request.
    Fixed(HeaderValue),
    /// With variables.
    Filled(Template),
}

/// One change, its value filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Takes the field away.
    Remove,
    /// Gives it this one value.
    Set(HeaderValue),
    /// Gives it one more line.
    Add(HeaderValue),
    /// Gives it this value unless there is one.
    Default(HeaderValue),
}

/// The changes for one request, in order.
pub type Edits<'r> = Vec<(&'r HeaderName, Edit)>;

impl FieldValue {
    /// The same, hidden from debug output where the field holds secrets.
    #[must_use]
    pub fn for_field(mut self, name: &HeaderName) -> Self {
        if let Self::Fixed(value) = &mut self {
            value.set_sensitive(is_secret(name));
        }
        self
    }

    /// The value for a request. `None` when its variables leave nothing: an empty field would say that there is
    /// something.
    ///
    /// # Errors
    /// When a variable occurs twice, or holds what no field may (RFC 9110 §5.5).
    pub fn fill(&self, values: &Values<'_>) -> Result<Option<HeaderValue>, FillError> {
        match self {
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::Filled(template) => {
                let filled = template.fill(values)?;
                let value = without_blanks(&filled);
                let value = (!value.is_empty()).then(|| HeaderValue::from_bytes(value)).transpose();
                value.map_err(|_| FillError::Invalid)
            }
        }
    }

    /// As written, with its variables.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Fixed(value) => String::from_utf8_lossy(value.as_bytes()).replace('{', "{{").replace('}', "}}"),
            Self::Filled(template) => template.text().to_owned(),
        }
    }
}

/// Without the blanks around it, which are no part of a field's value. Line ends are refused, not trimmed.
fn without_blanks(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value.iter().rposition(is_text).map_or(start, |last| last + 1);
    &value[start..end]
}

impl FieldEdits {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty() && self.default.is_empty()
    }

    /// The changes for a request.
    ///
    /// # Errors
    /// When a value cannot be filled in.
    pub fn fill(&self, values: &Values<'_>) -> Result<Edits<'_>, FillError> {
        let mut edits: Edits<'_> = self.remove.iter().map(|name| (name, Edit::Remove)).collect();
        for (name, value) in &self.set {
            // What a client sent must not stand in for a value that is not there.
            edits.push((name, value.fill(values)?.map_or(Edit::Remove, Edit::Set)));
        }
        for (name, value) in &self.add {
            edits.extend(value.fill(values)?.map(|value| (name, Edit::Add(value))));
        }
        for (name, value) in &self.default {
            edits.extend(value.fill(values)?.map(|value| (name, Edit::Default(value))));
        }
        Ok(edits)
    }

    /// Every value, by its field.
    pub fn values(&self) -> impl Iterator<Item = &(HeaderName, FieldValue)> {
        self.set.iter().chain(&self.add).chain(&self.default)
    }
}

/// Makes the changes.
pub fn apply(edits: Edits<'_>, headers: &mut HeaderMap) {
    for (name, edit) in edits {
        match edit {
            Edit::Remove => drop(headers.remove(name)),
            Edit::Set(value) => drop(headers.insert(name, value)),
            Edit::Add(value) => drop(headers.append(name, value)),
            Edit::Default(value) => drop(headers.entry(name).or_insert(value)),
        }
    }
}

/// Whether a field's value is shown to nobody.
#[must_use]
pub fn is_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "authorization" | "proxy-authorization" | "cookie" | "set-cookie")
        || ["token", "secret", "password", "api-key", "apikey"].iter().any(|word| name.contains(word))
}
