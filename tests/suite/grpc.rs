//! gRPC through the proxy, between a client and a server made of tonic.

use std::future::Future;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use tonic::Code;
use tungstenite::Message;

use crate::support::client::Request;
use crate::support::grpc::{GrpcClient, GrpcServer, next};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::{Peer, Upstream};
use crate::support::{PATIENCE, eventually};

fn in_front_of(url: &str, more: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstreams: {{ api: {{ servers: '{url}', protocol: h2 }} }}\n{more}"
    ))
}

fn talk<F: Future>(talk: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await.expect("in time") })
}

#[test]
fn calls_of_all_four_kinds_pass_with_their_metadata_and_statuses() {
    let server = GrpcServer::start();
    let proxy = in_front_of(&server.url(), "upstream: api\n");
    talk(async {
        let mut client = GrpcClient::connect(proxy.web()).await;
        let answer = client.unary("hello", None).await.unwrap();
        assert_eq!(answer.metadata().get("x-served-by").unwrap(), "tonic");
        assert_eq!(answer.into_inner(), "hello");
        let refused = client.unary("refuse", None).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "not today"));
        assert_eq!(client.server_streaming("again").await.unwrap(), ["again"; 3]);
        assert_eq!(client.client_streaming(&["a", "b", "c"]).await.unwrap(), "abc");
        let (sender, mut messages) = client.both().await.unwrap();
        for text in ["one", "two", "three"] {
            sender.send(Bytes::from_static(text.as_bytes())).await.unwrap();
            assert_eq!(next(&mut messages).await.unwrap().unwrap(), text, "before the next one is sent");
        }
        drop(sender);
        assert!(next(&mut messages).await.is_none(), "it ended well");
    });
}

#[test]
fn a_deadline_is_passed_on_and_kept_to() {
    let server = GrpcServer::start();
    let proxy = in_front_of(&server.url(), "upstream: api\n");
    talk(async {
        let mut client = GrpcClient::connect(proxy.web()).await;
        let error = client.unary("silence", Some(Duration::from_millis(300))).await.unwrap_err();
        assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error:?}");
    });
    eventually("the server was told of the deadline and of the end", || {
        (server.log() == ["timeout \"300000u\"", "given up"]).then_some(())
    });
}

#[test]
fn a_server_that_forgets_the_deadline_is_given_up_by_the_proxy() {
    let silent = Upstream::start(Peer::closed);
    let proxy = in_front_of(&silent.url(), "upstream: api\n");
    // A client without a clock of its own.
    let mut client = proxy.client();
    let call = Request::post("/echo/unary", b"\0\0\0\0\0")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "200m");
    let answer = client.send(&call);
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("4")));
    assert_eq!(answer.header("proxy-status"), Some("tollgate; error=http_response_timeout"));
}

#[test]
fn a_call_that_is_given_up_is_given_up_at_the_server() {
    let server = GrpcServer::start();
    let proxy = in_front_of(&server.url(), "upstream: api\n");
    talk(async {
        let mut client = GrpcClient::connect(proxy.web()).await;
        let call = client.unary("silence", None);
        let given_up = tokio::time::timeout(Duration::from_secs(5), call);
        let reached = async {
            while server.log().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = given_up => panic!("it is silent: {answer:?}"),
            () = reached => {}
        }
        assert_eq!(server.log(), ["timeout -"]);
    });
    eventually("the server knows", || (server.log() == ["timeout -", "given up"]).then_some(()));
}

#[test]
fn what_the_proxy_refuses_is_a_status_of_grpc() {
    let server = GrpcServer::start();
    let limited =
        in_front_of(&server.url(), "upstream: api\nlimits: [{ name: one, key: global, rate: 1/h, burst: 1 }]\n");
    let gone = in_front_of("http://127.0.0.1:9", "upstream: api\n");
    let lost = in_front_of(&server.url(), "routes: [{ name: a, match: { path: /nowhere }, upstream: api }]\n");
    talk(async {
        let mut client = GrpcClient::connect(limited.web()).await;
        assert!(client.unary("hello", None).await.is_ok());
        let error = client.unary("hello", None).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.metadata().get("grpc-retry-pushback-ms").is_some(), "{error:?}");
        let error = GrpcClient::connect(gone.web()).await.unary("hello", None).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        let error = GrpcClient::connect(lost.web()).await.unary("hello", None).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
    });
}

/// How long a stream says nothing: longer than every other clock of the proxy.
const SILENCE: Duration = Duration::from_secs(61);

#[test]
fn streams_survive_a_minute_of_silence() {
    let threads = [silent_grpc, silent_events, silent_websocket].map(std::thread::spawn);
    for thread in threads {
        thread.join().expect("the stream survives");
    }
}

fn silent_grpc() {
    let server = GrpcServer::start();
    let proxy = in_front_of(&server.url(), "upstream: api\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = GrpcClient::connect(proxy.web()).await;
        let (sender, mut messages) = client.both().await.unwrap();
        for text in ["before", "after"] {
            sender.send(Bytes::from_static(text.as_bytes())).await.unwrap();
            assert_eq!(next(&mut messages).await.unwrap().unwrap(), text);
            if text == "before" {
                tokio::time::sleep(SILENCE).await;
            }
        }
    });
}

fn silent_events() {
    let upstream = Upstream::answering(|peer, _| {
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: before\n\n")?;
        std::thread::sleep(SILENCE);
        peer.send("data: after\n\n")
    });
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nupstream: {}\n", upstream.url()));
    let mut client = proxy.client();
    client.set_patience(SILENCE * 2);
    client.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    client.expect(b"E\r\ndata: before\n\n\r\nD\r\ndata: after\n\n\r\n");
}

fn silent_websocket() {
    let upstream = Upstream::answering(|peer, request| {
        peer.raw()?.set_read_timeout(None)?;
        let mut socket = peer.websocket(request)?;
        while let Ok(message) = socket.read() {
            socket.send(message).map_err(std::io::Error::other)?;
        }
        Ok(())
    });
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nupstream: {}\n", upstream.url()));
    let stream = std::net::TcpStream::connect(proxy.web()).unwrap();
    let (mut socket, _) = tungstenite::client(format!("ws://{}/", proxy.web()), stream).expect("an upgrade");
    for text in ["before", "after"] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(text));
        if text == "before" {
            std::thread::sleep(SILENCE);
        }
    }
    let _ = socket.get_mut().flush();
}
