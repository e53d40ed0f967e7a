//! WebSocket over HTTP/1.1: when the tunnel opens, what it carries, how it ends, and that nothing
//! else passes for it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use tungstenite::{Message, WebSocket};

use crate::support::client::{Answer, Client, Request};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::{Arrived, Peer, SWITCHING, Upstream};
use crate::support::{PATIENCE, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

fn in_front_of(upstream: &Upstream) -> Tollgate {
    with_keys(upstream, "")
}

/// With more keys at the top of the file, and more of the listener in `{}`.
fn with_keys(upstream: &Upstream, keys: &str) -> Tollgate {
    let listener = "listeners: { default: { address: '127.0.0.1:0', stream_idle_timeout: 30s } }";
    let listener = if keys.contains("listeners:") { "" } else { listener };
    Tollgate::start(&format!("{listener}\nworkers: 1\nupstream: {}\naccess_log: {{}}\n{keys}\n", upstream.url()))
}

/// An upstream that grants every upgrade and then does this.
fn granting(then: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |peer| {
        peer.request()?;
        peer.send(format!("{SWITCHING}\r\n"))?;
        then(peer)
    })
}

/// The same, and whether it went well.
fn telling(
    then: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
) -> (Upstream, Receiver<Result<(), String>>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let upstream = granting(move |peer| {
        let outcome = then(peer).map_err(|error| error.to_string());
        let _ = tell.lock().expect("no script panics").send(outcome);
        Ok(())
    });
    (upstream, told)
}

#[track_caller]
fn went_well(told: &Receiver<Result<(), String>>) {
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Ok(())));
}

/// A client behind an open tunnel, and the 101.
#[track_caller]
fn tunnelled(proxy: &Tollgate) -> (Client, Answer) {
    let mut client = proxy.client();
    client.write(UPGRADE).expect("sent");
    let answer = client.head().expect("an answer");
    assert_eq!(answer.status, 101, "{answer:?}");
    (client, answer)
}

/// A WebSocket client of another make.
#[track_caller]
fn websocket(proxy: &Tollgate) -> (WebSocket<TcpStream>, http::Response<Option<Vec<u8>>>) {
    let stream = TcpStream::connect(proxy.web()).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    tungstenite::client(format!("ws://{}/chat?room=1", proxy.web()), stream).expect("a handshake")
}

/// Answers each message with the same until the client closes.
fn echo(peer: &mut Peer, request: &Arrived) -> io::Result<()> {
    let mut socket = peer.websocket(request)?;
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).map_err(io::Error::other)?,
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

#[test]
fn a_websocket_carries_a_thousand_frames_each_way_and_is_told_once_at_its_end() {
    let upstream = Upstream::start(|peer| {
        let request = peer.request()?;
        echo(peer, &request)
    });
    let proxy = with_keys(&upstream, "limits: [{ name: opened, key: client_ip, rate: 5/h }]");
    let (mut socket, granted) = websocket(&proxy);
    assert!(granted.headers()["ratelimit"].to_str().is_ok_and(|field| field.starts_with("\"opened\";r=4")));
    assert_eq!(granted.headers()["upgrade"], "websocket");
    assert_eq!(granted.headers()["connection"], "upgrade");
    assert!(granted.headers()["via"].to_str().is_ok_and(|via| via.starts_with("1.1 tollgate-")));
    let id = granted.headers()["x-request-id"].to_str().expect("an id").to_owned();
    for number in 0..1000_usize {
        let message = Message::binary(vec![u8::try_from(number % 251).expect("a byte"); number * 7 % 3000]);
        socket.send(message.clone()).expect("sent");
        assert_eq!(socket.read().expect("a frame"), message, "frame {number}");
    }
    let counted = || proxy.metrics().count("tollgate_http_requests_total", &[("route", "default")]);
    assert_eq!((counted(), proxy.output().len()), (0, 0), "while it is open nothing is told of it");
    assert_eq!(proxy.metrics().count("tollgate_connections", &[("state", "active")]), 1);
    socket.close(None).expect("closing");
    while socket.read().is_ok() {}
    drop(socket);

    let arrived = upstream.only();
    assert_eq!(arrived.line, "GET /chat?room=1 HTTP/1.1");
    let field = |name| arrived.field(name);
    assert_eq!((field("connection").as_deref(), field("upgrade").as_deref()), (Some("upgrade"), Some("websocket")));
    assert_eq!((field("x-request-id").as_deref(), field("content-length")), (Some(&*id), None));
    let line = proxy.access_lines(1).remove(0);
    assert_eq!((&line["status"], &line["request_id"]), (&101.into(), &serde_json::json!(id)), "{line}");
    let payload: usize = (0..1000).map(|number| number * 7 % 3000).sum();
    for direction in ["bytes_in", "bytes_out"] {
        let carried = usize::try_from(line[direction].as_u64().expect("a number")).expect("a small one");
        assert!((payload..payload + 20_000).contains(&carried), "{direction}: {carried} of {payload}");
    }
    assert_eq!((counted(), proxy.output().len()), (1, 1));
    assert_eq!(proxy.metrics().count("tollgate_http_requests_total", &[("code", "101")]), 1);
    assert_eq!(proxy.metrics().count("tollgate_limit_decisions_total", &[("decision", "allow")]), 1);
}

#[test]
fn ten_thousand_messages_come_back_and_pings_and_the_end_are_exchanged() {
    let upstream = Upstream::answering(|peer, request| {
        let mut socket = peer.websocket(request)?;
        loop {
            match socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                    socket.send(message).map_err(io::Error::other)?;
                }
                // Pings and the closing are answered by the library.
                Ok(_) => {}
                Err(_) => return Ok(()),
            }
        }
    });
    let proxy = in_front_of(&upstream);
    let (mut socket, _) = websocket(&proxy);
    for number in 0..10_000 {
        socket.send(Message::text(format!("message {number}"))).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(format!("message {number}")));
    }
    socket.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
    socket.close(None).unwrap();
    assert!(matches!(socket.read(), Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed)));
}

#[test]
fn large_frames_pass_without_being_kept() {
    const SIZE: usize = 48 << 20;
    let (go, told) = (Arc::new(Barrier::new(2)), channel());
    let (tell, told) = (Mutex::new(told.0), told.1);
    let upstream = {
        let go = Arc::clone(&go);
        granting(move |peer| {
            go.wait();
            let received = io::copy(&mut Read::by_ref(peer).take(SIZE as u64), &mut io::sink())?;
            let _ = tell.lock().expect("no script panics").send(received);
            io::copy(&mut io::repeat(7).take(SIZE as u64), peer)?;
            Ok(())
        })
    };
    let proxy = in_front_of(&upstream);
    let (mut client, _) = tunnelled(&proxy);
    let before = proxy.resident();
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| io::copy(&mut io::repeat(3).take(SIZE as u64), &mut Writing(&mut client)));
        // The sender is stuck when what fits between it and the upstream no longer grows.
        eventually("a full tunnel", || {
            let seen = proxy.resident();
            std::thread::sleep(Duration::from_millis(200));
            (proxy.resident() <= seen).then_some(())
        });
        let held = proxy.resident().saturating_sub(before);
        assert!(held < 4 << 20, "{held} bytes held for a receiver that does not read");
        go.wait();
        sending.join().expect("joined").expect("sent")
    });
    assert_eq!((sent, told.recv_timeout(PATIENCE)), (SIZE as u64, Ok(SIZE as u64)));
    std::thread::sleep(Duration::from_millis(300));
    let held = proxy.resident().saturating_sub(before);
    assert!(held < 4 << 20, "{held} bytes held for a client that does not read");
    let mut received = vec![0; 1 << 16];
    let mut total = 0;
    while total < SIZE {
        let read = client.read(&mut received).expect("more");
        assert!(read > 0 && received[..read].iter().all(|byte| *byte == 7), "after {total}");
        total += read;
    }
    println!("48 MiB each way, held at most {} KiB more than before", held / 1024);
}

/// Only the sending half of a client.
struct Writing<'a>(&'a mut Client);

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_the_client_sends_before_the_101_waits_for_it_and_then_goes_into_the_tunnel() {
    const EARLY: &[u8] = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    // More than is read ahead of an answer.
    const MORE: usize = 1 << 20;
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::start(move |peer| {
        peer.request()?;
        let silent = peer.hears_nothing()?;
        // What the upstream sends at once, with its 101, is for the client too.
        peer.send(format!("{SWITCHING}\r\nhello"))?;
        let mut more = vec![0; MORE];
        let early =
            peer.expect(EARLY).is_ok() && peer.read_exact(&mut more).is_ok() && more.iter().all(|byte| *byte == b'x');
        let _ = tell.lock().expect("no script panics").send((silent, early));
        peer.send("seen")
    });
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    client.write(&[UPGRADE, EARLY, &vec![b'x'; MORE]].concat()).expect("sent");
    assert_eq!(client.head().expect("an answer").status, 101);
    client.expect(b"helloseen");
    assert_eq!(told.recv_timeout(PATIENCE), Ok((true, true)), "silence before the 101, then the early bytes");
    drop(client);
    assert_eq!(proxy.access_lines(1)[0]["bytes_in"], EARLY.len() + MORE);
    assert_eq!(proxy.metrics().count("tollgate_http_requests_total", &[]), 1, "nothing in the tunnel is a request");
}

#[test]
fn behind_an_upgrade_that_was_answered_otherwise_comes_the_next_request() {
    let upstream = Upstream::answering(|peer, request| match request.field("upgrade") {
        Some(_) => peer.send("HTTP/1.1 403 Forbidden\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nno"),
        None => peer.answer(&request.line),
    });
    let proxy = with_keys(&upstream, "limits: [{ name: all, key: client_ip, rate: 9/h }]");
    let mut client = proxy.client();
    // A parser that believes in the upgrade would take the second request for the tunnel's.
    client
        .write(&[UPGRADE, b"GET /next HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\n\r\n"].concat())
        .expect("sent");
    let refused = client.answer_to("GET").expect("an answer");
    assert_eq!((refused.status, refused.text(), refused.header("upgrade")), (403, "no".to_owned(), None));
    let next = client.answer_to("GET").expect("an answer");
    assert_eq!((next.status, next.text().as_str(), next.remaining("all")), (200, "GET /next HTTP/1.1", 7));
    assert_eq!(upstream.seen()[1].field("x-forwarded-for").as_deref(), Some("127.0.0.1"), "it was read as a request");
}

#[test]
fn a_101_that_grants_another_protocol_is_502_and_opens_nothing() {
    for fields in
        ["upgrade: h2c\r\n", "", "upgrade: websocket, h2c\r\n", "upgrade: websocket\r\nupgrade: websocket\r\n"]
    {
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let upstream = Upstream::start(move |peer| {
            let request = peer.request()?;
            if request.field("upgrade").is_none() {
                return peer.send(OK);
            }
            peer.send(format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{fields}\r\nhello"))?;
            let closed = peer.rest().map(|rest| rest.is_empty());
            let _ = tell.lock().expect("no script panics").send(closed.unwrap_or(true));
            Ok(())
        });
        let proxy = in_front_of(&upstream);
        let mut client = proxy.client();
        client.write(&[UPGRADE, b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n"].concat()).expect("sent");
        let failed = client.answer_to("GET").expect("an answer");
        assert_eq!((failed.status, failed.header("upgrade")), (502, None), "{fields:?}");
        assert!(failed.list("proxy-status").contains("error=http_upgrade_failed"), "{failed:?}");
        assert_eq!(client.answer_to("GET").expect("an answer").status, 200, "{fields:?}: the connection goes on");
        assert_eq!(told.recv_timeout(PATIENCE), Ok(true), "{fields:?}: the upstream's connection ends, unused");
    }
}

#[test]
fn what_is_no_request_for_a_websocket_is_an_ordinary_request() {
    let upstream = Upstream::replying(OK);
    let proxy = in_front_of(&upstream);
    let requests = [
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: TLS/1.2, HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nhi",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nhi",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ];
    for (index, request) in requests.iter().enumerate() {
        let mut client = proxy.client();
        client.write(request.as_bytes()).expect("sent");
        assert_eq!(client.answer_to("GET").expect("an answer").status, 200, "{request:?}");
        let arrived = upstream.seen().remove(index);
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(arrived.field(gone), None, "{gone} of {request:?}");
        }
    }
}

#[test]
fn of_several_protocols_only_websocket_is_asked_for() {
    let upstream = granting(|peer| peer.send("in"));
    let proxy = in_front_of(&upstream);
    let mut client = proxy.client();
    client
        .write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: h2c\r\nupgrade: WebSocket\r\n\r\n")
        .expect("sent");
    assert_eq!(client.head().expect("an answer").status, 101);
    client.expect(b"in");
    assert_eq!(upstream.only().field("upgrade").as_deref(), Some("websocket"));
}

#[test]
fn a_side_that_closes_its_half_still_hears_the_other() {
    let (upstream, told) = telling(|peer| {
        let heard = peer.rest()?;
        peer.send(format!("heard {}", heard.len()))
    });
    let proxy = in_front_of(&upstream);
    let (mut client, _) = tunnelled(&proxy);
    client.write(b"last words").expect("sent");
    client.finish().expect("closed");
    assert_eq!(client.rest(), b"heard 10", "and the upstream's end is passed on");
    went_well(&told);

    let (upstream, told) = telling(|peer| {
        peer.send("last words")?;
        peer.finish()?;
        peer.expect(b"heard")?;
        peer.rest().map(drop)
    });
    let proxy = in_front_of(&upstream);
    let (mut client, _) = tunnelled(&proxy);
    assert_eq!(client.rest(), b"last words");
    client.write(b"heard").expect("sent");
    drop(client);
    went_well(&told);
    assert_eq!(proxy.access_lines(1)[0]["error"], serde_json::Value::Null);
}

#[test]
fn a_side_that_is_gone_ends_the_other() {
    let (upstream, told) = telling(|peer| {
        peer.send("hello")?;
        peer.closed()
    });
    let proxy = in_front_of(&upstream);
    let (mut client, _) = tunnelled(&proxy);
    client.expect(b"hello");
    client.reset();
    went_well(&told);

    let upstream = granting(|peer| {
        peer.expect(b"now")?;
        peer.reset()
    });
    let proxy = in_front_of(&upstream);
    let (mut client, _) = tunnelled(&proxy);
    client.write(b"now").expect("sent");
    assert_eq!(client.rest(), b"");
    drop(client);
    assert_eq!(proxy.access_lines(1)[0]["error"], "tunnel_broke_off");
}

#[test]
fn a_tunnel_without_a_word_is_closed_and_one_with_words_is_not() {
    let upstream = granting(|peer| peer.rest().map(drop));
    let listener = "listeners: { default: { address: '127.0.0.1:0', stream_idle_timeout: 2s } }";
    let proxy = with_keys(&upstream, listener);
    let (mut client, _) = tunnelled(&proxy);
    for _ in 0..15 {
        client.write(b"word").expect("sent");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(proxy.output().is_empty(), "three seconds with words");
    assert_eq!(client.rest(), b"");
    let line = proxy.access_lines(1).remove(0);
    assert_eq!((&line["error"], &line["bytes_in"]), (&"tunnel_idle".into(), &60.into()), "{line}");
}

#[test]
fn an_upstreams_connection_is_not_used_again_after_a_tunnel() {
    let upstream = Upstream::answering(|peer, request| {
        if request.field("upgrade").is_none() {
            return peer.answer("plain");
        }
        peer.send(format!("{SWITCHING}\r\n"))?;
        peer.expect(b"bye")?;
        peer.finish()
    });
    let proxy = in_front_of(&upstream);
    assert_eq!(proxy.get("/").text(), "plain");
    let (mut client, _) = tunnelled(&proxy);
    assert_eq!(upstream.connections(), 1, "the idle connection is taken for the upgrade");
    client.write(b"bye").expect("sent");
    assert_eq!(client.rest(), b"");
    drop(client);
    proxy.access_lines(2);
    assert_eq!(proxy.get("/").text(), "plain");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_tunnel_counts_as_a_connection_as_long_as_it_is_open() {
    let upstream = granting(|peer| peer.rest().map(drop));
    let listener = "listeners: { default: { address: '127.0.0.1:0', max_connections: 1 } }";
    let proxy = with_keys(&upstream, listener);
    let (client, _) = tunnelled(&proxy);
    assert!(Client::open(proxy.web()).and_then(|mut other| other.exchange(&Request::get("/"))).is_err());
    drop(client);
    eventually("room for another connection", || {
        let mut other = Client::open(proxy.web()).ok()?;
        other.write(UPGRADE).ok()?;
        (other.head().ok()?.status == 101).then_some(())
    });
}

#[test]
fn a_denied_upgrade_is_429_and_the_connection_goes_on() {
    let upstream = Upstream::replying(OK);
    let limit = "limits: [{ name: sockets, key: client_ip, rate: 1/h, match: { path: /ws } }]";
    let proxy = with_keys(&upstream, limit);
    let mut client = proxy.client();
    assert_eq!(client.get("/ws").status, 200);
    client.write(UPGRADE).expect("sent");
    let denied = client.answer_to("GET").expect("an answer");
    assert_eq!((denied.status, denied.header("upgrade"), denied.header("connection")), (429, None, None));
    assert!(denied.retry_after() > 3000);
    client.write(b"GET /other HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    assert_eq!(client.answer_to("GET").expect("an answer on the same connection").status, 200);
    assert_eq!(upstream.seen().len(), 2, "the denied upgrade reached nobody");
}

#[test]
fn a_drain_leaves_tunnels_open_until_its_grace_ends() {
    let upstream = granting(|peer| io::copy(&mut peer.raw()?, &mut peer.raw()?).map(drop));
    let proxy = with_keys(&upstream, "shutdown: { grace: 2s }");
    let (mut client, _) = tunnelled(&proxy);
    client.write(b"before").expect("sent");
    client.expect(b"before");
    proxy.signal("TERM");
    eventually("no new connections", || Client::open(proxy.web()).is_err().then_some(()));
    client.write(b"during").expect("sent");
    client.expect(b"during");
    assert_eq!(client.rest(), b"", "closed when the grace has ended");
    proxy.wait_for_log("the cut", |line| line.to_string().contains("after the grace period"));
    let line = &proxy.access_lines(1)[0];
    assert_eq!((&line["status"], &line["error"]), (&101.into(), &"cut_by_shutdown".into()));
}

#[test]
fn upgrade_fields_on_http2_are_malformed() {
    let upstream = Upstream::replying(OK);
    let proxy = in_front_of(&upstream);
    for (name, value) in [("upgrade", "websocket"), ("connection", "upgrade")] {
        let mut client = proxy.client();
        // GET, http, /, and the authority; then the field, a literal of the simplest kind (RFC 7541 §6.2.2).
        let mut block = b"\x82\x86\x84\x41\x01a\x00".to_vec();
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend(text.as_bytes());
        }
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        bytes.extend([0, 0, u8::try_from(block.len()).expect("short"), 1, 5, 0, 0, 0, 1]);
        bytes.extend(block);
        client.write(&bytes).expect("sent");
        let reason = loop {
            let mut head = [0; 9];
            read_exact(&mut client, &mut head);
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            read_exact(&mut client, &mut payload);
            assert_ne!(head[3], 1, "no response");
            if head[3] == 3 {
                break payload;
            }
        };
        assert_eq!(reason, [0, 0, 0, 1], "RST_STREAM with PROTOCOL_ERROR");
    }
    assert_eq!(upstream.seen().len(), 0);
}

fn read_exact(client: &mut Client, buffer: &mut [u8]) {
    let mut read = 0;
    while read < buffer.len() {
        let more = client.read(&mut buffer[read..]).expect("more");
        assert!(more > 0, "closed");
        read += more;
    }
}
