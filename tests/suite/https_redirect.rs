//! Listeners that send everybody to https: where to, and what holds there all the same.

use tollgate::config::frames::Colour;
use tollgate::config::{Origin, expanded, parse};

use crate::support::certificates::{Authority, Wanted};
use crate::support::client::{Answer, Client, Request};
use crate::support::port::Port;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

/// A clear-text listener that redirects to this port; what follows stands at the top.
fn redirecting(to: &str, rest: &str) -> Tollgate {
    let listener = format!("{{ address: '127.0.0.1:0', redirect_to_https: {to} }}");
    Tollgate::start(&format!("workers: 1\nlisteners: {{ default: {listener} }}\n{rest}\n"))
}

fn location(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("location"))
}

#[test]
fn every_request_is_sent_to_the_same_place_under_https() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let proxy = redirecting("443", &format!("upstream: {}", upstream.url()));
    let mut client = proxy.client();
    for (host, target, expected) in [
        ("a.example", "/", "https://a.example/"),
        ("A.example:8080", "/a/../b//c?x=1&y=%20z", "https://a.example/b/c?x=1&y=%20z"),
        ("[::1]:80", "/%7euser", "https://[::1]/~user"),
        ("127.0.0.1", "/?", "https://127.0.0.1/?"),
        ("a.example", "/a%2Fb", "https://a.example/a%2Fb"),
        ("a.example", "/x%0d%0aset-cookie:%20a", "https://a.example/x%0D%0Aset-cookie:%20a"),
        ("a.example", "http://a.example/absolute", "https://a.example/absolute"),
    ] {
        let answer = client.send(&Request::get(target).host(host));
        assert_eq!(location(&answer), (308, Some(expected)), "{host} {target}");
        assert_eq!((answer.text().as_str(), answer.header("set-cookie")), ("", None));
    }
    let answer = client.send(&Request::post("/form", b"name=value"));
    assert_eq!(
        location(&answer),
        (308, Some("https://localhost/form")),
        "the method and the body are to be sent again"
    );
    assert_eq!(upstream.connections(), 0, "nothing was forwarded");
}

#[test]
fn another_port_is_named_and_is_that_of_the_listener_with_tls() {
    let (authority, port) = (Authority::new(), Port::take());
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let secure = format!("{{ address: '127.0.0.1:{}', tls: {{ certificates: {certificate} }} }}", port.number());
    let proxy = Tollgate::start(&format!(
        "workers: 1\nupstream: echo\n\
         listeners: {{ default: {{ address: '127.0.0.1:0', redirect_to_https: true }}, secure: {secure} }}\n"
    ));
    let expected = format!("https://localhost:{}/x", port.number());
    assert_eq!(location(&proxy.get("/x")), (308, Some(expected.as_str())));
    let mut secure = authority.client().connect(proxy.address("secure")).expect("a handshake");
    assert_eq!(secure.ask(&Request::get("/x")).expect("an answer").status, 200, "what is secure is served");
    let given = redirecting("8443", "upstream: echo");
    assert_eq!(location(&given.get("/x")), (308, Some("https://localhost:8443/x")));
}

#[test]
fn who_names_no_valid_host_is_sent_nowhere() {
    let proxy = redirecting("443", "upstream: echo");
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.example@evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: evil.example/\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET /../.. HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let mut client = proxy.client();
        client.write(request.as_bytes()).expect("sent");
        let answer = client.answer_to("GET").expect("an answer");
        assert_eq!(location(&answer), (400, None), "{request:?}");
    }
}

#[test]
fn the_limits_of_every_request_hold_and_those_of_routes_wait_for_https() {
    let proxy = redirecting(
        "443",
        "limits: [{ name: all, key: client_ip, rate: 3/h }]\n\
         routes: [{ name: login, match: { path: /login }, upstream: echo, limits: [{ name: strict, key: client_ip, rate: 1/h }] }]",
    );
    let statuses: Vec<_> = (0..5).map(|_| proxy.get("/login").status).collect();
    assert_eq!(statuses, [308, 308, 308, 429, 429]);
    let metrics = proxy.metrics();
    assert_eq!(metrics.count("tollgate_limit_decisions_total", &[("limit", "strict")]), 0);
    assert_eq!(metrics.count("tollgate_limit_decisions_total", &[("limit", "all"), ("decision", "deny")]), 2);
}

#[test]
fn proofs_of_ownership_are_answered_in_clear_text_where_a_route_is_for_them() {
    let acme = "{ name: acme, match: { path: '/.well-known/acme-challenge/*' }, upstream: echo }";
    let site = "{ name: site, match: { path: '/*' }, upstream: echo }";
    let proxy = redirecting("443", &format!("routes: [{acme}, {site}]"));
    assert_eq!(proxy.get("/.well-known/acme-challenge/token").status, 200);
    for other in ["/.well-known/other", "/.well-known/acme-challenge/../x", "/.well-known/acme-challenge", "/"] {
        assert_eq!(proxy.get(other).status, 308, "{other}");
    }
    // A route that takes everything does not mean proofs.
    let proxy = redirecting("443", &format!("routes: [{site}]"));
    assert_eq!(proxy.get("/.well-known/acme-challenge/token").status, 308);
}

#[test]
fn what_came_through_tls_to_a_trusted_proxy_is_served() {
    let secure = Request::get("/").header("x-forwarded-proto", "https");
    let trusting = redirecting("443", "trusted_proxies: private\nupstream: echo");
    assert_eq!(Client::connect(trusting.web()).send(&secure).status, 200);
    assert_eq!(trusting.get("/").status, 308);
    let strict = redirecting("443", "upstream: echo");
    assert_eq!(Client::connect(strict.web()).send(&secure).status, 308);
}

#[test]
fn what_a_configuration_says_of_redirects_is_checked_and_printed() {
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let tls = format!("tls: {{ certificates: {certificate} }}");
    let said = |listeners: &str| match parse(
        &format!("upstream: echo\nlisteners: {{ {listeners} }}\n"),
        &Origin::Arguments,
        &|_| None,
    ) {
        Ok(loaded) => format!("accepted\n{}{}", loaded.warnings.render(Colour::Plain), expanded(&loaded.config)),
        Err(report) => report.render(Colour::Plain),
    };
    let plain = "web: { address: :80, redirect_to_https: true }";
    for (listeners, expected) in [
        (format!("{plain}, secure: {{ address: :8443, {tls} }}"), &["accepted", "redirect_to_https: 8443"][..]),
        (
            format!("{plain}, secure: {{ address: :8443, {tls} }}, usual: {{ address: :443, {tls} }}"),
            &["redirect_to_https: 443"],
        ),
        (
            format!("{plain}, one: {{ address: :8443, {tls} }}, two: {{ address: :9443, {tls} }}"),
            &["cannot be told", "`redirect_to_https: 8443`"],
        ),
        (plain.to_owned(), &["accepted", "no listener speaks TLS"]),
        (format!("web: {{ address: :443, redirect_to_https: true, {tls} }}"), &["speaks TLS already"]),
        ("web: { address: :80, redirect_to_https: on }".to_owned(), &["`on` is no port"]),
        ("web: { address: :80, redirect_to_https: 0 }".to_owned(), &["`0` is no port"]),
        ("web: { address: :80, redirect_to_https: false }".to_owned(), &["accepted"]),
    ] {
        let said = said(&listeners);
        for expected in expected {
            assert!(said.contains(expected), "`{expected}` is missing for {listeners}\n{said}");
        }
    }
}
