//! What a route changes in the query of a request. What it does not name keeps its place and its spelling.

use crate::limit::key::is_parameter;
use crate::route::template::{FillError, Template, Values, push_encoded};

/// The changes of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryEdits {
    /// Given this one value, at the end.
    pub set: Vec<(Box<str>, Template)>,
    /// Taken away.
    pub remove: Vec<Box<str>>,
}

impl QueryEdits {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// The query for the upstream.
    pub(super) fn apply(&self, values: &Values<'_>) -> Result<Option<String>, FillError> {
        let query = values.facts.query;
        if self.is_empty() {
            return Ok(query.map(str::to_owned));
        }
        let named = || self.remove.iter().chain(self.set.iter().map(|(name, _)| name));
        let pairs = query.unwrap_or_default().split('&');
        let kept = pairs.filter(|pair| !pair.is_empty() && !named().any(|name| is_parameter(pair.as_bytes(), name)));
        let mut edited = kept.collect::<Vec<_>>().join("&");
        for (name, template) in &self.set {
            let value = template.fill(values)?;
            // Variables that are not there leave nothing to say.
            if value.is_empty() && template.fixed().is_none() {
                continue;
            }
            if !edited.is_empty() {
                edited.push('&');
            }
            push_encoded(&mut edited, name.as_bytes());
            edited.push('=');
            push_encoded(&mut edited, &value);
        }
        Ok((!edited.is_empty()).then_some(edited))
    }
}
