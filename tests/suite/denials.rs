//! What a client sees of a limit: fields, bodies, and a connection that stays unambiguous.

use serde_json::json;

use crate::support::client::{Answer, Request};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A proxy with one limit of 2 per hour, and more lines of configuration.
fn two_per_hour(more: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits: [{{ name: two, key: client_ip, rate: 2/h }}]\n{more}"
    ))
}

/// The first answer and the first denial.
fn admitted_and_denied(proxy: &Tollgate) -> (Answer, Answer) {
    let answers: Vec<_> = (0..3).map(|_| proxy.get("/x")).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 429]);
    let mut answers = answers.into_iter();
    (answers.next().expect("three"), answers.next_back().expect("three"))
}

#[test]
fn a_denial_is_problem_json_with_the_draft_fields() {
    let (admitted, denied) = admitted_and_denied(&two_per_hour(""));
    assert_eq!(admitted.list("ratelimit-policy"), "\"two\";q=2;w=3600");
    assert_eq!(admitted.list("ratelimit"), "\"two\";r=1;t=1800");
    assert_eq!(admitted.header("retry-after"), None);
    assert_eq!(denied.list("ratelimit-policy"), "\"two\";q=2;w=3600");
    assert_eq!(denied.list("ratelimit"), format!("\"two\";r=0;t={}", denied.retry_after()));
    assert!((1_790..=1_800).contains(&denied.retry_after()));
    assert_eq!(denied.header("cache-control"), Some("no-store"));
    assert_eq!(denied.header("content-type"), Some("application/problem+json"));
    assert!(denied.list("proxy-status").contains("tollgate"), "{:?}", denied.headers);
    assert_eq!(denied.header("x-ratelimit-limit"), None);
    let problem = denied.json();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["status"], 429);
    assert_eq!(problem["violated-policies"], json!(["two"]));
    assert!(problem["title"].is_string() && problem["detail"].is_string());
}

#[test]
fn the_legacy_fields_speak_of_the_tightest_limit() {
    let (admitted, denied) = admitted_and_denied(&two_per_hour("rate_limit_headers: legacy\n"));
    assert_eq!(admitted.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(admitted.header("x-ratelimit-remaining"), Some("1"));
    assert!(admitted.header("x-ratelimit-reset").is_some_and(|reset| reset.parse::<u64>().is_ok()));
    assert_eq!(admitted.header("ratelimit"), None);
    assert_eq!(denied.header("x-ratelimit-remaining"), Some("0"));
    assert!(denied.retry_after() > 0);
}

#[test]
fn both_styles_or_neither_can_be_asked_for() {
    let (admitted, denied) = admitted_and_denied(&two_per_hour("rate_limit_headers: both\n"));
    for answer in [&admitted, &denied] {
        assert!(answer.header("ratelimit").is_some() && answer.header("x-ratelimit-limit").is_some());
    }
    let (admitted, denied) = admitted_and_denied(&two_per_hour("rate_limit_headers: none\n"));
    for answer in [&admitted, &denied] {
        assert!(answer.header("ratelimit").is_none() && answer.header("x-ratelimit-limit").is_none());
    }
    assert!(denied.retry_after() > 0, "Retry-After is not a matter of style");
}

#[test]
fn a_grpc_client_is_denied_in_trailers_only_form() {
    let proxy = two_per_hour("");
    let call =
        Request::post("/service/Method", b"").header("content-type", "application/grpc").header("te", "trailers");
    let answers: Vec<_> = (0..3).map(|_| proxy.client().send(&call)).collect();
    let denied = &answers[2];
    assert_eq!(denied.status, 200);
    assert_eq!(denied.header("grpc-status"), Some("8"));
    assert_eq!(denied.header("content-type"), Some("application/grpc"));
    let pushback: u64 = denied.header("grpc-retry-pushback-ms").expect("a pushback").parse().expect("milliseconds");
    assert!((1_700_000..=1_800_000).contains(&pushback));
    assert!(denied.body.is_empty());
}

#[test]
fn a_limit_may_answer_in_its_own_words() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nupstream: echo\nlimits:\n  - name: own\n    key: client_ip\n    rate: 1/h\n    response:\n\
         \x20     status: 503\n      content_type: application/json\n\
         \x20     body: '{\"error\":\"slow down\",\"limit\":\"{limit.name}\",\"retry_after\":{limit.retry_after}}'\n",
    );
    assert_eq!(proxy.get("/").status, 200);
    let denied = proxy.get("/");
    assert_eq!(denied.status, 503);
    assert_eq!(denied.header("content-type"), Some("application/json"));
    assert_eq!(denied.json(), json!({"error": "slow down", "limit": "own", "retry_after": denied.retry_after()}));
}

#[test]
fn a_rate_of_zero_denies_without_a_promise() {
    let proxy =
        Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\nlimits: [{ name: shut, key: client_ip, rate: 0/s }]\n");
    let denied = proxy.get("/");
    assert_eq!((denied.status, denied.header("retry-after")), (429, None));
}

#[test]
fn a_shadow_limit_denies_nothing_and_is_counted() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nupstream: echo\nlimits: [{ name: watched, key: client_ip, rate: 2/h, mode: shadow }]\n",
    );
    for _ in 0..5 {
        let answer = proxy.get("/");
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
    }
    let metrics = proxy.metrics();
    let decided = |kind| metrics.count("tollgate_limit_decisions_total", &[("limit", "watched"), ("decision", kind)]);
    assert_eq!((decided("allow"), decided("shadow_deny"), decided("deny")), (2, 3, 0));
}

#[test]
fn a_denied_request_never_reaches_the_upstream() {
    let upstream = Upstream::replying(OK);
    let yaml =
        format!("listen: 127.0.0.1:0\nupstream: {}\nlimits: [{{ key: client_ip, rate: 2/h }}]\n", upstream.url());
    let proxy = Tollgate::start(&yaml);
    for _ in 0..6 {
        proxy.get("/");
    }
    assert_eq!(upstream.seen().len(), 2);
}

/// The body of a denied request holds a whole request; it must not be read as one.
#[test]
fn the_unread_body_of_a_denied_request_is_never_read_as_a_request() {
    let upstream = Upstream::replying(OK);
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\nlimits: [{{ name: shut, key: 'header:x-client', rate: 1/h, missing: skip }}]\n",
        upstream.url()
    );
    let proxy = Tollgate::start(&yaml);
    let hidden = b"GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";
    let request = Request::post("/", hidden).header("x-client", "a");
    assert_eq!(proxy.client().send(&request).status, 200);

    let whole = request.bytes();
    let head = whole.len() - hidden.len();
    for split in [0, 1, hidden.len()] {
        let mut client = proxy.client();
        client.write(&whole[..head + split]).expect("sent");
        let denied = client.answer_to("POST").expect("an answer before the body is complete");
        assert_eq!(denied.status, 429);
        let _ = client.write(&whole[head + split..]);
        let _ = client.write(b"GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let rest = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(rest.matches("HTTP/1.1 ").count() <= 1, "at most the answer to /next: {rest}");
        assert!(!rest.contains("429"), "{rest}");
    }
    let mut chunked = b"POST / HTTP/1.1\r\nhost: a\r\nx-client: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    chunked.extend(format!("{:x}\r\n", hidden.len()).as_bytes());
    chunked.extend(hidden);
    let mut client = proxy.client();
    client.write(&chunked).expect("sent");
    assert_eq!(client.answer_to("POST").expect("an answer").status, 429);
    let _ = client.write(b"\r\n0\r\n\r\nGET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let rest = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(rest.matches("HTTP/1.1 ").count() <= 1, "at most the answer to /next: {rest}");
    assert!(upstream.seen().len() <= 5, "nothing hidden reached the upstream: {}", upstream.seen().len());
}

#[test]
fn a_denied_request_that_expects_100_gets_429_without_100() {
    let proxy = two_per_hour("");
    admitted_and_denied(&proxy);
    let mut client = proxy.client();
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").expect("sent");
    assert_eq!(client.head().expect("an answer").status, 429, "and not 100");
}

#[test]
fn a_denial_over_http2_is_the_same() {
    let proxy = two_per_hour("");
    admitted_and_denied(&proxy);
    let address = proxy.web();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let head = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
        let driver = tokio::spawn(connection);
        let mut sender = sender.ready().await.expect("ready");
        let request = http::Request::get("http://example.test/").body(()).expect("a request");
        let (response, _) = sender.send_request(request, true).expect("sent");
        let response = tokio::time::timeout(crate::support::PATIENCE, response).await.expect("in time");
        driver.abort();
        response.expect("an answer").into_parts().0
    });
    assert_eq!(head.status, 429);
    assert_eq!(head.headers["content-type"], "application/problem+json");
    assert!(head.headers.contains_key("retry-after") && head.headers.contains_key("ratelimit"));
}

#[test]
fn the_upstreams_own_fields_are_kept() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\nratelimit-policy: \"theirs\";q=9;w=9\r\nratelimit: \"theirs\";r=8;t=8\r\ncontent-length: 0\r\n\r\n",
    );
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstream: {}\nlimits: [{{ name: ours, key: client_ip, rate: 2/h }}]\n",
        upstream.url()
    );
    let answer = Tollgate::start(&yaml).get("/");
    assert!(answer.list("ratelimit").contains("\"theirs\";r=8;t=8"), "{:?}", answer.headers);
    assert_eq!(answer.remaining("ours"), 1);
}
