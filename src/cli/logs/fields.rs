//! Which fields of a request are wanted, and which of them the logs hold.

use http::{HeaderMap, HeaderName, HeaderValue};

/// What Caddy and Traefik write instead of a value.
const REDACTED: &[u8] = b"REDACTED";

/// The wanted fields, and what was seen of them.
#[derive(Debug, Default)]
pub(in crate::cli) struct Fields {
    wanted: Vec<Wanted>,
    /// Requests with a query whose values the log does not tell.
    pub(in crate::cli) hidden_queries: u64,
}

/// One field.
#[derive(Debug)]
struct Wanted {
    name: HeaderName,
    seen: bool,
    redacted: bool,
}

/// What the logs hold of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Held {
    /// Values.
    Values,
    /// That it was there, but no value.
    Redacted,
    /// Nothing.
    Nothing,
}

impl Fields {
    /// These are wanted.
    pub(in crate::cli) fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let mut fields = Self::default();
        for name in names {
            if !fields.wants(&name) {
                fields.wanted.push(Wanted { name, seen: false, redacted: false });
            }
        }
        fields
    }

    /// Whether this field is wanted.
    pub(super) fn wants(&self, name: &HeaderName) -> bool {
        self.wanted.iter().any(|wanted| wanted.name == *name)
    }

    /// Whether any field is.
    pub(super) fn wants_any(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Adds a value under its name, if that is wanted.
    pub(super) fn insert(&mut self, headers: &mut HeaderMap, name: &str, value: &[u8]) {
        let named = |wanted: &&mut Wanted| wanted.name.as_str().eq_ignore_ascii_case(name);
        let Some(wanted) = self.wanted.iter_mut().find(named) else { return };
        if value == REDACTED {
            wanted.redacted = true;
        } else if let Ok(value) = HeaderValue::from_bytes(value) {
            wanted.seen = true;
            headers.append(wanted.name.clone(), value);
        }
    }

    /// A request had a query that is not told.
    pub(super) fn hidden_query(&mut self) {
        self.hidden_queries += 1;
    }

    /// What the logs hold of a field.
    pub(in crate::cli) fn held(&self, name: &HeaderName) -> Held {
        match self.wanted.iter().find(|wanted| wanted.name == *name) {
            Some(Wanted { seen: true, .. }) => Held::Values,
            Some(Wanted { redacted: true, .. }) => Held::Redacted,
            _ => Held::Nothing,
        }
    }
}
