//! `tollgate explain METHOD URL`: what would happen to one request, and why. Offline, nothing is asked of a store;
//! with `--live` the running proxy tells it, and what is left. Nothing is counted either way.

mod words;

use std::net::IpAddr;
use std::process::ExitCode;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::admin::{Client, Running};
use super::{Format, Global};
use crate::explain::request::Imagined;
use crate::explain::{Account, Changed};
use crate::jwt::ClaimSet;
use crate::limit::plan::Clock;

/// Show what would happen to one request: route, upstream, limits; nothing is counted
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate explain GET http://localhost:8080/api/data
  tollgate explain POST https://api.example.com/v1/login --ip 192.0.2.7
  tollgate explain GET http://localhost/ -H 'x-api-key: abc' --format json
  tollgate explain GET http://localhost/ --ip 192.0.2.7 --live
  tollgate explain GET http://localhost/ --jwt-claims '{\"sub\": \"ann\"}'")]
pub struct Args {
    /// The request's method, such as GET
    method: Method,
    /// Its URL; scheme and port do not matter
    url: Uri,
    /// A field of the request, 'name: value'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The client's address, as it is found behind trusted proxies
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    ip: IpAddr,
    /// The subject of the client's certificate, such as 'CN=reader,O=Example' (RFC 4514)
    #[arg(long, value_name = "NAME")]
    tls_subject: Option<String>,
    /// What the request's token says, as if it were verified; a token in a field is not looked at
    #[arg(long, value_name = "JSON")]
    jwt_claims: Option<Claimed>,
    /// The instant, for limits with schedules, such as 2026-11-27T22:30:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<jiff::Timestamp>,
    /// Ask the running proxy instead: its configuration, with what was changed since, and what is left of each limit now
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    running: Running,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

/// Claims as they were written, and as they are read.
#[derive(Debug, Clone)]
struct Claimed {
    json: serde_json::Value,
    claims: ClaimSet,
}

impl std::str::FromStr for Claimed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { claims: text.parse()?, json: serde_json::from_str(text).unwrap_or_default() })
    }
}

/// Explains, and prints.
///
/// # Errors
/// When there is no configuration, or standard output cannot be written, except that nobody reads it
/// any more.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    if args.live {
        return live(args, global);
    }
    let Some(loaded) = super::load(global)? else { return Ok(ExitCode::from(1)) };
    let mut headers = HeaderMap::new();
    for (name, value) in &args.headers {
        headers.append(name.clone(), value.clone());
    }
    let request = Imagined::new(args.method.clone(), args.url.clone(), headers, args.ip)
        .verified(
            args.tls_subject.clone(),
            args.jwt_claims.as_ref().map(|given| given.claims.clone()).unwrap_or_default(),
        )
        .at(args.at.map_or(Clock::Wall, |at| Clock::At(at.as_microsecond())));
    let account = Account::of(&loaded.config, &request.asked(), &Changed::default());
    print(&account, args.format)
}

/// The same, told by the running proxy.
fn live(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> = args.headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect();
    let question = serde_json::json!({
        "method": args.method.as_str(),
        "url": args.url.to_string(),
        "headers": headers,
        "ip": args.ip,
        "tls_subject": args.tls_subject,
        "jwt_claims": args.jwt_claims.as_ref().map(|given| &given.json),
        "at": args.at.map(|at| at.to_string()),
        "live": true,
    });
    let answer = Client::of(&args.running, global)?.ask(&Method::POST, "explain", Some(&question))?;
    print(&serde_json::from_value(answer)?, args.format)
}

fn print(account: &Account, format: Format) -> anyhow::Result<ExitCode> {
    super::check::print(&match format {
        Format::Text => words::text(account),
        Format::Json => format!("{:#}\n", serde_json::to_value(account)?),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads `--at`.
fn instant(text: &str) -> Result<jiff::Timestamp, &'static str> {
    text.parse().map_err(|_| "write date, time and zone, such as 2026-11-27T22:30:00Z or 2026-11-27T22:30:00+01:00")
}

/// Reads `name: value`.
fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write 'name: value'")?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is not a field name"))?;
    let value = value.trim().parse().map_err(|_| "the value holds a character that no field may".to_owned())?;
    Ok((name, value))
}
