//! The process log: what the process says about itself, on standard error. Pretty for people, JSON
//! for machines, written by a thread of its own.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::lines::Lines;

/// Where log lines go; one per process, like the subscriber it serves.
static OUTPUT: OnceLock<Lines> = OnceLock::new();

/// Which form of lines is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// Whether text for people is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// With ANSI escapes.
    Ansi,
    /// Without.
    Plain,
}

/// How the lines of this process look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// One JSON object per line, instead of text for people.
    pub json: bool,
    /// With colours.
    pub color: bool,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter of `--log` cannot be read.
    #[error("`{0}` is not a log filter; write error, warn, info, debug or trace, or pairs such as tollgate=debug")]
    Filter(String),
    /// The writing thread could not be started.
    #[error("cannot start the log's thread")]
    Thread(#[from] io::Error),
}

/// Starts the process log. `filter` (of `--log`) replaces the configured level. Only the first call of
/// a process has an effect.
///
/// # Errors
/// When the filter cannot be read or the writing thread not be started.
pub fn start(look: Look, level: Level, filter: Option<&str>) -> Result<(), LoggingError> {
    let filter = match filter {
        Some(text) => read(text).ok_or_else(|| LoggingError::Filter(text.to_owned()))?,
        None => EnvFilter::default().add_directive(level.into()),
    };
    if OUTPUT.set(Lines::start("log", io::stderr())?).is_err() {
        return Ok(());
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Output).with_ansi(look.color);
    let installed = if look.json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    drop(installed); // a program that embeds the library and logs already keeps its own subscriber
    log_panics();
    Ok(())
}

/// The filter of `--log`. A bare word that is no level would be a target, and silence all others.
fn read(text: &str) -> Option<EnvFilter> {
    let is_level = |part: &str| part.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let understood = text.split(',').map(str::trim).all(|part| part.contains('=') || is_level(part));
    if understood { EnvFilter::try_new(text).ok() } else { None }
}

/// Writes text for people between the log's lines.
pub fn print(text: &str) {
    if let Some(lines) = OUTPUT.get() {
        lines.send(text.as_bytes().to_vec());
    }
}

/// Waits (at most a second) until what was logged is written.
pub fn flush() {
    if let Some(lines) = OUTPUT.get() {
        lines.flush();
    }
}

/// Lines of the process log that were lost.
#[must_use]
pub fn dropped() -> u64 {
    OUTPUT.get().map_or(0, Lines::dropped)
}

impl Look {
    /// What a form means for this process' standard error.
    #[must_use]
    pub fn choose(form: Form, color: Color) -> Self {
        let json = match form {
            Form::Auto => !io::stderr().is_terminal(),
            Form::Pretty => false,
            Form::Json => true,
        };
        Self { json, color: !json && color == Color::Ansi }
    }
}

/// A panic ends one connection, not the process; where it happened is logged as an error.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("unknown");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, panic = message, "panicked");
    }));
}

/// Hands each event's text to [`OUTPUT`].
#[derive(Debug, Clone, Copy)]
struct Output;

impl Write for Output {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if let Some(lines) = OUTPUT.get() {
            lines.send(text.to_vec());
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Output {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}
