//! `tollgate completions SHELL`: completions for a shell, from the same definition as the help.

use std::process::ExitCode;

use clap_complete::Shell;

use super::{Global, NoConfig};

/// Print shell completions
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  echo 'source <(tollgate completions bash)' >> ~/.bashrc
  tollgate completions zsh > ~/.zfunc/_tollgate
  tollgate completions fish > ~/.config/fish/completions/tollgate.fish")]
pub struct Args {
    /// Where others name theirs
    #[command(flatten)]
    pub no_config: NoConfig,
    /// Which shell
    shell: Shell,
}

/// Prints the completions.
///
/// # Errors
/// When standard output cannot be written, except that nobody reads it any more.
pub fn run(args: &Args, _: &Global) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "tollgate", &mut script);
    super::check::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
