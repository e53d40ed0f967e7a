//! The command line: one file per subcommand. Exit codes: 0 done, 1 invalid configuration or fatal
//! error, 2 wrong usage, 3 a test or a threshold failed.

mod admin;
pub mod advise;
pub mod check;
pub mod completions;
pub mod explain;
pub mod init;
pub mod keys;
mod logs;
pub mod reload;
pub mod run;
pub mod schema;
pub mod simulate;
pub mod status;
mod table;
pub mod test;
mod text;
pub mod top;
pub mod upgrade;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::ColorChoice;
use clap::{Parser, Subcommand, ValueEnum};

use crate::config::frames::Colour;
use crate::config::{self, Loaded, LogFormat, Origin};

/// Where a configuration is looked for when none is named.
const DEFAULT_FILES: [&str; 2] = ["proxy.yaml", "/etc/tollgate/proxy.yaml"];

/// A reverse proxy with exact, distributed rate limiting built in.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    /// Without one: `run`, when there is a configuration file to run.
    #[command(subcommand)]
    command: Option<Command>,
}

/// Shown under the list of subcommands.
const EXAMPLES: &str = "\
Examples:
  tollgate init                       write a commented proxy.yaml to start from
  tollgate                            run ./proxy.yaml
  tollgate check                      validate it, and say each limit in words
  tollgate explain GET http://localhost:8080/api/data --ip 192.0.2.7
  tollgate simulate /var/log/nginx/access.log    what the limits would have refused
  tollgate top                        watch a running proxy
  tollgate run --from :8080 --to http://127.0.0.1:3000 --limit 'client_ip 100/s burst 200'

Exit codes: 0 done, 1 invalid configuration or fatal error, 2 wrong usage, 3 a test or a threshold failed.";

/// What every subcommand understands.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Global {
    /// Configuration file, `-` for standard input [default: `$TOLLGATE_CONFIG`, ./proxy.yaml, then
    /// /etc/tollgate/proxy.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What the process log shows: error, warn, info, debug, trace, or filters such as tollgate=debug
    #[arg(long = "log", global = true, value_name = "LEVEL", help_heading = "Output")]
    pub log: Option<String>,
    /// How the process log looks, instead of what the configuration says
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Output")]
    pub log_format: Option<LogFormatArg>,
    /// When to use colours; `NO_COLOR` is respected too
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Output")]
    pub color: ColorArg,
}

/// Takes the place of `-c` in the help of commands that read no configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NoConfig {
    /// Refused
    #[arg(short, long, value_name = "FILE", hide = true)]
    pub config: Option<PathBuf>,
}

/// Values of `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// Pretty on a terminal, JSON otherwise
    Auto,
    /// For people
    Pretty,
    /// One JSON object per line
    Json,
}

/// Values of `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal, unless the environment says otherwise
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// Exit code of a test or a threshold that failed.
const FAILED: u8 = 3;

/// One per file in this directory, which says what it does.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Explain(explain::Args),
    Test(test::Args),
    Simulate(simulate::Args),
    Advise(advise::Args),
    Top(top::Args),
    Keys(keys::Args),
    Reload(reload::Args),
    Upgrade(upgrade::Args),
    Init(init::Args),
    Schema(schema::Args),
    Status(status::Args),
    Completions(completions::Args),
}

/// Does what the command line says. Fatal errors become one line on standard error.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.global.color.choice().write_global();
    match cli.dispatch() {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("error: {error:#}\n"));
            ExitCode::from(1)
        }
    }
}

impl Cli {
    /// Runs the subcommand.
    fn dispatch(&self) -> anyhow::Result<ExitCode> {
        let global = &self.global;
        if let (Some(name), Some(_)) = (self.command.as_ref().and_then(Command::reads_nothing), &global.config) {
            complain(&format!("error: `{name}` reads no configuration, and -c has no meaning for it\n"));
            return Ok(ExitCode::from(2));
        }
        match &self.command {
            None if global.named().is_none() && find_default().is_none() => Ok(usage(&no_file())),
            None => run::run(&run::Args::default(), global),
            Some(Command::Run(args)) => run::run(args, &global.of_file(args.file.as_ref())),
            Some(Command::Check(args)) => check::run(args, &global.of_file(args.file.as_ref())),
            Some(Command::Explain(args)) => explain::run(args, global),
            Some(Command::Test(args)) => test::run(args, global),
            Some(Command::Simulate(args)) => simulate::run(args, global),
            Some(Command::Advise(args)) => advise::run(args, global),
            Some(Command::Top(args)) => top::run(args, global),
            Some(Command::Keys(args)) => keys::run(args, global),
            Some(Command::Reload(args)) => reload::run(args, global),
            Some(Command::Upgrade(args)) => upgrade::run(args, global),
            Some(Command::Init(args)) => init::run(args, global),
            Some(Command::Schema(args)) => schema::run(args, global),
            Some(Command::Status(args)) => status::run(args, global),
            Some(Command::Completions(args)) => completions::run(args, global),
        }
    }
}

impl Command {
    /// Its name, when it reads no configuration.
    fn reads_nothing(&self) -> Option<&'static str> {
        match self {
            Self::Advise(_) => Some("advise"),
            Self::Init(_) => Some("init"),
            Self::Schema(_) => Some("schema"),
            Self::Completions(_) => Some("completions"),
            Self::Run(_)
            | Self::Check(_)
            | Self::Explain(_)
            | Self::Test(_)
            | Self::Simulate(_)
            | Self::Status(_)
            | Self::Top(_)
            | Self::Keys(_)
            | Self::Reload(_)
            | Self::Upgrade(_) => None,
        }
    }
}

/// The whole command line, for completions.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

impl Global {
    /// The same with the file that was named without -c, if one was.
    fn of_file(&self, file: Option<&PathBuf>) -> Self {
        Self { config: file.or(self.config.as_ref()).cloned(), ..self.clone() }
    }

    /// Which configuration is meant.
    ///
    /// # Errors
    /// When a named file is missing, or none is named and there is none to find.
    pub fn origin(&self) -> anyhow::Result<Origin> {
        match self.named() {
            Some(path) if path.as_os_str() == "-" => Ok(Origin::Stdin),
            Some(path) if path.exists() => Ok(Origin::File(path)),
            Some(path) => anyhow::bail!("there is no configuration file at {}", path.display()),
            None => find_default().map(Origin::File).ok_or_else(no_file),
        }
    }

    /// The file named on the command line or in the environment, where an empty name is none.
    fn named(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os("TOLLGATE_CONFIG").filter(|name| !name.is_empty());
        self.config.clone().or_else(|| variable().map(PathBuf::from))
    }
}

impl ColorArg {
    /// As the streams of standard output and standard error understand it.
    fn choice(self) -> ColorChoice {
        match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        }
    }
}

impl From<LogFormatArg> for LogFormat {
    fn from(format: LogFormatArg) -> Self {
        match format {
            LogFormatArg::Auto => Self::Auto,
            LogFormatArg::Pretty => Self::Pretty,
            LogFormatArg::Json => Self::Json,
        }
    }
}

/// The configuration that is meant; what is wrong with it goes to standard error.
fn load(global: &Global) -> anyhow::Result<Option<Loaded>> {
    match config::load(&global.origin()?) {
        Ok(loaded) => Ok(Some(loaded)),
        Err(report) => {
            complain(&report.render(Colour::Ansi));
            Ok(None)
        }
    }
}

/// Writes to standard error, with colours where they are wanted. That nobody reads it is no error.
pub fn complain(text: &str) {
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// The first default file that exists.
fn find_default() -> Option<PathBuf> {
    DEFAULT_FILES.into_iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned)
}

/// None is named and there is none to find.
fn no_file() -> anyhow::Error {
    let [here, system] = DEFAULT_FILES;
    anyhow::anyhow!("there is no ./{here} and no {system}; name one with -c, or write one with `tollgate init`")
}

/// Nothing to run: the help, then why.
fn usage(error: &anyhow::Error) -> ExitCode {
    complain(&format!("{}\nerror: {error}\n", command().render_help().ansi()));
    ExitCode::from(2)
}
