//! Host and path patterns.

/// A host condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host, lower-case.
    Exact(Box<str>),
    /// `*.suffix`: one or more labels before the suffix (kept with its leading dot, lower-case).
    Wildcard(Box<str>),
}

/// A path condition: `/static/{param}/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    /// The template as written.
    pub text: Box<str>,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Whether it ends in `/*` (matches the rest, also empty).
    pub rest: bool,
}

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this.
    Static(Box<str>),
    /// Anything but empty, captured by name.
    Param(Box<str>),
}
