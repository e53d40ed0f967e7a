//! What a server must refuse, section by section of RFC 9110 and RFC 9112, through the whole proxy.

use crate::raw;
use crate::support::parsers::message::{Answer, shown};
use crate::support::upstream::Upstream;

/// The section, what is wrong, and the bytes from the request line to the end of the body.
type Must = (&'static str, &'static str, &'static [u8]);

const LINES: [Must; 16] = [
    ("9112 §2.2", "white space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("9112 §2.2", "white space before a second field", b"GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n"),
    ("9112 §2.2", "CR alone in a field's value", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n"),
    ("9112 §2.2", "CR alone at a line's end", b"GET / HTTP/1.1\rHost: a\r\r"),
    ("9112 §2.3", "a version with two digits", b"GET / HTTP/1.11\r\nHost: a\r\n\r\n"),
    ("9112 §2.3", "a version in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("9112 §2.3", "a major version nobody speaks here", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    ("9112 §3", "no version", b"GET /\r\nHost: a\r\n\r\n"),
    ("9112 §3", "two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 §3", "white space behind the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("9112 §3.2", "white space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9110 §9.1", "a method that is no token", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 §5", "a field without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    ("9112 §5.1", "white space before a colon", b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"),
    ("9112 §5.2", "a folded line", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
    ("9112 §5.2", "a folded line of white space", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n \r\n\r\n"),
];

const FIELDS: [Must; 18] = [
    ("9110 §5.1", "an empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n"),
    ("9110 §5.1", "a name that is no token", b"GET / HTTP/1.1\r\nHost: a\r\nX[]: y\r\n\r\n"),
    ("9110 §5.5", "NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\r\n"),
    ("9110 §5.5", "another control in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x08y\r\n\r\n"),
    ("9112 §3.2", "no Host", b"GET / HTTP/1.1\r\nX: y\r\n\r\n"),
    ("9112 §3.2", "two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("9112 §3.2", "the same Host twice", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("9112 §3.2", "an invalid Host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("9112 §3.2", "a Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("9112 §3.2", "a Host with a port that is no number", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    ("9112 §3.2", "no Host beside an absolute target", b"GET http://a/ HTTP/1.1\r\n\r\n"),
    ("9112 §3.2.1", "a target without its slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 §3.2.3", "an authority for another method than CONNECT", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9112 §3.2.4", "an asterisk for another method than OPTIONS", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9110 §4.2.1", "an http URI without a host", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9110 §4.2.4", "user information in a URI", b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9110 §7.1", "a fragment in the target", b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("9110 §10.1.1", "an expectation that nobody meets", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n"),
];

const BODIES: [Must; 24] = [
    (
        "9112 §6.1",
        "Transfer-Encoding beside Content-Length",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 §6.1",
        "Content-Length beside Transfer-Encoding",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 §6.1",
        "Transfer-Encoding in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 §6.1",
        "chunked twice",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 §6.1",
        "a coding nobody knows",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "9112 §6.3",
        "chunked not last",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    ("9112 §6.3", "no chunked at all", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
    (
        "9112 §6.3",
        "lengths that differ",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    ),
    ("9112 §6.3", "a list of lengths that differ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!"),
    ("9112 §6.3", "an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello"),
    ("9110 §8.6", "a length with a sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
    ("9110 §8.6", "a negative length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello"),
    ("9110 §8.6", "a length in hexadecimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello"),
    ("9110 §8.6", "a length with a fraction", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello"),
    (
        "9110 §8.6",
        "a length beyond any integer",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    ),
    (
        "9112 §7.1",
        "a chunk size that is no number",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1",
        "a chunk size with a prefix",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1",
        "a chunk size with a sign",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1",
        "a chunk size beyond any integer",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1",
        "no chunk size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1",
        "LF alone behind a chunk size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1.1",
        "LF alone behind a chunk extension",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1.1",
        "CR in a chunk extension",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1",
        "white space before a chunk size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
    ),
];

/// A body that turns out wrong when part of it may be under way already.
const LATE: [Must; 6] = [
    (
        "9112 §7.1",
        "a chunk longer than its size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1",
        "a chunk shorter than its size",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "9112 §7.1",
        "LF alone behind a chunk",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    ),
    (
        "9112 §7.1.2",
        "a trailer without a colon",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX\r\n\r\n",
    ),
    (
        "9112 §8",
        "a chunked body without its end",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ),
    ("9112 §8", "a body shorter than its length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello"),
];

/// Behind each of them; it must never be read as a request.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn what_must_be_refused_is_refused_and_closes_the_connection() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let proxy = super::forwarding::in_front_of(&upstream);
    for (section, wrong, bytes) in LINES.into_iter().chain(FIELDS).chain(BODIES).chain(LATE) {
        let complete = !section.ends_with("§8");
        let sent = [bytes, if complete { NEXT } else { b"" }].concat();
        let mut received = Vec::new();
        let closed = raw::Client::connect(proxy.web()).send(&sent).finish().read_all(&mut received);
        assert!(closed, "{section}, {wrong}: the connection stays open");
        let answers = Answer::all(&received).unwrap_or_else(|error| panic!("{section}, {wrong}: {error}"));
        // To a client that has closed in the middle of its body nothing need be said.
        let [answer] = &answers[..] else {
            assert!(answers.is_empty() && !complete, "{section}, {wrong}: {answers:?}");
            continue;
        };
        let refused = matches!(answer.status, 400 | 417 | 501 | 505) && answer.is_last();
        assert!(refused, "{section}, {wrong}: {answer:?} to {}", shown(bytes));
    }
    assert!(upstream.seen().is_empty(), "nothing was forwarded whole: {:?}", upstream.seen());
}
