//! `tollgate check`: what is wrong with a configuration, and what its limits mean.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use super::Global;
use crate::config::frames::Colour;
use crate::config::{self, Loaded, Report, sentences};

/// Validate a configuration, and say each of its limits in words.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file, as with -c
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// Print the configuration with every default written out.
    #[arg(long)]
    pub print: bool,
    /// Treat warnings as errors.
    #[arg(long)]
    pub strict: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,
}

/// How `check` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Code frames and sentences for people.
    Text,
    /// One JSON object.
    Json,
    /// Annotations of GitHub Actions.
    Github,
}

/// Checks, prints, and returns 1 when there are errors (or, with `--strict`, warnings).
///
/// # Errors
/// When there is no file to check, or standard output cannot be written, except that nobody reads it any more.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let result = config::load(&global.origin()?);
    let text = match args.format {
        Format::Text => in_words(args, &result),
        Format::Json => format!("{:#}\n", in_json(args, &result)),
        Format::Github => report_of(&result).github(),
    };
    print(&text)?;
    let report = report_of(&result);
    let bad = report.errors() > 0 || (args.strict && report.warnings() > 0);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn report_of(result: &Result<Loaded, Report>) -> &Report {
    match result {
        Ok(loaded) => &loaded.warnings,
        Err(report) => report,
    }
}

fn in_words(args: &Args, result: &Result<Loaded, Report>) -> String {
    let mut out = String::new();
    let report = report_of(result);
    if !report.is_empty() {
        out.push_str(&report.render(Colour::Ansi));
        out.push('\n');
    }
    let Ok(loaded) = result else { return out };
    if args.print {
        // What is printed is a configuration; what is doubtful about it stands beside it.
        super::complain(&out);
        return config::expanded(&loaded.config);
    }
    let routes = loaded.config.router.routes().filter(|route| !route.is_unmatched()).count();
    let _ = writeln!(
        out,
        "{} is valid: {}, {}, {}",
        report.file,
        count(loaded.config.listeners.len(), "listener"),
        count(routes, "route"),
        count(loaded.config.policies.len(), "limit"),
    );
    for policy in &loaded.config.policies {
        let _ = writeln!(out, "  {}: {}", policy.name, sentences::sentence(policy));
    }
    out
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn in_json(args: &Args, result: &Result<Loaded, Report>) -> serde_json::Value {
    let mut object = report_of(result).json();
    object["valid"] = json!(result.is_ok());
    if let Ok(loaded) = result {
        let limits = loaded.config.policies.iter();
        object["limits"] =
            limits.map(|policy| json!({ "name": &*policy.name, "meaning": sentences::sentence(policy) })).collect();
        if args.print {
            object["expanded"] = json!(config::expanded(&loaded.config));
        }
    }
    object
}

/// Writes to standard output; nobody reading any more is a normal end.
pub(super) fn print(text: &str) -> io::Result<()> {
    anstream::stdout().write_all(text.as_bytes()).or_else(closed_is_done)
}

/// A reader that went away has what it wanted.
pub(super) fn closed_is_done(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}
