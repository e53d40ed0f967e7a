//! Which route a request takes, seen by who answers: conditions on path, fields and query.

use std::time::Duration;

use crate::support::client::{Answer, Request};
use crate::support::tollgate::{Tollgate, finish, program};
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A proxy with these routes, in front of the upstream `web`.
pub(crate) fn routed(upstream: &Upstream, routes: &str) -> Tollgate {
    routed_with(upstream, routes, "")
}

/// The same, with more at the top of the file.
pub(crate) fn routed_with(upstream: &Upstream, routes: &str, more: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listeners: {{ default: {{ address: 127.0.0.1:0 }} }}\nworkers: 1\n\
         upstreams: {{ web: \"{}\" }}\nroutes:\n{routes}{more}",
        upstream.url()
    ))
}

/// What a command of the program says to a configuration on its standard input.
#[track_caller]
pub(crate) fn told(arguments: &[&str], yaml: &str) -> String {
    let finished = finish(program().args(arguments).args(["-c", "-"]), yaml);
    format!("{}{}", finished.output, finished.errors)
}

#[track_caller]
pub(crate) fn assert_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.list("proxy-status").starts_with("tollgate; error="), "{answer:?}");
    assert_eq!(answer.json()["status"], status);
}

/// Each route is limited once, so that the names in `RateLimit` tell which one was taken.
fn by_name(answer: &Answer) -> String {
    answer.list("ratelimit").split('"').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_path_takes_the_route_whose_pattern_it_fits_as_a_whole() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        r"
  - name: user
    match: { path: { regex: '/v[0-9]+/users/(?<id>[0-9]+)' } }
    upstream: web
    limits: [{ name: user, key: 'path:id', rate: 1/h }]
  - { name: rest, match: { path: /* }, upstream: web, limits: [{ name: rest, key: route, rate: 100/s }] }
",
    );
    for (path, expected) in [
        ("/v1/users/7", "user"),
        ("/v1/users/8", "user"),
        ("/v1/users/7/", "rest"),
        ("/x/v1/users/7", "rest"),
        ("/v/users/7", "rest"),
        ("/v1/users/x", "rest"),
    ] {
        let answer = proxy.get(path);
        assert_eq!((answer.status, by_name(&answer).as_str()), (200, expected), "{path}");
    }
    // The group is a key, and every spelling of the path meets it.
    for path in ["/v1/users/7", "/v2/users/7", "//v1/x/../%75sers/%37"] {
        assert_eq!(proxy.get(path).status, 429, "{path}");
    }
}

#[test]
fn fields_are_matched_by_presence_and_by_pattern() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        r"
  - { name: keyed, match: { headers: { x-api-key: { present: true } } }, upstream: web, limits: [{ name: keyed, key: route, rate: 100/s }] }
  - { name: beta, match: { headers: { x-version: { regex: 'v[0-9]+-beta' }, x-stable: { present: false } } }, upstream: web, limits: [{ name: beta, key: route, rate: 100/s }] }
  - { name: rest, upstream: web, limits: [{ name: rest, key: route, rate: 100/s }] }
",
    );
    let taken = |fields: &[(&str, &str)]| {
        let request = fields.iter().fold(Request::get("/"), |request, (name, value)| request.header(name, value));
        by_name(&proxy.client().send(&request))
    };
    assert_eq!(taken(&[("X-Api-Key", "")]), "keyed");
    assert_eq!(taken(&[("x-version", "v12-beta")]), "beta");
    assert_eq!(taken(&[("x-version", "v12-beta"), ("x-stable", "1")]), "rest");
    assert_eq!(taken(&[("x-version", "v12-betamax")]), "rest");
    assert_eq!(taken(&[("x_api_key", "alias")]), "rest");
}

#[test]
fn a_query_parameter_is_matched_decoded_and_twice_is_refused() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        r#"
  - { name: debug, match: { query: { debug: 1, "a b": { present: true } } }, upstream: web, limits: [{ name: debug, key: route, rate: 100/s }] }
  - { name: rest, upstream: web, limits: [{ name: rest, key: route, rate: 100/s }] }
"#,
    );
    for (target, expected) in [
        ("/?debug=1&a+b", "debug"),
        ("/?x&%64ebug=%31&a%20b=7", "debug"),
        ("/?debug=1", "rest"),
        ("/?debug=10&a+b", "rest"),
        ("/?Debug=1&a+b", "rest"),
        ("/", "rest"),
    ] {
        assert_eq!(by_name(&proxy.get(target)), expected, "{target}");
    }
    let seen = upstream.seen().len();
    assert_problem(&proxy.get("/?debug=0&debug=1&a+b"), 400);
    assert_problem(&proxy.get("/?debug=1&a+b&%64ebug=1"), 400);
    assert_eq!(upstream.seen().len(), seen, "nothing is forwarded that could be read two ways");
}

#[test]
fn a_pattern_is_matched_in_linear_time() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        "  - { name: evil, match: { path: { regex: '/(a|a)*(a|aa)+b' } }, upstream: web }\n  - { name: rest, upstream: web }\n",
    );
    let mut client = proxy.client();
    client.set_patience(Duration::from_secs(10));
    assert_eq!(client.get(&format!("/{}", "a".repeat(7_000))).status, 200);
}

#[test]
fn a_pattern_that_is_none_is_shown_with_its_place() {
    let yaml = "listen: :0\nroutes:\n  - name: a\n    upstream: echo\n    match: { path: { regex: '/v(x' } }\n  \
                - { name: b, upstream: echo, match: { headers: { x-a: { regex: '(?=x)' }, x-b: { present: true, regex: x } } } }\n  \
                - { name: c, upstream: echo, match: { path: { regex: 'v1/.*' }, query: { q: } } }\n  \
                - { name: d, upstream: echo, match: { path: '~* ^/v[0-9]+' } }\n";
    let text = told(&["check"], yaml);
    for expected in [
        "unclosed group, at character 3",
        ":5:29",
        "look-around",
        "of `present` and `regex` one must stand below `x-b`",
        "paths begin with a slash",
        "`q` has no value to compare with",
        "write `path: { regex: '^/v[0-9]+' }`",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[test]
fn explain_tells_which_condition_decides() {
    let yaml = "listen: :0\nroutes:\n  - { name: a, upstream: echo, match: { path: { regex: '/u/(?<id>[0-9]+)' }, query: { debug: 1 } } }\n  \
                - { name: b, upstream: echo, match: { headers: { x-a: { present: true } } } }\n  - { name: c, upstream: echo }\n";
    let text = told(&["explain", "GET", "http://h/u/7?debug=2"], yaml);
    assert!(
        text.contains(
            "path ~ /u/(?<id>[0-9]+) · query debug: 1): its condition on the query parameter debug does not hold"
        ),
        "{text}"
    );
    assert!(text.contains("(x-a present): its condition on x-a does not hold"), "{text}");
    let text = told(&["explain", "GET", "http://h/u/7?debug=1"], yaml);
    assert!(text.contains("{id} = 7"), "{text}");
}

#[test]
fn the_expanded_form_keeps_every_kind_of_condition() {
    let yaml = "listen: :0\nroutes:\n  - name: a\n    upstream: echo\n    match:\n      path: [/a, { regex: '/b/[\"\\\\]' }]\n      \
                headers: { x-a: { present: true }, x-b: { present: false }, x-c: { regex: 'a|b' }, authorization: { regex: 'Bearer .*' } }\n      \
                query: { q: '${V:-x}', r: { regex: '[0-9]' } }\n";
    let once = told(&["check", "--print"], yaml);
    for expected in [
        r#"path: ["/a", { regex: "/b/[\"\\\\]" }]"#,
        r#""x-a": { present: true }"#,
        r#""x-b": { present: false }"#,
        r#""x-c": { regex: "a|b" }"#,
        r#""authorization": "***""#,
        r#""q": "x""#,
        r#""r": { regex: "[0-9]" }"#,
    ] {
        assert!(once.contains(expected), "{expected} in\n{once}");
    }
    assert_eq!(told(&["check", "--print"], &once), once);
}
