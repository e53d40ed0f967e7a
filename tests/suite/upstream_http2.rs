//! Upstreams that speak HTTP/2, in clear text and over TLS, to clients of either version.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

use crate::support::certificates::{Authority, Wanted};
use crate::support::client::Request;
use crate::support::eventually;
use crate::support::h2_upstream::{Exchange, H2Upstream, Service, whole};
use crate::support::tollgate::Tollgate;

fn in_front_of(url: &str, keys: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstreams: {{ api: {{ servers: ['{url}']{keys} }} }}\nupstream: api\n"
    ))
}

const H2: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Sends back what came, trailers too.
async fn echo(mut exchange: Exchange) {
    let Ok((body, trailers)) = whole(exchange.request.body_mut()).await else { return };
    let mut response = Response::new(());
    // Towards HTTP/1.1 only trailers that were announced can be passed on.
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-length"));
    response.headers_mut().insert("x-method", exchange.request.method().as_str().parse().unwrap());
    let mut stream = exchange.respond.send_response(response, false).expect("sent");
    stream.send_data(Bytes::from(body), false).expect("sent");
    let mut answered = HeaderMap::new();
    answered.insert("x-length", HeaderValue::from(trailers.map_or(0, |trailers| trailers.len())));
    stream.send_trailers(answered).expect("sent");
}

#[test]
fn a_request_of_http1_arrives_as_http2_by_prior_knowledge() {
    let upstream = H2Upstream::start(Service::clear(), echo);
    let proxy = in_front_of(&upstream.url("http"), ", protocol: h2");
    let mut client = proxy.client();
    let request = Request::post("/a?b=c", b"hello").host("api.example").header("te", "trailers");
    let answer = client.send(&request);
    assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()));
    assert_eq!(answer.header("x-method"), Some("POST"));
    let seen = &upstream.seen()[0];
    assert_eq!(seen.uri().to_string(), "http://api.example/a?b=c");
    for absent in ["host", "connection", "transfer-encoding", "keep-alive"] {
        assert!(!seen.headers().contains_key(absent), "{absent}: {:?}", seen.headers());
    }
    assert_eq!(seen.headers()["te"], "trailers");
    assert_eq!(seen.headers()["content-length"], "5");
    assert_eq!(seen.headers()["x-forwarded-host"], "api.example");
    assert_eq!(client.get("/again").status, 200);
    assert_eq!(upstream.connections(), 1, "the connection is shared");
}

#[test]
fn a_body_without_a_length_passes_with_its_trailers() {
    let upstream = H2Upstream::start(Service::clear(), echo);
    let proxy = in_front_of(&upstream.url("http"), ", protocol: h2");
    let mut client = proxy.client();
    client
        .write(
            b"POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\n\r\n\
          3\r\nabc\r\n2\r\nde\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\n",
        )
        .expect("sent");
    let answer = client.answer_to("GET").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "abcde".to_owned()));
    assert_eq!(answer.trailers, [("x-length".to_owned(), "2".to_owned())]);
    assert!(!upstream.seen()[0].headers().contains_key("content-length"));
}

#[test]
fn over_tls_the_server_chooses_and_many_requests_share_one_connection() {
    let authority = Authority::new();
    let files = authority.sign(&Wanted::server("server", &["localhost"]));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&gate);
    let upstream = H2Upstream::start(Service::tls(&files, H2), move |mut exchange| {
        let held = Arc::clone(&held);
        async move {
            let _permit = held.acquire().await;
            let _ = exchange.respond.send_response(Response::new(()), true);
        }
    });
    let proxy = in_front_of(
        &upstream.url("https"),
        &format!(", tls: {{ ca: '{}', server_name: localhost }}", authority.ca().display()),
    );
    gate.add_permits(1);
    assert_eq!(proxy.get("/first").status, 200);
    let clients: Vec<_> = (0..20)
        .map(|n| {
            let mut client = proxy.client();
            client.write(format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).expect("sent");
            client
        })
        .collect();
    eventually("all requests are there at once", || (upstream.seen().len() == 21).then_some(()));
    gate.add_permits(1000);
    for mut client in clients {
        assert_eq!(client.answer_to("GET").expect("an answer").status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(upstream.seen()[0].uri().scheme_str(), Some("https"));
}

#[test]
fn a_server_that_allows_few_streams_gets_another_connection() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&gate);
    let upstream = H2Upstream::start(Service::clear().allowing(2), move |mut exchange| {
        let held = Arc::clone(&held);
        async move {
            if exchange.request.uri().path() != "/first" {
                let _permit = held.acquire().await;
            }
            let _ = exchange.respond.send_response(Response::new(()), true);
        }
    });
    let proxy = in_front_of(&upstream.url("http"), ", protocol: h2");
    // From then on the proxy knows how many are allowed.
    assert_eq!(proxy.get("/first").status, 200);
    let clients: Vec<_> = (0..5)
        .map(|n| {
            let mut client = proxy.client();
            client.write(format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).expect("sent");
            client
        })
        .collect();
    eventually("five requests are there at once", || (upstream.seen().len() == 6).then_some(()));
    assert!((3..=5).contains(&upstream.connections()), "{}", upstream.connections());
    gate.add_permits(1000);
    for mut client in clients {
        assert_eq!(client.answer_to("GET").expect("an answer").status, 200);
    }
}

#[test]
fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let (told, resets) = channel();
    let told = Mutex::new(told);
    let upstream = H2Upstream::start(Service::clear(), move |mut exchange| {
        let told = told.lock().expect("a sender").clone();
        async move {
            if exchange.request.uri().path() == "/left" {
                let reason = std::future::poll_fn(|cx| exchange.respond.poll_reset(cx)).await;
                let _ = told.send(reason.ok());
                return;
            }
            let _ = exchange.respond.send_response(Response::new(()), true);
        }
    });
    let proxy = in_front_of(&upstream.url("http"), ", protocol: h2");
    let mut leaving = proxy.client();
    leaving.write(b"GET /left HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    eventually("the request is there", || (upstream.seen().len() == 1).then_some(()));
    drop(leaving);
    let reason = resets.recv_timeout(crate::support::PATIENCE).expect("the stream is reset");
    assert_eq!(reason, Some(h2::Reason::CANCEL));
    assert_eq!(proxy.get("/next").status, 200);
    assert_eq!(upstream.connections(), 1, "the connection goes on");
}

#[test]
fn a_stream_that_is_reset_is_502_and_one_cut_short_is_cut_for_the_client() {
    let upstream = H2Upstream::start(Service::clear(), |mut exchange| async move {
        if exchange.request.uri().path() == "/reset" {
            return exchange.respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        let mut stream = exchange.respond.send_response(Response::new(()), false).expect("sent");
        stream.send_data(Bytes::from_static(b"begun"), false).expect("sent");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let proxy = in_front_of(&upstream.url("http"), ", protocol: h2");
    let answer = proxy.get("/reset");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("proxy-status"), Some("tollgate; error=connection_terminated"));
    let mut client = proxy.client();
    client.write(b"GET /cut HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let rest = client.rest();
    assert!(rest.windows(5).any(|bytes| bytes == b"begun"), "what came is passed on");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it does not look complete");
}

#[test]
fn a_server_of_http1_where_http2_is_known_is_502() {
    let upstream = crate::support::upstream::Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let proxy = in_front_of(&upstream.url(), ", protocol: h2");
    let answer = proxy.get("/");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("proxy-status"), Some("tollgate; error=http_protocol_error"));
}
