//! `tollgate keys LIMIT [KEY] [--reset]`: the keys that a limit meets most, how one of them stands, and its reset.

use std::fmt::Write as _;
use std::process::ExitCode;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::admin::{Client, Running};
use super::table::{table, trimmed};
use super::{Format, Global, text};

/// Show the keys that a running proxy's limit meets most, how one of them stands, or reset it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate keys                             the names of the limits
  tollgate keys login-per-ip                the keys it denies most, estimated
  tollgate keys login-per-ip 192.0.2.7      what is left for one key
  tollgate keys login-per-ip 192.0.2.7 --reset
  tollgate keys per-key header:x-api-key=abc
  tollgate keys login-per-ip --format json

Keys that clients choose are shown as hashes, and may be given so or in clear.")]
pub struct Args {
    /// The limit's name; without one, all names
    limit: Option<String>,
    /// An address, a value of the limit's key, `part=value`, or a key as the list shows it
    key: Option<String>,
    /// Forget what the key has used: it has its full burst again
    #[arg(long, requires = "key")]
    reset: bool,
    /// How many keys to list
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    count: u8,
    #[command(flatten)]
    running: Running,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

/// Asks, and prints.
///
/// # Errors
/// When the proxy cannot be reached or refuses, or standard output cannot be written, except that nobody reads it
/// any more.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::of(&args.running, global)?;
    let encoded = |name: &str| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
    let limit = args.limit.as_deref().map(encoded).unwrap_or_default();
    let key = args.key.as_deref().map(encoded);
    let (answer, told): (Value, fn(&Value) -> String) = match (&args.limit, &key) {
        (None, _) => (client.ask(&Method::GET, "limits", None)?, limits),
        (Some(_), None) => {
            let path = format!("limits/{limit}/keys?count={}", args.count);
            (client.ask(&Method::GET, &path, None)?, listed)
        }
        (Some(_), Some(key)) if args.reset => {
            (client.ask(&Method::DELETE, &format!("limits/{limit}/keys/{key}"), None)?, reset)
        }
        (Some(_), Some(key)) => (client.ask(&Method::GET, &format!("limits/{limit}/keys/{key}"), None)?, state),
    };
    super::check::print(&match args.format {
        Format::Text => told(&answer),
        Format::Json => format!("{answer:#}\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> String {
    text::number(value.as_u64().unwrap_or(0))
}

fn limits(answer: &Value) -> String {
    let mut table = table(&["limit", "mode", "decided", "denied", "meaning"], &[1, 4]);
    for limit in answer["limits"].as_array().into_iter().flatten() {
        let (name, mode, meaning) = (word(&limit["name"]), word(&limit["mode"]), word(&limit["meaning"]));
        table.add_row([name, mode, &number(&limit["decisions"]), &number(&limit["denied"]), meaning]);
    }
    format!("{}\n", trimmed(&table))
}

fn listed(answer: &Value) -> String {
    let mut table = table(&["key", "requests", "denied"], &[]);
    let keys = answer["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    for key in keys {
        table.add_row([word(&key["key"]), &number(&key["requests"]), &number(&key["denied"])]);
    }
    let since = answer["since_seconds"].as_u64().unwrap_or(0);
    let since = text::span(since.max(1).saturating_mul(1_000_000));
    if keys.is_empty() {
        return format!("No request met {} in the last {since}.\n", word(&answer["limit"]));
    }
    format!("{}\n\nEstimated, of the last {since}.\n", trimmed(&table))
}

fn state(answer: &Value) -> String {
    let mut told = format!("{} under {}\n", word(&answer["key"]), word(&answer["limit"]));
    for state in answer["states"].as_array().into_iter().flatten() {
        let (left, burst) = (number(&state["remaining"]), number(&state["burst"]));
        let name = state["rate"].as_str().unwrap_or_else(|| word(&state["state"]));
        let which = match word(&state["state"]) {
            which if which.starts_with('@') => format!(" [{which}]"),
            _ => String::new(),
        };
        let _ = write!(told, "  {name}{which}: {left} of {burst} left");
        match state["reset_ms"].as_u64().unwrap_or(0) {
            0 => told.push_str(", nothing used\n"),
            ms => drop(writeln!(told, ", full again in {}", text::span(ms.saturating_mul(1000)))),
        }
    }
    told
}

fn reset(answer: &Value) -> String {
    format!("Reset under {}: the key has its full burst again.\n", word(&answer["limit"]))
}
