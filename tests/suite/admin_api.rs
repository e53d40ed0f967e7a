//! The admin API: it is what its description says, tells how things are, and changes what it says it changes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::admin::Api;
use crate::support::client::{Client, Request};
use crate::support::eventually;
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{Tollgate, field, signal};
use crate::support::upstream::Upstream;

const SECRET: &str = "client-secret-2b9e";

fn on(redis: &RedisServer) -> String {
    format!("store: {{ redis: {{ url: '{}', timeout: 2s, password: '' }} }}", redis.url())
}

/// A proxy with limits of several kinds before a server that answers.
fn proxy(more: &str, server: &Upstream) -> Tollgate {
    Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\ntrusted_proxies: [127.0.0.1/32]\n{more}\n\
         upstreams: {{ api: {{ servers: ['{0}'] }}, two: {{ servers: ['{0}', 'http://127.0.0.1:9'] }} }}\nroutes:\n\
         \x20 - name: calls\n    match: {{ path: /calls/* }}\n    upstream: api\n    limits:\n\
         \x20     - {{ name: per/key, key: 'header:x-key | client_ip', rate: 3/d, dynamic_overrides: {{ max_rate: 8/d }} }}\n\
         \x20     - {{ name: pair, key: [client_ip, route], rate: 90/d }}\n\
         \x20 - {{ name: two, match: {{ path: /two }}, upstream: two, retries: {{ attempts: 1 }} }}\n\
         limits: [{{ name: watched, key: client_ip, rate: 2/d, mode: shadow }}]\n",
        server.url()
    ))
}

fn server() -> Upstream {
    Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
}

fn of(key: &str) -> Request {
    Request::get("/calls/a").header("x-key", key)
}

fn status(proxy: &Tollgate, request: &Request) -> u16 {
    proxy.client().send(request).status
}

#[test]
fn every_answer_is_as_the_description_says() {
    let (redis, server) = (RedisServer::start(), server());
    for store in [String::new(), on(&redis)] {
        let proxy = proxy(&store, &server);
        let api = Api::of(proxy.admin());
        let codes: Vec<_> = (0..4).map(|_| status(&proxy, &of(SECRET))).collect();
        assert_eq!(codes, [200, 200, 200, 429]);
        for path in [
            "overview",
            "history",
            "routes",
            "limits",
            "upstreams",
            "config",
            "log",
            "openapi.json",
            "limits/per%2Fkey/mode",
            "limits/per%2Fkey/keys",
            "limits/per%2Fkey/keys?count=1",
            "limits/pair/keys",
            "limits/pair/keys/12%3Aip%3D127.0.0.111%3Aroute%3Dcalls",
            "limits/per%2Fkey/overrides",
            &format!("limits/per%2Fkey/keys/{SECRET}"),
            "limits/per%2Fkey/keys/192.0.2.1",
        ] {
            api.done("GET", path, "");
        }
        for (method, path, body) in [
            ("PUT", "limits/per%2Fkey/overrides/x", r#"{"rate": "5/d", "ttl": "1h"}"#),
            ("DELETE", "limits/per%2Fkey/overrides/x", ""),
            ("DELETE", "limits/per%2Fkey/keys/x", ""),
            ("PUT", "limits/per%2Fkey/mode", r#"{"mode": "shadow"}"#),
            ("POST", "limits/per%2Fkey/mode", r#"{"mode": "enforce"}"#),
            ("POST", &format!("servers/api/{}/drain", server.address()), ""),
            ("DELETE", &format!("servers/api/{}/drain", server.address()), ""),
            (
                "POST",
                "explain",
                r#"{"method": "GET", "url": "http://a/calls/b", "headers": ["x-key: k"], "live": true}"#,
            ),
            ("POST", "explain", r#"{"method": "GET", "url": "http://a/nowhere", "ip": "2001:db8::1"}"#),
            ("POST", "reload", ""),
            ("PUT", "log", r#"{"level": "tollgate=debug"}"#),
            ("PUT", "log", r#"{"level": "info"}"#),
        ] {
            api.done(method, path, body);
        }
        for (method, path, body, code) in [
            ("POST", "overview", "", 405),
            ("DELETE", "limits/per%2Fkey/mode", "", 405),
            ("GET", "explain", "", 405),
            ("GET", "servers/api/x/drain", "", 405),
            ("GET", "limits/none/mode", "", 404),
            ("GET", "limits/none/keys", "", 404),
            ("GET", "limits/none/keys/x", "", 404),
            ("DELETE", "limits/none/keys/x", "", 404),
            ("PUT", "limits/none/mode", r#"{"mode": "shadow"}"#, 404),
            ("POST", "servers/none/x/drain", "", 404),
            ("POST", "servers/api/none/drain", "", 404),
            ("GET", "limits/per%2Fkey/keys?count=none", "", 400),
            ("GET", "limits/pair/keys/192.0.2.1", "", 400),
            ("PUT", "limits/per%2Fkey/mode", "{", 400),
            ("PUT", "limits/per%2Fkey/mode", r#"{"mode": "off"}"#, 422),
            ("PUT", "log", r#"{"level": "loudest=ever"}"#, 422),
            ("POST", "explain", r#"{"method": "GET", "url": "http://a/", "headers": ["none"]}"#, 400),
            ("POST", "explain", r#"{"method": "GET"}"#, 422),
            ("PUT", "limits/per%2Fkey/mode", &"x".repeat(5000), 413),
        ] {
            let (refused, detail) = api.refused(method, path, body);
            assert_eq!(refused, code, "{method} {path}: {detail}");
        }
        let successor = api.done("POST", "upgrade", "")["pid"].as_u64().expect("a number");
        signal(u32::try_from(successor).expect("a number"), "TERM");
        assert_eq!(operations(api.document()).difference(&api.answered()).collect::<Vec<_>>(), ["GET /api/v1/stream"]);
    }
}

/// Every operation of the document: `GET /api/v1/overview`.
fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, operations): (&String, &Value)| {
        let methods = operations.as_object().expect("operations").keys().filter(|method| *method != "parameters");
        methods.map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn the_description_and_the_program_have_the_same_paths_and_methods() {
    let proxy = Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\n");
    let known = tollgate::admin::api::ENDPOINTS.iter().flat_map(|(_, path, methods)| {
        methods.split(", ").filter(|method| *method != "HEAD").map(move |method| format!("{method} {path}"))
    });
    assert_eq!(operations(Api::of(proxy.admin()).document()), known.collect());
}

#[test]
fn a_key_is_looked_at_without_a_charge_and_reset() {
    let (redis, server) = (RedisServer::start(), server());
    for store in [String::new(), on(&redis)] {
        let proxy = proxy(&store, &server);
        let api = Api::of(proxy.admin());
        let path = format!("limits/per%2Fkey/keys/{SECRET}");
        let left = || api.done("GET", &path, "")["states"][0]["remaining"].clone();
        assert_eq!(left(), 3);
        assert_eq!(status(&proxy, &of(SECRET)), 200);
        assert_eq!((left(), left()), (json!(2), json!(2)), "looking charges nothing");
        assert_eq!([(); 4].map(|()| status(&proxy, &of(SECRET))), [200, 200, 429, 429]);
        assert_eq!(left(), 0);
        assert_eq!(api.done("DELETE", &path, "")["reset"], true);
        assert_eq!(left(), 3);
        assert_eq!(status(&proxy, &of(SECRET)), 200, "a denial that was remembered does not stand in the way");
        // As the list shows it, which is how the page resets a key that it cannot know.
        let shown = api.done("GET", "limits/per%2Fkey/keys", "")["keys"][0]["key"].as_str().unwrap().to_owned();
        assert!(shown.starts_with("header:x-key=#") && !shown.contains(SECRET), "{shown}");
        let shown = format!("limits/per%2Fkey/keys/{}", shown.replace('#', "%23").replace('=', "%3D"));
        assert_eq!(api.done("GET", &shown, "")["states"][0]["remaining"], 2);
        api.done("DELETE", &shown, "");
        assert_eq!(left(), 3);
        let reset = proxy.wait_for_log("the reset is told", |line| field(line, "message") == "key reset");
        assert_eq!((field(&reset, "client"), field(&reset, "limit")), ("127.0.0.1".to_owned(), "per/key".to_owned()));
        assert!(!proxy.log().iter().any(|line| line.contains(SECRET)), "no key in a log");
    }
    let keys = redis.keys();
    assert!(!keys.iter().any(|key| key.contains(SECRET)), "{keys:?}");
}

#[test]
fn a_key_is_reset_in_a_cluster_too_whatever_its_state_is_tagged_with() {
    let cluster = RedisCluster::of_masters();
    for tag in ["subject", "route"] {
        let store = format!(
            "store: {{ redis: {{ cluster: {}, hash_tag: {tag}, key_prefix: {tag}, timeout: 2s }} }}",
            cluster.list()
        );
        let proxy = proxy(&store, &server());
        let api = Api::of(proxy.admin());
        for key in ["a", "b", "c", "d", "e"] {
            assert_eq!([(); 4].map(|()| status(&proxy, &of(key))), [200, 200, 200, 429], "{tag}");
            let path = format!("limits/per%2Fkey/keys/{key}");
            assert_eq!(api.done("GET", &path, "")["states"][0]["remaining"], 0, "{tag}");
            api.done("DELETE", &path, "");
            assert_eq!(status(&proxy, &of(key)), 200, "{tag}");
        }
    }
}

#[test]
fn the_keys_that_are_denied_most_come_first() {
    let proxy = proxy("", &server());
    for (key, count) in [("rare", 2), ("heavy", 20), ("middle", 8)] {
        for _ in 0..count {
            status(&proxy, &of(key));
        }
    }
    let api = Api::of(proxy.admin());
    let listed = api.done("GET", "limits/per%2Fkey/keys", "");
    let numbers: Vec<_> =
        listed["keys"].as_array().unwrap().iter().map(|key| (&key["requests"], &key["denied"])).collect();
    assert_eq!(numbers, [(&json!(20), &json!(17)), (&json!(8), &json!(5)), (&json!(2), &json!(0))]);
    let limit = &api.done("GET", "overview", "")["limits"][1];
    assert_eq!((&limit["name"], &limit["top_key"]["denied"]), (&json!("per/key"), &json!(17)));
    let route = &api.done("GET", "routes", "")["routes"][0];
    assert_eq!((&route["requests"], &route["limited"]), (&json!(30), &json!(22)), "{route}");
    let pair = api.done("GET", "limits/pair/keys", "");
    assert_eq!(pair["keys"][0]["key"], "12:ip=127.0.0.111:route=calls", "{pair}");
}

#[test]
fn a_drained_server_gets_no_new_requests() {
    let (one, other) = (server(), server());
    let proxy = Tollgate::start(
        &format!(
            "listen: 127.0.0.1:0\nupstreams: {{ web: {{ servers: ['{}', '{}'] }} }}\n\
         routes: [{{ name: all, match: {{ path: /* }}, upstream: web }}]\n",
            one.url(),
            other.url()
        )
        .replace("listen: 127.0.0.1:0", "listeners: { default: { address: '127.0.0.1:0' } }"),
    );
    let api = Api::of(proxy.admin());
    let mut client = proxy.client();
    let mut send = |count: usize| (0..count).for_each(|_| assert_eq!(client.get("/").status, 200));
    let drain = format!("servers/web/{}/drain", one.address());
    send(4);
    assert!(!one.seen().is_empty());
    let told = api.done("POST", &drain, "");
    assert_eq!((&told["draining"], &told["changed"]), (&json!(true), &json!(true)));
    assert_eq!(api.done("POST", &drain, "")["changed"], false);
    let before = one.seen().len();
    send(6);
    assert_eq!(one.seen().len(), before, "the drained server saw a request");
    let label = one.address().to_string();
    let draining = [("server", label.as_str()), ("state", "draining")];
    assert_eq!(proxy.metrics().count("tollgate_upstream_endpoints", &draining), 1);
    let servers = api.done("GET", "upstreams", "");
    assert_eq!(servers["upstreams"][0]["servers"][0]["state"], "draining");
    assert_eq!(api.done("GET", "overview", "")["problems"][0]["kind"], "draining_server");

    let last = format!("servers/web/{}/drain", other.address());
    api.done("POST", &last, "");
    assert_eq!(proxy.get("/").status, 503, "nobody is left, and nobody is asked all the same");
    assert_eq!(one.seen().len(), before);
    api.done("DELETE", &drain, "");
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(one.seen().len(), before + 1);
    for message in ["server drained", "server takes requests again"] {
        let line = proxy.wait_for_log(message, |line| field(line, "message") == message);
        assert_eq!((field(&line, "upstream"), field(&line, "server")), ("web".to_owned(), label.clone()));
    }
}

#[test]
fn a_limit_that_is_switched_only_watches_until_it_is_switched_back() {
    let (redis, server) = (RedisServer::start(), server());
    for store in [String::new(), on(&redis)] {
        let proxy = proxy(&store, &server);
        let api = Api::of(proxy.admin());
        assert_eq!([(); 5].map(|()| status(&proxy, &of("k"))), [200, 200, 200, 429, 429]);
        let told = api.done("PUT", "limits/per%2Fkey/mode", r#"{"mode": "shadow"}"#);
        assert_eq!(
            (&told["mode"], &told["file_mode"], &told["switched"]),
            (&json!("shadow"), &json!("enforce"), &json!(true))
        );
        assert!(told["note"].as_str().unwrap().contains("until"), "{told}");
        assert_eq!([(); 2].map(|()| status(&proxy, &of("k"))), [200, 200]);
        let shadowed = [("limit", "per/key"), ("decision", "shadow_deny")];
        assert_eq!(proxy.metrics().count("tollgate_limit_decisions_total", &shadowed), 2);
        let overview = api.done("GET", "overview", "");
        assert_eq!(overview["limits"][1]["switched"], true);
        assert_eq!(overview["problems"][0]["kind"], "switched");
        api.done("POST", "limits/per%2Fkey/mode", r#"{"mode": "enforce"}"#);
        assert_eq!(status(&proxy, &of("k")), 429);
        assert_eq!(api.done("GET", "overview", "")["problems"], json!([]));
        let line = proxy.wait_for_log("the switch is told", |line| field(line, "message") == "limit switched");
        assert_eq!(field(&line, "detail"), "shadow");
        // And a shadow limit may be made to deny.
        api.done("PUT", "limits/watched/mode", r#"{"mode": "enforce"}"#);
        assert_eq!(status(&proxy, &of("fresh")), 429, "its address was seen too often by now");
    }
}

#[test]
fn a_limit_with_leases_cannot_be_made_a_shadow() {
    let redis = RedisServer::start();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\n{}\nlimits: [{{ name: l, key: client_ip, rate: 100/s, burst: 100, lease: 50ms }}]\n",
        on(&redis)
    ));
    let (code, detail) = Api::of(proxy.admin()).refused("PUT", "limits/l/mode", r#"{"mode": "shadow"}"#);
    assert!(code == 409 && detail.contains("leased"), "{code} {detail}");
}

#[test]
fn explain_tells_what_is_left_and_charges_nothing() {
    let (redis, server) = (RedisServer::start(), server());
    for store in [String::new(), on(&redis)] {
        let proxy = proxy(&store, &server);
        let api = Api::of(proxy.admin());
        assert_eq!(status(&proxy, &of("k")), 200);
        let question =
            r#"{"method": "GET", "url": "http://a/calls/b", "headers": ["x-key: k"], "ip": "127.0.0.1", "live": true}"#;
        for _ in 0..2 {
            let told = api.done("POST", "explain", question);
            assert_eq!(told["route"]["name"], "calls");
            let left: Vec<_> =
                told["limits"].as_array().unwrap().iter().map(|limit| &limit["now"][0]["remaining"]).collect();
            assert_eq!(left, [&json!(1), &json!(2), &json!(89)], "{told}");
        }
        api.done("PUT", "limits/per%2Fkey/overrides/header%3Ax-key%3Dk", r#"{"rate": "8/d", "ttl": "1h"}"#);
        let told = eventually("the override is known", || {
            let told = api.done("POST", "explain", question);
            (told["limits"][1]["now"][0]["remaining"] == 8).then_some(told)
        });
        assert!(told["limits"][1]["because"].as_str().unwrap().contains("override set"), "{told}");
    }
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let redis = RedisServer::start_with(&["--requirepass", "hunter2-redis"]);
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\nstore: {{ redis: {{ url: 'redis://127.0.0.1:{}', password: hunter2-redis }} }}\n",
        redis.port()
    ));
    let yaml = Api::of(proxy.admin()).done("GET", "config", "")["yaml"].as_str().unwrap().to_owned();
    assert!(yaml.contains("***") && !yaml.contains("hunter2"), "{yaml}");
}

#[test]
fn the_stream_tells_the_overview_again_and_again() {
    let proxy = proxy("", &server());
    let api = Api::of(proxy.admin());
    let mut stream = TcpStream::connect(proxy.admin()).unwrap();
    stream.write_all(b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 8192]);
    let mut next = || loop {
        let start = text.find("data: {");
        if let Some(event) = start.and_then(|start| Some(text[start + 6..].split_once("\n\n")?.0.to_owned())) {
            text = text[start.unwrap() + event.len()..].to_owned();
            return event;
        }
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    };
    let mut read = || {
        let overview: Value = serde_json::from_str(&next()).expect("an event is one chunk");
        api.hold(&json!({ "$ref": "#/components/schemas/Overview" }), &overview, "an event");
        overview
    };
    assert_eq!(read()["traffic"]["requests"], 0);
    assert_eq!(status(&proxy, &of("k")), 200);
    let mut counted = || (read()["traffic"]["requests"] == 1).then_some(());
    eventually("the request is counted", &mut counted);
    let many: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(proxy.admin()).unwrap();
            stream.write_all(b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            (stream, String::from_utf8_lossy(&head[9..]).into_owned())
        })
        .collect();
    assert_eq!(many.iter().filter(|(_, code)| code == "503").count(), 9, "32 streams at once, with the first one");
    drop(many);
    assert_eq!(Client::connect(proxy.admin()).get("/healthz").status, 200);
}

/// A proxy whose admin listener asks for a token.
fn guarded(metrics: &str) -> (tempfile::TempDir, Tollgate) {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "correct-horse-battery").unwrap();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\nadmin: {{ address: 127.0.0.1:0, token_file: '{}' }}\n{metrics}\n\
         limits: [{{ name: l, key: client_ip, rate: 3/d }}]\n",
        token.display()
    ));
    (directory, proxy)
}

#[test]
fn only_the_holder_of_the_token_sees_or_changes_anything() {
    let (_kept, proxy) = guarded("");
    let send = |request: &Request| Client::connect(proxy.admin()).send(request);
    let json = |request: Request| request.header("content-type", "application/json");
    for (path, code) in [("/healthz", 200), ("/readyz", 200), ("/app.js", 200), ("/app.css", 200), ("/metrics", 401)] {
        assert_eq!(send(&Request::get(path)).status, code, "{path}");
    }
    let page = send(&Request::get("/").header("accept", "text/html"));
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'self'"));
    for (_, path, methods) in tollgate::admin::api::ENDPOINTS {
        let path = path.replace(['{', '}'], "");
        for method in methods.split(", ").filter(|method| *method != "HEAD") {
            for given in
                [None, Some("Bearer wrong"), Some("Bearer correct-horse-batterz"), Some("correct-horse-battery")]
            {
                let request = json(Request::new(method, &path));
                let request = given.into_iter().fold(request, |request, given| request.header("authorization", given));
                let answer = send(&request);
                assert_eq!(
                    (answer.status, answer.header("www-authenticate")),
                    (401, Some("Bearer")),
                    "{method} {path}"
                );
                assert_eq!(answer.json()["status"], 401);
            }
        }
    }
    let refused = proxy.wait_for_log("refusals are told", |line| field(line, "message") == "admin request refused");
    assert_eq!((field(&refused, "client"), field(&refused, "status")), ("127.0.0.1".to_owned(), "401".to_owned()));
    let holder = |request: Request| request.header("authorization", "Bearer correct-horse-battery");
    assert_eq!(send(&holder(Request::get("/metrics"))).status, 200);
    assert_eq!(send(&holder(Request::get("/api/v1/overview"))).status, 200);
    let switch = || holder(json(Request::new("PUT", "/api/v1/limits/l/mode").body(r#"{"mode": "shadow"}"#)));
    for (name, value, code) in [
        ("origin", "http://evil.example", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "same-origin", 200),
        ("origin", "http://localhost", 200),
    ] {
        assert_eq!(send(&switch().header(name, value)).status, code, "{name}: {value}");
    }
    let plain = holder(Request::new("PUT", "/api/v1/limits/l/mode").body(r#"{"mode": "shadow"}"#));
    assert_eq!(send(&plain).status, 415);
    assert_eq!(send(&plain.header("content-type", "text/plain")).status, 415);
    let links = Request::get("/").header("accept", "text/html").header("sec-fetch-site", "cross-site");
    assert_eq!(send(&links.header("sec-fetch-mode", "navigate")).status, 200, "a link may lead here");
}

#[test]
fn metrics_may_be_for_everybody_and_the_page_for_nobody() {
    let (_kept, proxy) = guarded("metrics: { token: none }");
    assert_eq!(Client::connect(proxy.admin()).get("/metrics").status, 200);
    assert_eq!(Client::connect(proxy.admin()).get("/api/v1/overview").status, 401);
    let foreign = Request::get("/metrics").header("origin", "http://evil.example");
    assert_eq!(Client::connect(proxy.admin()).send(&foreign).status, 403);
    let plain =
        Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\nadmin: { address: 127.0.0.1:0, dashboard: false }\n");
    let page = Client::connect(plain.admin()).send(&Request::get("/").header("accept", "text/html"));
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert!(page.text().contains("/api/v1/overview") && !page.text().contains("dashboard"), "{}", page.text());
    assert_eq!(Client::connect(plain.admin()).get("/app.js").status, 404);
}

#[test]
fn a_host_that_points_here_by_deceit_is_refused() {
    let proxy = proxy("", &server());
    let rebound = Request::get("/api/v1/overview").host("rebound.example:9901");
    let answer = Client::connect(proxy.admin()).send(&rebound);
    assert_eq!((answer.status, answer.header("content-type")), (403, Some("application/problem+json")));
}
