//! The process log: what the process says about itself, on standard error. Pretty for people, JSON
//! for machines, written by a thread of its own.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing::{Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, reload};

use super::lines::Lines;

/// Where log lines go; one per process, like the subscriber it serves.
static OUTPUT: OnceLock<Lines> = OnceLock::new();

/// What is let through to it; likewise.
static FILTER: OnceLock<Filter> = OnceLock::new();

/// What is logged, changeable at any time. Events that are not logged cost as much as without it: what each
/// call site is told is remembered there until the next change.
struct Filter {
    /// As it was given last.
    text: Mutex<String>,
    replace: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

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
    /// There is no log of this process, or it belongs to a program that embeds this one.
    #[error("this process has no log whose level could be changed")]
    NoLog,
}

/// Starts the process log. `filter` (of `--log`) replaces the configured level. Only the first call of
/// a process has an effect.
///
/// # Errors
/// When the filter cannot be read or the writing thread not be started.
pub fn start(look: Look, level: Level, filter: Option<&str>) -> Result<(), LoggingError> {
    let text = filter.map_or_else(|| level.as_str().to_ascii_lowercase(), str::to_owned);
    let filter = read(&text)?;
    if OUTPUT.set(Lines::start("log", io::stderr())?).is_err() {
        return Ok(());
    }
    let (subscriber, filter) = subscriber(look, text, filter, Output);
    // A program that embeds the library and logs already keeps its own subscriber.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = FILTER.set(filter);
    }
    log_panics();
    Ok(())
}

/// Changes what the process log holds, from now on: a level, or pairs such as `tollgate=debug`, as with `--log`.
///
/// # Errors
/// When the text is no filter, or nothing was started; then everything stays as it is.
pub fn set_level(text: &str) -> Result<(), LoggingError> {
    FILTER.get().ok_or(LoggingError::NoLog)?.set(text)
}

/// What the process log holds: as it was given last.
#[must_use]
pub fn level() -> Option<String> {
    FILTER.get().map(|filter| filter.text.lock().clone())
}

impl Filter {
    fn set(&self, text: &str) -> Result<(), LoggingError> {
        let filter = read(text)?;
        let mut current = self.text.lock();
        (self.replace)(filter).map_err(|_| LoggingError::NoLog)?;
        text.clone_into(&mut current);
        Ok(())
    }
}

/// What turns events into lines, and what lets them through.
fn subscriber<W>(look: Look, text: String, filter: EnvFilter, to: W) -> (Box<dyn Subscriber + Send + Sync>, Filter)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let text = Mutex::new(text);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(to).with_ansi(look.color);
    if look.json {
        let lines = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
        let lines = lines.with_filter_reloading();
        let handle = lines.reload_handle();
        (Box::new(lines.finish()), Filter { text, replace: Box::new(move |filter| handle.reload(filter)) })
    } else {
        let lines = builder.with_target(false).with_filter_reloading();
        let handle = lines.reload_handle();
        (Box::new(lines.finish()), Filter { text, replace: Box::new(move |filter| handle.reload(filter)) })
    }
}

/// The filter of `--log`. A bare word that is no level would be a target, and silence all others.
fn read(text: &str) -> Result<EnvFilter, LoggingError> {
    let is_level = |part: &str| part.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let understood = text.split(',').map(str::trim).all(|part| part.contains('=') || is_level(part));
    let filter = understood.then(|| EnvFilter::try_new(text).ok()).flatten();
    filter.ok_or_else(|| LoggingError::Filter(text.to_owned()))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The lines of one test.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn the_level_changes_while_the_log_is_written() {
        for json in [true, false] {
            let kept = Kept::default();
            let look = Look { json, color: false };
            let (subscriber, filter) = subscriber(look, "info".to_owned(), read("info").unwrap(), kept.clone());
            let tell = |what: &str| tracing::debug!("told while {what}");
            tracing::subscriber::with_default(subscriber, || {
                tell("at info");
                filter.set("debug").unwrap();
                tell("at debug");
                filter.set("warn,nobody=trace").unwrap();
                tell("at warn");
                filter.set("tollgate=debug").unwrap();
                tell("of this crate");
                assert!(matches!(filter.set("loud"), Err(LoggingError::Filter(text)) if text == "loud"));
                assert!(filter.set("tollgate=loud").is_err());
                tell("after a mistake");
            });
            assert_eq!(*filter.text.lock(), "tollgate=debug");
            let text = String::from_utf8(kept.0.lock().clone()).unwrap();
            let told: Vec<_> = text.lines().filter_map(|line| line.split("told while ").nth(1)).collect();
            let expected = ["at debug", "of this crate", "after a mistake"];
            assert_eq!(told.len(), expected.len(), "{text}");
            assert!(told.iter().zip(expected).all(|(told, expected)| told.starts_with(expected)), "{text}");
        }
    }

    #[test]
    fn without_a_log_there_is_no_level_to_change() {
        if FILTER.get().is_none() {
            assert!(matches!(set_level("debug"), Err(LoggingError::NoLog)));
            assert_eq!(level(), None);
        }
    }
}
