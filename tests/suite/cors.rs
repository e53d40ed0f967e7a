//! Pages of other origins: preflights, and what browsers may read of answers.

use crate::routing::{routed, told};
use crate::support::client::{Answer, Request};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\naccess-control-allow-methods: TRACE\r\n\
                  vary: accept-encoding\r\ncontent-length: 2\r\n\r\nok";

const APP: &str = "https://app.example.com";

fn proxy(upstream: &Upstream) -> Tollgate {
    routed(
        upstream,
        r#"
  - name: api
    match: { path: /api/*, method: [POST, DELETE], headers: { x-api-version: "2" } }
    upstream: web
    cors: { origins: ["https://app.example.com", "https://*.example.org"], headers: [content-type, x-api-version], expose: x-total, credentials: true, max_age: 1h }
    limits: [{ name: api, key: global, rate: 1/h }]
  - { name: open, match: { path: /open }, upstream: web, cors: { origins: "*" }, limits: [{ name: open, key: global, rate: 1/h }] }
  - { name: any, match: { path: /any }, upstream: web, cors: { origins: "https://app.example.com", headers: "*", credentials: true } }
  - { name: sandboxed, match: { path: /null }, upstream: web, cors: { origins: "null" } }
  - { name: plain, match: { path: /* }, upstream: web }
"#,
    )
}

fn ask(proxy: &Tollgate, target: &str, origin: &str, method: &str, fields: &str) -> Answer {
    let request = Request::new("OPTIONS", target).header("origin", origin);
    let request = request.header("access-control-request-method", method);
    proxy.client().send(&if fields.is_empty() {
        request
    } else {
        request.header("access-control-request-headers", fields)
    })
}

fn post(proxy: &Tollgate, target: &str, origin: &str) -> Answer {
    let request = Request::post(target, b"x").header("x-api-version", "2");
    proxy.client().send(&if origin.is_empty() { request } else { request.header("origin", origin) })
}

#[test]
fn a_preflight_is_answered_for_the_route_of_its_request_and_not_counted() {
    let upstream = Upstream::replying(OK);
    let proxy = proxy(&upstream);
    for _ in 0..5 {
        let answer = ask(&proxy, "/api/x", APP, "POST", "content-type, X-Api-Version");
        assert_eq!((answer.status, answer.header("ratelimit")), (204, None));
        for (name, expected) in [
            ("access-control-allow-origin", APP),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "POST, DELETE"),
            ("access-control-allow-headers", "content-type, x-api-version"),
            ("access-control-max-age", "3600"),
            ("vary", "origin"),
        ] {
            assert_eq!(answer.list(name), expected, "{name}");
        }
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(post(&proxy, "/api/x", APP).status, 200, "no preflight was counted");
}

#[test]
fn a_preflight_of_another_origin_learns_nothing() {
    let upstream = Upstream::replying(OK);
    let proxy = proxy(&upstream);
    for origin in ["https://evil.example", "http://app.example.com", "https://example.org", "null"] {
        let answer = ask(&proxy, "/api/x", origin, "POST", "x-api-version");
        assert_eq!(answer.status, 204);
        let told: Vec<_> = answer.headers.iter().filter(|(name, _)| name.starts_with("access-control-")).collect();
        assert!(told.is_empty(), "{origin}: {told:?}");
        assert_eq!(answer.list("vary"), "origin");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn where_pages_may_send_any_field_they_are_told_those_they_announce() {
    let upstream = Upstream::replying(OK);
    let proxy = proxy(&upstream);
    let answer = ask(&proxy, "/any", APP, "POST", "authorization, x-one");
    assert_eq!(answer.list("access-control-allow-headers"), "authorization, x-one");
    assert_eq!(ask(&proxy, "/any", APP, "POST", "").header("access-control-allow-headers"), None);
    assert_eq!(ask(&proxy, "/any", "https://evil.example", "POST", "x").header("access-control-allow-headers"), None);
}

#[test]
fn an_options_request_that_is_no_preflight_or_for_another_route_goes_its_way() {
    let upstream = Upstream::replying(OK);
    let proxy = proxy(&upstream);
    assert_eq!(ask(&proxy, "/api/x", APP, "GET", "x-api-version").status, 200, "GET is not of the route");
    assert_eq!(ask(&proxy, "/api/x", APP, "POST", "").status, 200, "the version is not announced");
    assert_eq!(ask(&proxy, "/other", APP, "POST", "").status, 200);
    assert_eq!(proxy.client().send(&Request::new("OPTIONS", "/open").header("origin", APP)).status, 200);
    let lines: Vec<_> = upstream.seen().into_iter().map(|arrived| arrived.line).collect();
    assert_eq!(lines, ["/api/x", "/api/x", "/other", "/open"].map(|path| format!("OPTIONS {path} HTTP/1.1")));
}

#[test]
fn answers_say_who_may_read_them_and_so_do_denials() {
    let upstream = Upstream::replying(OK);
    let proxy = proxy(&upstream);
    let (first, second) = (post(&proxy, "/api/x", "https://a.b.example.org"), post(&proxy, "/api/x", APP));
    assert_eq!((first.status, second.status), (200, 429));
    for (answer, origin) in [(&first, "https://a.b.example.org"), (&second, APP)] {
        assert_eq!(answer.list("access-control-allow-origin"), origin);
        assert_eq!(answer.list("access-control-allow-credentials"), "true");
        assert_eq!(answer.header("access-control-allow-methods"), None, "the upstream's own are replaced");
        let exposed = answer.list("access-control-expose-headers");
        for name in ["ratelimit", "ratelimit-policy", "retry-after", "x-ratelimit-remaining", "x-total"] {
            assert!(exposed.split(", ").any(|one| one == name), "{name}: {exposed}");
        }
    }
    assert_eq!(first.list("vary"), "accept-encoding, origin");
    let (foreign, own) = (post(&proxy, "/api/x", "https://evil.example"), post(&proxy, "/api/x", ""));
    for answer in [foreign, own] {
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.list("vary"), "origin", "or a cache would give the answer to another origin");
    }
}

#[test]
fn a_route_for_everybody_says_so_and_one_without_cors_leaves_it_to_the_upstream() {
    let upstream = Upstream::replying(OK);
    let proxy = proxy(&upstream);
    let get = |target: &str, origin: &str| proxy.client().send(&Request::get(target).header("origin", origin));
    let open = get("/open", APP);
    assert_eq!((open.list("access-control-allow-origin"), open.list("vary")), ("*".into(), "accept-encoding".into()));
    assert_eq!(get("/open", APP).status, 429);
    assert_eq!(get("/open", APP).list("access-control-allow-origin"), "*");
    assert_eq!(get("/null", "null").list("access-control-allow-origin"), "null");
    assert_eq!(get("/null", APP).header("access-control-allow-origin"), None);
    assert_eq!(get("/plain", APP).list("access-control-allow-methods"), "TRACE");
}

#[test]
fn mistakes_in_cors_are_shown_with_their_cure() {
    for (cors, expected) in [
        ("{ origins: '*', credentials: true }", "name the origins"),
        ("{ origins: [https://a.example/] }", "an origin has no path"),
        ("{ origins: [a.example] }", "did you mean `https://a.example`?"),
        ("{ origins: [https://a.example:443] }", "browsers spell it `https://a.example`"),
        ("{ methods: [GET] }", "names no origin"),
        ("{ origins: '*', methods: '*' }", "methods are named"),
        ("{ origins: '*', expose: '*' }", "fields are named"),
        ("{ origins: '*', methods: get }", "did you mean `GET`?"),
    ] {
        let text = told(&["check"], &format!("listen: :0\nroutes:\n  - {{ name: a, upstream: echo, cors: {cors} }}\n"));
        assert!(text.contains(expected) && text.contains("<stdin>:3:"), "{cors}:\n{text}");
    }
    let text = told(
        &["check"],
        "listen: :0\nroutes: [{ name: a, upstream: echo, cors: { origins: '*' }, response_headers: { set: { access-control-allow-origin: '*' } } }]\n",
    );
    assert!(text.contains("`cors` of this route writes it"), "{text}");
}
