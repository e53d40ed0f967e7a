//! The same over HTTP/2 in clear text, by prior knowledge, towards HTTP/1.1 upstreams.

use std::future::Future;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

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
    speaking(&proxy, talk)
}

/// Runs `talk` with a connection to a proxy.
fn speaking<F: Future>(proxy: &Tollgate, talk: impl FnOnce(SendRequest<Bytes>) -> F) -> F::Output {
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
fn a_body_that_drips_is_answered_with_408_and_one_of_grpc_is_waited_for() {
    let upstream = Upstream::start(|peer| peer.request().map(drop));
    let drip = |content_type: &'static str| {
        talking_to(&upstream, |mut sender| async move {
            let post = Request::post("http://a.example/").header("content-type", content_type);
            let (response, mut stream) = sender.send_request(post.body(()).expect("a request"), false).expect("sent");
            let dripping = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    let _ = stream.send_data("x".into(), false);
                }
            };
            tokio::select! {
                answer = answer(response) => Some(answer.status.as_u16()),
                () = dripping => None,
                () = tokio::time::sleep(Duration::from_secs(12)) => None,
            }
        })
    };
    let statuses = std::thread::scope(|scope| {
        let grpc = scope.spawn(|| drip("application/grpc"));
        (drip("text/plain"), grpc.join().expect("joined"))
    });
    assert_eq!(statuses, (Some(408), None));
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

/// [`talking_to`] with these keys on the only route.
fn talking_through<F: Future>(
    upstream: &Upstream,
    keys: &str,
    talk: impl FnOnce(SendRequest<Bytes>) -> F,
) -> F::Output {
    let route = format!("{{ name: a, upstream: \"{}\", {keys} }}", upstream.url());
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nroutes: [{route}]\n"));
    speaking(&proxy, talk)
}

#[test]
fn a_body_over_http2_that_becomes_too_large_is_cut_and_refused() {
    let (told, heard) = channel();
    let told = Mutex::new(told);
    let upstream = Upstream::start(move |peer| {
        // What broke before anything was written shows as a connection without a request.
        let broken = peer.head().and_then(|head| peer.discard_body(&head)).is_err();
        let _ = told.lock().expect("no script panics").send(broken);
        Ok(())
    });
    let status = talking_through(&upstream, "max_body_size: 10B", |mut sender| async move {
        let post = Request::post("http://a/").body(()).expect("a request");
        let (response, mut stream) = sender.send_request(post, false).expect("sent");
        stream.send_data("012345".into(), false).expect("sent");
        stream.send_data("6789a".into(), false).expect("sent");
        let refused = answer(response).await;
        let declared = Request::post("http://a/").header("content-length", "11").body(()).expect("a request");
        let (response, _stream) = sender.send_request(declared, false).expect("the connection lives on");
        (refused.status, answer(response).await.status)
    });
    assert_eq!(status, (StatusCode::PAYLOAD_TOO_LARGE, StatusCode::PAYLOAD_TOO_LARGE));
    assert!(heard.recv_timeout(PATIENCE).expect("the upstream is told"), "it must not look complete");
}

#[test]
fn a_preflight_over_http2_is_answered_here() {
    let upstream = Upstream::replying(OK);
    let answer = talking_through(&upstream, "cors: { origins: [https://app.example] }", |mut sender| async move {
        let preflight = Request::options("http://a/x")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST");
        send(&mut sender, preflight.body(()).expect("a request"), "").await
    });
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    assert_eq!(answer.headers["access-control-allow-methods"], "GET, HEAD, POST");
    assert!(upstream.seen().is_empty());
}

#[test]
fn what_is_rewritten_over_http2_is_the_same() {
    let upstream = Upstream::replying(OK);
    let keys = "match: { path: /v1/* }, rewrite: { strip_prefix: /v1, host: upstream }, \
                request_headers: { set: { x-host: '{host}', x-all: '{header.x-a}' } }";
    let answer = talking_through(&upstream, keys, |mut sender| async move {
        let mut get = get("http://Shop.example:81/%761/y?q");
        get.headers_mut().append("x-a", "1".parse().expect("a value"));
        get.headers_mut().append("x-a", "2".parse().expect("a value"));
        send(&mut sender, get, "").await
    });
    assert_eq!(answer.status, StatusCode::OK);
    let arrived = upstream.only();
    assert_eq!(arrived.line, "GET /y?q HTTP/1.1");
    let field = |name: &str| arrived.field(name).unwrap_or_default();
    assert_eq!((field("x-host"), field("x-all")), ("shop.example".into(), "1, 2".into()));
    assert_eq!((field("host"), field("x-forwarded-host")), (upstream.url()[7..].to_owned(), "Shop.example:81".into()));
}
