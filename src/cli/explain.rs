//! `tollgate explain METHOD URL`: what would happen to one request, and why. Offline; nothing is
//! asked of a store, nothing is counted.

mod words;

use std::net::IpAddr;
use std::process::ExitCode;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

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
  tollgate explain GET http://localhost/ --jwt-claims '{\"sub\": \"ann\", \"realm\": {\"tenant\": 7}}'")]
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
    jwt_claims: Option<ClaimSet>,
    /// The instant, for limits with schedules, such as 2026-11-27T22:30:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<jiff::Timestamp>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

/// Explains, and prints.
///
/// # Errors
/// When there is no configuration, or standard output cannot be written, except that nobody reads it
/// any more.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let Some(loaded) = super::load(global)? else { return Ok(ExitCode::from(1)) };
    let mut headers = HeaderMap::new();
    for (name, value) in &args.headers {
        headers.append(name.clone(), value.clone());
    }
    let request = Imagined::new(args.method.clone(), args.url.clone(), headers, args.ip)
        .verified(args.tls_subject.clone(), args.jwt_claims.clone().unwrap_or_default())
        .at(args.at.map_or(Clock::Wall, |at| Clock::At(at.as_microsecond())));
    let account = Account::of(&loaded.config, &request.asked(), &Changed::default());
    super::check::print(&match args.format {
        Format::Text => words::text(&account),
        Format::Json => format!("{:#}\n", serde_json::to_value(&account)?),
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
