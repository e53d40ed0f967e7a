//! What RFC 9113 and RFC 7541 say that an endpoint must do with what it must not get, section by section,
//! in clear text and over TLS.

use std::io::{Read, Write};

use crate::support::certificates::{Authority, Wanted};
use crate::support::http2::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, Frame,
    GOAWAY, HEADERS, PADDED, PING, PRIORITISED, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, Peer, REFUSED_STREAM,
    RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, block, frame, get, integer, pseudo, request, setting,
    window_update,
};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

/// What the proxy must do.
#[derive(Debug, Clone, Copy)]
enum Must {
    /// Serve stream 1, or stream 3 where there is one.
    Serve,
    /// End the connection with one of these codes.
    EndConnection(&'static [u32]),
    /// End the stream with one of these codes; a stream error may end the connection too (RFC 9113 §5.4.2).
    EndStream(&'static [u32]),
    /// Refuse the request: with an answer of its own, or by ending the stream or the connection with `PROTOCOL_ERROR`.
    Refuse(u16),
}

use Must::{EndConnection, EndStream, Refuse, Serve};

/// Section, what comes, its bytes, and what must be done.
type Case = (&'static str, &'static str, Vec<u8>, Must);

const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];
const PROTOCOL: &[u32] = &[PROTOCOL_ERROR];
const SIZE: &[u32] = &[FRAME_SIZE_ERROR];
const SIZE_OR_PROTOCOL: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
const FLOW: &[u32] = &[FLOW_CONTROL_ERROR];
const COMPRESSION: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];

/// A whole request with this block of fields.
fn head(payload: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, payload)
}

/// A whole request with these fields beside those every request has.
fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    head(&[block(&pseudo("GET", "/")), block(fields)].concat())
}

/// The head of a POST to stream 1, and what follows it.
fn post(behind: &[u8]) -> Vec<u8> {
    [&request(0, 1, "POST", "/")[..], behind].concat()
}

/// A whole GET on stream 1, and what follows it.
fn behind_get(behind: &[u8]) -> Vec<u8> {
    [&get(1)[..], behind].concat()
}

fn framing() -> Vec<Case> {
    let get_block = block(&pseudo("GET", "/"));
    let open = frame(HEADERS, END_STREAM, 1, &get_block);
    let with_open = |more: Vec<u8>| [open.clone(), more].concat();
    vec![
        ("9113 §4.1", "a frame of an unknown type", [frame(0xf3, 0xff, 1, b"abc"), get(1)].concat(), Serve),
        ("9113 §4.1", "flags without a meaning", [frame(PING, 0xfe, 0, b"12345678"), get(1)].concat(), Serve),
        ("9113 §4.1", "the reserved bit of a stream", [frame(PING, 0, 1 << 31, b"12345678"), get(1)].concat(), Serve),
        (
            "9113 §4.2",
            "DATA beyond the largest frame",
            post(&frame(DATA, END_STREAM, 1, &[0; 16_385])),
            EndStream(SIZE),
        ),
        ("9113 §4.2", "HEADERS beyond the largest frame", head(&[0; 16_385]), EndConnection(SIZE)),
        ("9113 §4.2", "SETTINGS beyond the largest frame", frame(SETTINGS, 0, 0, &[0; 16_386]), EndConnection(SIZE)),
        (
            "9113 §4.3",
            "a block that cannot be decoded",
            head(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            EndConnection(COMPRESSION),
        ),
        (
            "9113 §4.3",
            "PRIORITY inside a block",
            with_open(frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
            EndConnection(PROTOCOL),
        ),
        ("9113 §4.3", "HEADERS of another stream inside a block", with_open(get(3)), EndConnection(PROTOCOL)),
        ("9113 §4.3", "PING inside a block", with_open(frame(PING, 0, 0, b"12345678")), EndConnection(PROTOCOL)),
        ("9113 §5.5", "an unknown frame inside a block", with_open(frame(0xf3, 0, 1, b"")), EndConnection(PROTOCOL)),
        (
            "9113 §6.10",
            "a block in two parts",
            with_open(frame(CONTINUATION, END_HEADERS, 1, &block(&[("x", "y")]))),
            Serve,
        ),
        (
            "9113 §6.10",
            "a block that goes on for another stream",
            with_open(frame(CONTINUATION, END_HEADERS, 3, b"")),
            EndConnection(PROTOCOL),
        ),
        (
            "9113 §6.10",
            "CONTINUATION behind a whole block",
            post(&frame(CONTINUATION, END_HEADERS, 1, b"")),
            EndConnection(PROTOCOL),
        ),
        ("9113 §6.10", "CONTINUATION of stream 0", frame(CONTINUATION, END_HEADERS, 0, b""), EndConnection(PROTOCOL)),
        (
            "9113 §6.10",
            "CONTINUATION behind DATA",
            post(&[frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, b"")].concat()),
            EndConnection(PROTOCOL),
        ),
    ]
}

fn streams() -> Vec<Case> {
    let crowd: Vec<u8> = (1..=201).step_by(2).flat_map(|stream| request(0, stream, "POST", "/")).collect();
    vec![
        ("9113 §5.1", "DATA of an idle stream", frame(DATA, END_STREAM, 1, b"x"), EndConnection(PROTOCOL)),
        ("9113 §5.1", "RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), EndConnection(PROTOCOL)),
        ("9113 §5.1", "WINDOW_UPDATE of an idle stream", window_update(1, 1), EndConnection(PROTOCOL)),
        (
            "9113 §5.1",
            "CONTINUATION of an idle stream",
            frame(CONTINUATION, END_HEADERS, 1, b""),
            EndConnection(PROTOCOL),
        ),
        (
            "9113 §5.1",
            "DATA of a stream the client has ended",
            behind_get(&frame(DATA, END_STREAM, 1, b"x")),
            EndStream(CLOSED),
        ),
        ("9113 §5.1", "HEADERS of a stream the client has ended", behind_get(&get(1)), EndStream(CLOSED)),
        (
            "9113 §5.1",
            "DATA of a stream the client has reset",
            post(&[frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), frame(DATA, END_STREAM, 1, b"x")].concat()),
            EndStream(CLOSED),
        ),
        ("9113 §5.1", "PRIORITY of an idle stream", [frame(PRIORITY, 0, 5, &[0, 0, 0, 1, 1]), get(1)].concat(), Serve),
        ("9113 §5.1.1", "an even stream", get(2), EndConnection(PROTOCOL)),
        ("9113 §5.1.1", "a smaller stream than before", [get(5), get(3)].concat(), EndConnection(CLOSED)),
        ("9113 §5.1.2", "more streams than announced", crowd, EndStream(&[REFUSED_STREAM, PROTOCOL_ERROR])),
        ("9113 §6.1", "DATA of stream 0", frame(DATA, 0, 0, b"x"), EndConnection(PROTOCOL)),
        (
            "9113 §6.1",
            "DATA with more padding than payload",
            post(&frame(DATA, END_STREAM | PADDED, 1, &[9, b'x'])),
            EndConnection(PROTOCOL),
        ),
        ("9113 §6.1", "DATA with padding", post(&frame(DATA, END_STREAM | PADDED, 1, &[3, b'x', 0, 0, 0])), Serve),
        (
            "9113 §6.2",
            "HEADERS of stream 0",
            frame(HEADERS, END_HEADERS | END_STREAM, 0, &block(&pseudo("GET", "/"))),
            EndConnection(PROTOCOL),
        ),
        (
            "9113 §6.2",
            "HEADERS with more padding than payload",
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[200, 0x82]),
            EndConnection(PROTOCOL),
        ),
        (
            "9113 §6.2",
            "HEADERS with padding and a priority",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | PADDED | PRIORITISED,
                1,
                &[&[2, 0, 0, 0, 0, 9][..], &block(&pseudo("GET", "/")), &[0, 0]].concat(),
            ),
            Serve,
        ),
        ("9113 §6.3", "PRIORITY of stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 1]), EndConnection(PROTOCOL)),
        ("9113 §6.3", "PRIORITY of another length", post(&frame(PRIORITY, 0, 1, &[0; 4])), EndStream(SIZE_OR_PROTOCOL)),
        ("9113 §6.4", "RST_STREAM of stream 0", frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), EndConnection(PROTOCOL)),
        (
            "9113 §6.4",
            "RST_STREAM of another length",
            post(&frame(RST_STREAM, 0, 1, &[0; 3])),
            EndConnection(SIZE_OR_PROTOCOL),
        ),
        (
            "9113 §8.4",
            "PUSH_PROMISE of a client",
            post(&frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
            EndConnection(PROTOCOL),
        ),
    ]
}

fn connection() -> Vec<Case> {
    vec![
        ("9113 §3.4", "no SETTINGS in the preface", Vec::new(), Serve),
        ("9113 §6.5", "SETTINGS ACK with a payload", frame(SETTINGS, ACK, 0, &[0; 6]), EndConnection(SIZE_OR_PROTOCOL)),
        ("9113 §6.5", "SETTINGS of a stream", frame(SETTINGS, 0, 1, b""), EndConnection(PROTOCOL)),
        ("9113 §6.5", "SETTINGS of another length", frame(SETTINGS, 0, 0, &[0; 5]), EndConnection(SIZE_OR_PROTOCOL)),
        ("9113 §6.5.2", "ENABLE_PUSH neither 0 nor 1", setting(2, 2), EndConnection(PROTOCOL)),
        (
            "9113 §6.5.2",
            "an initial window beyond the largest",
            setting(4, 1 << 31),
            EndConnection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]),
        ),
        ("9113 §6.5.2", "a largest frame below the smallest", setting(5, 16_383), EndConnection(PROTOCOL)),
        ("9113 §6.5.2", "a largest frame beyond the largest", setting(5, 1 << 24), EndConnection(PROTOCOL)),
        ("9113 §6.5.2", "an unknown setting", [setting(0xff, 7), get(1)].concat(), Serve),
        ("9113 §6.7", "PING of a stream", frame(PING, 0, 1, b"12345678"), EndConnection(PROTOCOL)),
        ("9113 §6.7", "PING of another length", frame(PING, 0, 0, b"1234567"), EndConnection(SIZE_OR_PROTOCOL)),
        ("9113 §6.7", "an answer to no PING", [frame(PING, ACK, 0, b"12345678"), get(1)].concat(), Serve),
        ("9113 §6.8", "GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), EndConnection(PROTOCOL)),
        ("9113 §6.9", "WINDOW_UPDATE of nothing", window_update(0, 0), EndConnection(PROTOCOL)),
        ("9113 §6.9", "WINDOW_UPDATE of nothing for a stream", post(&window_update(1, 0)), EndStream(PROTOCOL)),
        (
            "9113 §6.9",
            "WINDOW_UPDATE of another length",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            EndConnection(SIZE_OR_PROTOCOL),
        ),
        ("9113 §6.9.1", "a window beyond the largest", window_update(0, 0x7fff_ffff), EndConnection(FLOW)),
        ("9113 §6.9.1", "a stream's window beyond the largest", post(&window_update(1, 0x7fff_ffff)), EndStream(FLOW)),
        (
            "9113 §6.9.2",
            "settings that push a window beyond the largest",
            post(&[window_update(1, 0x7fff_0000), setting(4, 0x7fff_ffff)].concat()),
            EndConnection(FLOW),
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let lengthy = |length: &str, pieces: &[&[u8]]| {
        let mut bytes = frame(
            HEADERS,
            END_HEADERS,
            1,
            &[block(&pseudo("POST", "/")), block(&[("content-length", length)])].concat(),
        );
        for (index, piece) in pieces.iter().enumerate() {
            bytes.extend(frame(DATA, if index + 1 == pieces.len() { END_STREAM } else { 0 }, 1, piece));
        }
        bytes
    };
    let trailers = |fields: &[(&str, &str)]| post(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)));
    vec![
        (
            "9113 §8.1",
            "trailers that do not end the stream",
            post(&frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))),
            EndStream(PROTOCOL),
        ),
        ("9113 §8.1", "trailers", trailers(&[("x", "y")]), Serve),
        // h2 leaves it out instead of ending the stream; nothing of it travels on.
        ("9113 §8.1", "a pseudo-field in trailers", trailers(&[(":path", "/")]), Serve),
        ("9113 §8.1.1", "less DATA than its length", lengthy("5", &[b"abc"]), EndStream(PROTOCOL)),
        ("9113 §8.1.1", "more DATA than its length", lengthy("5", &[b"abc", b"def"]), EndStream(PROTOCOL)),
        ("9113 §8.1.1", "no DATA but a length", with(&[("content-length", "5")]), EndStream(PROTOCOL)),
        ("9113 §8.1.1", "lengths that differ", with(&[("content-length", "0"), ("content-length", "5")]), Refuse(400)),
        ("9113 §8.1.1", "a length that is no number", with(&[("content-length", "+0")]), Refuse(400)),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        ("9113 §8.2", "a name in upper case", with(&[("X-A", "y")]), EndStream(PROTOCOL)),
        ("9113 §8.2.1", "a name with a space", with(&[("x a", "y")]), EndStream(PROTOCOL)),
        ("9113 §8.2.1", "a name with a control", with(&[("x\x01", "y")]), EndStream(PROTOCOL)),
        ("9113 §8.2.1", "a name beyond ASCII", with(&[("x\u{e9}", "y")]), EndStream(PROTOCOL)),
        ("9113 §8.2.1", "a quotation mark in a name", with(&[("x\"a", "y")]), Refuse(400)),
        ("9113 §8.2.1", "an empty name", with(&[("", "y")]), EndStream(PROTOCOL)),
        ("9113 §8.2.1", "a colon in a name", with(&[("x:a", "y")]), EndStream(PROTOCOL)),
        ("9113 §8.2.1", "NUL in a value", with(&[("x", "a\0b")]), EndStream(PROTOCOL)),
        ("9113 §8.2.1", "CR in a value", with(&[("x", "a\rb")]), EndStream(PROTOCOL)),
        ("9113 §8.2.1", "LF in a value", with(&[("x", "a\nb: c")]), EndStream(PROTOCOL)),
        ("9113 §8.2.2", "connection", with(&[("connection", "close")]), EndStream(PROTOCOL)),
        ("9113 §8.2.2", "keep-alive", with(&[("keep-alive", "timeout=5")]), EndStream(PROTOCOL)),
        ("9113 §8.2.2", "proxy-connection", with(&[("proxy-connection", "close")]), EndStream(PROTOCOL)),
        ("9113 §8.2.2", "transfer-encoding", with(&[("transfer-encoding", "chunked")]), EndStream(PROTOCOL)),
        ("9113 §8.2.2", "upgrade", with(&[("upgrade", "websocket")]), EndStream(PROTOCOL)),
        ("9113 §8.2.2", "te other than trailers", with(&[("te", "gzip")]), EndStream(PROTOCOL)),
        ("9113 §8.2.2", "te", with(&[("te", "trailers")]), Serve),
    ]
}

fn pseudo_fields() -> Vec<Case> {
    let fields = |fields: &[(&str, &str)]| head(&block(fields));
    let (method, scheme, authority, path) =
        ((":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/"));
    vec![
        ("9113 §8.3", "an unknown pseudo-field", with(&[(":x", "y")]), EndStream(PROTOCOL)),
        (
            "9113 §8.3",
            "a pseudo-field of responses",
            fields(&[method, scheme, authority, path, (":status", "200")]),
            EndStream(PROTOCOL),
        ),
        (
            "9113 §8.3",
            "a pseudo-field behind a field",
            fields(&[method, scheme, authority, ("x", "y"), path]),
            EndStream(PROTOCOL),
        ),
        ("9113 §8.3.1", "no method", fields(&[scheme, authority, path]), EndStream(PROTOCOL)),
        ("9113 §8.3.1", "no scheme", fields(&[method, authority, path]), EndStream(PROTOCOL)),
        ("9113 §8.3.1", "no path", fields(&[method, scheme, authority]), EndStream(PROTOCOL)),
        ("9113 §8.3.1", "an empty path", fields(&[method, scheme, authority, (":path", "")]), EndStream(PROTOCOL)),
        ("9113 §8.3.1", "two methods", fields(&[method, method, scheme, authority, path]), EndStream(PROTOCOL)),
        ("9113 §8.3.1", "two schemes", fields(&[method, scheme, scheme, authority, path]), EndStream(PROTOCOL)),
        ("9113 §8.3.1", "two paths", fields(&[method, scheme, authority, path, path]), EndStream(PROTOCOL)),
        ("9113 §8.3.1", "two authorities", fields(&[method, scheme, authority, authority, path]), EndStream(PROTOCOL)),
        ("9113 §8.3.1", "a path without its slash", fields(&[method, scheme, authority, (":path", "x")]), Refuse(400)),
        (
            "9113 §8.3.1",
            "an asterisk without OPTIONS",
            fields(&[method, scheme, authority, (":path", "*")]),
            Refuse(400),
        ),
        // It is dropped as the target is read: neither a route nor the upstream sees it.
        ("9113 §8.3.1", "a fragment in the path", fields(&[method, scheme, authority, (":path", "/#x")]), Serve),
        ("9113 §8.3.1", "a space in the path", fields(&[method, scheme, authority, (":path", "/a b")]), Refuse(400)),
        (
            "9113 §8.3.1",
            "a method that is no token",
            fields(&[(":method", "G ET"), scheme, authority, path]),
            Refuse(400),
        ),
        ("9113 §8.3.1", "a host beside another authority", with(&[("host", "b.example")]), Refuse(400)),
        ("9113 §8.3.1", "the same host beside the authority", with(&[("host", "a.example")]), Serve),
        ("9113 §8.3.1", "neither host nor authority", fields(&[method, scheme, path]), Refuse(400)),
        (
            "9113 §8.3.1",
            "user information in the authority",
            fields(&[method, scheme, (":authority", "u@a.example"), path]),
            Refuse(400),
        ),
        ("9113 §8.3.1", "a path in the authority", fields(&[method, scheme, (":authority", "a/b"), path]), Refuse(400)),
        ("9113 §8.5", "CONNECT", fields(&[(":method", "CONNECT"), (":authority", "a.example:80")]), Refuse(405)),
        (
            "9113 §8.5",
            "CONNECT with a scheme and a path",
            fields(&[(":method", "CONNECT"), scheme, authority, path]),
            EndStream(PROTOCOL),
        ),
        (
            "8441 §4",
            "CONNECT to a protocol nobody announced",
            fields(&[(":method", "CONNECT"), (":protocol", "websocket"), scheme, authority, path]),
            EndStream(PROTOCOL),
        ),
    ]
}

fn compression() -> Vec<Case> {
    let get = block(&pseudo("GET", "/"));
    let behind = |more: &[u8]| head(&[&get[..], more].concat());
    let huffman =
        |bytes: &[u8]| [&[0, 1, b'x'][..], &[0x80 | u8::try_from(bytes.len()).expect("short")], bytes].concat();
    vec![
        ("7541 §2.3.3", "an index beyond both tables", behind(&[0xff, 0x10]), EndConnection(COMPRESSION)),
        ("7541 §2.3.3", "a name beyond both tables", behind(&[0x7f, 0x10, 1, b'y']), EndConnection(COMPRESSION)),
        ("7541 §4.2", "a table size behind a field", behind(&[0x20]), EndConnection(COMPRESSION)),
        ("7541 §4.2", "a table size before all fields", head(&[&[0x20][..], &get].concat()), Serve),
        ("7541 §5.1", "a number beyond any integer", behind(&[0xff; 12]), EndConnection(COMPRESSION)),
        ("7541 §5.2", "a text longer than its block", behind(&[0, 1, b'x', 9, b'y']), EndConnection(COMPRESSION)),
        ("7541 §5.2", "a text in Huffman's code", behind(&huffman(&[0x1f])), Serve),
        ("7541 §5.2", "padding of more than 7 bits", behind(&huffman(&[0x1f, 0xff])), EndConnection(COMPRESSION)),
        ("7541 §5.2", "padding of zeros", behind(&huffman(&[0x18])), EndConnection(COMPRESSION)),
        (
            "7541 §5.2",
            "the end of string in a text",
            behind(&huffman(&[0xff, 0xff, 0xff, 0xff])),
            EndConnection(COMPRESSION),
        ),
        ("7541 §6.1", "index 0", behind(&[0x80]), EndConnection(COMPRESSION)),
        (
            "7541 §6.3",
            "a table beyond what was announced",
            head(&[&[0x3f][..], &integer(7, 1 << 20), &get].concat()),
            EndConnection(COMPRESSION),
        ),
    ]
}

/// What was done, read until it is clear.
fn outcome<S: Read + Write>(peer: &mut Peer<S>, must: Must) -> Result<Frame, String> {
    let decisive = |frame: &Frame| match must {
        Serve => frame.kind == HEADERS || frame.kind == GOAWAY || frame.kind == RST_STREAM,
        EndConnection(_) => frame.kind == GOAWAY,
        EndStream(_) => frame.kind == GOAWAY || (frame.kind == RST_STREAM && frame.code() != 0 && frame.code() != 8),
        Refuse(_) => frame.kind == GOAWAY || (frame.kind == HEADERS) || (frame.kind == RST_STREAM),
    };
    peer.until(decisive).map_err(|error| error.to_string())
}

fn is_right(must: Must, frame: &Frame) -> bool {
    match must {
        Serve => frame.kind == HEADERS && frame.status() == 200,
        EndConnection(codes) | EndStream(codes) => codes.contains(&frame.code()),
        Refuse(status) => {
            (frame.kind == HEADERS && frame.status() == status)
                || (frame.kind != HEADERS && frame.code() == PROTOCOL_ERROR)
        }
    }
}

/// Runs every case on a connection of its own; what went wrong.
fn wrong<S: Read + Write>(mut connect: impl FnMut() -> Peer<S>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (section, what, bytes, must) in
        [framing(), streams(), connection(), bodies(), fields(), pseudo_fields(), compression()].concat()
    {
        let mut peer = connect();
        let bytes = if bytes.is_empty() { get(1) } else { bytes };
        // The connection may have ended before all was sent.
        let _ = peer.send(&bytes);
        match outcome(&mut peer, must) {
            Ok(frame) if is_right(must, &frame) => {}
            other => wrong.push(format!("{section}, {what}: {other:?}, not {must:?}")),
        }
    }
    wrong
}

fn patient() -> Upstream {
    Upstream::answering(|peer, _| peer.answer(""))
}

#[test]
fn what_must_not_be_sent_in_clear_text_is_answered_as_the_sections_say() {
    let upstream = patient();
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\n", upstream.url()));
    let wrong = wrong(|| Peer::connect(proxy.web()));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_must_not_be_sent_over_tls_is_answered_as_the_sections_say() {
    let (authority, upstream) = (Authority::new(), patient());
    let localhost = authority.sign(&Wanted::server("localhost", &["localhost"]));
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0', tls: {{ certificates: {} }} }} }}\nworkers: 1\nupstream: {}\n",
        localhost.yaml(),
        upstream.url()
    ));
    let client = authority.client().offering(&["h2"]);
    let wrong = wrong(|| Peer::over(client.connect(proxy.web()).expect("a handshake").into_inner()));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
