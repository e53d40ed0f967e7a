//! The two forms of a line. Each variable part has its share of the 8 KiB that a line may take.

use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::Version;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Line, escape};

/// Longest path, escaped.
const PATH: usize = 2_800;
/// Longest User-Agent or Referer, escaped.
const FIELD: usize = 1_400;
/// Longest name (of a host, a route, a limit, a server), escaped.
const NAME: usize = 300;
/// Longest request id and method, escaped.
const TOKEN: usize = 200;

/// A client's address, or what stands for one that has none.
struct Address(Option<IpAddr>);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// Appends one JSON object and a line feed.
pub(super) fn json(line: &Line<'_>, out: &mut Vec<u8>) {
    let time = Timestamp::try_from(line.at).unwrap_or_default();
    let _ = write!(out, "{{\"time\":\"{time:.6}\",\"client\":\"{}\"", Address(line.client));
    if let Some(time) = line.decided_at_us.and_then(|us| Timestamp::from_microsecond(us).ok()) {
        let _ = write!(out, ",\"decided_at\":\"{time:.6}\"");
    }
    let mut text = |name: &str, value: Option<&[u8]>, room| {
        if let Some(value) = value {
            let _ = write!(out, ",\"{name}\":\"");
            escape::json(value, room, out);
            out.push(b'"');
        }
    };
    text("request_id", Some(line.request_id.as_bytes()), TOKEN);
    text("trace_id", line.trace_id.map(str::as_bytes), TOKEN);
    text("method", Some(line.method.as_str().as_bytes()), TOKEN);
    text("version", Some(version(line.version).as_bytes()), NAME);
    text("host", Some(line.host.as_bytes()), NAME);
    text("path", Some(line.path.as_bytes()), PATH);
    text("route", Some(line.route.as_bytes()), NAME);
    text("user_agent", line.user_agent, FIELD);
    text("referer", line.referer, FIELD);
    text("server", line.server.map(str::as_bytes), NAME);
    text("limit", line.limit.map(str::as_bytes), NAME);
    text("decision", line.decision.map(str::as_bytes), NAME);
    text("error", line.error.map(str::as_bytes), NAME);
    let (status, retries) = (line.status.as_u16(), line.retries);
    let _ = write!(out, ",\"query\":{},\"status\":{status},\"bytes_in\":{}", line.query, line.bytes_in);
    let _ = write!(out, ",\"bytes_out\":{},\"duration_ms\":{:.3}", line.bytes_out, millis(line.total));
    if let Some(time) = line.upstream_time {
        let _ = write!(out, ",\"upstream_ms\":{:.3}", millis(time));
    }
    if line.decision.is_some() {
        let _ = write!(out, ",\"limit_ms\":{:.3}", millis(line.limit_time));
    }
    if let Some(remaining) = line.remaining {
        let _ = write!(out, ",\"remaining\":{remaining}");
    }
    let _ = writeln!(out, ",\"retries\":{retries},\"degraded\":{}}}", line.degraded);
}

/// Appends `client - - [time] "request line" status bytes "referer" "user agent"` and a line feed.
pub(super) fn combined(line: &Line<'_>, out: &mut Vec<u8>) {
    let time = Timestamp::try_from(line.at).unwrap_or_default().to_zoned(TimeZone::UTC);
    let _ = write!(out, "{} - - [{}] \"", Address(line.client), time.strftime("%d/%b/%Y:%H:%M:%S %z"));
    escape::combined(line.method.as_str().as_bytes(), TOKEN, out);
    out.push(b' ');
    escape::combined(line.path.as_bytes(), PATH, out);
    out.extend_from_slice(if line.query { b"?*** " } else { b" " });
    let _ = write!(out, "{}\" {} {} \"", version(line.version), line.status.as_u16(), line.bytes_out);
    escape::combined(line.referer.unwrap_or(b"-"), FIELD, out);
    out.extend_from_slice(b"\" \"");
    escape::combined(line.user_agent.unwrap_or(b"-"), FIELD, out);
    out.extend_from_slice(b"\"\n");
}

/// As in a request line.
fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP",
    }
}

/// Milliseconds.
fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::{Method, StatusCode};

    use super::*;

    fn line(long: &str) -> Line<'_> {
        Line {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            request_id: "018f",
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            client: "192.0.2.7".parse().ok(),
            method: &Method::GET,
            version: Version::HTTP_11,
            host: long,
            path: long,
            query: true,
            user_agent: Some(long.as_bytes()),
            referer: None,
            route: "all",
            status: StatusCode::TOO_MANY_REQUESTS,
            bytes_in: 0,
            bytes_out: 42,
            total: Duration::from_micros(1_500),
            upstream_time: None,
            limit_time: Duration::from_micros(20),
            server: None,
            retries: 0,
            limit: Some("per-ip"),
            decision: Some("denied"),
            remaining: Some(0),
            decided_at_us: Some(1_700_000_000_123_456),
            degraded: false,
            error: None,
        }
    }

    #[test]
    fn a_json_line_is_one_object_with_what_is_known() {
        let mut out = Vec::new();
        json(&line("/a\"b"), &mut out);
        assert_eq!(out.iter().position(|&byte| byte == b'\n'), Some(out.len() - 1));
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(read["time"], "2023-11-14T22:13:20.123000Z");
        assert_eq!(read["decided_at"], "2023-11-14T22:13:20.123456Z");
        assert_eq!(read["path"], "/a\"b");
        assert_eq!(read["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((&read["status"], &read["limit"]), (&429.into(), &"per-ip".into()));
        assert_eq!((&read["duration_ms"], &read["limit_ms"]), (&1.5.into(), &0.02.into()));
        assert!(read.get("upstream_ms").is_none());
    }

    #[test]
    fn a_combined_line_looks_as_apache_writes_it() {
        let mut out = Vec::new();
        combined(&line("/a b"), &mut out);
        let expected = "192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] \"GET /a b?*** HTTP/1.1\" 429 42 \"-\" \"/a b\"\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn no_line_exceeds_eight_kibibytes() {
        let long = "\u{1b}".repeat(40_000);
        let hostile = Method::from_bytes("M".repeat(30_000).as_bytes()).unwrap();
        let line = Line {
            request_id: &long,
            method: &hostile,
            route: &long,
            referer: Some(long.as_bytes()),
            server: Some(&long),
            limit: Some(&long),
            error: Some(&long),
            remaining: Some(u64::MAX),
            upstream_time: Some(Duration::MAX),
            total: Duration::MAX,
            limit_time: Duration::MAX,
            bytes_in: u64::MAX,
            bytes_out: u64::MAX,
            ..line(&long)
        };
        for write in [json, combined] {
            let mut out = Vec::new();
            write(&line, &mut out);
            assert!(out.len() <= 8 * 1_024, "{}", out.len());
        }
    }
}
