//! What two parsers might read in two ways is refused, however it is sent, and reaches no handler.

use crate::raw::{Answer, Client, Edge, Seen};

const GOOD: &[u8] = b"GET /good HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// What is malformed, its bytes, and the status of the answer.
type Case = (&'static str, Vec<u8>, u16);

fn malformed() -> Vec<Case> {
    [framing(), lines(), hosts(), targets(), sizes(), first_chunks()].concat()
}

/// A request to `/` with these fields and this body, refused with 400.
fn post(name: &'static str, fields: &str, body: &str) -> Case {
    (name, format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}").into_bytes(), 400)
}

fn framing() -> Vec<Case> {
    let encodings = [
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
        "\x0bchunked",
        "\x0cchunked",
        "chunked\0",
        "chunked\u{a0}",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "chunked\r\nContent-Length: 5",
        "chunked\r\nContent-Length: 0",
    ];
    let lengths = [
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
        "\u{665}",
        "5\r\nContent-Length: 6",
        "5\r\nContent-Length: 5",
        "5\r\nTransfer-Encoding: chunked",
    ];
    let encodings = encodings.map(|value| post("encoding", &format!("Transfer-Encoding: {value}"), "0\r\n\r\n"));
    let lengths = lengths.map(|value| post("length", &format!("Content-Length: {value}"), "hello"));
    let old = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
    [encodings.to_vec(), lengths.to_vec(), vec![("encoding on 1.0", old, 400)]].concat()
}

fn lines() -> Vec<Case> {
    let fields = [
        "X-A: b\r\n c",
        "X-A: b\r\n\tc",
        " X-A: b",
        "\tX-A: b",
        "X-A : b",
        "X-A\t: b",
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
        ": b",
        "X-A",
        "X(A: b",
        "X A: b",
        "X\"A: b",
        "X/A: b",
        "X@A: b",
        "X[A: b",
        "X\u{e9}: b",
        "X\x01A: b",
        "X\x7fA: b",
        "X\0: b",
        "X-A: b\0c",
        "X-A: b\x08c",
        "X-A: b\x7fc",
        "X-A: b\rc",
        "X-A: b\r",
        "X-A: \r b",
        "X-A: b\nX-B: c",
        "X-A: b\n",
        "X-A: b\n\r",
    ];
    let heads: [&[u8]; 10] = [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    ];
    let fields = fields.map(|line| post("field", line, ""));
    let heads = heads.map(|head| ("line", head.to_vec(), 400));
    [fields.to_vec(), heads.to_vec()].concat()
}

fn hosts() -> Vec<Case> {
    let hosts = [
        "",
        "a,b",
        "a b",
        "u@a",
        "a/b",
        "a:x",
        "a:99999",
        "a:1:2",
        "[::1",
        "[x]",
        "[::1]x",
        "::1",
        "a\\b",
        "a?b",
        "a#b",
        "\u{e9}",
        "a..b",
        ".",
        "a%20b",
        "http://a",
        "a\r\nHost: b",
        "a\r\nHost: a",
        "a\r\nhOST: a",
    ];
    let mut cases =
        hosts.map(|host| ("host", format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(), 400)).to_vec();
    cases.push(("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400));
    cases.push(("no host", b"GET http://a/ HTTP/1.1\r\nX-A: b\r\n\r\n".to_vec(), 400));
    cases.push(("two hosts on 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), 400));
    cases
}

fn targets() -> Vec<Case> {
    let targets = [
        "/a#b",
        "/a\\b",
        "/a\x01",
        "/a\x7f",
        "/\u{e9}",
        "/\0",
        "*",
        "a",
        "a.example:80",
        "http://",
        "http:///a",
        "ftp://a/",
        "http:/a",
        "http:a",
        "http://u@a/",
        "http://a:x/",
        "http://b/",
        "http://b",
        "http://a:81/",
        "http://a.b?c",
        "/<",
        "/>",
        "",
        "/a b",
        "/a\tb",
        " /",
        "/ ",
        "?a",
        "//a\\b",
        "#",
    ];
    let mut cases = targets
        .map(|target| ("target", format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(), 400))
        .to_vec();
    cases.push(("asterisk and more", b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400));
    cases.push(("connect to a path", b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400));
    for line in [
        "GET\t/ HTTP/1.1",
        "GET / HTTP/1.1 ",
        "G(T / HTTP/1.1",
        " / HTTP/1.1",
        "GET /",
        "GET",
        "GET /  HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/11",
        "GET / RTSP/1.0",
        "GET / HTTP/1.",
        "GET / HTTP /1.1",
        "GET / HTTP/a.1",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1",
        "\u{feff}GET / HTTP/1.1",
    ] {
        cases.push(("request line", format!("{line}\r\nHost: a\r\n\r\n").into_bytes(), 400));
    }
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0"] {
        cases.push(("version", format!("GET / {version}\r\nHost: a\r\n\r\n").into_bytes(), 505));
    }
    cases
}

fn sizes() -> Vec<Case> {
    let head = |line: &str, fields: &str| format!("GET {line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let long = "a".repeat(33 * 1024);
    vec![
        ("long target", head(&format!("/{}", &long[..8192]), ""), 414),
        ("endless target", format!("GET /{}", &long[..9000]).into_bytes(), 414),
        ("large field", head("/", &format!("X-A: {long}\r\n")), 431),
        ("endless field", format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {long}").into_bytes(), 431),
        ("endless name", format!("GET / HTTP/1.1\r\nHost: a\r\n{long}").into_bytes(), 431),
        ("large head", head("/", &format!("X-A: {}\r\n", &long[..1000]).repeat(33)), 431),
        ("many fields", head("/", &"A: b\r\n".repeat(100)), 431),
        ("expectation", head("/", "Expect: 200-maybe\r\n"), 417),
        ("two expectations", head("/", "Expect: 100-continue, x\r\n"), 417),
    ]
}

fn first_chunks() -> Vec<Case> {
    let lines = [
        "x\r\n",
        " 5\r\n",
        "5 \r\n",
        "\t5\r\n",
        "+5\r\n",
        "-5\r\n",
        "0x5\r\n",
        "5_0\r\n",
        "\r\n",
        ";a\r\n",
        "5\n",
        "5;a\n",
        "5;\r\n",
        "5; ;\r\n",
        "5;a\0\r\n",
        "5;a\rb\r\n",
        "5 ;a\r\n",
        "00000000000000005\r\n",
        "fffffffffffffffff\r\n",
        "5\rx\n",
        "5,5\r\n",
    ];
    let mut cases = lines
        .map(|line| post("chunk line", "Transfer-Encoding: chunked", &format!("{line}hello\r\n0\r\n\r\n")))
        .to_vec();
    cases.push(post("long extension", "Transfer-Encoding: chunked", &format!("5;{}", "a".repeat(17 * 1024))));
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
    // Told to continue, the client knows that the handler is reading.
    let head = b"POST /body HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in bad {
        for trickle in [false, true] {
            let bytes = [body, GOOD].concat();
            let mut client = edge.client();
            client.send(head).expect(b"HTTP/1.1 100 Continue\r\n\r\n");
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
    // All there but chunked, or too large to be dropped in passing.
    let chunked = "POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let large = format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n{}", "a".repeat(9000));
    for request in [chunked, &large] {
        let answers = edge.client().send(request.as_bytes()).send(GOOD).answers();
        assert_eq!((answers.len(), answers[0].status), (1, 429));
        assert!(answers[0].has("connection: close"));
        assert_eq!(edge.seen(), [Seen::Early]);
    }
    // Chunked, and far too large to be drained.
    let mut client = edge.client();
    client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n");
    assert_eq!(client.answer().status, 429);
    assert_eq!(client.send(&smuggled.repeat(1000)).rest(), b"");
    assert_eq!(edge.seen(), [Seen::Early]);
    // Read to its end, a body of any size or framing leaves the connection open.
    let mut client = edge.client();
    for request in [chunked, &large].map(|request| request.replace("/early", "/read")) {
        let answer = client.send(request.as_bytes()).answer();
        assert!(answer.status == 200 && !answer.has("connection: close"));
    }
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
