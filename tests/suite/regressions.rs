//! One test for each fault that was found after it had been believed not to be there.

use std::io::Write;

use crate::support::client::{Request, get};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A proxy that trusts nobody, with one limit of two per hour (and whatever follows it in braces).
fn limited(upstream: &str, limit: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nupstreams: {{ web: \"{upstream}\" }}\nroutes:\n\
         \x20 - name: all\n    match: {{ path: '/users/{{user}}' }}\n    upstream: web\n\
         \x20   limits: [{{ name: two, rate: 2/h, {limit} }}]\n"
    ))
}

/// Sends these requests, each on a connection of its own, and tells their statuses.
fn statuses(proxy: &Tollgate, requests: &[Request]) -> Vec<u16> {
    requests.iter().map(|request| proxy.client().send(request).status).collect()
}

#[test]
fn a_path_parameter_is_one_key_however_it_is_encoded() {
    let upstream = Upstream::replying(OK);
    let proxy = limited(&upstream.url(), "key: 'path:user'");
    let sent = ["a@b", "a%40b", "%61%40b", "a%40%62"].map(|user| Request::get(&format!("/users/{user}")));
    assert_eq!(statuses(&proxy, &sent), [200, 200, 429, 429]);
    let other = ["a%20b", "a%20b", "a%20b", "a+b"].map(|user| Request::get(&format!("/users/{user}")));
    assert_eq!(statuses(&proxy, &other), [200, 200, 429, 200]);
}

#[test]
fn a_limit_on_a_path_holds_for_its_encoded_spelling() {
    let upstream = Upstream::replying(OK);
    for (pattern, target) in
        [("/users/@me", "/users/%40me"), ("/users/a:b", "/users/a%3Ab"), ("/users/%40me", "/users/@me")]
    {
        let proxy = limited(&upstream.url(), &format!("key: global, match: {{ path: '{pattern}' }}"));
        let sent = [pattern, target, target].map(Request::get);
        assert_eq!(statuses(&proxy, &sent), [200, 200, 429], "{pattern}");
    }
    let proxy = limited(&upstream.url(), "key: global, match: { not_path: '/users/@me' }");
    assert_eq!(statuses(&proxy, &["/users/@me", "/users/%40me", "/users/%40me"].map(Request::get)), [200, 200, 200]);
}

#[test]
fn a_field_that_the_upstream_will_not_see_is_no_key_either() {
    let upstream = Upstream::replying(OK);
    for (key, hidden) in [
        ("header:x-api-key", &["x-api-key"][..]),
        ("header:x-real-ip", &["x-real-ip"]),
        ("header:x-forwarded-for", &["x-forwarded-for"]),
        ("header:x_api_key", &["x_api_key"]),
    ] {
        let proxy = limited(&upstream.url(), &format!("key: '{key} | client_ip'"));
        let sent = ["one", "two", "three"].map(|value| {
            let request = Request::get("/users/ann").header("connection", "X-Api-Key, keep-alive");
            hidden.iter().fold(request, |request, name| request.header(name, value))
        });
        assert_eq!(statuses(&proxy, &sent), [200, 200, 429], "{key}");
    }
    assert!(upstream.seen().iter().all(|arrived| arrived.field("x-api-key").is_none()));
}

#[test]
fn a_field_that_the_upstream_will_not_see_chooses_no_route() {
    let upstream = Upstream::replying(OK);
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nupstreams: {{ web: \"{}\" }}\nroutes:\n\
         \x20 - {{ name: open, match: {{ path: /*, headers: {{ x-api-version: '2' }} }}, upstream: web }}\n\
         \x20 - {{ name: old, match: {{ path: /* }}, upstream: web, limits: [{{ key: global, rate: 2/h }}] }}\n",
        upstream.url()
    ));
    let request = || Request::get("/").header("x-api-version", "2");
    let hidden = || request().header("connection", "x-api-version");
    assert_eq!(statuses(&proxy, &[hidden(), hidden(), hidden(), request()]), [200, 200, 429, 200]);
}

#[test]
fn head_costs_what_get_costs_and_is_the_same_key() {
    let upstream = Upstream::closing_after("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
    let proxy = limited(&upstream.url(), "key: client_ip, cost: { default: 1, GET: 2 }");
    let head = || Request::new("HEAD", "/users/ann");
    assert_eq!(statuses(&proxy, &[head(), head()]), [200, 429]);
    let proxy = limited(&upstream.url(), "key: method");
    assert_eq!(statuses(&proxy, &[Request::get("/users/ann"), head(), head()]), [200, 200, 429]);
}

#[test]
fn methods_nobody_knows_are_one_key() {
    let upstream = Upstream::replying(OK);
    let proxy = limited(&upstream.url(), "key: method");
    let sent = ["AAA", "BBB", "get"].map(|method| Request::new(method, "/users/ann"));
    assert_eq!(statuses(&proxy, &sent), [200, 200, 429]);
}

#[test]
fn cookie_lines_reach_the_upstream_as_one() {
    let upstream = Upstream::replying(OK);
    let proxy = limited(&upstream.url(), "key: client_ip");
    let request = Request::get("/users/ann").header("cookie", "a=1").header("cookie", "b=2; c=3");
    assert_eq!(proxy.client().send(&request).status, 200);
    let lines: Vec<_> = upstream.only().fields.into_iter().filter(|(name, _)| name == "cookie").collect();
    assert_eq!(lines, [("cookie".to_owned(), "a=1; b=2; c=3".to_owned())]);
}

#[test]
fn a_request_id_cannot_break_out_of_a_custom_body() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nupstream: echo\ntrusted_proxies: [127.0.0.1/32]\nlimits:\n\
         \x20 - { key: global, rate: 0/s, response: { content_type: application/json, body: '{\"id\":\"{request.id}\"}' } }\n",
    );
    for id in ["x\",\"admin\":\"1", "<script>alert(1)</script>", "a\\", "{limit.name}", "a'b", "a&b"] {
        let denied = proxy.client().send(&Request::get("/").header("x-request-id", id));
        assert_eq!(denied.status, 429);
        let id = denied.json()["id"].as_str().map(str::to_owned).unwrap();
        assert_eq!(denied.header("x-request-id"), Some(&*id));
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(&byte)), "{id}");
    }
    let kept = proxy.client().send(&Request::get("/").header("x-request-id", "Root=1-67891233:ab/c+d_e.f"));
    assert_eq!(kept.header("x-request-id"), Some("Root=1-67891233:ab/c+d_e.f"));
}

#[test]
fn a_length_that_an_upstream_repeats_reaches_the_client_once() {
    for fields in ["content-length: 2, 2", "content-length: 2\r\ncontent-length: 2"] {
        let reply: &str = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok").leak();
        let upstream = Upstream::replying(reply);
        let proxy = limited(&upstream.url(), "key: client_ip");
        let answer = proxy.client().send(&Request::get("/users/ann"));
        assert_eq!((answer.list("content-length").as_str(), answer.text().as_str()), ("2", "ok"));
    }
    let upstream = Upstream::closing_after("HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\n");
    let proxy = limited(&upstream.url(), "key: client_ip");
    let answer = proxy.client().send(&Request::new("HEAD", "/users/ann"));
    assert_eq!((answer.status, answer.header("content-length")), (200, None));
}

#[test]
fn a_response_in_a_coding_nobody_asked_for_is_502() {
    for coding in ["gzip", "gzip, chunked", "chunked, identity", "chunked\r\ntransfer-encoding: chunked"] {
        let reply: &str = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n2\r\nok\r\n0\r\n\r\n").leak();
        let upstream = Upstream::closing_after(reply);
        let proxy = limited(&upstream.url(), "key: client_ip");
        let answer = proxy.client().send(&Request::get("/users/ann"));
        assert_eq!(
            (answer.status, answer.list("proxy-status").as_str()),
            (502, "tollgate; error=http_protocol_error"),
            "{coding}"
        );
    }
}

#[test]
fn clients_that_do_not_read_do_not_take_the_admin_listener_from_others() {
    let proxy = Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\n");
    let requests = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    let silent: Vec<_> = (0..256)
        .map(|_| {
            let stream = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            stream.set_recv_buffer_size(1024).unwrap();
            stream.connect(&proxy.admin().into()).unwrap();
            (&stream).write_all(&requests).unwrap();
            stream
        })
        .collect();
    assert_eq!(get(proxy.admin(), "/healthz").status, 200);
    drop(silent);
}
