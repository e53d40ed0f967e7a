//! What reaches the upstream, and what comes back, when a route rewrites: targets, hosts and fields.

use crate::routing::{assert_problem, routed, routed_with, told};
use crate::support::client::Request;
use crate::support::tokens::{Issuer, key_set};
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\nserver: them\r\nx-own: 1\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_prefix_is_stripped_and_told_to_the_upstream() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        "  - { name: a, match: { path: /v1/* }, upstream: web, rewrite: { strip_prefix: /v1, add_prefix: /api } }\n  \
         - { name: b, match: { path: '/{tenant}/x' }, upstream: web, rewrite: { strip_prefix: /b } }\n",
    );
    let request = Request::get("/%76%31//x/../y?q=1%20").header("x-forwarded-prefix", "/evil");
    assert_eq!(proxy.client().send(&request).status, 200);
    assert_eq!(proxy.get("/v1").status, 200);
    assert_eq!(proxy.get("/c/x").status, 200);
    let seen = upstream.seen();
    assert_eq!(seen[0].line, "GET /api/y?q=1%20 HTTP/1.1");
    assert_eq!(seen[0].field("x-forwarded-prefix").as_deref(), Some("/v1"));
    assert_eq!(seen[1].line, "GET /api/ HTTP/1.1");
    assert_eq!((seen[2].line.as_str(), seen[2].field("x-forwarded-prefix")), ("GET /c/x HTTP/1.1", None));
}

#[test]
fn the_prefix_of_a_trusted_proxy_is_kept_in_front_of_ours() {
    let upstream = Upstream::replying(OK);
    let routes = "  - { name: a, match: { path: /v1/* }, upstream: web, rewrite: { strip_prefix: /v1 } }\n";
    let proxy = routed_with(&upstream, routes, "trusted_proxies: [127.0.0.0/8]\n");
    proxy.client().send(&Request::get("/v1/x").header("x-forwarded-prefix", "/edge"));
    assert_eq!(upstream.only().field("x-forwarded-prefix").as_deref(), Some("/edge, /v1"));
}

#[test]
fn a_path_is_made_of_variables_and_stays_within_its_segments() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        r#"
  - { name: a, match: { path: "/t/{tenant}/*" }, upstream: web, rewrite: { path: "/v2/{path.rest}/of/{path.tenant}", query: { set: { t: "{path.tenant}" }, remove: [secret] } } }
  - { name: b, match: { path: /files }, upstream: web, rewrite: { path: "/data/{query.file}" } }
  - { name: c, match: { path: /old/* }, upstream: web, rewrite: { regex: { match: '^/old/(?<id>[0-9]+)', replace: /new/$id } } }
"#,
    );
    for (target, expected) in [
        ("/t/a%26b/x/y?secret=1&k=%41&sec%72et", "/v2/x/y/of/a%26b?k=%41&t=a%26b"),
        ("/files?file=a+b%3F", "/data/a%20b%3F?file=a+b%3F"),
        ("/old/7/x?q", "/new/7/x?q"),
        ("/old/x", "/old/x"),
    ] {
        assert_eq!(proxy.get(target).status, 200, "{target}");
        assert_eq!(upstream.seen().last().unwrap().line, format!("GET {expected} HTTP/1.1"), "{target}");
    }
    let before = upstream.seen().len();
    for target in [
        "/files?file=..",
        "/files?file=../etc/passwd",
        "/files?file=%2e%2e%5cx",
        "/files?file=a%00",
        "/files?file=a&file=b",
        "/files?file=.",
        "/files?file=..;x",
    ] {
        assert_problem(&proxy.get(target), 400);
    }
    assert_eq!(upstream.seen().len(), before, "nothing is forwarded that leads elsewhere");
}

#[test]
fn the_upstream_is_asked_under_the_clients_its_own_or_a_fixed_host() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        "  - { name: a, match: { path: /kept }, upstream: web }\n  \
         - { name: b, match: { path: /own }, upstream: web, rewrite: { host: upstream } }\n  \
         - { name: c, match: { path: /name }, upstream: web, rewrite: { host: 'API.internal:8443' } }\n",
    );
    let own = upstream.url().replace("http://", "");
    for (path, expected) in [("/kept", "Shop.example"), ("/own", &*own), ("/name", "api.internal:8443")] {
        assert_eq!(proxy.client().send(&Request::get(path).host("Shop.example")).status, 200);
        let arrived = upstream.seen().pop().unwrap();
        assert_eq!(arrived.field("host").as_deref(), Some(expected), "{path}");
        assert_eq!(arrived.field("x-forwarded-host").as_deref(), Some("Shop.example"), "{path}");
    }
}

#[test]
fn request_fields_are_removed_set_added_and_given_by_default() {
    let upstream = Upstream::replying(OK);
    let proxy = routed_with(
        &upstream,
        r#"
  - name: a
    match: { path: "/t/{tenant}" }
    upstream: web
    request_headers:
      set:
        x-tenant: "{path.tenant}"
        x-real-ip: "{client_ip}"
        x-all: "{method} {scheme}://{host}{path}?{query} {route} {listener}"
        x-session: "<{cookie.session}>"
        x-copy: "{header.x-two}"
        x-user: "{query.user}"
        x-text: "{{a}}"
        x-id: "{request_id}"
      add: { x-list: b }
      default: { accept: text/plain, x-given: ours }
      remove: [x-debug, x-forwarded-for]
"#,
        "",
    );
    let request = Request::get("/t/a%20b?user=u%2B1")
        .host("Shop.example:8080")
        .header("x-tenant", "forged")
        .header("x-real-ip", "6.6.6.6")
        .header("x-list", "a")
        .header("x-given", "theirs")
        .header("x-debug", "1")
        .header("x-two", "1")
        .header("x-two", "2")
        .header("cookie", "session=s%201; other=2")
        .header("connection", "x-tenant, x-real-ip");
    let answer = proxy.client().send(&request);
    assert_eq!(answer.status, 200, "{answer:?}");
    let arrived = upstream.only();
    for (name, expected) in [
        ("x-tenant", "a b"),
        ("x-real-ip", "127.0.0.1"),
        ("x-all", "GET http://shop.example/t/a%20b?user=u%2B1 a default"),
        ("x-session", "<s 1>"),
        ("x-copy", "1, 2"),
        ("x-user", "u+1"),
        ("x-text", "{a}"),
        ("x-list", "a, b"),
        ("accept", "text/plain"),
        ("x-given", "theirs"),
    ] {
        assert_eq!(arrived.field(name).as_deref(), Some(expected), "{name}");
    }
    assert_eq!(arrived.field("x-id").as_deref(), answer.header("x-request-id"));
    assert_eq!((arrived.field("x-debug"), arrived.field("x-forwarded-for")), (None, None));
}

#[test]
fn a_value_that_is_not_there_takes_what_the_client_sent_with_it() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        "  - { name: a, upstream: web, request_headers: { set: { x-user: '{query.user}' }, add: { x-more: '{cookie.c}' } } }\n",
    );
    let request = Request::get("/").header("x-user", "forged");
    assert_eq!(proxy.client().send(&request).status, 200);
    let arrived = upstream.only();
    assert_eq!((arrived.field("x-user"), arrived.field("x-more")), (None, None));
}

#[test]
fn a_value_that_no_field_may_hold_is_refused() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        "  - { name: a, match: { path: /request }, upstream: web, request_headers: { set: { x-user: 'u={query.user}' } } }\n  \
         - { name: b, match: { path: /response }, upstream: web, response_headers: { set: { x-user: 'u={query.user}' } } }\n",
    );
    for path in ["/request", "/response"] {
        for value in ["a%0d%0ax-admin:%201", "a%00", "%0a", "%7f"] {
            let answer = proxy.get(&format!("{path}?user={value}"));
            assert_problem(&answer, 400);
            assert_eq!(answer.header("x-admin"), None);
        }
        assert_problem(&proxy.get(&format!("{path}?user=a&user=b")), 400);
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(proxy.get("/response?user=%C3%A9").status, 200);
}

#[test]
fn answers_are_changed_whoever_gives_them() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        r#"
  - name: a
    upstream: web
    limits: [{ name: one, key: global, rate: 1/h }]
    response_headers: { set: { strict-transport-security: max-age=9, x-path: "{path}" }, add: { x-own: "2" }, default: { x-own: never, x-new: "3" }, remove: [server, via] }
"#,
    );
    let (first, second) = (proxy.get("/p"), proxy.get("/q"));
    assert_eq!((first.status, second.status), (200, 429));
    for (answer, path, own) in [(&first, "/p", "1, 2"), (&second, "/q", "2")] {
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=9"));
        assert_eq!(answer.header("x-path"), Some(path));
        assert_eq!(answer.list("x-own"), own);
        assert_eq!(answer.header("x-new"), Some("3"));
        assert_eq!((answer.header("server"), answer.header("via")), (None, None));
        assert!(answer.header("x-request-id").is_some());
    }
    assert_eq!(second.retry_after(), 3600);
}

#[test]
fn claims_of_a_verified_token_alone_are_passed_on() {
    let upstream = Upstream::replying(OK);
    let issuer = Issuer::new("EdDSA", Some("k"));
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("jwks.json");
    std::fs::write(&keys, key_set(&[&issuer])).unwrap();
    let proxy = routed_with(
        &upstream,
        "  - { name: a, upstream: web, request_headers: { set: { x-user: '{jwt.sub}' } } }\n",
        &format!("jwt: {{ jwks_file: \"{}\" }}\n", keys.display()),
    );
    let sent = |token: &str| {
        let request = Request::get("/").header("x-user", "forged").header("authorization", &format!("Bearer {token}"));
        assert_eq!(proxy.client().send(&request).status, 200);
        upstream.seen().pop().unwrap().field("x-user")
    };
    let token = issuer.token(&serde_json::json!({ "sub": "ann", "exp": 4_000_000_000_u64 }));
    assert_eq!(sent(&token).as_deref(), Some("ann"));
    assert_eq!(sent(&format!("{}x", &token[..token.len() - 9])), None);
}

#[test]
fn what_only_the_proxy_may_say_cannot_be_configured() {
    for (key, field, cure) in [
        ("request_headers: { set", "host", "rewrite: { host"),
        ("request_headers: { set", "content-length", "leave it to the proxy"),
        ("request_headers: { add", "Transfer-Encoding", "leave it to the proxy"),
        ("request_headers: { default", "connection", "leave it to the proxy"),
        ("request_headers: { set", "x-forwarded-for", "trusted_proxies"),
        ("request_headers: { set", "forwarded", "trusted_proxies"),
        ("request_headers: { set", "via", "leave it to the proxy"),
        ("response_headers: { set", "ratelimit", "rate_limit_headers: none"),
        ("response_headers: { set", "x-ratelimit-limit", "rate_limit_headers: none"),
        ("response_headers: { set", "proxy-status", "leave it as it is"),
        ("response_headers: { set", "trailer", "leave it to the proxy"),
        ("respond: { status: 200, headers", "content-type", "content_type"),
    ] {
        let destination = if key.starts_with("respond:") { "" } else { "upstream: echo, " };
        let yaml = format!("listen: :0\nroutes: [{{ name: a, {destination}{key}: {{ {field}: x }} }} }}]\n");
        let text = told(&["check"], &yaml);
        assert!(text.contains("cannot be changed here") && text.contains(cure), "{field}:\n{text}");
    }
    for (key, field) in [
        ("request_headers", "host"),
        ("request_headers", "te"),
        ("request_headers", "via"),
        ("response_headers", "retry-after"),
        ("response_headers", "ratelimit-policy"),
        ("response_headers", "content-length"),
    ] {
        let yaml = format!("listen: :0\nroutes: [{{ name: a, upstream: echo, {key}: {{ remove: {field} }} }}]\n");
        let text = told(&["check"], &yaml);
        assert!(text.contains("cannot be changed here"), "{field}:\n{text}");
    }
}

#[test]
fn mistakes_in_rewrites_are_shown_with_their_cure() {
    for (rewrite, expected) in [
        ("rewrite: { path: '/{path.tenat}' }", "did you mean `{path.tenant}`?"),
        ("rewrite: { path: '/{path.rest}' }", "end the path with `/*`"),
        ("rewrite: { path: 'x/{path}' }", "a path begins with a slash"),
        ("rewrite: { path: '/x?a={path}' }", "query: { set"),
        ("rewrite: { path: '/x/../{path.tenant}' }", "not in its canonical form"),
        ("rewrite: { strip_prefix: /v2 }", "nothing is stripped"),
        ("rewrite: { strip_prefix: /v1, path: /x }", "rewritten in two ways"),
        ("rewrite: { regex: { match: 'a(', replace: x } }", "unclosed group"),
        ("rewrite: { regex: { match: '(a)', replace: '/$1b' } }", "there are $1"),
        ("rewrite: { regex: { match: '(a)' } }", "`regex` has no `replace`"),
        ("rewrite: { host: 'a b' }", "`a b` is not a host"),
        ("rewrite: {}", "this rewrites nothing"),
        ("request_headers: { set: { x-a: '{remote_addr}' } }", "did you mean `{client_ip}`?"),
        ("request_headers: { set: { x-a: $remote_addr } }", "did you mean `{client_ip}`?"),
        ("request_headers: { set: { x-a: '{jwt.sub}' } }", "no token can be verified"),
        ("request_headers: { set: { x-a: '{tls.subject}' } }", "no listener asks for client certificates"),
        ("request_headers: { set: { x-a: \"a\\nb\" } }", "on one line"),
        ("request_headers: { set: { x-a: } }", "gets no value"),
        ("request_headers: { set: { x-a: 1, X-A: 2 } }", "`x-a` is given twice"),
        ("response_headers: {}", "this changes nothing"),
    ] {
        let yaml = format!(
            "listen: :0\nroutes: [{{ name: a, upstream: echo, match: {{ path: '/v1/{{tenant}}' }}, {rewrite} }}]\n"
        );
        let text = told(&["check"], &yaml);
        assert!(text.contains(expected) && text.contains("<stdin>:2:"), "{rewrite}:\n{text}");
    }
}

/// Every key about rewriting, redirects, access and CORS.
pub(crate) const EVERYTHING: &str = r#"listen: :0
access: { allow: [private], deny: 10.6.6.6 }
routes:
  - name: a
    match: { path: "/t/{tenant}/*" }
    upstream: echo
    rewrite: { strip_prefix: /t, add_prefix: /u, query: { set: { a: "{{{path.tenant}" }, remove: [b, "c d"] }, host: upstream }
    request_headers: { set: { x-a: "{{$${client_ip}", authorization: "Bearer ${T:-secret}" }, add: { x-b: b }, default: { x-c: "{host}" }, remove: [x-d] }
    response_headers: { set: { x-e: "{query}" } }
    max_body_size: 1536KiB
    access: { deny: [2001:db8::/32] }
    cors: { origins: [https://a.example, "https://*.b.example:8443", "null"], methods: [PUT], headers: [x-f], expose: [x-g], credentials: true, max_age: 1h }
  - { name: b, match: { path: /b }, upstream: echo, rewrite: { regex: { match: "^/(b)$", replace: "/$${1}c" }, host: a.example } }
  - { name: c, match: { path: "/c/*" }, redirect: { to: "https://{host}/{path.rest}", status: 302 } }
  - { name: d, match: { path: /d }, respond: { body: "{\"a\": 1}", content_type: application/json, headers: { x-h: "{method}" } } }
  - { name: e, match: { path: /e/* }, upstream: echo, rewrite: { path: "/{path.rest}" }, cors: { origins: "*", headers: "*" } }
"#;

#[test]
fn the_expanded_form_keeps_every_change() {
    let once = told(&["check", "--print"], EVERYTHING);
    for expected in [
        "  deny: [\"10.6.6.6/32\"]",
        "strip_prefix: \"/t\"",
        "\"a\": \"{{{path.tenant}\"",
        "remove: [\"b\", \"c d\"]",
        "host: upstream",
        "\"x-a\": \"{{$${client_ip}\"",
        "\"authorization\": \"***\"",
        "max_body_size: 1536KiB",
        "credentials: true",
        "max_age: 1h",
        "replace: \"/$${1}c\"",
        "redirect: { to: \"https://{host}/{path.rest}\", status: 302 }",
        "body: \"{\\\"a\\\": 1}\"",
        "path: \"/{path.rest}\"",
    ] {
        assert!(once.contains(expected), "{expected} in\n{once}");
    }
    assert_eq!(told(&["check", "--print"], &once), once);
}

#[test]
fn a_secret_in_a_field_is_shown_nowhere() {
    let yaml = "listen: :0\nroutes:\n  - name: a\n    upstream: echo\n    request_headers:\n      \
                set: { authorization: Bearer hunter2, x-api-key: '${K:-hunter2}', x-token: 'hunter2}{' }\n";
    let text = told(&["check"], yaml) + &told(&["check", "--print"], &yaml.replace("}{", ""));
    assert!(!text.contains("Bearer hunter2"), "{text}");
    assert!(text.contains("`authorization` is a secret written in the file"), "{text}");
    assert!(text.contains("a brace opens here") && text.contains(r#""x-api-key": "***""#), "{text}");
    assert!(!text.contains("`x-api-key` is a secret"), "{text}");
    let text = told(&["explain", "GET", "http://a/"], &yaml.replace("}{", ""));
    assert!(!text.contains("Bearer hunter2") && text.contains("x-api-key: ***"), "{text}");
}

#[test]
fn explain_shows_what_is_forwarded_and_answered() {
    let text = told(&["explain", "GET", "http://h/t/acme/x?b=1&k", "-H", "origin: https://a.example"], EVERYTHING);
    for expected in [
        "target    /u/acme/x?k&a=%7Bacme",
        "host      that of the server",
        "body      at most 1536KiB",
        "cors      pages of https://a.example may read the answer",
        "x-a: {$127.0.0.1",
        "authorization: ***",
        "also x-b: b",
        "x-c: h, unless it has one",
        "without x-d",
        "x-e: b=1&k",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let text = told(&["explain", "GET", "https://h/c/x/y"], EVERYTHING);
    assert!(text.contains("answers   302 to https://h/x/y"), "{text}");
    let text = told(&["explain", "GET", "https://h/c/x/y", "--ip", "10.6.6.6"], EVERYTHING);
    assert!(text.contains("403: this address is not let in"), "{text}");
    let json = told(&["explain", "GET", "http://h/d", "--format", "json"], EVERYTHING);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["route"]["answer"], "200 with 8 bytes");
    assert!(json["route"].get("upstream").is_none());
}

/// Whether a path is in the one form that cannot be read two ways, by a reader of its own.
fn is_plain(path: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(path).collect::<Vec<_>>();
    let segments: Vec<_> = path.split('/').skip(1).collect();
    let is_dots = |segment: &&str| {
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned();
        matches!(decoded.split(';').next(), Some("." | ".."))
    };
    path.starts_with('/')
        && !path.contains("//")
        && !segments.iter().any(is_dots)
        && ["%2F", "%5C", "%00", "%25", "\\", "#", " "].iter().all(|bad| !path.to_ascii_uppercase().contains(bad))
        && decoded.iter().all(|&byte| byte != 0 && byte != b'\\')
}

#[test]
fn whatever_clients_send_the_upstream_gets_one_plain_path_and_query() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(
        &upstream,
        r#"
  - { name: a, match: { path: "/a/{p}/*" }, upstream: web, rewrite: { strip_prefix: /a, add_prefix: /x } }
  - { name: b, match: { path: "/b/{p}/*" }, upstream: web, rewrite: { path: "/{path.rest}/{query.q}.{path.p}", query: { set: { q: "{path.p}" } } } }
  - { name: c, match: { path: "/c/*" }, upstream: web, rewrite: { regex: { match: "[/.][ab]", replace: "." }, query: { remove: [q, b] } } }
  - { name: d, match: { path: "/d/*" }, redirect: { to: "/{path.rest}?{query}" } }
"#,
    );
    let pieces = [
        "a", "b", ".", "..", "/", "/", "%2e", "%2F", "%5c", "%25", "%00", "@", "%40", ";", "%3b", "%C3", "+", "%20",
        "?", "&q=", "=", "%0d%0a", "%23", "x",
    ];
    let mut random = fastrand::Rng::with_seed(0xBEEF);
    let mut client = proxy.client();
    let mut redirects = 0;
    for _ in 0..3_000 {
        let route = ["/a/", "/b/", "/c/", "/d/"][random.usize(..4)];
        let tail: String = (0..random.usize(1..9)).map(|_| pieces[random.usize(..pieces.len())]).collect();
        let target = format!("{route}{tail}{}", ["", "?q=.", "?q=../x", "?b&q=%2e%2e", "?q=a+b"][random.usize(..5)]);
        let answer = client.send(&Request::get(&target));
        assert!(matches!(answer.status, 200 | 308 | 400 | 404), "{target}: {answer:?}");
        if let Some(location) = answer.header("location") {
            redirects += 1;
            assert!(is_plain(location.split('?').next().unwrap()), "{target} leads to {location}");
        }
    }
    let seen = upstream.seen();
    for arrived in &seen {
        let words: Vec<_> = arrived.line.split(' ').collect();
        assert!(matches!(words[..], ["GET", _, "HTTP/1.1"]), "{}", arrived.line);
        let path = words[1].split('?').next().unwrap();
        assert!(is_plain(path), "{}", arrived.line);
    }
    assert!(seen.len() > 300 && redirects > 50, "{} forwarded, {redirects} redirects", seen.len());
}
