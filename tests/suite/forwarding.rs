//! Requests and responses on their way through: fields, bodies, endings, and what happens when the
//! upstream or the client does not play along.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::support::client::{Answer, Client, Request};
use crate::support::port::Port;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

pub(super) fn in_front_of(upstream: &Upstream) -> Tollgate {
    in_front_of_url(&upstream.url(), "")
}

fn in_front_of_url(url: &str, more: &str) -> Tollgate {
    Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {url}\n{more}"))
}

/// A route with a response timeout of 300 ms.
fn impatient(url: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listeners: {{ default: {{ address: 127.0.0.1:0 }} }}\nworkers: 1\nupstreams: {{ web: \"{url}\" }}\n\
         routes: [{{ name: all, match: {{ path: /* }}, upstream: web, timeout: 300ms }}]\n"
    ))
}

fn assert_error(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.list("proxy-status"), format!("tollgate; error={error}"));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.json()["status"], status);
    assert!(!answer.text().contains("127.0.0.1"), "nothing internal leaks: {}", answer.text());
}

/// A script's way to tell the test something once.
fn teller<T: Send + 'static>() -> (Mutex<Sender<T>>, std::sync::mpsc::Receiver<T>) {
    let (sender, receiver) = channel();
    (Mutex::new(sender), receiver)
}

fn tell<T>(teller: &Mutex<Sender<T>>, what: T) {
    let _ = teller.lock().expect("no script panics").send(what);
}

#[test]
fn a_request_arrives_with_our_fields_and_without_those_of_its_connection() {
    let upstream = Upstream::replying(OK);
    let proxy = in_front_of(&upstream);
    let request = Request::get("/a/./b/../c%7e?q=%41+1")
        .header("connection", "x-one")
        .header("connection", "keep-alive, X-Two, x-forwarded-for")
        .header("x-one", "1")
        .header("x-two", "2")
        .header("x-three", "3")
        .header("keep-alive", "timeout=5")
        .header("proxy-authorization", "Basic eA==")
        .header("upgrade", "websocket")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-prefix", "/evil")
        .header("forwarded", "for=6.6.6.6")
        .header("x-real-ip", "6.6.6.6")
        .header("x_real_ip", "6.6.6.6")
        .header("x-request-id", "chosen");
    let answer = proxy.client().send(&request);
    assert_eq!(answer.status, 200);
    let arrived = upstream.only();
    assert_eq!(arrived.line, "GET /a/c~?q=%41+1 HTTP/1.1");
    assert_eq!(arrived.field("host").as_deref(), Some("localhost"));
    assert_eq!(arrived.field("x-three").as_deref(), Some("3"));
    assert_eq!(arrived.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(arrived.field("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(arrived.field("x-forwarded-host").as_deref(), Some("localhost"));
    assert!(arrived.field("via").is_some_and(|via| via.starts_with("1.1 tollgate-")));
    let id = arrived.field("x-request-id").expect("an id");
    assert_ne!(id, "chosen");
    assert_eq!(answer.header("x-request-id"), Some(&*id));
    for gone in [
        "connection",
        "x-one",
        "x-two",
        "keep-alive",
        "proxy-authorization",
        "upgrade",
        "x-forwarded-prefix",
        "forwarded",
        "x-real-ip",
        "x_real_ip",
    ] {
        assert_eq!(arrived.field(gone), None, "{gone}");
    }
}

#[test]
fn a_trusted_proxy_is_appended_to_what_it_says() {
    let upstream = Upstream::replying(OK);
    let proxy = in_front_of_url(&upstream.url(), "trusted_proxies: [127.0.0.0/8]\n");
    let request = Request::get("/")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-for", "203.0.113.7")
        .header("x-forwarded-proto", "https")
        .header("x-request-id", "from-the-edge");
    let answer = proxy.client().send(&request);
    let arrived = upstream.only();
    assert_eq!(arrived.field("x-forwarded-for").as_deref(), Some("6.6.6.6, 203.0.113.7, 127.0.0.1"));
    assert_eq!(arrived.field("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(arrived.field("x-request-id").as_deref(), Some("from-the-edge"));
    assert_eq!(answer.header("x-request-id"), Some("from-the-edge"));
}

#[test]
fn a_response_loses_the_fields_of_its_connection() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nconnection: keep-alive\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
         upgrade: h2c\r\nserver: them\r\ncontent-length: 2\r\n\r\nok",
    );
    let proxy = in_front_of(&upstream);
    let answer = proxy.get("/");
    assert_eq!(answer.header("server"), Some("them"));
    assert!(answer.header("via").is_some_and(|via| via.starts_with("1.1 tollgate-")));
    for gone in ["x-hop", "keep-alive", "upgrade"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
}

#[test]
fn a_request_that_comes_back_is_a_loop() {
    // Of one proxy before itself the configuration is refused: these are two, each before the other.
    let ports = [Port::take(), Port::take()];
    let yaml = |own: &Port, other: &Port| {
        format!("listen: 127.0.0.1:{}\nworkers: 1\nupstream: {}\n", own.number(), other.url())
    };
    let proxies = [Tollgate::start(&yaml(&ports[0], &ports[1])), Tollgate::start(&yaml(&ports[1], &ports[0]))];
    for proxy in &proxies {
        assert_error(&proxy.get("/"), 508, "proxy_loop_detected");
    }
}

#[test]
fn connect_and_trace_are_not_forwarded() {
    let upstream = Upstream::replying(OK);
    let proxy = in_front_of(&upstream);
    let answer = proxy.client().send(&Request::new("TRACE", "/"));
    assert_eq!(answer.status, 405);
    assert!(answer.header("allow").is_some());
    assert!(upstream.seen().is_empty());
}

#[test]
fn max_forwards_of_options_is_counted_down_and_ends_here_at_zero() {
    let upstream = Upstream::replying(OK);
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    assert_eq!(client.send(&Request::new("OPTIONS", "/").header("max-forwards", "3")).status, 200);
    assert_eq!(upstream.only().field("max-forwards").as_deref(), Some("2"));
    assert_eq!(client.send(&Request::new("OPTIONS", "/").header("max-forwards", "0")).status, 204);
    assert_eq!(client.send(&Request::new("OPTIONS", "*")).status, 204);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn trailers_pass_both_ways_but_never_framing_or_limits() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, ratelimit\r\n\r\n\
         2\r\nok\r\n0\r\nx-sum: 7\r\nratelimit: \"x\";r=9\r\n\r\n",
    );
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    client
        .write(
            b"POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\n\
              trailer: x-check, authorization\r\n\r\n3\r\nabc\r\n0\r\nx-check: 1\r\nauthorization: x\r\n\r\n",
        )
        .expect("sent");
    let answer = client.answer_to("POST").expect("an answer");
    assert_eq!((answer.text().as_str(), answer.trailers), ("ok", vec![("x-sum".to_owned(), "7".to_owned())]));
    let arrived = upstream.only();
    assert_eq!((arrived.body, arrived.trailers), (b"abc".to_vec(), vec![("x-check".to_owned(), "1".to_owned())]));
}

#[test]
fn bodies_of_known_length_are_not_chunked_and_a_get_may_have_a_chunked_one() {
    let upstream = Upstream::replying(OK);
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    let answer = client.send(&Request::post("/", b"hello"));
    assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (Some("2"), None));
    client
        .write(b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .expect("sent");
    assert_eq!(client.answer_to("GET").expect("an answer").status, 200);
    client.get("/");
    let seen = upstream.seen();
    assert_eq!(seen[0].field("content-length").as_deref(), Some("5"));
    assert_eq!(seen[0].field("transfer-encoding"), None);
    assert_eq!(seen[1].field("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(seen[1].body, b"abc");
    assert_eq!((seen[2].field("content-length"), seen[2].field("transfer-encoding")), (None, None));
    assert_eq!(upstream.connections(), 1, "the connection is kept");
}

#[test]
fn answers_without_a_body_leave_the_connection_usable() {
    let upstream = Upstream::start(|peer| {
        loop {
            let request = peer.request()?;
            let path = request.line.split(' ').nth(1).unwrap_or_default();
            peer.send(match path {
                "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n",
                "/head-unsized" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\netag: \"x\"\r\n\r\n",
                _ => OK,
            })?;
        }
    });
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    let head = client.send(&Request::new("HEAD", "/head"));
    assert_eq!((head.status, head.header("content-length")), (200, Some("1234")));
    let unsized_head = client.send(&Request::new("HEAD", "/head-unsized"));
    assert_eq!((unsized_head.status, unsized_head.header("content-length")), (200, None));
    let empty = client.get("/204");
    assert_eq!((empty.status, empty.header("content-length"), empty.header("transfer-encoding")), (204, None, None));
    let same = client.get("/304");
    assert_eq!((same.status, same.header("etag"), same.header("transfer-encoding")), (304, Some("\"x\""), None));
    assert_eq!(client.get("/").text(), "ok");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_response_of_unknown_length_is_streamed_to_its_end() {
    let upstream = Upstream::closing_after("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    let proxy = in_front_of(&upstream);
    assert_eq!(proxy.get("/").text(), "until the end");
}

#[test]
fn a_response_with_two_framings_keeps_one() {
    let upstream = Upstream::closing_after(
        "HTTP/1.1 200 OK\r\ncontent-length: 50\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let proxy = in_front_of(&upstream);
    let answer = proxy.get("/");
    assert_eq!((answer.text().as_str(), answer.header("content-length")), ("ok", None));
}

#[test]
fn a_truncated_response_is_cut_for_the_client_too() {
    for reply in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n",
    ] {
        for reset in [false, true] {
            let upstream = Upstream::start(move |peer| {
                peer.request()?;
                peer.send(reply)?;
                if reset { peer.reset() } else { Ok(()) }
            });
            let proxy = in_front_of(&upstream);
            let mut client = proxy.client();
            client.write(&Request::get("/").bytes()).expect("sent");
            let read = client.answer_to("GET");
            let passed = read.as_ref().is_ok_and(|answer| answer.status == 200);
            assert!(!passed, "{reply:?} (reset: {reset}) was passed as complete: {read:?}");
            assert_eq!(upstream.connections(), 1, "it is not asked again");
        }
    }
}

#[test]
fn an_upstream_that_refuses_is_502() {
    let nobody = Port::take();
    let proxy = in_front_of_url(&nobody.url(), "");
    assert_error(&proxy.get("/"), 502, "connection_refused");
}

#[test]
fn an_upstream_that_hangs_up_without_an_answer_is_502_and_is_not_asked_again() {
    let upstream = Upstream::start(|peer| peer.request().map(drop));
    let proxy = in_front_of(&upstream);
    assert_error(&proxy.client().send(&Request::post("/", b"once")), 502, "connection_terminated");
    assert_eq!(upstream.only().body, b"once");
}

#[test]
fn an_upstream_that_talks_garbage_is_502() {
    for garbage in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        let upstream = Upstream::replying(garbage);
        let proxy = in_front_of(&upstream);
        assert_error(&proxy.get("/"), 502, "http_protocol_error");
    }
}

#[test]
fn an_upstream_that_does_not_answer_is_504_and_is_told() {
    let (closed, told) = teller();
    let upstream = Upstream::start(move |peer| {
        peer.request()?;
        let closing = peer.closed();
        tell(&closed, closing.is_ok());
        Ok(())
    });
    let proxy = impatient(&upstream.url());
    assert_error(&proxy.get("/"), 504, "http_response_timeout");
    assert!(told.recv_timeout(PATIENCE).expect("the script ends"), "the request is cancelled");
}

#[test]
fn the_response_clock_starts_when_the_request_was_sent() {
    let upstream = Upstream::replying(OK);
    let proxy = impatient(&upstream.url());
    let mut client = proxy.client();
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n").expect("sent");
    // Twice the timeout in all: what is slow here is the client.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(60));
        client.write(b"x").expect("sent");
    }
    assert_eq!(client.answer_to("POST").expect("an answer").status, 200);
    assert_eq!(upstream.only().body, b"xxxxxxxxxx");
}

#[test]
fn a_pooled_connection_that_went_stale_costs_no_request_and_sends_none_twice() {
    let upstream = Upstream::closing_after(OK);
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    for _ in 0..20 {
        let answer = client.send(&Request::post("/", b"once"));
        // Long enough for the upstream's close to have arrived.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(answer.status, 200);
    }
    assert_eq!(upstream.seen().len(), 20);
}

#[test]
fn a_request_that_was_written_to_a_pooled_connection_is_not_sent_again() {
    let upstream = Upstream::start(|peer| {
        peer.request()?;
        peer.send(OK)?;
        peer.request().map(drop)
    });
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    assert_eq!(client.send(&Request::post("/", b"first")).status, 200);
    assert_error(&client.send(&Request::post("/", b"second")), 502, "connection_terminated");
    let bodies: Vec<_> = upstream.seen().into_iter().map(|arrived| arrived.body).collect();
    assert_eq!(bodies, [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn bytes_after_a_response_poison_no_other_one() {
    let upstream = Upstream::start(|peer| {
        loop {
            peer.request()?;
            peer.send(
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            )?;
        }
    });
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(upstream.connections(), 5);
}

#[test]
fn the_servers_take_turns_and_one_that_is_away_is_passed_over() {
    let (one, two) = (Upstream::replying(OK), Upstream::replying(OK));
    let away = Port::take();
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: 127.0.0.1:0 }} }}\nworkers: 1\n\
         upstreams: {{ web: {{ servers: [\"{}\", \"{}\", \"{}\"] }} }}\n\
         routes: [{{ name: all, match: {{ path: /* }}, upstream: web }}]\n",
        one.url(),
        away.url(),
        two.url()
    ));
    let mut client = proxy.client();
    for _ in 0..9 {
        assert_eq!(client.send(&Request::post("/", b"x")).status, 200);
    }
    // Those of the one that is away are spread over the others.
    assert_eq!((one.seen().len(), two.seen().len()), (5, 4));
}

#[test]
fn a_request_body_is_passed_on_before_it_ends() {
    let (arrived, told) = teller();
    let upstream = Upstream::start(move |peer| {
        peer.head()?;
        while let Some(chunk) = peer.chunk()? {
            tell(&arrived, chunk);
        }
        peer.send(OK)
    });
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").expect("sent");
    for part in ["one", "two", "three"] {
        client.write(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).expect("sent");
        assert_eq!(told.recv_timeout(PATIENCE).expect("it arrives while the body is open"), part.as_bytes());
    }
    client.write(b"0\r\n\r\n").expect("sent");
    // The two bytes of trailers' end are the script's to ignore.
    assert_eq!(client.answer_to("POST").expect("an answer").status, 200);
}

#[test]
fn an_answer_may_come_before_the_request_ends() {
    let upstream = Upstream::start(|peer| {
        peer.head()?;
        peer.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")?;
        peer.closed()
    });
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nbegin").expect("sent");
    let answer = client.answer_to("POST").expect("an answer before the end");
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    for reply in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin"] {
        let (arrived, ready) = teller();
        let (closed, told) = teller();
        let upstream = Upstream::start(move |peer| {
            peer.request()?;
            peer.send(reply)?;
            tell(&arrived, ());
            let closing = peer.closed();
            tell(&closed, closing.is_ok());
            Ok(())
        });
        let proxy = in_front_of(&upstream);
        let mut client = proxy.client();
        client.write(&Request::get("/").bytes()).expect("sent");
        ready.recv_timeout(PATIENCE).expect("the request arrives");
        if !reply.is_empty() {
            assert_eq!(client.head().expect("a head").status, 200);
        }
        drop(client);
        assert!(told.recv_timeout(PATIENCE).expect("the script ends"), "after {reply:?}");
    }
}

#[test]
fn a_body_that_breaks_off_reaches_no_upstream_as_complete() {
    for ending in [Some("zz\r\n"), Some("5\nhello\r\n"), None] {
        let (chunks, told) = teller();
        let upstream = Upstream::start(move |peer| {
            peer.head()?;
            loop {
                let chunk = peer.chunk().map_err(drop);
                let over = chunk.as_ref().map_or(true, Option::is_none);
                tell(&chunks, chunk);
                if over {
                    return Ok(());
                }
            }
        });
        let proxy = in_front_of(&upstream);
        let mut client = proxy.client();
        client.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").expect("sent");
        assert_eq!(told.recv_timeout(PATIENCE), Ok(Ok(Some(b"hello".to_vec()))));
        if let Some(bad) = ending {
            client.write(bad.as_bytes()).expect("sent");
            assert_eq!(client.head().expect("an answer").status, 400, "{bad:?}");
        }
        drop(client);
        assert_eq!(told.recv_timeout(PATIENCE), Ok(Err(())), "the upstream sees it cut: {ending:?}");
    }
}

#[test]
fn a_client_that_waits_for_100_gets_it_once_the_upstream_is_there() {
    let upstream = Upstream::replying(OK);
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").expect("sent");
    assert_eq!(client.head().expect("an interim answer").status, 100);
    client.write(b"hello").expect("sent");
    assert_eq!(client.answer_to("POST").expect("an answer").status, 200);
    let arrived = upstream.only();
    assert_eq!((arrived.body.as_slice(), arrived.field("expect")), (&b"hello"[..], None));
}

#[test]
fn a_client_that_waits_for_100_is_refused_without_it() {
    let expecting: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let denied = in_front_of_url("echo", "limits: [{ key: client_ip, rate: 0/s }]\n");
    let nobody = Port::take();
    let away = in_front_of_url(&nobody.url(), "");
    for (proxy, status) in [(denied, 429), (away, 502)] {
        let mut client = proxy.client();
        client.write(expecting).expect("sent");
        let head = client.head().expect("an answer");
        assert_eq!((head.status, head.header("connection")), (status, Some("close")));
    }
}

#[test]
fn a_denied_request_with_a_small_body_leaves_the_connection_usable() {
    let proxy = in_front_of_url("echo", "limits: [{ key: client_ip, rate: 0/s }]\n");
    let mut client: Client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.send(&Request::post("/", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")).status, 429);
    }
}

#[test]
fn the_echo_upstream_tells_what_it_received() {
    let proxy = in_front_of_url("echo", "");
    let echoed = proxy.client().send(&Request::post("/a?b=c", b"hello").header("x-mine", "1")).json();
    assert_eq!(echoed["method"], "POST");
    assert_eq!((&echoed["path"], &echoed["query"]), (&"/a".into(), &"b=c".into()));
    assert_eq!((&echoed["body"], &echoed["body_size"]), (&"hello".into(), &5.into()));
    assert_eq!((&echoed["headers"]["x-mine"], &echoed["headers"]["host"]), (&"1".into(), &"localhost".into()));
}

#[test]
fn retries_and_failures_are_counted() {
    let nobody = Port::take();
    let proxy = in_front_of_url(&nobody.url(), "");
    proxy.get("/");
    eventually("the 502 is counted", || {
        let metrics = proxy.metrics();
        (metrics.count("tollgate_http_requests_total", &[("code", "502")]) == 1).then_some(())
    });
    let retries = |proxy: &Tollgate| proxy.metrics().count("tollgate_upstream_retries_total", &[]);
    assert_eq!(retries(&proxy), 0, "nothing was sent once more");

    let upstream = Upstream::replying(OK);
    let servers = format!("servers: ['{}', {{ url: '{}', backup: true }}]", nobody.url(), upstream.url());
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstreams: {{ web: {{ {servers} }} }}\nupstream: web\n"
    ));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(retries(&proxy), 1, "to the other server");
}
