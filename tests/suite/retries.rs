//! Which requests are sent again, how often, and which never are.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::Request;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::{Arrived, Peer, Upstream};

fn in_front_of(servers: &[String], retries: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\n\
         upstreams: {{ api: {{ servers: [{}], health: {{ passive: none }} }} }}\n\
         routes: [{{ name: all, upstream: api, timeout: 5s, retries: {{ {retries} }} }}]\n",
        servers.iter().map(|url| format!("'{url}'")).collect::<Vec<_>>().join(", ")
    ))
}

/// A server that does `first` with its first `times` requests and answers the others.
fn failing(
    times: usize,
    first: impl Fn(&mut Peer, &Arrived) -> io::Result<()> + Send + Sync + 'static,
) -> (Upstream, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    let upstream = Upstream::answering(move |peer, request| {
        if counted.fetch_add(1, Ordering::SeqCst) < times { first(peer, request) } else { peer.answer("ok") }
    });
    (upstream, count)
}

fn hangs_up(_: &mut Peer, _: &Arrived) -> io::Result<()> {
    Err(io::ErrorKind::BrokenPipe.into())
}

fn busy(peer: &mut Peer, _: &Arrived) -> io::Result<()> {
    peer.send("HTTP/1.1 503 x\r\ncontent-length: 4\r\n\r\nbusy")
}

#[test]
fn an_idempotent_request_is_sent_again_after_a_lost_connection() {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"] {
        let (upstream, count) = failing(2, hangs_up);
        let proxy = in_front_of(&[upstream.url()], "attempts: 2");
        assert_eq!(proxy.client().send(&Request::new(method, "/")).status, 200, "{method}");
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }
}

#[test]
fn a_request_that_may_have_been_acted_upon_is_never_sent_again() {
    for request in [
        Request::new("POST", "/"),
        Request::new("PATCH", "/"),
        Request::post("/", b"body"),
        Request::new("PUT", "/").body("body"),
    ] {
        let (upstream, count) = failing(1, hangs_up);
        let proxy = in_front_of(&[upstream.url()], "attempts: 5, retry_on: [connect_error, reset, timeout, 5xx]");
        assert_eq!(proxy.client().send(&request).status, 502, "{request:?}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{request:?}");
    }
}

#[test]
fn without_a_word_about_it_nothing_is_sent_again() {
    let (upstream, count) = failing(1, hangs_up);
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nupstream: {}\n", upstream.url()));
    assert_eq!(proxy.get("/").status, 502);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_status_is_tried_again_and_the_last_one_is_given() {
    let (upstream, count) = failing(1, busy);
    let proxy = in_front_of(&[upstream.url()], "attempts: 2, retry_on: 503");
    assert_eq!(proxy.get("/").text(), "ok");
    assert_eq!(count.load(Ordering::SeqCst), 2);

    let (upstream, count) = failing(10, busy);
    let proxy = in_front_of(&[upstream.url()], "attempts: 2, retry_on: 503");
    let answer = proxy.get("/");
    assert_eq!((answer.status, answer.text()), (503, "busy".to_owned()));
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let (other, count) = failing(1, busy);
    let proxy = in_front_of(&[other.url()], "attempts: 2, retry_on: [502, reset]");
    assert_eq!(proxy.get("/").status, 503, "not after this one");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn another_server_is_tried_before_the_same_again() {
    let (bad, bad_count) = failing(100, busy);
    let (good, _) = failing(0, busy);
    let proxy = in_front_of(&[bad.url(), good.url()], "attempts: 1, retry_on: 503");
    let mut client = proxy.client();
    (0..8).for_each(|_| assert_eq!(client.get("/").text(), "ok"));
    assert_eq!(bad_count.load(Ordering::SeqCst), 4, "half of the requests begin with it");
}

#[test]
fn a_silent_server_is_given_up_after_its_time_and_another_asked() {
    let silent = |peer: &mut Peer, _: &Arrived| peer.closed();
    let (upstream, count) = failing(1, silent);
    let proxy = in_front_of(&[upstream.url()], "attempts: 1, retry_on: timeout, per_try_timeout: 100ms");
    assert_eq!(proxy.get("/").text(), "ok");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn a_server_that_is_not_there_yet_is_tried_again_with_any_method() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let proxy = in_front_of(&[format!("http://{address}")], "attempts: 10");
    let mut client = proxy.client();
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").unwrap();
    let late = Upstream::listening(address, |peer, _| peer.answer("ok"));
    assert_eq!(client.answer_to("POST").unwrap().text(), "ok");
    assert_eq!(late.only().body, b"hi");
}

#[test]
fn retries_end_with_their_budget() {
    let (upstream, count) = failing(usize::MAX, hangs_up);
    let proxy = in_front_of(&[upstream.url()], "attempts: 1, budget: 0%");
    let mut client = proxy.client();
    let begun = std::time::Instant::now();
    (0..60).for_each(|_| assert_eq!(client.get("/").status, 502));
    let retries = count.load(Ordering::SeqCst) - 60;
    // Ten are in reserve, and one a second comes back.
    let most = 10 + usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!((10..=most).contains(&retries), "{retries} of at most {most}");
    let counted = proxy.metrics().count("tollgate_upstream_retries_total", &[("upstream", "api")]);
    assert_eq!(usize::try_from(counted).unwrap(), retries);
}
