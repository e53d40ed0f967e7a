//! The same over HTTP/2 in clear text, by prior knowledge, towards HTTP/1.1 upstreams.

use std::future::Future;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};

use crate::support::PATIENCE;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What came back over a stream.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// The error is the reason of the reset.
    body: Result<Vec<u8>, Option<h2::Reason>>,
    trailers: Option<HeaderMap>,
}

/// Runs `talk` with a connection to a proxy in front of `upstream`.
fn talking_to<F: Future>(upstream: &Upstream, talk: impl FnOnce(SendRequest<Bytes>) -> F) -> F::Output {
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\n", upstream.url()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(proxy.web()).await.expect("connected");
        let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        let sender = sender.ready().await.expect("a stream");
        tokio::time::timeout(PATIENCE, talk(sender)).await.expect("in time")
    })
}

async fn send(sender: &mut SendRequest<Bytes>, request: Request<()>, body: &'static str) -> Answer {
    let (response, mut stream) = sender.send_request(request, body.is_empty()).expect("sent");
    if !body.is_empty() {
        stream.send_data(body.into(), true).expect("sent");
    }
    answer(response).await
}

async fn answer(response: h2::client::ResponseFuture) -> Answer {
    let (head, mut stream) = response.await.expect("a response").into_parts();
    let mut body = Ok(Vec::new());
    while let Some(data) = stream.data().await {
        match (data, &mut body) {
            (Ok(data), Ok(body)) => {
                let _ = stream.flow_control().release_capacity(data.len());
                body.extend(data);
            }
            (Err(error), _) => body = Err(error.reason()),
            (Ok(_), Err(_)) => {}
        }
        if body.is_err() {
            break;
        }
    }
    let trailers = if body.is_ok() { stream.trailers().await.expect("an orderly end") } else { None };
    Answer { status: head.status, headers: head.headers, body, trailers }
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).expect("a request")
}

#[test]
fn a_request_over_http2_arrives_as_http1_with_one_framing() {
    let upstream = Upstream::replying(OK);
    let answer = talking_to(&upstream, |mut sender| async move {
        let post = Request::post("http://A.example./x/../y?q=1").header("cookie", "a=b").body(()).expect("a request");
        send(&mut sender, post, "hello").await
    });
    assert_eq!((answer.status, answer.body.as_deref()), (StatusCode::OK, Ok(&b"ok"[..])));
    assert!(answer.headers["via"].to_str().is_ok_and(|via| via.starts_with("1.1 tollgate-")));
    let arrived = upstream.only();
    assert_eq!(arrived.line, "POST /y?q=1 HTTP/1.1");
    assert_eq!(arrived.field("host").as_deref(), Some("A.example."));
    assert_eq!(arrived.field("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(arrived.field("content-length"), None);
    assert_eq!(arrived.body, b"hello");
    assert!(arrived.field("via").is_some_and(|via| via.starts_with("2 tollgate-")));
}

#[test]
fn a_length_that_is_known_is_passed_on() {
    let upstream = Upstream::replying(OK);
    let answer = talking_to(&upstream, |mut sender| async move {
        let post = Request::post("http://a.example/").header("content-length", "5").body(()).expect("a request");
        send(&mut sender, post, "hello").await
    });
    assert_eq!(answer.status, StatusCode::OK);
    let arrived = upstream.only();
    assert_eq!((arrived.field("content-length").as_deref(), arrived.field("transfer-encoding")), (Some("5"), None));
}

#[test]
fn an_authority_that_host_contradicts_is_refused() {
    let upstream = Upstream::replying(OK);
    let statuses = talking_to(&upstream, |mut sender| async move {
        let mut statuses = Vec::new();
        for (uri, host) in [
            ("http://a.example/", "b.example"),
            ("http://a.example/", "a.example:81"),
            ("http://a.example/", "a.example, b.example"),
            ("http://user@a.example/", ""),
            ("http://a.example/", "A.example"),
        ] {
            let mut request = get(uri);
            if !host.is_empty() {
                request.headers_mut().insert("host", host.parse().expect("a value"));
            }
            statuses.push(send(&mut sender, request, "").await.status.as_u16());
        }
        statuses
    });
    assert_eq!(statuses, [400, 400, 400, 400, 200]);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn what_http1_clients_are_refused_for_is_refused_here_too() {
    let upstream = Upstream::replying(OK);
    let statuses = talking_to(&upstream, |mut sender| async move {
        let mut statuses = Vec::new();
        for target in ["/?q=\u{e9}", "/?q=a\\b"] {
            statuses.push(send(&mut sender, get(&format!("http://a.example{target}")), "").await.status.as_u16());
        }
        let twice = Request::post("http://a.example/").header("content-length", "5").header("content-length", "5");
        statuses.push(send(&mut sender, twice.body(()).expect("a request"), "hello").await.status.as_u16());
        statuses
    });
    assert_eq!(statuses, [400, 400, 400]);
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n\
         2\r\nok\r\n0\r\ngrpc-status: 0\r\nset-cookie: a=b\r\n\r\n",
    );
    let answer = talking_to(&upstream, |mut sender| async move {
        let request = Request::post("http://a.example/").header("te", "trailers").header("trailer", "x-sum");
        let (response, mut stream) = sender.send_request(request.body(()).expect("a request"), false).expect("sent");
        stream.send_data(Bytes::from_static(b"abc"), false).expect("sent");
        stream
            .send_trailers(
                [("x-sum", "7")]
                    .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                    .into_iter()
                    .collect(),
            )
            .expect("sent");
        answer(response).await
    });
    let trailers = answer.trailers.expect("trailers");
    assert_eq!((&trailers["grpc-status"], trailers.get("set-cookie")), (&"0".parse().expect("a value"), None));
    let arrived = upstream.only();
    assert_eq!(
        (arrived.field("te").as_deref(), arrived.field("connection").as_deref()),
        (Some("trailers"), Some("te"))
    );
    assert_eq!(arrived.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn a_truncated_response_resets_the_stream() {
    for reply in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ] {
        let upstream = Upstream::closing_after(reply);
        let answer =
            talking_to(&upstream, |mut sender| async move { send(&mut sender, get("http://a.example/"), "").await });
        assert!(matches!(answer.body, Err(Some(_))), "{reply:?}: {answer:?}");
    }
}

#[test]
fn a_stream_that_is_reset_cancels_its_request() {
    let (arrived, ready) = channel();
    let (closed, told) = channel();
    let (arrived, closed) = (Mutex::new(arrived), Mutex::new(closed));
    let upstream = Upstream::start(move |peer| {
        peer.request()?;
        let _ = arrived.lock().expect("no script panics").send(());
        let closing = peer.closed();
        let _ = closed.lock().expect("no script panics").send(closing.is_ok());
        Ok(())
    });
    talking_to(&upstream, |mut sender| async move {
        let (response, mut stream) = sender.send_request(get("http://a.example/"), true).expect("sent");
        tokio::task::spawn_blocking(move || ready.recv_timeout(PATIENCE)).await.expect("joined").expect("it arrives");
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        let told = tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE)).await.expect("joined");
        assert_eq!(told, Ok(true));
    });
}

#[test]
fn many_streams_of_one_connection_get_their_own_answers() {
    let upstream = Upstream::start(|peer| {
        loop {
            let path = peer.request()?.line.split(' ').nth(1).unwrap_or_default().to_owned();
            peer.answer(&path)?;
        }
    });
    talking_to(&upstream, |mut sender| async move {
        let mut responses = Vec::new();
        for number in 0..100 {
            sender = sender.ready().await.expect("a stream");
            let request = get(&format!("http://a.example/{number}"));
            responses.push(sender.send_request(request, true).expect("sent").0);
        }
        for (number, response) in responses.into_iter().enumerate() {
            let answer = answer(response).await;
            assert_eq!(answer.body, Ok(format!("/{number}").into_bytes()));
        }
    });
}
