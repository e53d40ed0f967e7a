//! `tollgate reload`: a running proxy reads its configuration again.

use std::process::ExitCode;

use http::Method;

use super::Global;
use super::admin::{Client, Running};

/// Have a running proxy read its configuration again
///
/// It does so by itself when the file changes; this waits for what comes of it. What is wrong with the file is shown as
/// `check` shows it, and the configuration before it goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate reload                                   the proxy of ./proxy.yaml or /etc/tollgate/proxy.yaml
  tollgate reload --admin http://10.0.0.7:9901

Exit codes: 0 it runs on what the file says; 1 it does not, or nobody answers; 2 wrong usage.")]
pub struct Args {
    #[command(flatten)]
    running: Running,
}

/// Asks, and prints what came of it.
///
/// # Errors
/// When the proxy cannot be reached, or refuses.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::of(&args.running, global)?;
    let answer = client.ask(&Method::POST, "reload", None)?;
    let address = client.address();
    let told = match answer["result"].as_str() {
        Some("reloaded") => format!("reloaded by the proxy at http://{address}\n"),
        _ => format!("unchanged: the proxy at http://{address} runs on what its file says\n"),
    };
    super::check::print(&told)?;
    Ok(ExitCode::SUCCESS)
}
