use std::io::Write as _;

use clap::Parser as _;
use http::header::{COOKIE, REFERER, USER_AGENT};

use super::*;

/// 10 October 2000, 20:55:36 UTC.
const AT: i64 = 971_211_336_000_000;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    logs: LogArgs,
}

fn wanted() -> Vec<HeaderName> {
    vec![USER_AGENT, REFERER, COOKIE, HeaderName::from_static("x-api-key")]
}

/// Every request of a log with this content, and what was found.
fn read(content: &[u8], more: &[&str]) -> (Vec<Placed>, Findings) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let args = Line::parse_from(["x", &path].into_iter().chain(more.iter().copied()));
    let mut logs = Logs::open(&args.logs, wanted()).unwrap();
    let mut placed = Vec::new();
    while let Some(next) = logs.next().unwrap() {
        placed.push(next);
    }
    (placed, logs.into_findings())
}

/// The one request of a log with one line.
fn one(line: &str) -> Entry {
    let (mut placed, findings) = read(line.as_bytes(), &[]);
    assert_eq!(placed.len(), 1, "{line}: {:?}", findings.notes.samples);
    *placed.remove(0).entry
}

/// Why a line is not read.
fn reason(line: &[u8]) -> &'static str {
    let (placed, findings) = read(line, &[]);
    assert!(placed.is_empty(), "{}", String::from_utf8_lossy(line));
    findings.notes.samples.first().map_or("", |sample| sample.reason)
}

fn field<'e>(entry: &'e Entry, name: &str) -> Option<&'e str> {
    entry.headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn the_text_formats_of_apache_nginx_and_traefik_are_one() {
    for (line, host, agent) in [
        ("203.0.113.7 - - [10/Oct/2000:13:55:36 -0700] \"GET /a?b=c HTTP/1.1\" 200 12", None, None),
        (
            "203.0.113.7 - ann [10/Oct/2000:13:55:36 -0700] \"GET /a?b=c HTTP/1.1\" 200 - \"-\" \"curl/8\"",
            None,
            Some("curl/8"),
        ),
        (
            "api.example.com:443 203.0.113.7 - - [10/Oct/2000:13:55:36 -0700] \"GET /a?b=c HTTP/2.0\" 200 1 \"-\" \"x\"",
            Some("api.example.com:443"),
            Some("x"),
        ),
        (
            "203.0.113.7 - - [10/Oct/2000:20:55:36 +0000] \"GET /a?b=c HTTP/1.1\" 200 5 \"-\" \"y\" 7 \"r@docker\" \"http://10.0.0.1\" 3ms",
            None,
            Some("y"),
        ),
        ("203.0.113.7 - a [b] [10/Oct/2000:13:55:36 -0700] \"GET /a?b=c HTTP/1.1\" 200 12", None, None),
        ("::ffff:203.0.113.7 - - [2000-10-10T20:55:36+00:00] \"GET http://h/a?b=c HTTP/1.1\" 200 12", Some("h"), None),
    ] {
        let entry = one(line);
        assert_eq!((entry.at_us, entry.client.to_string().as_str()), (AT, "203.0.113.7"), "{line}");
        assert_eq!((entry.method.as_str(), &*entry.target), ("GET", "/a?b=c"), "{line}");
        assert_eq!((entry.host.as_deref(), field(&entry, "user-agent")), (host, agent), "{line}");
    }
}

#[test]
fn escapes_of_either_server_are_read_back() {
    let entry = one(
        "1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET /\\x22a\\x5Cb HTTP/1.1\" 200 1 \"http://r/\\\"q\\\"\" \"a\\\\b\"",
    );
    assert_eq!(&*entry.target, "/\"a\\b");
    assert_eq!((field(&entry, "referer"), field(&entry, "user-agent")), (Some("http://r/\"q\""), Some("a\\b")));
}

#[test]
fn a_query_that_is_not_told_is_not_taken_for_one() {
    let (placed, findings) =
        read(b"1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?*** HTTP/1.1\" 200 1 \"-\" \"-\"\n", &[]);
    assert_eq!((&*placed[0].entry.target, findings.fields.hidden_queries), ("/a", 1));
}

#[test]
fn caddys_json_holds_fields_and_is_set_back_by_its_duration() {
    let line = r#"{"level":"info","ts":971211338.5,"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":"10.0.0.1","remote_port":"1","client_ip":"203.0.113.7","proto":"HTTP/2.0","method":"POST","host":"api.example.com","uri":"/a?b=c","headers":{"X-Api-Key":["one"],"Cookie":["REDACTED"],"User-Agent":["curl"]},"tls":{"resumed":false,"version":772}},"bytes_read":0,"duration":2.5,"size":3,"status":200,"resp_headers":{"Server":["Caddy"]}}"#;
    let entry = one(line);
    assert_eq!((entry.at_us, entry.client.to_string().as_str()), (AT, "203.0.113.7"));
    assert_eq!(
        (entry.method.as_str(), &*entry.target, entry.host.as_deref()),
        ("POST", "/a?b=c", Some("api.example.com"))
    );
    assert_eq!((field(&entry, "x-api-key"), field(&entry, "cookie")), (Some("one"), None));
    let (_, findings) = read(line.as_bytes(), &[]);
    assert_eq!(
        [COOKIE, USER_AGENT, REFERER].map(|name| findings.fields.held(&name)),
        [Held::Redacted, Held::Values, Held::Nothing]
    );
    assert!(reason(line.replace("http.log.access.log0", "http.log.error").as_bytes()).contains("Caddy"));
}

#[test]
fn traefiks_json_begins_when_the_request_did() {
    let entry = one(
        r#"{"ClientAddr":"10.0.0.9:4","ClientHost":"198.51.100.1, 203.0.113.7","Duration":2000000000,"RequestAddr":"h:8443","RequestHost":"h","RequestMethod":"GET","RequestPath":"/a?b=c","StartUTC":"2000-10-10T20:55:36.000000Z","request_X-Api-Key":"one","downstream_X-Api-Key":"two","level":"info","msg":"","time":"2000-10-10T20:55:38Z"}"#,
    );
    assert_eq!((entry.at_us, entry.client.to_string().as_str()), (AT, "203.0.113.7"));
    assert_eq!((&*entry.target, entry.host.as_deref()), ("/a?b=c", Some("h")));
    assert_eq!((field(&entry, "x-api-key"), entry.headers.len()), (Some("one"), 1));
}

#[test]
fn our_own_json_counts_from_the_decision() {
    let line = |more: &str| {
        format!(
            r#"{{"time":"2000-10-10T20:55:35.000000Z","client":"203.0.113.7","method":"GET","host":"h","path":"/a","query":true{more}}}"#
        )
    };
    let denied = one(&line(r#","decided_at":"2000-10-10T20:55:36.000007Z","decision":"denied","limit":"x""#));
    assert_eq!((denied.at_us, denied.logged), (AT + 7, Logged::Denied));
    let undecided = one(&line(r#","error":"connect""#));
    assert_eq!((undecided.at_us, undecided.logged), (AT - 1_000_000, Logged::Unknown));
    let (placed, findings) = read(line(r#","error":"bad_host""#).as_bytes(), &[]);
    assert_eq!((placed.len(), findings.sum(|log| log.never_asked), findings.sum(|log| log.unreadable)), (0, 1, 0));
}

#[test]
fn hostile_lines_are_told_apart_and_stop_nothing() {
    let good = "1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] \"GET / HTTP/1.1\" 200 1\n";
    for bad in [
        &b"\0\0\0"[..],
        b"\xff\xfe garbage \xc3\x28",
        b"{\"time\":",
        b"{}",
        b"[]",
        b"{\"client\":\"1.2.3.4\"}",
        b"{\"client\":\"1.2.3.4\",\"time\":\"never\",\"path\":\"/\",\"method\":\"GET\"}",
        b"{\"client\":{\"a\":[1,2,{\"b\":null}]},\"time\":5}",
        b"{\"request\":7}",
        b"{\"request\":{\"headers\":{\"A\":[1,null]}},\"ts\":1}",
        b"{\"ts\":\"\xff\"}",
        b"1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] \"GET / HTTP/1.1",
        b"1.2.3.4 - - [99/Oct/2000:13:55:36 +0000] \"GET / HTTP/1.1\" 200 1",
        b"host.example - - [10/Oct/2000:13:55:36 +0000] \"GET / HTTP/1.1\" 200 1",
        b"[[[[[[[[[[[[[[[[[[[[[[",
        b"\x1b[31mred",
    ] {
        let mut log = good.as_bytes().to_vec();
        log.extend(bad);
        log.extend(b"\r\n");
        log.extend(good.as_bytes());
        let (placed, findings) = read(&log, &[]);
        let text = String::from_utf8_lossy(bad);
        assert_eq!((placed.len(), findings.sum(|log| log.unreadable)), (2, 1), "{text:?}");
        let sample = &findings.notes.samples[0];
        assert!(sample.line == 2 && sample.excerpt.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{sample:?}");
    }
    assert!(reason(&vec![b'x'; 1 << 20]).contains("longer"));
    let deep = format!("{}{}", "{\"request\":".repeat(100_000), "}".repeat(100_000));
    assert!(reason(deep.as_bytes()).contains("JSON") || reason(deep.as_bytes()).contains("longer"));
}

#[test]
fn connections_that_spoke_no_http_are_no_requests() {
    for request in ["-", "", "\\x16\\x03\\x01\\x02", "GET", "\\xff\\xfe / HTTP/1.1"] {
        let line = format!("1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] \"{request}\" 400 0 \"-\" \"-\"\n");
        let (placed, findings) = read(line.as_bytes(), &[]);
        assert_eq!((placed.len(), findings.sum(|log| log.no_request)), (0, 1), "{request}");
    }
}

/// A line of this second.
fn at(second: u32, path: &str) -> String {
    format!("1.2.3.4 - - [10/Oct/2000:13:{:02}:{:02} +0000] \"GET /{path} HTTP/1.1\" 200 1\n", second / 60, second % 60)
}

fn paths(placed: &[Placed]) -> Vec<&str> {
    placed.iter().map(|placed| &placed.entry.target[1..]).collect()
}

#[test]
fn lines_behind_their_time_are_put_in_order_within_bounds() {
    let log = [at(30, "b"), at(10, "a"), at(200, "d"), at(190, "c"), at(100, "late"), at(210, "e")].concat();
    let (placed, findings) = read(log.as_bytes(), &[]);
    assert_eq!(paths(&placed), ["a", "b", "late", "c", "d", "e"]);
    assert_eq!(findings.sum(|log| log.late), 0, "a hundred seconds back, but nothing later had been handed out");
    let (placed, findings) = read(log.as_bytes(), &["--reorder", "5s"]);
    assert_eq!((paths(&placed)[3], findings.sum(|log| log.late)), ("late", 1), "{:?}", paths(&placed));
    assert!(placed.is_sorted_by_key(|placed| placed.at_us));
}

#[test]
fn several_logs_are_merged_by_their_times() {
    let directory = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for (name, lines) in [("b.log", [at(20, "b"), at(40, "d")]), ("a.log", [at(10, "a"), at(30, "c")])] {
        let path = directory.path().join(name);
        std::fs::write(&path, lines.concat()).unwrap();
        names.push(path.to_str().unwrap().to_owned());
    }
    let args = Line::parse_from(["x", &names[0], &names[1]]);
    let mut logs = Logs::open(&args.logs, []).unwrap();
    let mut placed = Vec::new();
    while let Some(next) = logs.next().unwrap() {
        placed.push(next);
    }
    assert_eq!(paths(&placed), ["a", "b", "c", "d"]);
    assert_eq!(placed.iter().map(|placed| placed.log).collect::<Vec<_>>(), [1, 0, 1, 0]);
}
