//! What is wrong with a configuration, where, and what to write instead: collected in a [`Report`]
//! and drawn the way rustc draws it.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::json;

use super::AdminSettings;

/// A stretch of the configuration's text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// From a byte range.
    #[must_use]
    pub fn new(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where, unless it concerns the file as a whole.
    pub span: Option<Span>,
    /// What to write instead.
    pub help: Option<String>,
}

/// Every diagnostic of one configuration, with the text they point into.
#[derive(Debug, Clone)]
pub struct Report {
    /// The file's name, `<stdin>` or `<arguments>`.
    pub file: String,
    /// The configuration's text, secrets covered.
    pub text: Arc<str>,
    /// In the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// Files that the configuration names, as far as it could be read.
    pub files: Vec<PathBuf>,
    /// The admin listener, where nothing is wrong with what is said of it.
    pub admin: Option<Box<AdminSettings>>,
}

/// Whether frames are drawn with colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// With ANSI colours (anstream takes them away where they are not wanted).
    Ansi,
    /// Without.
    Plain,
}

impl Report {
    /// A report that holds nothing yet.
    #[must_use]
    pub fn new(file: String, text: Arc<str>) -> Self {
        Self { file, text, diagnostics: Vec::new(), files: Vec::new(), admin: None }
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// How many errors there are.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// How many warnings there are.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.diagnostics.len() - self.errors()
    }

    /// Line and column of a byte offset, both from 1; columns count characters.
    #[must_use]
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Code frames for people, one per diagnostic, with a closing line that counts them.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        let renderer = match colour {
            Colour::Ansi => Renderer::styled(),
            Colour::Plain => Renderer::plain(),
        };
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            out.push_str(&renderer.render(&self.groups(diagnostic)));
            out.push_str("\n\n");
        }
        out.push_str(&self.summary());
        out
    }

    /// `2 errors, 1 warning in proxy.yaml`.
    fn summary(&self) -> String {
        let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let mut parts = Vec::new();
        if self.errors() > 0 {
            parts.push(count(self.errors(), "error"));
        }
        if self.warnings() > 0 {
            parts.push(count(self.warnings(), "warning"));
        }
        format!("{} in {}\n", parts.join(", "), self.file)
    }

    fn groups<'a>(&'a self, diagnostic: &'a Diagnostic) -> Vec<Group<'a>> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(diagnostic.message.as_str());
        let mut group = match diagnostic.span {
            Some(span) => title.element(
                Snippet::source(&*self.text)
                    .path(self.file.as_str())
                    .annotation(AnnotationKind::Primary.span(self.drawable(span))),
            ),
            None => Group::with_title(title),
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        vec![group]
    }

    /// The span, cut to its first line and to the text.
    fn drawable(&self, span: Span) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start.min(self.text.len()));
        let end = self.text.ceil_char_boundary(span.end.clamp(start, self.text.len()));
        let line = self.text[start..end].find(['\n', '\r']).map_or(end, |at| start + at);
        start..line.max(start)
    }

    /// One JSON object: `{"file", "errors", "warnings", "diagnostics": [{severity, message, line, column, end_line,
    /// end_column, help}]}`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let diagnostics: Vec<_> = self.diagnostics.iter().map(|diagnostic| self.json_of(diagnostic)).collect();
        json!({
            "file": self.file,
            "errors": self.errors(),
            "warnings": self.warnings(),
            "diagnostics": diagnostics,
        })
    }

    fn json_of(&self, diagnostic: &Diagnostic) -> serde_json::Value {
        let mut object = json!({ "severity": diagnostic.severity.word(), "message": diagnostic.message });
        if let Some(span) = diagnostic.span {
            let range = self.drawable(span);
            let (line, column) = self.position(range.start);
            let (end_line, end_column) = self.position(range.end);
            object["line"] = json!(line);
            object["column"] = json!(column);
            object["end_line"] = json!(end_line);
            object["end_column"] = json!(end_column);
        }
        if let Some(help) = &diagnostic.help {
            object["help"] = json!(help);
        }
        object
    }

    /// Workflow commands of GitHub Actions, which annotate the lines of a pull request.
    #[must_use]
    pub fn github(&self) -> String {
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            let place = diagnostic.span.map_or_else(String::new, |span| {
                let (line, column) = self.position(self.drawable(span).start);
                format!(",line={line},col={column}")
            });
            let help = diagnostic.help.as_ref().map_or_else(String::new, |help| format!("\nhelp: {help}"));
            let message = escape(&format!("{}{help}", diagnostic.message));
            let file = escape(&self.file).replace(',', "%2C").replace(':', "%3A");
            let _ = writeln!(out, "::{} file={file}{place}::{message}", diagnostic.severity.word());
        }
        out
    }
}

/// The escapes of a workflow command's data.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.render(Colour::Plain).trim_end())
    }
}

impl std::error::Error for Report {}
