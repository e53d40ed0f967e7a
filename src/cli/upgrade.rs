//! `tollgate upgrade`: another process takes the place of a running proxy.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;

use super::Global;
use super::admin::{Client, Running};

/// Longer than a new process is given to start.
const PATIENCE: Duration = Duration::from_secs(70);

/// Have a new process of the program that is installed now take the place of a running proxy
///
/// The running one starts the program that stands where it was started from itself, with the same arguments, and gives
/// it its listening sockets: no connection is refused. It reads the configuration anew, also what a reload cannot
/// change. Until it serves, and where it cannot start, nothing changes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate upgrade                                  the proxy of ./proxy.yaml or /etc/tollgate/proxy.yaml
  tollgate upgrade --admin http://10.0.0.7:9901
  kill -USR2 PID                                    the same; the log tells what came of it

Exit codes: 0 the new process serves; 1 it does not, or nobody answers; 2 wrong usage.")]
pub struct Args {
    #[command(flatten)]
    running: Running,
}

/// Asks, and prints what came of it.
///
/// # Errors
/// When the proxy cannot be reached, or nobody takes its place.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::of(&args.running, global)?.waiting(PATIENCE);
    let answer = client.ask(&Method::POST, "upgrade", None)?;
    let pid = answer["pid"].as_u64().unwrap_or_default();
    let address = client.address();
    let told = format!("process {pid} has taken over at http://{address}; the one before finishes its connections\n");
    super::check::print(&told)?;
    Ok(ExitCode::SUCCESS)
}
