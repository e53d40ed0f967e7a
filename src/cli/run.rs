//! `tollgate run`: from a configuration, or the quick form's three arguments, to a running proxy.

use std::process::ExitCode;
use std::sync::Arc;

use super::Global;
use crate::config::{self, Loaded, LogFormat, Origin};
use crate::server;
use crate::telemetry::logging::{self, Form, Look};

/// Arguments of `run`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {}

/// Runs the proxy until a signal ends it.
///
/// # Errors
/// When there is no configuration, or the proxy cannot start.
pub fn run(_args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let origin = global.origin()?;
    match config::load(&origin) {
        Ok(loaded) => start(loaded, &origin, global),
        Err(report) => {
            super::complain(&report.text(global.colored_stderr()));
            Ok(ExitCode::from(1))
        }
    }
}

/// Starts logging and the server, and waits for the end.
fn start(loaded: Loaded, _origin: &Origin, global: &Global) -> anyhow::Result<ExitCode> {
    let config = Arc::new(loaded.config);
    let format = global.log_format.map_or(config.log.format, LogFormat::from);
    let look = Look::choose(form(format), global.colored());
    logging::start(look, config.log.level, global.log.as_deref())?;
    super::complain(&loaded.warnings.text(global.colored_stderr()));
    let result = server::run(config, |_| {});
    logging::flush();
    result?;
    Ok(ExitCode::SUCCESS)
}

fn form(format: LogFormat) -> Form {
    match format {
        LogFormat::Auto => Form::Auto,
        LogFormat::Pretty => Form::Pretty,
        LogFormat::Json => Form::Json,
    }
}
