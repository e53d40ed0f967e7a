//! What two parsers might read in two ways is refused, however it is sent, and reaches no handler.

use crate::raw::{Answer, Client, Edge, Seen};

const GOOD: &[u8] = b"GET /good HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// A request line and fields after a valid beginning: what is malformed, its bytes, the answer.
fn malformed() -> Vec<(&'static str, Vec<u8>, u16)> {
    let mut cases: Vec<(&'static str, Vec<u8>, u16)> = Vec::new();
    let mut add = |name, bytes: &[u8], status| cases.push((name, bytes.to_vec(), status));
    // Framing
    add(
        "length and encoding",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    );
    add(
        "encoding and length",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    );
    for value in [
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked, gzip",
        "identity",
        "chunked;x",
        ",chunked",
        "chunked,",
        "xchunked",
        "chunkedx",
        "\"chunked\"",
        "chunked identity",
        "",
        "chu nked",
    ] {
        add(
            "encoding",
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n0\r\n\r\n").as_bytes(),
            400,
        );
    }
    add("encoding with vt", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400);
    add("encoding with nul", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", 400);
    add(
        "encoding twice",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    );
    add("encoding on 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    for value in [
        "+5",
        "-1",
        "0x5",
        "5, 5",
        "5,6",
        "",
        "5 5",
        "5a",
        "five",
        "18446744073709551616",
        "99999999999999999999",
        "5;",
        "1_0",
        "5.0",
    ] {
        add("length", format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\nhello").as_bytes(), 400);
    }
    add("length twice", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400);
    add("equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400);
    // Lines
    add("folded field", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", 400);
    add("folded with tab", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\tc\r\n\r\n", 400);
    add("space before first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400);
    add("space before colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400);
    add("space before colon of length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", 400);
    add("empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400);
    add("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX-A\r\n\r\n", 400);
    for name in ["X(A", "X A", "X\"A", "X/A", "X@A", "X[A", "X\u{e9}", "X\x01A", "X\x7fA"] {
        add("name", format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: b\r\n\r\n").as_bytes(), 400);
    }
    add("nul in value", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n", 400);
    add("control in value", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x08c\r\n\r\n", 400);
    add("delete in value", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x7fc\r\n\r\n", 400);
    add("bare cr in value", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n", 400);
    add("two crs", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\r\n\r\n", 400);
    add("bare lf after request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400);
    add("bare lf after field", b"GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n", 400);
    add("bare lf at end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
    add("only bare lfs", b"GET / HTTP/1.1\nHost: a\n\n", 400);
    add("bare lf first", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    add("two empty lines first", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    // Host
    add("no host", b"GET / HTTP/1.1\r\n\r\n", 400);
    add("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    add("equal hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    for host in
        ["", "a,b", "a b", "u@a", "a/b", "a:x", "a:99999", "a:1:2", "[::1", "[x]", "a\\b", "a?b", "a#b", "\u{e9}"]
    {
        add("host", format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), 400);
    }
    add("another host in target", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    add("another port in target", b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    // Target
    for target in [
        "/a#b",
        "/a\\b",
        "/a\x01",
        "/a\x7f",
        "/\u{e9}",
        "*",
        "a",
        "a.example:80",
        "http://",
        "http:///a",
        "ftp://a/",
        "//\0",
        "http://u@a/",
        "/<",
        "/>",
        "",
    ] {
        add("target", format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 400);
    }
    add("asterisk and more", b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    add("space in target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    add("tab for space", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    add("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    add("trailing space", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400);
    add("long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8192)).as_bytes(), 414);
    add("endless target", format!("GET /{}", "a".repeat(9000)).as_bytes(), 414);
    // Method, version, size
    add("method", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    add("no method", b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    add("long method", b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    add("0.9", b"GET /\r\n\r\n", 400);
    add("2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505);
    add("1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505);
    add("lower-case version", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400);
    add("long version", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400);
    add("other protocol", b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", 400);
    add("large head", format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(32 * 1024)).as_bytes(), 431);
    add("endless field", format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}", "a".repeat(33 * 1024)).as_bytes(), 431);
    add("many fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(100)).as_bytes(), 431);
    add("expectation", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\n\r\n", 417);
    // First chunk line
    for line in [
        "x\r\n",
        " 5\r\n",
        "5 \r\n",
        "+5\r\n",
        "-5\r\n",
        "0x5\r\n",
        "5_0\r\n",
        "\r\n",
        ";a\r\n",
        "5\n",
        "5;a\n",
        "5;\r\n",
        "5;a\0\r\n",
        "00000000000000005\r\n",
        "fffffffffffffffff\r\n",
        "5\rx\n",
    ] {
        add(
            "chunk line",
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{line}hello\r\n0\r\n\r\n")
                .as_bytes(),
            400,
        );
    }
    let extension = "a".repeat(17 * 1024);
    add(
        "long extension",
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;{extension}").as_bytes(),
        400,
    );
    cases
}

fn assert_refused(name: &str, bytes: &[u8], answer: &Answer, status: u16) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]);
    assert_eq!(answer.status, status, "{name}: {shown:?}");
    assert!(answer.has("connection: close"), "{name}: {answer:?}");
    assert!(answer.head.contains("proxy-status: tollgate; error=http_request_error"), "{name}: {answer:?}");
}

#[test]
fn a_malformed_request_is_refused_and_never_reaches_the_handler() {
    let edge = Edge::start();
    for (name, bytes, status) in malformed() {
        let answers = edge.client().send(&bytes).answers();
        assert_eq!(answers.len(), 1, "{name}: {answers:?}");
        assert_refused(name, &bytes, &answers[0], status);
        assert_eq!(edge.seen(), [], "{name}");
    }
}

#[test]
fn a_malformed_request_does_not_harm_the_one_before_it() {
    let edge = Edge::start();
    for path in ["/good", "/late"] {
        for (name, bytes, status) in malformed() {
            let good = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").into_bytes();
            let answers = edge.client().send(&[good, bytes.clone()].concat()).answers();
            assert_eq!(answers.len(), 2, "{name}: {answers:?}");
            assert_eq!((answers[0].status, &answers[0].body[..]), (200, &b"body"[..]), "{name}");
            assert_refused(name, &bytes, &answers[1], status);
            assert_eq!(edge.seen().len(), 1, "{name}");
        }
    }
}

#[test]
fn a_malformed_request_is_refused_byte_by_byte() {
    let edge = Edge::start();
    for (name, bytes, status) in malformed().into_iter().filter(|(_, bytes, _)| bytes.len() < 4096) {
        let answers = edge.client().trickle(&bytes).answers();
        assert_eq!(answers.len(), 1, "{name}: {answers:?}");
        assert_refused(name, &bytes, &answers[0], status);
        assert_eq!(edge.seen(), [], "{name}");
    }
}

#[test]
fn a_malformed_request_is_refused_however_it_is_split() {
    let edge = Edge::start();
    for (name, bytes, status) in malformed().into_iter().filter(|(_, bytes, _)| bytes.len() < 100).step_by(8) {
        for at in 1..bytes.len() {
            let mut client = edge.client();
            client.send(&bytes[..at]);
            std::thread::yield_now();
            let answers = client.send(&bytes[at..]).answers();
            assert_refused(name, &bytes, &answers[0], status);
        }
    }
    assert_eq!(edge.seen(), []);
}

#[test]
fn a_chunk_that_turns_out_bad_breaks_the_body_and_the_connection() {
    let edge = Edge::start();
    let bad: [&[u8]; 12] = [
        b"5\r\nhelloX",
        b"5\r\nhello\n5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b"5\r\nhello\r\nzz\r\n",
        b"5\r\nhello\r\n5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n0\r\nX-A\r\n\r\n",
        b"5\r\nhello\r\n0\r\n X-A: b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX-A : b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX-A: b\n\r\n",
        b"5\r\nhello\r\n0\r\nX-A: \0\r\n\r\n",
    ];
    let head = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in bad {
        for trickle in [false, true] {
            let bytes = [head, body, GOOD].concat();
            let mut client = edge.client();
            let answers = if trickle { client.trickle(&bytes) } else { client.send(&bytes) }.answers();
            let shown = String::from_utf8_lossy(body);
            assert_eq!(answers.len(), 1, "{shown:?}: {answers:?}");
            assert_eq!(answers[0].status, 400, "{shown:?}");
            assert!(matches!(edge.seen()[..], [Seen::Broken(Some(_))]), "{shown:?}");
        }
    }
}

#[test]
fn a_body_nobody_read_is_never_taken_for_a_request() {
    let edge = Edge::start();
    let smuggled = [GOOD, GOOD].concat();
    let early = format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", smuggled.len());
    // All at once: the body is small and here, so the connection goes on behind it.
    let mut client = edge.client();
    client.send(&[early.as_bytes(), &smuggled, b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat());
    let statuses: Vec<u16> = client.answers().iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [429, 200]);
    let next = Seen::Whole { method: "GET".into(), target: "/next".into(), body: Vec::new() };
    assert_eq!(edge.seen(), [Seen::Early, next]);
    // In parts: the answer says that the connection ends, and it does.
    let mut client = edge.client();
    let answer = client.send(early.as_bytes()).answer();
    assert_eq!(answer.status, 429);
    assert!(answer.has("connection: close"));
    assert_eq!(client.send(&smuggled).rest(), b"");
    assert_eq!(edge.seen(), [Seen::Early]);
    // Chunked, and far too large to be drained.
    let mut client = edge.client();
    client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n");
    assert_eq!(client.answer().status, 429);
    assert_eq!(client.send(&smuggled.repeat(1000)).rest(), b"");
    assert_eq!(edge.seen(), [Seen::Early]);
}

#[test]
fn clients_that_send_what_two_parsers_could_read_in_two_ways_do_not_disturb_others() {
    let edge = Edge::start();
    let mut other = edge.client();
    for (_, bytes, _) in malformed() {
        Client::connect(edge.address).send(&bytes);
        assert_eq!(other.send(GOOD).answer().status, 200);
    }
}
