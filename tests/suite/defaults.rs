//! Defaults that bound what one client may take, where no other module tests them: ages, counts, what
//! HTTP/2 is told at the beginning, and what happens when the system has no more to give.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use h2::client::SendRequest;
use tollgate::config::Protocols;
use tollgate::proxy::inbound::Clocks;

use crate::raw::Edge;
use crate::support::client::{Client, Request};
use crate::support::tollgate::{Tollgate, field, program};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually};

const ECHO: &str = "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\n";
/// The preface and an empty SETTINGS frame (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Talks to a proxy over HTTP/2.
fn over_http2<F: Future>(proxy: &Tollgate, talk: impl FnOnce(SendRequest<bytes::Bytes>) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(proxy.web()).await.expect("connected");
        let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        tokio::time::timeout(4 * PATIENCE, talk(sender)).await.expect("in time")
    })
}

async fn ask(sender: SendRequest<bytes::Bytes>, request: http::Request<()>) -> Result<u16, h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, _) = sender.send_request(request, true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(status)
}

fn get() -> http::Request<()> {
    http::Request::get("http://a.example/").body(()).expect("a request")
}

#[test]
fn a_connection_that_is_too_old_ends_with_an_answer() {
    let mut clocks = Clocks::new(PATIENCE, PATIENCE);
    clocks.age = Duration::from_millis(300);
    let edge = Edge::with(clocks, Protocols { h1: true, h2: true });
    let mut client = edge.client();
    let mut served = 0;
    let last = eventually("the last answer", || {
        let answer = client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer();
        assert_eq!(answer.status, 200, "each of them is a whole answer");
        served += 1;
        answer.has("connection: close").then_some(answer)
    });
    assert!(served > 1 && last.status == 200, "{served} answers");
    assert_eq!(client.rest(), b"");
    // Over HTTP/2 it is told to go away; a GOAWAY frame has 8 bytes here.
    let bytes = edge.client().send(PREFACE).rest();
    assert!(bytes.windows(9).any(|frame| frame == b"\0\0\x08\x07\0\0\0\0\0"), "{bytes:?}");
}

#[test]
fn the_ten_thousandth_request_is_the_last_of_its_connection() {
    // What no route takes is answered in no time.
    let route = "routes: [{ name: other, match: { path: /other }, upstream: echo }]";
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\n{route}\n"));
    let mut client = proxy.client();
    for number in 1..=10_000 {
        let answer = client.ask(&Request::get("/")).expect("an answer");
        assert_eq!(answer.header("connection") == Some("close"), number == 10_000, "{number}");
    }
    assert_eq!(client.rest(), b"");
    let served = over_http2(&proxy, |sender| async move {
        let mut served = 0;
        while ask(sender.clone(), get()).await.is_ok() {
            served += 1;
            assert!(served < 20_000, "it does not end");
        }
        served
    });
    // What was on its way when GOAWAY was sent is still answered.
    assert!((10_000..10_100).contains(&served), "{served}");
}

#[test]
fn http2_clients_are_told_how_much_they_may_send() {
    let proxy = Tollgate::start(ECHO);
    let mut stream = TcpStream::connect(proxy.web()).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(PREFACE).expect("sent");
    let (mut settings, mut window) = (Vec::new(), 0);
    while settings.is_empty() || window == 0 {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).expect("its payload");
        match head[3] {
            // SETTINGS, but for an acknowledgement (RFC 9113 §6.5).
            4 if head[4] & 1 == 0 => {
                let pairs = payload.chunks(6).map(|pair| {
                    (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
                });
                settings.extend(pairs);
            }
            // WINDOW_UPDATE of the connection, beyond the 65,535 bytes it begins with (§6.9).
            8 => window += 65_535 + u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]),
            _ => {}
        }
    }
    let setting = |id: u16| settings.iter().find(|(found, _)| *found == id).map(|(_, value)| *value);
    assert_eq!(setting(3), Some(100), "streams: {settings:?}");
    assert_eq!(setting(4), Some(64 * 1024), "window of a stream: {settings:?}");
    assert_eq!(setting(6), Some(16 * 1024), "list of fields: {settings:?}");
    assert_eq!(window, 1024 * 1024);
}

#[test]
fn a_hundred_fields_are_enough_in_either_protocol() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\n", upstream.url()));
    let over_http1 = |fields: usize| {
        // Host is one of them.
        let request =
            (1..fields).fold(Request::get("/"), |request, number| request.header(&format!("x-{number}"), "1"));
        Client::connect(proxy.web()).send(&request).status
    };
    assert_eq!((over_http1(100), over_http1(101)), (200, 431));
    let with = |fields: usize| {
        let request = (0..fields).fold(http::Request::get("http://a.example/"), |request, number| {
            request.header(format!("x-{number}"), "1")
        });
        request.body(()).expect("a request")
    };
    let statuses = over_http2(&proxy, |sender| async move {
        let enough = ask(sender.clone(), with(100)).await;
        let many = ask(sender.clone(), with(101)).await;
        let mut cookies = http::Request::get("http://a.example/");
        for number in 0..120 {
            // Clients divide one Cookie into many lines (RFC 9113 §8.2.3).
            cookies = cookies.header("cookie", format!("c{number}=1"));
        }
        let cookies = ask(sender, cookies.body(()).expect("a request")).await;
        [enough, many, cookies].map(|status| status.expect("an answer"))
    });
    assert_eq!(statuses, [200, 431, 200]);
}

#[test]
fn more_connections_than_a_listener_may_have_are_closed_at_once() {
    let listener = "listeners: { default: { address: '127.0.0.1:0', max_connections: 3 } }";
    let proxy = Tollgate::start(&format!("workers: 2\nupstream: echo\n{listener}\n"));
    let mut held: Vec<_> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").status, 200);
    }
    let mut fourth = proxy.client();
    assert!(fourth.exchange(&Request::get("/")).is_err());
    let labels = [("listener", "default"), ("reason", "max_connections")];
    assert_eq!(proxy.metrics().count("tollgate_connections_refused_total", &labels), 1);
    held.pop();
    eventually("room", || proxy.client().exchange(&Request::get("/")).ok());
}

/// Started by a shell that lets it open only so many files, and no more.
fn with_files(limit: u32) -> Tollgate {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("proxy.yaml");
    std::fs::write(&file, format!("{ECHO}admin: {{ address: 127.0.0.1:0 }}\n")).expect("written");
    let program = program();
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\"")).arg(program.get_program());
    command.args(["run", "--log-format", "json", "-c"]).arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Tollgate::spawn(command, directory)
}

#[test]
fn out_of_descriptors_who_is_connected_is_served_and_the_others_as_soon_as_there_are_some() {
    let proxy = with_files(64);
    let mut first = proxy.client();
    assert_eq!(first.get("/").status, 200);
    let crowd: Vec<_> = (0..100).map(|_| proxy.client()).collect();
    proxy.wait_for_log("no descriptor", |line| field(line, "message").contains("cannot accept connections"));
    assert_eq!(first.get("/").status, 200, "its connections are there");
    let mut late = proxy.client();
    late.write(&Request::get("/late").bytes()).expect("sent");
    drop(crowd);
    assert_eq!(late.answer_to("GET").expect("an answer").status, 200, "it waited, and is served");
    let told = proxy.log().iter().filter(|line| line.contains("cannot accept connections")).count();
    assert!(told < 10, "told {told} times");
}
