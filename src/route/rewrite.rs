//! What a route makes of the target of a request before it is forwarded.
//!
//! The result is canonical again, whatever went in: a client cannot use a rewrite to write `..`, an encoded
//! separator or a second query into the upstream's request.

mod query;

use std::borrow::Cow;

use http::HeaderValue;

use super::EncodedPath;
use super::pattern::split_segment;
use super::regex::Pattern;
use super::target::{TargetError, canonical_path, comparable};
use super::template::{FillError, Template, Values};
pub use query::QueryEdits;

/// Longest path that a rewrite may make, bytes: what is accepted of clients.
const MAX_PATH: usize = 8 * 1024;

/// What a route makes of its requests' targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Of the path.
    pub path: PathRewrite,
    /// Of the query.
    pub query: QueryEdits,
    /// Of the host.
    pub host: HostRewrite,
}

/// What becomes of the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PathRewrite {
    /// It stays.
    #[default]
    Keep,
    /// Segments at its beginning are exchanged; both without a slash at their end.
    Prefix {
        /// Taken away, where the path begins with them.
        strip: Option<Box<str>>,
        /// Put in front.
        add: Option<Box<str>>,
    },
    /// Another one.
    Replace(Template),
    /// What a pattern finds is replaced, everywhere.
    Regex {
        /// Looked for in the path, in the form in which paths are compared.
        pattern: Pattern,
        /// What stands there instead: `$1` and `$name` are groups.
        replace: Box<str>,
    },
}

/// What becomes of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HostRewrite {
    /// The client's.
    #[default]
    Keep,
    /// That of the server which gets the request.
    Upstream,
    /// This one.
    Name(HeaderValue),
}

/// A rewritten target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// Canonical path.
    pub path: String,
    /// Query without `?`.
    pub query: Option<String>,
    /// What `strip` has taken from the path.
    pub stripped: Option<Box<str>>,
}

/// Why a request has no rewritten target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// A variable.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// The path would not be one.
    #[error("rewritten, the path would not be valid: {0}")]
    Path(#[from] TargetError),
    /// A variable's value would be a dot segment.
    #[error("rewritten, the path would hold a dot segment")]
    DotSegment,
    /// A variable's value would be several segments to some upstreams.
    #[error("rewritten, the path would hold an encoded separator")]
    Separator,
    /// Too long.
    #[error("rewritten, the path would be too long")]
    TooLong,
}

impl Rewrite {
    /// Whether path and query stay as they are.
    #[must_use]
    pub fn keeps_target(&self) -> bool {
        self.path == PathRewrite::Keep && self.query.is_empty()
    }

    /// Every template in it.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        let path = if let PathRewrite::Replace(template) = &self.path { Some(template) } else { None };
        path.into_iter().chain(self.query.set.iter().map(|(_, template)| template))
    }

    /// The target for the upstream.
    ///
    /// # Errors
    /// When the request would make a target that is refused.
    pub fn target(&self, values: &Values<'_>, encoded: EncodedPath) -> Result<Rewritten, RewriteError> {
        let (path, stripped) = self.path.apply(values)?;
        let path = checked(path, encoded)?;
        let query = self.query.apply(values)?;
        Ok(Rewritten { path, query, stripped })
    }
}

impl PathRewrite {
    /// The new path, not yet canonical, and what was stripped.
    fn apply(&self, values: &Values<'_>) -> Result<(String, Option<Box<str>>), RewriteError> {
        let path = values.path;
        Ok(match self {
            Self::Keep => (path.to_owned(), None),
            Self::Prefix { strip, add } => {
                let stripped = strip.as_deref().and_then(|prefix| strip_prefix(path, prefix));
                let (removed, rest) = stripped.map_or((None, path), |(removed, rest)| (Some(removed.into()), rest));
                (format!("{}{rest}", add.as_deref().unwrap_or_default()), removed)
            }
            Self::Replace(template) => (template.fill_url(values)?, None),
            Self::Regex { pattern, replace } => {
                let compared = comparable(path);
                let replaced = match pattern.regex().replace_all(compared.as_bytes(), replace.as_bytes()) {
                    // What does not match keeps its spelling.
                    Cow::Borrowed(_) => path.to_owned(),
                    Cow::Owned(bytes) => String::from_utf8(bytes).map_err(|_| FillError::Invalid)?,
                };
                (replaced, None)
            }
        })
    }
}

/// Takes whole segments from the beginning of a path, however they are spelled: what was taken, and the rest, which
/// begins with a slash.
fn strip_prefix<'a>(path: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let mut rest = path.strip_prefix('/');
    for wanted in prefix.split('/').skip(1) {
        let (segment, after) = split_segment(rest?);
        if comparable(segment) != comparable(wanted) {
            return None;
        }
        rest = after;
    }
    let Some(rest) = rest else { return Some((path, "/")) };
    Some(path.split_at(path.len() - rest.len() - 1))
}

/// The canonical form of a path that a rewrite has made.
fn checked(mut path: String, encoded: EncodedPath) -> Result<String, RewriteError> {
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    if path.len() > MAX_PATH {
        return Err(RewriteError::TooLong);
    }
    // Folded away, one would take a segment of the configuration with it.
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(RewriteError::DotSegment);
    }
    let canonical = canonical_path(&path)?;
    if canonical.encoded_separators && encoded == EncodedPath::Reject {
        return Err(RewriteError::Separator);
    }
    Ok(canonical.text.into_owned())
}

#[cfg(test)]
mod tests;
