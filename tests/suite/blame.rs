//! Whose fault it is: what clients spoil is not held against servers, and what breaks off is never whole.

use bytes::Bytes;
use http::Response;

use crate::raw::Client as Raw;
use crate::support::client::Request;
use crate::support::h2_upstream::{Exchange, H2Upstream, Service, whole};
use crate::support::http2::{DATA, END_HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, request};
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
    let (told, ended) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::start(move |peer| {
        let head = peer.head()?;
        let _ = told.lock().unwrap().send(peer.discard_body(&head).is_err());
        Ok(())
    });
    let proxy = in_front_of(&upstream.url(), "protocol: h1", "");
    let mut client = Raw::connect(proxy.web());
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, b""), &request(END_HEADERS, 1, "POST", "/")].concat();
    client.send(&opening).send(&frame(DATA, 0, 1, b"hello"));
    crate::support::eventually("the request is under way", || (upstream.connections() == 1).then_some(()));
    // Read at once: what comes before the reset is there, and is not the end.
    client.send(&[frame(DATA, 0, 1, b"again"), frame(RST_STREAM, 0, 1, &[0; 4])].concat());
    let broken = ended.recv_timeout(crate::support::PATIENCE).expect("the upload ends");
    assert!(broken, "it was taken for a whole one");
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
