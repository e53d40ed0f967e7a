//! Whose fault it is: what clients spoil is not held against servers, and what breaks off is never whole.

use bytes::Bytes;
use http::Response;

use crate::support::client::Request;
use crate::support::h2_upstream::{Exchange, H2Upstream, Service, whole};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

/// Opens after three failures, and stays so for longer than a test.
const BREAKER: &str = "circuit_breaker: { min_requests: 3, open_for: 1h }";

fn in_front_of(url: &str, keys: &str, route: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstreams: {{ api: {{ servers: '{url}', {keys} }} }}\n\
         routes: [{{ name: all, upstream: api{route} }}]\n"
    ))
}

async fn answer(mut exchange: Exchange) {
    if whole(exchange.request.body_mut()).await.is_ok() {
        let _ = exchange.respond.send_response(Response::new(()), true);
    }
}

/// So often as would open the breaker, and once more.
fn sent_again_and_again(proxy: &Tollgate, bytes: &[u8], status: u16) {
    for _ in 0..4 {
        let mut client = proxy.client();
        client.write(bytes).unwrap();
        client.finish().unwrap();
        assert_eq!(client.answer_to("POST").unwrap().status, status, "{}", bytes.escape_ascii());
    }
    assert_eq!(proxy.get("/").status, 200, "nobody else suffers: {}", bytes.escape_ascii());
}

#[test]
fn an_upload_that_the_client_spoils_is_its_own_fault_over_http2_too() {
    let upstream = H2Upstream::start(Service::clear(), answer);
    let proxy = in_front_of(&upstream.url("http"), &format!("protocol: h2, {BREAKER}"), ", max_body_size: 1000B");
    let head = "POST / HTTP/1.1\r\nhost: a\r\n";
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let too_large = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    sent_again_and_again(&proxy, too_large.as_bytes(), 413);
    let bad_chunk = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}zz\r\n");
    sent_again_and_again(&proxy, bad_chunk.as_bytes(), 400);
    let cut_short = format!("{head}content-length: 10\r\n\r\nabc");
    sent_again_and_again(&proxy, cut_short.as_bytes(), 400);
}

#[test]
fn a_deadline_that_no_server_could_keep_is_the_clients_fault() {
    let upstream = Upstream::answering(|peer, request| {
        if request.line.contains("/x.Y/Z") {
            return peer.closed();
        }
        peer.answer("ok")
    });
    let proxy = in_front_of(&upstream.url(), BREAKER, "");
    for _ in 0..4 {
        let call = Request::post("/x.Y/Z", b"").header("content-type", "application/grpc").header("grpc-timeout", "1n");
        assert_eq!(proxy.client().send(&call).header("grpc-status"), Some("4"));
    }
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn a_websocket_is_asked_of_no_server_that_speaks_http2_only() {
    let upstream = H2Upstream::start(Service::clear(), answer);
    let proxy = in_front_of(&upstream.url("http"), &format!("protocol: h2, {BREAKER}"), "");
    let request = Request::get("/ws").header("connection", "upgrade").header("upgrade", "websocket");
    for _ in 0..4 {
        assert_eq!(proxy.client().send(&request).status, 200, "an ordinary request");
    }
    assert!(upstream.seen().iter().all(|request| !request.headers().contains_key("upgrade")));
}

#[test]
fn an_answer_that_is_taken_back_without_an_error_is_not_whole() {
    let upstream = H2Upstream::start(Service::clear(), |mut exchange| async move {
        let mut stream = exchange.respond.send_response(Response::new(()), false).expect("sent");
        stream.send_data(Bytes::from_static(b"half"), false).expect("sent");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stream.send_reset(h2::Reason::NO_ERROR);
    });
    let proxy = in_front_of(&upstream.url("http"), "protocol: h2", "");
    let mut client = proxy.client();
    client.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let rest = client.rest();
    assert!(rest.windows(4).any(|bytes| bytes == b"half") && !rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
}

#[test]
fn an_upload_that_is_taken_back_without_an_error_is_not_whole() {
    let upstream = Upstream::start(|peer| {
        let head = peer.head()?;
        peer.discard_body(&head).map(drop)?;
        peer.answer("whole")
    });
    let proxy = in_front_of(&upstream.url(), "protocol: h1", "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let status = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(proxy.web()).await.expect("connected");
        let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        let mut sender = sender.ready().await.expect("a stream");
        let request = http::Request::post("http://a/").body(()).expect("a request");
        let (response, mut stream) = sender.send_request(request, false).expect("sent");
        stream.send_data(Bytes::from_static(b"hello"), false).expect("sent");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stream.send_reset(h2::Reason::NO_ERROR);
        response.await.map_or(0, |response| response.status().as_u16())
    });
    assert_ne!(status, 200);
    crate::support::eventually("the proxy has told", || {
        let failed = proxy.metrics().count("tollgate_upstream_requests_total", &[("code", "error")]);
        (failed + proxy.metrics().count("tollgate_http_requests_total", &[]) > 0).then_some(())
    });
    assert_eq!(proxy.metrics().count("tollgate_upstream_requests_total", &[("code", "200")]), 0, "it was never whole");
}

#[test]
fn trailers_stand_in_for_no_field_that_the_route_writes() {
    let upstream = Upstream::answering(|peer, _| peer.answer("ok"));
    let edits = ", request_headers: { set: { x-tenant: ours }, remove: x-internal }";
    let proxy = in_front_of(&upstream.url(), "protocol: h1", edits);
    let mut client = proxy.client();
    client
        .write(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-tenant, x-internal, x-sum\r\n\r\n\
              2\r\nhi\r\n0\r\nx-tenant: theirs\r\nx-internal: 1\r\nx-sum: 7\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.answer_to("POST").unwrap().status, 200);
    let arrived = upstream.only();
    assert_eq!(arrived.field("x-tenant").as_deref(), Some("ours"));
    assert_eq!(arrived.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}
