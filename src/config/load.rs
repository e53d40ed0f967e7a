//! From a file, standard input or a text to a [`Loaded`] configuration, or to the report of what is wrong with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frames::{self, Diagnostic, Report, Severity};
use super::shape::{Reader, Shape};
use super::{Config, Loaded, Origin, document, environment, file, mask, validate};

/// Reads and validates a file or standard input, with the process' environment.
///
/// # Errors
/// A report with every error found; one sentence when the file cannot be read.
pub fn load(origin: &Origin) -> Result<Loaded, Report> {
    load_after(origin, None)
}

/// The same, to take the place of `previous`: what it has in common with that is that.
///
/// # Errors
/// As [`load`].
pub fn load_after(origin: &Origin, previous: Option<&Config>) -> Result<Loaded, Report> {
    // A running process must not wait for whoever writes into a pipe.
    let waits_for_nobody = |path: &Path| if previous.is_some() { validate::regular(path) } else { Ok(()) };
    let text = match origin {
        Origin::File(path) => waits_for_nobody(path).and_then(|()| std::fs::File::open(path)).and_then(read_bounded),
        Origin::Stdin => read_bounded(std::io::stdin().lock()),
        Origin::Arguments => Ok(Vec::new()),
    };
    match text.map(String::from_utf8) {
        Ok(Ok(text)) => parse_after(&text, origin, &|name| std::env::var(name).ok(), previous),
        Ok(Err(error)) => Err(not_text(origin, &error)),
        Err(error) => Err(unreadable(origin, &error)),
    }
}

fn read_bounded(source: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(source, document::LARGEST as u64 + 1), &mut bytes)?;
    Ok(bytes)
}

/// The report of a file with a byte that is no text.
fn not_text(origin: &Origin, error: &std::string::FromUtf8Error) -> Report {
    let text = String::from_utf8_lossy(error.as_bytes());
    let start = error.utf8_error().valid_up_to();
    let mut report = Report::new(origin.to_string(), mask::mask(&text).into());
    report.diagnostics.push(Diagnostic {
        severity: Severity::Error,
        message: "this is not UTF-8 text".to_owned(),
        span: Some(frames::Span { start, end: start + char::REPLACEMENT_CHARACTER.len_utf8() }),
        help: Some("save the file as UTF-8".to_owned()),
    });
    report
}

/// The report of a file that cannot be read.
fn unreadable(origin: &Origin, error: &std::io::Error) -> Report {
    let mut report = Report::new(origin.to_string(), Arc::from(""));
    report.diagnostics.push(Diagnostic {
        severity: Severity::Error,
        message: format!("cannot read the configuration `{origin}`: {}", validate::sentence(error)),
        span: None,
        help: (error.kind() == std::io::ErrorKind::NotFound)
            .then(|| format!("`tollgate init -o {origin}` writes one to begin with")),
    });
    report
}

/// Validates a text, with an environment of the caller's choice.
///
/// # Errors
/// A report with every error found, and the warnings beside them.
pub fn parse(text: &str, origin: &Origin, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    parse_after(text, origin, env, None)
}

fn parse_after(
    text: &str,
    origin: &Origin,
    env: &dyn Fn(&str) -> Option<String>,
    previous: Option<&Config>,
) -> Result<Loaded, Report> {
    let mut report = Report::new(origin.to_string(), mask::mask(text).into());
    let mut document = match document::parse(text) {
        Ok(document) => document,
        Err(diagnostic) => {
            report.diagnostics.push(*diagnostic);
            return Err(report);
        }
    };
    let mut reader = Reader::default();
    environment::fill(&mut document, env, &mut reader.diagnostics);
    let file = file::File::read(&document, &mut reader);
    if let Some(file) = &file {
        report.text = mask::hide(&report.text, &validate::secrets_of(file));
    }
    let place = (&*origin.directory(), previous);
    let config = file.ok_or(None).and_then(|file| validate::validate(&file, text, place, &mut reader));
    report.files = reader.files;
    report.diagnostics = reader.diagnostics;
    // They repeat what was written.
    for found in &mut report.diagnostics {
        found.message = mask::mask(&found.message);
        found.help = found.help.take().map(|help| mask::mask(&help));
    }
    report.diagnostics.sort_by_key(|diagnostic| diagnostic.span.map_or(0, |span| span.start));
    match config {
        Ok(config) => {
            let fingerprint = fingerprint(text, &config.files);
            Ok(Loaded { config, text: Arc::clone(&report.text), fingerprint, warnings: report })
        }
        Err(admin) => Err(Report { admin: admin.map(Box::new), ..report }),
    }
}

/// Hash of a text and of the files that it names.
fn fingerprint(text: &str, files: &[PathBuf]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(text.as_bytes());
    for file in files {
        // Each was read a moment ago; one that is gone by now is another.
        let held = validate::regular(file).and_then(|()| std::fs::File::open(file)).and_then(read_bounded);
        hasher.update(&held.unwrap_or_default());
        hasher.update(&[0xFF]);
    }
    hasher.finalize()
}
