//! Upstreams that answer with what they must not: nothing of it is passed on as a complete answer, and
//! the next request gets its own.

use std::net::Shutdown;

use crate::support::client::{Client, Request};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

/// A reply, and whether the upstream keeps the connection open behind it.
type Reply = (&'static str, Vec<u8>);

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n5;a=b\r\nworld\r\n0\r\nx-t: u\r\n\r\n";
const SIZED: &str = "HTTP/1.1 200 OK\r\nserver: them\r\ncontent-length: 10\r\n\r\nhelloworld";

fn text(kind: &'static str, reply: &str) -> Reply {
    (kind, reply.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap_or(b'?')).collect())
}

/// Replies that end at each place but the right one.
fn truncated() -> Vec<Reply> {
    let cut = |reply: &'static str| (0..reply.len()).map(move |at| ("cut", reply.as_bytes()[..at].to_vec()));
    cut(CHUNKED).chain(cut(SIZED)).collect()
}

fn status_lines() -> Vec<Reply> {
    let lines = [
        "SSH-2.0-OpenSSH",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/2.0 200 OK",
        "HTTP/9.9 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1200 OK",
        "HTTP 200 OK",
        "HTTP/1.1",
        "200 OK",
        "ICY 200 OK",
        "GET / HTTP/1.1",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1\t200 OK",
        "\0",
        "\u{ff}\u{fe}",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 101 Switching Protocols",
        "PRI * HTTP/2.0",
    ];
    lines.map(|line| text("status line", &format!("{line}\r\ncontent-length: 2\r\n\r\nok"))).to_vec()
}

fn fields() -> Vec<Reply> {
    let fields = [
        "no colon",
        "x y: z",
        ": empty",
        "x: a\0b",
        "x\0: y",
        " x: y",
        "x(: y",
        "x: y\rz",
        "x\r: y",
        "x: \x08",
        "x[]: y",
        "\u{e9}: y",
        "content-length: 3, 4",
        "content-length: 2\r\ncontent-length: 3",
        "content-length: +2",
        "content-length: -2",
        "content-length: 0x2",
        "content-length: 2.0",
        "content-length: two",
        "content-length: 99999999999999999999",
        "content-length: 2 2",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: x",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked;x=y",
    ];
    let field = |field: &str| {
        let own = if field.contains("content-length") || field.contains("transfer-encoding") {
            ""
        } else {
            "content-length: 2\r\n"
        };
        text("field", &format!("HTTP/1.1 200 OK\r\n{own}{field}\r\n\r\n0\r\n\r\n"))
    };
    let mut replies = fields.map(field).to_vec();
    let long = "a".repeat(1_000_000);
    replies.push(text("endless field", &format!("HTTP/1.1 200 OK\r\nx: {long}")));
    replies.push(text("large head", &format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: {long}\r\n\r\nok")));
    replies.push(text(
        "many fields",
        &format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", "x: y\r\n".repeat(500)),
    ));
    replies
}

fn chunks() -> Vec<Reply> {
    let lines = [
        "z",
        "-5",
        "+5",
        "0x5",
        " 5",
        "5 x",
        "fffffffffffffffff",
        "5_0",
        "",
        "\0",
        "5\0",
        "99999999999999999999",
        "\u{b2}",
        "5,5",
        "x5",
        "\t5",
    ];
    let behind = [
        "5\r\nhelloX",
        "5\r\nhello\r5\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n\r\n",
    ];
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let first = lines.iter().map(|line| text("chunk line", &format!("{head}{line}\r\nhello\r\n0\r\n\r\n")));
    let later =
        lines.iter().map(|line| text("later chunk line", &format!("{head}5\r\nhello\r\n{line}\r\nhello\r\n0\r\n\r\n")));
    let behind = behind.iter().map(|body| text("chunk end", &format!("{head}{body}")));
    first.chain(later).chain(behind).collect()
}

/// What follows a good reply, and must not be anybody's answer.
fn poison() -> Vec<Reply> {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let good =
        [SIZED, CHUNKED, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n"];
    let behind = [
        evil.to_owned(),
        evil.repeat(3),
        format!("\r\n{evil}"),
        "x".to_owned(),
        evil[..20].to_owned(),
        format!("HTTP/1.1 100 Continue\r\n\r\n{evil}"),
    ];
    good.iter()
        .flat_map(|good| behind.iter().map(move |behind| text("behind a reply", &format!("{good}{behind}"))))
        .collect()
}

/// Answers `/bad/N` with the Nth of these replies, closing behind it, and `/open/N` without; anything
/// else with its own target.
fn upstream(replies: Vec<Reply>) -> Upstream {
    Upstream::answering(move |peer, request| {
        let target = request.line.split(' ').nth(1).unwrap_or_default();
        let number = |prefix| target.strip_prefix(prefix).and_then(|number| number.parse::<usize>().ok());
        match (number("/bad/"), number("/open/")) {
            (Some(number), _) => {
                peer.send(&replies[number].1)?;
                peer.raw()?.shutdown(Shutdown::Both)
            }
            (_, Some(number)) => peer.send(&replies[number].1),
            _ => peer.answer(target),
        }
    })
}

fn assert_own_answer(proxy: &Tollgate, number: usize, reply: &Reply) {
    for turn in 0..2 {
        let target = format!("/own/{number}/{turn}");
        let own = proxy.get(&target);
        assert_eq!((own.status, own.text()), (200, target), "behind {}: {}", reply.0, reply.1.escape_ascii());
    }
}

#[test]
fn a_malicious_reply_is_never_passed_on_as_complete() {
    let replies = [truncated(), status_lines(), fields(), chunks()].concat();
    assert!(replies.len() >= 200, "{}", replies.len());
    let upstream = upstream(replies.clone());
    let proxy = super::forwarding::in_front_of(&upstream);
    for (number, reply) in replies.iter().enumerate() {
        let mut client = Client::connect(proxy.web());
        client.write(&Request::get(&format!("/bad/{number}")).bytes()).expect("sent");
        let read = client.answer_to("GET");
        let complete = read.as_ref().is_ok_and(|answer| answer.status < 500);
        assert!(!complete, "{}: {}\npassed on: {read:?}", reply.0, reply.1.escape_ascii());
        assert_own_answer(&proxy, number, reply);
    }
}

#[test]
fn what_follows_a_reply_is_nobodys_answer() {
    let replies = poison();
    let upstream = upstream(replies.clone());
    let proxy = super::forwarding::in_front_of(&upstream);
    for way in ["open", "bad"] {
        for (number, reply) in replies.iter().enumerate() {
            let mut client = Client::connect(proxy.web());
            client.write(&Request::get(&format!("/{way}/{number}")).bytes()).expect("sent");
            // Cut or whole, what comes is the first reply.
            let read = client.answer_to("GET");
            assert!(!read.is_ok_and(|answer| answer.text().contains("evil")), "{}", reply.1.escape_ascii());
            assert_own_answer(&proxy, number, reply);
        }
    }
}
