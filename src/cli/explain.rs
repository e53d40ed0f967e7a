//! `tollgate explain`: what would happen to one request.

use std::process::ExitCode;

use super::Global;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs.
///
/// # Errors
/// None.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let _ = (args, global);
    Ok(ExitCode::SUCCESS)
}
