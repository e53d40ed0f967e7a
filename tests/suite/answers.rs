//! Routes that answer without an upstream, and bodies that are too large.

use std::io::Read;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::rewriting::EVERYTHING;
use crate::routing::{assert_problem, routed, told};
use crate::support::PATIENCE;
use crate::support::client::Request;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn answering(routes: &str) -> Tollgate {
    Tollgate::start(&format!("listeners: {{ default: {{ address: 127.0.0.1:0 }} }}\nworkers: 1\nroutes:\n{routes}"))
}

#[test]
fn a_redirect_leads_where_the_configuration_says() {
    let proxy = answering(
        r#"
  - { name: a, match: { path: "/old/*" }, redirect: { to: "https://api.example.com/{path.rest}?{query}" } }
  - { name: b, match: { path: "/found/*" }, redirect: { to: "/new/{path.rest}", status: 302 } }
  - { name: c, match: { path: "/secure/*" }, redirect: { to: "https://{host}{path}", status: 301 } }
  - { name: d, match: { path: "/up/*" }, redirect: { to: "/{path.rest}", status: 307 } }
  - { name: e, match: { path: "/q" }, redirect: { to: "/search?q={query.q}&next={path}", status: 303 } }
  - { name: f, match: { path: "/twice" }, redirect: { to: "/{path}" } }
"#,
    );
    for (target, status, location) in [
        ("/old/a%20b//c/../d?x=1&y=%0d", 308, "https://api.example.com/a%20b/d?x=1&y=%0d"),
        ("/old", 308, "https://api.example.com/"),
        ("/found/x?q", 302, "/new/x"),
        ("/secure/x?q", 301, "https://shop.example/secure/x"),
        ("/up//evil.example/x", 307, "/evil.example/x"),
        ("/up/%5cevil.example", 400, ""),
        ("/up/%2f/evil.example", 400, ""),
        ("/q?q=%0d%0aset-cookie:+a%26b", 303, "/search?q=%0D%0Aset-cookie%3A%20a%26b&next=%2Fq"),
        ("/twice", 308, "/twice"),
        ("/q?q=1&q=2", 400, ""),
    ] {
        let answer = proxy.client().send(&Request::get(target).host("Shop.example:8080"));
        assert_eq!((answer.status, answer.header("location").unwrap_or_default()), (status, location), "{target}");
        assert_eq!(answer.header("set-cookie"), None);
    }
}

#[test]
fn a_request_without_a_host_is_not_sent_to_one_of_its_own_choice() {
    let proxy = answering("  - { name: a, redirect: { to: 'https://{host}{path}' } }\n");
    let mut client = proxy.client();
    client.write(b"GET /evil.example/x HTTP/1.0\r\n\r\n").unwrap();
    let answer = client.head().unwrap();
    assert_eq!((answer.status, answer.header("location")), (400, None));
}

#[test]
fn a_fixed_answer_needs_no_upstream_and_head_has_no_body() {
    let proxy = answering(
        r#"
  - { name: a, match: { path: /robots.txt }, respond: { body: "User-agent: *\nDisallow: /\n", headers: { x-for: "{client_ip}", cache-control: max-age=60 } } }
  - { name: b, match: { path: /gone }, respond: { status: 410, body: '{"gone":true}', content_type: application/json } }
  - { name: c, match: { path: /empty }, respond: { status: 204 } }
"#,
    );
    let mut client = proxy.client();
    let answer = client.get("/robots.txt");
    assert_eq!((answer.status, answer.text().as_str()), (200, "User-agent: *\nDisallow: /\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!((answer.header("x-for"), answer.header("cache-control")), (Some("127.0.0.1"), Some("max-age=60")));
    assert_eq!(answer.header("proxy-status"), None, "it is no error");
    let head = client.send(&Request::new("HEAD", "/robots.txt"));
    assert_eq!((head.status, head.header("content-length")), (200, Some("26")));
    let gone = client.send(&Request::post("/gone", b"ignored"));
    assert_eq!((gone.status, gone.json()["gone"].as_bool()), (410, Some(true)));
    let empty = client.get("/empty");
    assert_eq!((empty.status, empty.header("content-type")), (204, None));
    assert_eq!(proxy.get("/else").status, 404);
}

#[test]
fn limits_hold_on_routes_without_an_upstream() {
    let proxy = answering(
        "  - { name: a, match: { path: /a }, respond: { status: 200 }, limits: [{ name: own, key: client_ip, rate: 1/h, burst: 2 }] }\n  \
         - { name: b, match: { path: /b }, redirect: { to: /a } }\n\
         limits: [{ name: all, key: client_ip, rate: 3/h }]\n",
    );
    assert_eq!(proxy.get("/b").status, 308);
    assert_eq!([(); 3].map(|()| proxy.get("/a").status), [200, 200, 429]);
    assert_eq!(proxy.get("/b").status, 429);
}

#[test]
fn tests_and_simulations_know_routes_without_an_upstream() {
    let yaml = "listen: :0\nroutes:\n  \
        - { name: a, match: { path: /a }, respond: { status: 200 }, limits: [{ name: own, key: client_ip, rate: 1/h }] }\n\
        access: { deny: 10.6.6.6 }\n\
        tests:\n  - name: one\n    send: { count: 2, url: /a, from: 192.0.2.1 }\n    \
        expect: { allowed: 1, denied: 1, denied_by: own }\n  \
        - name: two\n    send: { url: /a, from: 10.6.6.6 }\n    expect: { allowed: 1 }\n";
    let text = told(&["test"], yaml);
    assert!(text.contains("403") && text.contains("1 passed, 1 failed"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let line =
        |address: &str| format!("{address} - - [27/Nov/2026:10:00:00 +0000] \"GET /a HTTP/1.1\" 200 1 \"-\" \"-\"\n");
    std::fs::write(&log, [line("192.0.2.1"), line("192.0.2.1"), line("10.6.6.6")].concat()).unwrap();
    let text = told(&["simulate", "--format", "json", log.to_str().unwrap()], yaml);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!((&json["limited"], &json["refused"]), (&1.into(), &1.into()), "{text}");
}

#[test]
fn a_route_has_exactly_one_destination() {
    for (route, expected) in [
        ("upstream: echo, redirect: { to: /x }", "several destinations"),
        ("redirect: { to: /x }, respond: { status: 200 }", "several destinations"),
        ("match: { path: /x }", "or `redirect`, or `respond`"),
        ("redirect: { status: 301 }", "leads nowhere"),
        ("redirect: { to: /x, status: 304 }", "write 308 (for good) or 307"),
        ("redirect: { to: '{path}' }", "without a variable in front"),
        ("redirect: { to: '//evil.example' }", "leads to another host"),
        ("redirect: { to: 'https://{header.host}/' }", "only `{host}` may stand there"),
        ("redirect: { to: 'https://a.example{path.rest}' }", "only `{host}` may stand there"),
        ("respond: {}", "says nothing"),
        ("respond: { status: 204, body: x }", "has no body"),
        ("respond: { status: 101 }", "no answer by itself"),
        ("redirect: { to: /x }, rewrite: { add_prefix: /a }", "forwards nothing"),
        ("respond: { status: 200 }, timeout: 1s", "forwards nothing"),
        ("respond: { status: 200 }, max_body_size: 1KiB", "forwards nothing"),
    ] {
        let text = told(&["check"], &format!("listen: :0\nroutes: [{{ name: a, {route} }}]\n"));
        assert!(text.contains(expected) && text.contains("<stdin>:2:"), "{route}:\n{text}");
    }
    assert!(told(&["check"], EVERYTHING).contains("is valid"));
}

/// A route that takes ten bytes.
fn ten_bytes(upstream: &Upstream) -> Tollgate {
    routed(upstream, "  - { name: a, upstream: web, max_body_size: 10B }\n")
}

#[test]
fn a_body_that_is_known_to_be_too_large_is_refused_before_anything_is_sent() {
    let upstream = Upstream::replying(OK);
    let proxy = ten_bytes(&upstream);
    let mut client = proxy.client();
    assert_eq!(client.send(&Request::post("/", b"0123456789")).status, 200);
    let answer = client.send(&Request::post("/", b"0123456789a"));
    assert_problem(&answer, 413);
    assert_eq!(answer.list("proxy-status"), "tollgate; error=http_request_error");
    assert_eq!(client.get("/").status, 200, "what had arrived is drained, and the connection lives on");
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!(proxy.metrics().count("tollgate_rejected_requests_total", &[("error", "body_too_large")]), 1);
}

#[test]
fn a_client_that_waits_for_100_is_refused_without_it() {
    let upstream = Upstream::replying(OK);
    let proxy = ten_bytes(&upstream);
    let mut client = proxy.client();
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n").unwrap();
    let head = client.head().unwrap();
    assert_eq!((head.status, head.header("connection")), (413, Some("close")));
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_body_of_unknown_length_is_cut_when_it_becomes_too_large() {
    let (teller, heard) = channel();
    let teller = Mutex::new(teller);
    let upstream = Upstream::start(move |peer| {
        let head = peer.head()?;
        assert_eq!(head.field("transfer-encoding").as_deref(), Some("chunked"));
        let tell = |what: Vec<u8>| drop(teller.lock().unwrap().send(what));
        tell(peer.chunk()?.unwrap_or_default());
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest);
        tell(rest);
        Ok(())
    });
    let proxy = ten_bytes(&upstream);
    let mut client = proxy.client();
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n").unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"012345");
    client.write(b"5\r\n6789a\r\n").unwrap();
    let answer = client.answer_to("POST").unwrap();
    assert_problem(&answer, 413);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.rest().is_empty());
    let rest = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "", "not even an end: the request must not look complete");
}

#[test]
fn a_body_of_unknown_length_that_fits_is_passed_on() {
    let upstream = Upstream::replying(OK);
    let proxy = ten_bytes(&upstream);
    let mut client = proxy.client();
    let chunked =
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n4\r\n6789\r\n0\r\n\r\n";
    client.write(chunked).unwrap();
    assert_eq!(client.answer_to("POST").unwrap().status, 200);
    assert_eq!(upstream.only().body, b"0123456789");
}
