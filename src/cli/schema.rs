//! `tollgate schema`: the JSON Schema of the configuration file.

use std::process::ExitCode;

use super::{Global, NoConfig};

/// Print the JSON Schema of the configuration file, for editors.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where others name theirs
    #[command(flatten)]
    pub no_config: NoConfig,
}

/// Prints the schema.
///
/// # Errors
/// When standard output cannot be written, except that nobody reads it any more.
pub fn run(_: &Args, _: &Global) -> anyhow::Result<ExitCode> {
    let text = serde_json::to_string_pretty(&crate::config::schema::schema())?;
    super::check::print(&format!("{text}\n"))?;
    Ok(ExitCode::SUCCESS)
}
