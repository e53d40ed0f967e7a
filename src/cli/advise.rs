//! `tollgate advise LOG…`: a rate and a burst from access logs, for a share of refusals that is
//! acceptable. The inverse of `simulate`, computed with the same bucket.

mod arrivals;
mod curve;
mod words;

use std::process::ExitCode;

use anyhow::Context as _;

use super::logs::{LogArgs, Logs};
use super::{Format, Global, NoConfig};
use crate::limit::key::{Key, KeyPart};
use crate::units::Rate;
use arrivals::Arrivals;
use curve::Curve;

/// Propose a rate and a burst from access logs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For each rate: the least burst that refuses nothing, and the least that refuses no more than --refuse. \
Proposed is the lowest rate whose burst is earned back within ten seconds. No configuration is read. The combined \
format names no host: --host does.

Examples:
  tollgate advise /var/log/nginx/access.log
  tollgate advise access.log --refuse 0.1% --path '/v1/login'
  tollgate advise access.log --key client_ip --key method --rate 10/s
  tollgate advise access.log --host api.example.com --key host")]
pub struct Args {
    /// Where others name theirs
    #[command(flatten)]
    pub no_config: NoConfig,
    #[command(flatten)]
    logs: LogArgs,
    /// What is counted separately, as in a limit; several are combined
    #[arg(long, value_name = "KEY", default_value = "client_ip", value_parser = key)]
    key: Vec<KeyArg>,
    /// The share of requests that may be refused
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = share)]
    refuse: ShareArg,
    /// Only this rate; may be repeated
    #[arg(long, value_name = "RATE")]
    rate: Vec<Rate>,
    /// Only requests of this path: /exact or /prefix/*
    #[arg(long, value_name = "PATH", value_parser = path)]
    path: Option<arrivals::Filter>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

/// One part of a key, and how it was written.
#[derive(Debug, Clone)]
struct KeyArg {
    text: String,
    parts: Vec<KeyPart>,
}

/// A share of requests, in millionths.
#[derive(Debug, Clone, Copy)]
struct ShareArg {
    millionths: u64,
}

/// Bits of an IPv6 address that make one client, as a configuration has it by default.
const IPV6_PREFIX: u8 = 64;

/// Reads the logs, and prints the curve and what is proposed.
///
/// # Errors
/// When a log cannot be read, holds no request, or holds more than can be kept.
pub fn run(args: &Args, _: &Global) -> anyhow::Result<ExitCode> {
    let key = Key { parts: args.key.iter().map(|key| key.parts.clone()).collect() };
    let arrivals = Arrivals::read(args, &key)?;
    let curve = Curve::of(&arrivals, args.refuse.millionths, &args.rate)
        .context("no rate can be computed for these requests")?;
    super::check::print(&match args.format {
        Format::Text => words::text(args, &arrivals, &curve),
        Format::Json => format!("{:#}\n", words::json(args, &arrivals, &curve)),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads `--key`. What only a configuration can tell is no key here.
fn key(text: &str) -> Result<KeyArg, String> {
    let parts = Key::parse_part(text, IPV6_PREFIX).map_err(|error| error.to_string())?;
    let routed = parts.iter().find(|part| matches!(part, KeyPart::Path(_) | KeyPart::Route));
    match routed {
        Some(part) => Err(format!("`{part}` belongs to a route, and no configuration is read: use --path")),
        None => Ok(KeyArg { text: text.to_owned(), parts }),
    }
}

/// Reads `--refuse`.
fn share(text: &str) -> Result<ShareArg, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let percent = percent.filter(|percent| (0.0..100.0).contains(percent));
    let percent = percent.ok_or("write a percentage below 100%, such as 0.1%")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
    let millionths = (percent * 10_000.0).round() as u64;
    Ok(ShareArg { millionths })
}

/// Reads `--path`.
fn path(text: &str) -> Result<arrivals::Filter, String> {
    arrivals::Filter::parse(text)
}

impl Args {
    /// The logs, opened, with the fields that the key reads.
    fn open(&self, key: &Key) -> anyhow::Result<Logs> {
        let names = key.parts.iter().flatten().filter_map(|part| match part {
            KeyPart::Header(name) => Some(name.clone()),
            KeyPart::Cookie(_) => Some(http::header::COOKIE),
            _ => None,
        });
        Logs::open(&self.logs, names)
    }
}
