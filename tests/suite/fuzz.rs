//! Every parser of bytes from outside, with inputs that nobody thought of. Each test is a target with a
//! corpus in `fuzz/corpus`; `fuzz/run` runs one, or all, for as long as you like.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate::config::frames::Colour;
use tollgate::config::{Origin, expanded, parse};
use tollgate::limit::algorithm::{Algorithm, Bucket};
use tollgate::limit::key::Subject;
use tollgate::limit::stats::LimitStats;
use tollgate::limit::store::Ask;
use tollgate::limit::store::redis::RedisStore;
use tollgate::route::target::{canonical_host, canonical_path, comparable};

use super::redis_store::{block_on, settings_for};
use crate::raw::Client;
use crate::support::fuzz::fuzz;
use crate::support::http2::{PREFACE, SETTINGS, frame};
use crate::support::parsers::message::Answer;
use crate::support::redis_stub::{GRANTED, Stub};
use crate::support::tollgate::{Tollgate, program};
use crate::support::upstream::Upstream;

/// Sends an input and closes; what comes back until the proxy closes too, which it must.
fn exchange(proxy: &Tollgate, input: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    let ended = Client::connect(proxy.web()).send(input).finish().read_all(&mut received);
    assert!(ended, "neither closed nor reset");
    let log = proxy.log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{}", log.join("\n"));
    received
}

/// Statuses and reasons of our own answers.
fn outcome(received: &[u8]) -> String {
    let answers = Answer::all(received).unwrap_or_default();
    let words: Vec<_> =
        answers.iter().map(|answer| format!("{} {}", answer.status, answer.field("proxy-status"))).collect();
    words.join("; ")
}

#[test]
fn http1_connections() {
    let proxy = Tollgate::start("listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\n");
    let tokens = [
        "GET / HTTP/1.1\r\n",
        "HTTP/1.0",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "\r\n\r\n",
        "0\r\n\r\n",
        ";a=b",
        "5\r\nhello\r\n",
        "Upgrade: websocket\r\nConnection: upgrade\r\n",
        "http://a/",
        "*",
        "OPTIONS",
        "HEAD",
        "CONNECT",
        "TRACE",
        "TE: trailers\r\n",
        "Max-Forwards: 0\r\n",
    ];
    fuzz("http1", &tokens, |input| {
        let received = exchange(&proxy, input);
        assert!(Answer::all(&received).is_ok(), "not all of it is answers: {}", received.escape_ascii());
        outcome(&received)
    });
}

#[test]
fn proxy_protocol_headers() {
    let proxy = Tollgate::start(
        "listeners: { default: { address: '127.0.0.1:0', proxy_protocol: optional } }\nworkers: 1\nupstream: echo\n\
         trusted_proxies: private\n",
    );
    let tokens = [
        "PROXY TCP4 ",
        "PROXY TCP6 ",
        "PROXY UNKNOWN\r\n",
        "192.0.2.1 192.0.2.2 4711 443\r\n",
        "2001:db8::1 ::1 1 65535\r\n",
        "\r\n\r\n\0\r\nQUIT\n",
        "\x21\x11\0\x0c",
        "\x20\0\0\0",
        "\x21\x21\0\x24",
    ];
    fuzz("proxy_protocol", &tokens, |input| {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let received = exchange(&proxy, &[input, request].concat());
        assert!(Answer::all(&received).is_ok(), "not all of it is answers: {}", received.escape_ascii());
        outcome(&received)
    });
}

#[test]
fn http2_frames() {
    let proxy = Tollgate::start("listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\n");
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    let tokens = [
        "\0\0\0\x01\x05\0\0\0\x01",
        "\0\0\x08\x06\0\0\0\0\0",
        "\0\0\x04\x08\0\0\0\0\0",
        "\0\0\x04\x03\0\0\0\0\x01",
        "\x0282",
        "\0\0\0\x09\x04\0\0\0\x01",
    ];
    fuzz("http2", &tokens, |input| {
        let received = exchange(&proxy, &[&opening, input].concat());
        // The kinds of the first frames.
        let (mut kinds, mut at) = (String::new(), 0);
        while let Some([a, b, c, kind, ..]) = received.get(at..at + 9).filter(|_| kinds.len() < 12) {
            kinds.push(char::from(b'a' + kind % 16));
            at += 9 + (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c));
        }
        kinds
    });
}

#[test]
fn upstream_replies() {
    let reply = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&reply);
    let upstream = Upstream::start(move |peer| {
        peer.head()?;
        peer.send(shared.lock().expect("no script panics").clone())
    });
    let proxy = super::forwarding::in_front_of(&upstream);
    let tokens = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 304 \r\n",
        "content-length: 5\r\n",
        "transfer-encoding: chunked\r\n",
        "connection: close\r\n",
        "\r\n\r\n",
        "0\r\n\r\n",
        "5\r\nhello\r\n",
        "101",
        "204",
        "upgrade: websocket\r\n",
        "retry-after: 1\r\n",
    ];
    fuzz("replies", &tokens, |input| {
        *reply.lock().expect("no script panics") = input.to_vec();
        outcome(&exchange(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    });
}

#[test]
fn targets_and_hosts() {
    fuzz(
        "targets",
        &["/", "//", "/../", "/./", "%2e", "%2F", "%00", "..;", ";", "%", "?", "[::1]", ":80", "."],
        |input| {
            let text = String::from_utf8_lossy(input);
            let path = canonical_path(&text).map(|path| {
                let again = canonical_path(&path.text).map(|again| again.text.into_owned());
                assert_eq!(again.as_deref(), Ok(&*path.text), "what is forwarded means itself");
                let mut segments = path.text.split('/').skip(1).peekable();
                while let Some(segment) = segments.next() {
                    let folded = !matches!(segment, "." | "..") && (!segment.is_empty() || segments.peek().is_none());
                    assert!(folded, "{:?} leads elsewhere", path.text);
                }
                let compared = comparable(&path.text);
                assert_eq!(comparable(&compared), compared);
                path.encoded_separators
            });
            let host = canonical_host(&text).map(|host| {
                let again = canonical_host(&host.name).map(|again| again.name.into_owned());
                assert_eq!(again.as_deref(), Ok(&*host.name));
                host.port.is_some()
            });
            format!("{path:?} {host:?}")
        },
    );
}

#[test]
fn forwarded_fields() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\ntrusted_proxies: [127.0.0.0/8]\nclient_ip: { header: forwarded }\n\
         limits: [{ name: each, key: client_ip, rate: 100000/s, burst: 100000 }]\n",
    );
    let tokens = [
        "for=",
        "for=\"[::1]\"",
        ";proto=https",
        "by=",
        ", ",
        "127.0.0.1",
        "\"",
        "\\\"",
        "[2001:db8::1]:80",
        "unknown",
        "_hidden",
        "=",
        "1.2.3.4",
    ];
    fuzz("forwarded", &tokens, |input| {
        let value: Vec<u8> = input.iter().copied().filter(|byte| *byte >= b' ' && *byte != 0x7f).collect();
        let fields = [b"Forwarded: ", &value[..], b"\r\nX-Forwarded-For: ", &value[..]].concat();
        outcome(&exchange(&proxy, &[b"GET / HTTP/1.1\r\nHost: a\r\n", &fields[..], b"\r\n\r\n"].concat()))
    });
}

#[test]
fn redis_replies() {
    const LIMIT: Algorithm =
        Algorithm::TokenBucket(Bucket { capacity: 10, rate: 1, period: 1_000_000, tick: 1, debt: 0 });
    let reply = Arc::new(Mutex::new(GRANTED.to_owned()));
    let shared = Arc::clone(&reply);
    // What asks whether the server is well gets an answer to that.
    let server = Stub::start(move |words| {
        let decides =
            matches!(words[0].as_str(), "EVALSHA" | "EVAL") && !words.iter().any(|word| word.contains("~probe"));
        decides.then(|| shared.lock().expect("no script panics").clone())
    });
    let tokens = [
        "*8\r\n",
        ":1\r\n",
        ":-1\r\n",
        "$-1\r\n",
        "+OK\r\n",
        "-ERR x\r\n",
        "-NOSCRIPT x\r\n",
        "-MOVED 1 a:1\r\n",
        "*-1\r\n",
        "_\r\n",
        "%1\r\n",
        ">2\r\n",
        ":9223372036854775807\r\n",
        "$999999999\r\n",
        "\r\n",
    ];
    fuzz("redis", &tokens, |input| {
        *reply.lock().expect("no script panics") = String::from_utf8_lossy(input).into_owned();
        block_on(async {
            let store =
                RedisStore::start(&settings_for(server.port, Duration::from_millis(20)), Arc::new(LimitStats::new()));
            super::redis_store::until_up(&store).await;
            let subject = Subject::from_slice(b"k");
            match store.decide(&[Ask::new("api", &LIMIT, &subject, 1)]).await {
                Ok(reply) => format!("granted: {}", reply.granted),
                Err(kind) => format!("{kind:?}"),
            }
        })
    });
}

#[test]
fn configuration_files() {
    let tokens = [
        "listen: :80\n",
        "upstream: echo\n",
        "limits:\n",
        "  - ",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "rate: 1/s",
        "key: client_ip",
        "${X}",
        "\n",
        "  ",
        "&a ",
        "*a",
        "!!str ",
        "|\n",
        "\"",
        "'",
        "#",
        "0x1",
        "null",
        "routes:\n",
        "match: { path: /* }",
        "99999999999999999999",
        "-1",
        "burst: 0",
    ];
    fuzz("configuration", &tokens, |input| {
        let text = String::from_utf8_lossy(input);
        match parse(&text, &Origin::Stdin, &|_| Some("1".to_owned())) {
            Ok(loaded) => {
                let printed = expanded(&loaded.config);
                let again = parse(&printed, &Origin::Stdin, &|_| None);
                assert!(again.is_ok(), "the expanded form does not load:\n{printed}");
                "valid".to_owned()
            }
            Err(report) => {
                let shown = report.render(Colour::Plain);
                let messages = shown.lines().filter(|line| line.starts_with("error"));
                messages.map(|line| line.split(['`', '"', '\'']).next().unwrap_or_default()).collect()
            }
        }
    });
}

#[test]
fn log_lines() {
    let place = tempfile::tempdir().expect("a directory");
    let config =
        "listen: :0\nupstream: echo\nlimits: [{ name: each, key: [client_ip, 'header:user-agent'], rate: 1/s }]\n";
    std::fs::write(place.path().join("proxy.yaml"), config).expect("a file");
    let lines = RefCell::new(Vec::new());
    let tokens = [
        "\"",
        "[10/Oct/2000:13:55:36 -0700]",
        "{\"time\":",
        "\"status\":200",
        "GET / HTTP/1.1",
        "\\x22",
        "\\u0000",
        "1.2.3.4",
        "::1",
        " - - ",
        "1e308",
        "null",
        "}",
        "{",
        "2024-01-01T00:00:00Z",
    ];
    // A process reads hundreds of inputs as one log.
    let reads = |log: &[u8]| {
        std::fs::write(place.path().join("access.log"), log).expect("a file");
        let mut command = program();
        let run = command.current_dir(place.path()).args(["simulate", "access.log", "--format", "json"]);
        let run = run.output().expect("it runs");
        let errors = String::from_utf8_lossy(&run.stderr).into_owned();
        !errors.contains("panicked") && matches!(run.status.code(), Some(0 | 1))
    };
    fuzz("logs", &tokens, |input| {
        let mut lines = lines.borrow_mut();
        lines.push(input.to_vec());
        if lines.len() == 300 {
            let culprit = || lines.iter().find(|line| !reads(line)).map(|line| line.escape_ascii().to_string());
            assert!(reads(&lines.join(&b'\n')), "not read: {:?}", culprit());
            lines.clear();
        }
        String::new()
    });
}
