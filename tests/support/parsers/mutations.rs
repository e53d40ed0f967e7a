//! Requests that two parsers might read in two ways: every spelling is put beside every other, and bytes
//! that parsers disagree about into every place. The same cases in each run.

use fastrand::Rng;

/// What is sent on one connection.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// What was tried.
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Where the bytes are cut in two writes; 0 is nowhere.
    pub(crate) cut: usize,
}

const SEED: u64 = 9112;

/// Behind a body that one parser sees and another does not.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n";

/// Bytes that some parsers skip, trim or take for a line's end.
const ODD: [u8; 12] = [b'\n', b'\r', 0, 0x0b, 0x0c, b' ', b'\t', 0x7f, 0x85, 0xa0, b':', b','];

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = [
        framings(),
        chunks(),
        odd_bytes(),
        folds(),
        hosts(),
        targets(),
        request_lines(),
        connections(),
        upgrades_and_expectations(),
        trailers(),
    ]
    .concat();
    let mut rng = Rng::with_seed(SEED);
    cases.extend(pipelined(&cases, &mut rng));
    cases.extend(cut(&cases, &mut rng));
    cases
}

fn case(kind: &'static str, text: &str) -> Case {
    // One byte for each character: what stands in the tables is meant as bytes.
    let bytes = text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap_or(b'?')).collect();
    Case { kind, bytes, cut: 0 }
}

const ENCODINGS: [&str; 38] = [
    "",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding:chunked",
    "Transfer-Encoding:\tchunked\t",
    "TRANSFER-ENCODING: CHUNKED",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked\x0b",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: \x0cchunked",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding: \u{a0}chunked",
    "Transfer-Encoding: chun\tked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding:",
    "Transfer_Encoding: chunked",
    "Transfer.Encoding: chunked",
    "Transfer-Encoding\0: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\r\n\tTransfer-Encoding: chunked",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    "TE: chunked",
    "Content-Encoding: chunked",
];

const LENGTHS: [&str; 24] = [
    "",
    "Content-Length: N",
    "content-length:N",
    "Content-Length:\tN ",
    "Content-Length: 0",
    "Content-Length: 0N",
    "Content-Length: +N",
    "Content-Length: -N",
    "Content-Length: 0xN",
    "Content-Length: N;",
    "Content-Length: N, N",
    "Content-Length: N N",
    "Content-Length: N\x0b",
    "Content-Length: N\0",
    "Content-Length: Ne0",
    "Content-Length: N\r\nContent-Length: N",
    "Content-Length: N\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: N",
    "Content-Length : N",
    " Content-Length: N",
    "Content-Length:\r\n N",
    "Content_Length: N",
    "Connection: Content-Length\r\nContent-Length: N",
    "X: y\nContent-Length: N",
];

/// Each spelling of one framing field beside each of the other, before bodies that fit one of them.
fn framings() -> Vec<Case> {
    let bodies = [format!("0\r\n\r\n{SMUGGLED}"), "5\r\nhello\r\n0\r\n\r\n".to_owned()];
    let mut cases = Vec::new();
    for (first, encoding) in ENCODINGS.iter().enumerate() {
        for (second, length) in LENGTHS.iter().enumerate() {
            let method = ["POST", "GET", "DELETE"][(first + second) % 3];
            for body in &bodies {
                let length = length.replace('N', &body.len().to_string());
                let mut fields = [*encoding, &length];
                fields.rotate_left((first + second) % 2);
                let fields: String =
                    fields.iter().filter(|field| !field.is_empty()).flat_map(|field| [*field, "\r\n"]).collect();
                cases.push(case("framing", &format!("{method} /f HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")));
            }
        }
    }
    cases
}

fn chunked(kind: &'static str, body: &str) -> Case {
    case(kind, &format!("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
}

fn chunks() -> Vec<Case> {
    let sizes = [
        "5",
        "05",
        "0000000000000005",
        "00000000000000005",
        "0x5",
        "+5",
        "-5",
        " 5",
        "5 ",
        "5\t",
        "\x0b5",
        "5\0",
        "5_",
        "0_5",
        "V",
        "5h",
        "ffffffffffffffff",
        "10000000000000005",
        "7fffffffffffffff",
        "",
        "5.0",
        "5,5",
        "5\u{85}",
        "\n5",
        "\r\n5",
    ];
    let extensions = [
        "",
        ";",
        ";a",
        ";a=b",
        ";a=\"b\"",
        "; a",
        " ;a",
        ";a\n",
        ";a\rb",
        ";\"\r\n\"",
        ";a=\x0b",
        ";a;b",
        ";a=\"\\\"\"",
        ";\u{ff}",
    ];
    let ends = ["\r\n", "\n", "\r", "\r\r\n", "\n\r\n", "\r\n\r\n", " \r\n", ""];
    let mut cases = Vec::new();
    for size in sizes {
        for extension in extensions {
            cases.push(chunked("chunk size", &format!("{size}{extension}\r\nhello\r\n0\r\n\r\n{SMUGGLED}")));
            cases.push(chunked(
                "later chunk size",
                &format!("2\r\nhi\r\n{size}{extension}\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
            ));
        }
        for end in ends {
            cases.push(chunked("chunk line end", &format!("{size}{end}hello\r\n0\r\n\r\n{SMUGGLED}")));
        }
    }
    for end in ends {
        cases.push(chunked("chunk end", &format!("5\r\nhello{end}0\r\n\r\n{SMUGGLED}")));
        cases.push(chunked("last chunk line end", &format!("5\r\nhello\r\n0{end}\r\n{SMUGGLED}")));
        cases.push(chunked("end of a chunked body", &format!("5\r\nhello\r\n0\r\n{end}{SMUGGLED}")));
        for zero in ["00", "0;a", "0 ", "-0", "+0", "0x0", "", "000000000000000000"] {
            cases.push(chunked("last chunk", &format!("5\r\nhello\r\n{zero}{end}\r\n{SMUGGLED}")));
        }
    }
    cases
}

/// Each odd byte in each place of two requests, added and in place of what stood there.
fn odd_bytes() -> Vec<Case> {
    let whole = [
        "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: y\r\n\r\nabc",
        "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    let mut cases = Vec::new();
    for bytes in whole.map(str::as_bytes) {
        for at in 0..bytes.len() {
            for odd in ODD {
                let (before, after) = bytes.split_at(at);
                let (kind, after) =
                    if usize::from(odd) % 2 == at % 2 { ("added byte", after) } else { ("replaced byte", &after[1..]) };
                let bytes = [before, &[odd], after, SMUGGLED.as_bytes()].concat();
                cases.push(Case { kind, bytes, cut: 0 });
            }
        }
    }
    cases
}

fn folds() -> Vec<Case> {
    let mut cases = Vec::new();
    for field in ["Content-Length: 5", "Transfer-Encoding: chunked", "X: y", "Host: b", "Connection: close"] {
        for fold in ["\r\n ", "\r\n\t", "\n ", "\r ", "\r\n\r\n ", "\r\n\x0b", " \r\n", "\r\n \r\n"] {
            let (name, value) = field.split_once(' ').unwrap_or_default();
            for folded in [format!("{name}{fold}{value}"), format!("{field}{fold}"), format!("X: y{fold}{field}")] {
                let head = format!("POST /o HTTP/1.1\r\nHost: a\r\n{folded}\r\n\r\n");
                cases.push(case("folded field", &format!("{head}hello{SMUGGLED}")));
            }
        }
    }
    cases
}

fn hosts() -> Vec<Case> {
    let hosts = [
        "a",
        "A",
        "a:80",
        "a:",
        "a.",
        "[::1]",
        "[::1]:8080",
        "1.2.3.4",
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
        "::1",
        "a\\b",
        "a?b",
        "a#b",
        "\u{e9}",
        "a..b",
        ".",
        "a%20b",
        "http://a",
        "a\x0b",
        "a\0b",
        "a\tb",
        "-a-",
        "a_b",
        "*.a",
        "xn--a",
    ];
    let mut cases = Vec::new();
    for host in hosts {
        for fields in [
            format!("Host: {host}"),
            format!("Host:{host}"),
            format!("X: y\r\nhost: {host}"),
            format!("Host: {host}\r\nHost: b"),
            format!("Host: b\r\nHost: {host}"),
            format!("Host: b\r\n Host: {host}"),
            format!("Host : {host}"),
            format!("Host: {host}\r\nX-Forwarded-Host: b"),
        ] {
            cases.push(case("host", &format!("GET /h HTTP/1.1\r\n{fields}\r\n\r\n")));
        }
        cases.push(case("absolute form", &format!("GET http://{host}/h HTTP/1.1\r\nHost: a\r\n\r\n")));
    }
    cases
}

const TARGETS: [&str; 66] = [
    "/",
    "//",
    "/a//b",
    "/a/./b",
    "/a/../b",
    "/../a",
    "/%2e%2e/a",
    "/a%2fb",
    "/a%5cb",
    "/a%00",
    "/a%",
    "/a%zz",
    "/a%25",
    "/a;b",
    "/a..;/b",
    "/?",
    "/?a=b&c",
    "/?a?b",
    "/?a#b",
    "/#",
    "/a\\b",
    "/a|b",
    "/a\"b",
    "/a<b",
    "/{a}",
    "/[a]",
    "/^",
    "/`",
    "/~a",
    "/@",
    "/a:b",
    "*",
    "a",
    "?a",
    "http://a/",
    "HTTP://A/x",
    "https://a/",
    "http://a",
    "http://a?b",
    "http://a/../b",
    "http://b/",
    "http://a:80/x",
    "http://u@a/",
    "http:///x",
    "http:/x",
    "ftp://a/",
    "//b/x",
    "///x",
    "/\u{e9}",
    "/%C3%A9",
    "/\x01",
    "/a\u{a0}",
    "/%41%42",
    "/%7e",
    "/a b",
    "/a\tb",
    "/a\x0bb",
    "/./",
    "/.",
    "/..",
    "/a/..",
    "/a/.",
    "/.a",
    "/...",
    "/a%2E%2e/b",
    "/&x=<",
];

fn targets() -> Vec<Case> {
    let mut cases = Vec::new();
    for target in TARGETS {
        for (method, version) in
            [("GET", "1.1"), ("GET", "1.0"), ("OPTIONS", "1.1"), ("HEAD", "1.1"), ("CONNECT", "1.1")]
        {
            cases.push(case("target", &format!("{method} {target} HTTP/{version}\r\nHost: a\r\n\r\n{SMUGGLED}")));
        }
    }
    let long = "a".repeat(9000);
    for len in [4000, 8000, 8190, 8191, 8192, 8193, 8999] {
        cases.push(case("long target", &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..len])));
    }
    cases
}

fn request_lines() -> Vec<Case> {
    let methods = [
        "GET",
        "get",
        "Get",
        "GET\t",
        "\tGET",
        " GET",
        "G ET",
        "GET ",
        "G\0ET",
        "PROPFIND",
        "PATCH",
        "PRI",
        "TRACE",
        "FOO",
        "A-B",
        "A_B",
        "1",
        "G!T",
        "(",
        "",
        "HEAD",
        "M-SEARCH",
        "\u{ff}GET",
        "GET/",
    ];
    let versions = [
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1.",
        "HTTP/1",
        "HTTP/11",
        "http/1.1",
        "Http/1.1",
        "HTTP /1.1",
        "HTTP/ 1.1",
        "HTTP/1.1 ",
        "HTTP/1.1\t",
        "HTTP/1.1\0",
        "HTTPS/1.1",
        "HTTP/1.1x",
        "HTTP/+1.1",
        "",
        "HTTP/1\u{b9}.1",
        "HTTP/1.1 HTTP/1.0",
        "ICY/1.1",
        "HTTP/1,1",
    ];
    let mut cases = Vec::new();
    for method in methods {
        for (version, between) in versions.iter().zip([" ", " ", " ", "  ", " \t"].into_iter().cycle()) {
            cases.push(case("request line", &format!("{method}{between}/l {version}\r\nHost: a\r\n\r\n{SMUGGLED}")));
        }
        cases.push(case(
            "method",
            &format!("{method} /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}"),
        ));
    }
    for before in ["\r\n", "\r\n\r\n", "\n", "\r", "\0", " ", "\r\n ", "\u{ef}\u{bb}\u{bf}", "\r\n\n"] {
        cases.push(case("before a request", &format!("{before}GET /l HTTP/1.1\r\nHost: a\r\n\r\n")));
        cases.push(case("between requests", &format!("GET /l HTTP/1.1\r\nHost: a\r\n\r\n{before}{SMUGGLED}")));
    }
    cases
}

/// Fields that a Connection line names, and must not take away.
fn connections() -> Vec<Case> {
    let names = [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "X-Forwarded-For",
        "Cookie",
        "Authorization",
        "Via",
        "Connection",
        "Upgrade",
        "TE",
        "Trailer",
        "Expect",
        "Keep-Alive",
        "Content-Type",
        "X",
        "X-Request-Id",
        "X-Forwarded-Host",
        "*",
        "",
        "a b",
        "close",
        "\"Host\"",
    ];
    let mut cases = Vec::new();
    for name in names {
        for line in [
            format!("Connection: {name}"),
            format!("Connection: close, {name}"),
            format!("Connection: keep-alive\r\nconnection: {name}"),
            format!("Proxy-Connection: {name}"),
            format!("Connection:{name},{name}"),
            format!("Keep-Alive: {name}"),
        ] {
            let fields = format!("{line}\r\nCookie: a=b\r\nX: y\r\nX-Forwarded-For: 6.6.6.6");
            cases.push(case(
                "connection",
                &format!("POST /n HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{fields}\r\n\r\nhello{SMUGGLED}"),
            ));
            let fields = format!("{line}\r\nTransfer-Encoding: chunked");
            cases.push(case(
                "connection",
                &format!("POST /n HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
            ));
        }
    }
    cases
}

fn upgrades_and_expectations() -> Vec<Case> {
    let mut cases = Vec::new();
    for upgrade in ["websocket", "h2c", "WebSocket, h2c", "HTTP/2.0", "TLS/1.0", "websocket\r\nUpgrade: h2c", "", "x"] {
        for connection in
            ["Upgrade", "upgrade, HTTP2-Settings", "close", "keep-alive, Upgrade", "", "Upgrade\r\nConnection: close"]
        {
            for (method, body) in
                [("GET", "\r\n"), ("POST", "Content-Length: 5\r\n\r\nhello"), ("GET", "Content-Length: 5\r\n\r\nhello")]
            {
                let fields = format!("Connection: {connection}\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk");
                cases
                    .push(case("upgrade", &format!("{method} /u HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}{SMUGGLED}")));
            }
        }
    }
    for expect in [
        "100-continue",
        "100-Continue",
        "100-continue, x",
        "",
        "x",
        "100-continue\r\nExpect: 100-continue",
        "\x0b100-continue",
        "100-continue;q",
    ] {
        for (version, body) in [
            ("1.1", "Content-Length: 5\r\n\r\nhello"),
            ("1.0", "Content-Length: 5\r\n\r\nhello"),
            ("1.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            ("1.1", "\r\n"),
        ] {
            cases.push(case(
                "expect",
                &format!("POST /e HTTP/{version}\r\nHost: a\r\nExpect: {expect}\r\n{body}{SMUGGLED}"),
            ));
        }
    }
    cases
}

fn trailers() -> Vec<Case> {
    let trailers = [
        "X-T: u",
        "Content-Length: 50",
        "Transfer-Encoding: chunked",
        "Host: evil",
        "Content-Length: 50\r\nX-T: u",
        "X-T : u",
        " X-T: u",
        "X-T",
        ": u",
        "X-T: \0",
        "X-T: u\r\n v",
        "X-T: u\n",
        "X-T: u\rv",
        "X(T: u",
        "Connection: close",
        "Authorization: x",
        "Cookie: a=b",
        "X_T: u",
        "X-T: \u{e9}",
        "X-T:",
        "GET / HTTP/1.1",
        "Expect: 100-continue",
        "X-Forwarded-For: 1.1.1.1",
        "X-T: \x0bu",
        "X-T: u\r",
    ];
    let mut cases = Vec::new();
    for trailer in trailers {
        for announced in ["", "Trailer: X-T\r\n", "TE: trailers\r\nConnection: TE\r\n"] {
            for body in ["", "5\r\nhello\r\n", "5;x=y\r\nhello\r\n"] {
                cases.push(case(
                    "trailer",
                    &format!("POST /t HTTP/1.1\r\nHost: a\r\n{announced}Transfer-Encoding: chunked\r\n\r\n{body}0\r\n{trailer}\r\n\r\n{SMUGGLED}"),
                ));
            }
        }
    }
    cases
}

/// Two cases behind each other, the first perhaps a good one.
fn pipelined(cases: &[Case], rng: &mut Rng) -> Vec<Case> {
    let good = [
        "GET /one HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /three HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-T: u\r\n\r\n",
        "HEAD http://a/four HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let pick = |rng: &mut Rng| cases[rng.usize(..cases.len())].bytes.clone();
    let pair = |at: usize| {
        let first = if at % 4 == 3 { pick(rng) } else { good[at % 4].as_bytes().to_vec() };
        Case { kind: "pipelined", bytes: [first, pick(rng)].concat(), cut: 0 }
    };
    (0..400).map(pair).collect()
}

/// Cases that arrive in two parts.
fn cut(cases: &[Case], rng: &mut Rng) -> Vec<Case> {
    let cut = |_| {
        let case = cases[rng.usize(..cases.len())].clone();
        Case { kind: "cut in two", cut: rng.usize(1..case.bytes.len()), ..case }
    };
    (0..400).map(cut).collect()
}
