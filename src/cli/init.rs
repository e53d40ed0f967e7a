//! `tollgate init`: a commented configuration to begin with.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::{Global, NoConfig};

/// The short form: three keys.
pub const MINIMAL: &str = include_str!("init/minimal.yaml");

/// A usual set-up, commented.
pub const USUAL: &str = include_str!("init/usual.yaml");

/// Every key that exists.
pub const FULL: &str = include_str!("../../examples/full.yaml");

/// Write a commented configuration to begin with.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where others name theirs
    #[command(flatten)]
    pub no_config: NoConfig,
    /// The shortest file that works.
    #[arg(long, conflicts_with = "full")]
    pub minimal: bool,
    /// Every key that exists.
    #[arg(long)]
    pub full: bool,
    /// Where to write it, `-` for standard output; an existing file is never overwritten
    #[arg(short, long, value_name = "FILE", default_value = "proxy.yaml")]
    pub output: PathBuf,
}

/// Writes or prints the file.
///
/// # Errors
/// When the file exists already or cannot be written.
pub fn run(args: &Args, _: &Global) -> anyhow::Result<ExitCode> {
    let text = match (args.minimal, args.full) {
        (true, _) => MINIMAL,
        (_, true) => FULL,
        _ => USUAL,
    };
    if args.output.as_os_str() == "-" {
        super::check::print(text)?;
    } else {
        write(&args.output, text).with_context(|| format!("cannot write `{}`", args.output.display()))?;
        super::complain(&format!("wrote {0}; try `tollgate check -c {0}`\n", args.output.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = match std::fs::File::create_new(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            anyhow::bail!("there is a file already, and it is not overwritten")
        }
        other => other?,
    };
    file.write_all(text.as_bytes())?;
    Ok(())
}
