//! `tollgate run`: from a configuration file, or the quick form's arguments, to a running proxy.

mod greeting;
mod quick;

use std::path::PathBuf;
use std::process::ExitCode;

use anstream::AutoStream;

use super::Global;
use crate::config::frames::Colour;
use crate::config::{self, Loaded, LogFormat, Origin, Report};
use crate::handover::Predecessor;
use crate::server;
use crate::telemetry::logging::{self, Color, Form, Look};
use quick::QuickLimit;

/// Start the proxy (also without a subcommand, beside a proxy.yaml)
///
/// Reads a configuration file, or with --to the quick form: one upstream behind any number of
/// limits, no file needed.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate run -c /etc/tollgate/proxy.yaml
  tollgate run --to http://127.0.0.1:3000 --limit 'client_ip 100/s burst 200'
  tollgate run --from :8080 --to echo --limit 'header:x-api-key 10/s' --limit 'global 1000/s'
  tollgate run --to echo --limit 'client_ip 5/m' --print-config > proxy.yaml

Signals: HUP reads the configuration again; TERM and INT let the requests in flight finish, a second one
stops at once. USR1 opens the access log's file anew. USR2 has the program that is installed now take over.")]
pub struct Args {
    /// The configuration file, as with -c
    #[arg(value_name = "FILE", conflicts_with_all = ["config", "to"])]
    pub file: Option<PathBuf>,
    /// Where to listen, such as :8080 or 127.0.0.1:8080
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "to",
        conflicts_with = "config",
        default_value = ":8080",
        help_heading = "Quick form"
    )]
    from: String,
    /// Where requests go: http://HOST:PORT, or `echo`, which answers with the request
    #[arg(long, value_name = "URL", conflicts_with = "config", help_heading = "Quick form")]
    to: Option<String>,
    /// A limit: KEY RATE [burst N], such as 'global 100/s burst 200'; may be repeated
    #[arg(
        long = "limit",
        value_name = "LIMIT",
        requires = "to",
        conflicts_with = "config",
        help_heading = "Quick form"
    )]
    limits: Vec<QuickLimit>,
    /// Print the configuration that would run, as YAML, and exit
    #[arg(long)]
    print_config: bool,
}

/// Runs the proxy until a signal ends it.
///
/// # Errors
/// When there is no configuration, or the proxy cannot start.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let predecessor = if args.print_config { None } else { Predecessor::find()? };
    let loaded = match &args.to {
        Some(to) => {
            let text = quick::yaml(&args.from, to, &args.limits);
            config::parse(&text, &Origin::Arguments, &|name| std::env::var(name).ok())
        }
        None => config::load(&global.origin()?),
    };
    match loaded {
        Err(report) => {
            show(&report);
            if let Some(predecessor) = predecessor {
                predecessor.failed(&report.render(Colour::Plain));
            }
            Ok(ExitCode::from(1))
        }
        Ok(loaded) if args.print_config => print_config(args, &loaded),
        Ok(loaded) => {
            let origin = if args.to.is_some() { Origin::Arguments } else { global.origin()? };
            start(loaded, origin, predecessor, global)
        }
    }
}

/// Prints the quick form's own text, or a file with every default written out.
fn print_config(args: &Args, loaded: &Loaded) -> anyhow::Result<ExitCode> {
    if args.to.is_some() {
        super::check::print(&loaded.text)?;
    } else {
        super::check::print(&config::expanded(&loaded.config))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts logging and the server, and waits for the end.
fn start(
    loaded: Loaded,
    origin: Origin,
    predecessor: Option<Predecessor>,
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let look = look(loaded.config.log.format, global);
    logging::start(look, loaded.config.log.level, global.log.as_deref())?;
    let report = move |report: &Report| if look.json { log(report) } else { show(report) };
    report(&loaded.warnings);
    let started = |config: &_, addresses: &_| greeting::greet(config, addresses, look);
    let ended = server::run(loaded, origin, predecessor, started, report);
    logging::flush();
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// Frames on standard error, if there is anything to say.
fn show(report: &Report) {
    if !report.is_empty() {
        super::complain(&report.render(Colour::Ansi));
    }
}

/// What is wrong or doubtful as lines of a log that machines read.
fn log(report: &Report) {
    let report = report.json();
    let file = report["file"].as_str();
    for found in report["diagnostics"].as_array().into_iter().flatten() {
        let (line, column) = (found["line"].as_u64(), found["column"].as_u64());
        let (message, help) = (found["message"].as_str().unwrap_or_default(), found["help"].as_str());
        if found["severity"] == "error" {
            tracing::error!(file, line, column, help, "{message}");
        } else {
            tracing::warn!(file, line, column, help, "{message}");
        }
    }
}

/// How the log looks: what the command line says, else the configuration, else the terminal.
fn look(configured: LogFormat, global: &Global) -> Look {
    let form = match global.log_format.map_or(configured, LogFormat::from) {
        LogFormat::Auto => Form::Auto,
        LogFormat::Pretty => Form::Pretty,
        LogFormat::Json => Form::Json,
    };
    let plain = AutoStream::choice(&std::io::stderr()) == anstream::ColorChoice::Never;
    Look::choose(form, if plain { Color::Plain } else { Color::Ansi })
}
