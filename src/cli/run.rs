//! `tollgate run`: from a configuration, or the quick form's three arguments, to a running proxy.

use std::process::ExitCode;
use std::sync::Arc;

use super::Global;
use crate::config::{self, Config, Loaded, Origin};
use crate::server::Server;
use crate::signal::Signals;
use crate::telemetry::logging;
use crate::worker;

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
            super::complain(&report.render(global.stderr_colour()));
            Ok(ExitCode::from(1))
        }
    }
}

/// Starts logging and the server, and waits for the end.
fn start(loaded: Loaded, _origin: &Origin, global: &Global) -> anyhow::Result<ExitCode> {
    let mut config = loaded.config;
    if let Some(format) = global.log_format {
        config.log.format = format.into();
    }
    let config = Arc::new(config);
    logging::start(&config.log, global.log.as_deref(), global.colored())?;
    super::complain(&loaded.warnings.render(global.stderr_colour()));
    let result = serve(config);
    logging::flush();
    result
}

/// Serves until TERM, INT, or the failure of every worker.
fn serve(config: Arc<Config>) -> anyhow::Result<ExitCode> {
    worker::runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let mut server = Server::start(config)?;
        tokio::select! {
            signal = signals.end() => tracing::info!(signal, "draining"),
            () = server.ended() => anyhow::bail!("every worker has failed"),
        }
        tokio::select! {
            () = server.shutdown() => {}
            signal = signals.end() => tracing::warn!(signal, "second signal: stopping at once"),
        }
        server.stop();
        server.wait();
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    })
}
