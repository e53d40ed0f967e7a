//! Logs, metrics, health: what an operator sees.

use std::collections::BTreeSet;

use crate::support::client::{self, Request};
use crate::support::eventually;
use crate::support::port::Port;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{self, Tollgate};
use crate::support::upstream::Upstream;

fn limited(more: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\nlimits: [{{ name: two, key: client_ip, rate: 2/h }}]\n{more}"
    ))
}

#[test]
fn every_request_is_a_line_of_the_access_log() {
    let proxy = limited("access_log: { format: json }\n");
    for _ in 0..3 {
        proxy.get("/some/path?token=secret-value");
    }
    let lines = proxy.access_lines(3);
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(200), Some(200), Some(429)]);
    assert_eq!(lines[2]["limit"], "two");
    assert_eq!(lines[2]["decision"], "denied");
    for line in &lines {
        assert_eq!(line["method"], "GET");
        assert_eq!(line["path"], "/some/path");
        assert_eq!(line["client"], "127.0.0.1");
        assert_eq!(line["host"], "localhost");
        assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 36), "{line}");
        assert!(!line.to_string().contains("secret-value"), "query values are not logged: {line}");
    }
}

#[test]
fn only_limited_requests_and_errors_are_logged_when_asked() {
    let nobody = Port::take();
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\naccess_log: {{ format: json, only: [limited, errors] }}\n\
         upstreams: {{ gone: '{}' }}\nroutes:\n\
         \x20 - {{ name: fine, match: {{ path: /fine }}, upstream: echo, limits: [{{ name: two, key: client_ip, rate: 2/h }}] }}\n\
         \x20 - {{ name: gone, match: {{ path: /gone }}, upstream: gone }}\n",
        nobody.url()
    ));
    let statuses: Vec<_> =
        ["/fine", "/fine", "/fine", "/gone"].into_iter().map(|path| proxy.get(path).status).collect();
    assert_eq!(statuses, [200, 200, 429, 502]);
    let logged: Vec<_> = proxy.access_lines(2).iter().map(|line| line["status"].as_u64()).collect();
    assert_eq!(logged, [Some(429), Some(502)]);
}

#[test]
fn hostile_bytes_are_escaped_in_the_access_log() {
    let proxy = limited("access_log: { format: combined }\n");
    let hostile = Request::get("/%22%0A%1b[31m")
        .header("user-agent", "\"quoted\" \\ \u{e9}")
        .header("referer", "http://a/?secret=1");
    proxy.client().send(&hostile);
    let lines = eventually("a line", || Some(proxy.output()).filter(|lines| !lines.is_empty()));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].chars().all(|c| !c.is_control() && c.is_ascii()), "{:?}", lines[0]);
    assert!(lines[0].contains("\\\"quoted\\\"") || lines[0].contains("\\x22quoted\\x22"), "{}", lines[0]);
    assert!(!lines[0].contains("secret"), "{}", lines[0]);
}

#[test]
fn no_key_or_credential_appears_in_any_output() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nupstream: echo\nlog: { level: trace }\naccess_log: { format: json }\n\
         limits: [{ name: keyed, key: 'header:x-api-key', rate: 1/h }]\n",
    );
    let request = Request::get("/").header("x-api-key", "raw-key-value").header("authorization", "Bearer raw-token");
    for _ in 0..3 {
        proxy.client().send(&request.clone().header("cookie", "session=raw-cookie"));
    }
    proxy.access_lines(3);
    let scrape = client::get(proxy.admin(), "/metrics").text();
    let everything = [proxy.log().join("\n"), proxy.output().join("\n"), scrape].join("\n");
    for secret in ["raw-key-value", "raw-token", "raw-cookie"] {
        let line = everything.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} in {line:?}");
    }
}

#[test]
fn metrics_count_what_happened() {
    let proxy = limited("");
    for _ in 0..5 {
        proxy.get("/");
    }
    let metrics = proxy.metrics();
    let decided = |kind| metrics.count("tollgate_limit_decisions_total", &[("limit", "two"), ("decision", kind)]);
    assert_eq!((decided("allow"), decided("deny")), (2, 3));
    let requests = |code| metrics.count("tollgate_http_requests_total", &[("method", "GET"), ("code", code)]);
    assert_eq!((requests("200"), requests("429")), (2, 3));
    assert_eq!(metrics.count("tollgate_upstream_requests_total", &[("code", "200")]), 2);
    assert_eq!(metrics.count("tollgate_http_request_duration_seconds_count", &[]), 5);
    assert_eq!(metrics.count("tollgate_limit_keys", &[]), 1);
    assert_eq!(metrics.count("tollgate_store_up", &[]), 1);
    for name in ["tollgate_build_info", "tollgate_connections", "tollgate_held_requests", "tollgate_log_dropped_total"]
    {
        assert!(metrics.has(name), "{name}");
    }
    assert!(metrics.containing("127.0.0.1\"").iter().all(|series| series.contains("server=")), "no key is a label");
}

#[test]
fn methods_outside_the_registered_ones_are_one_label() {
    let proxy = limited("");
    proxy.client().send(&Request::new("BREW", "/"));
    proxy.client().send(&Request::new("XYZZY", "/"));
    assert_eq!(proxy.metrics().count("tollgate_http_requests_total", &[("method", "OTHER")]), 2);
}

#[test]
fn health_and_readiness_answer() {
    let proxy = limited("");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(client::get(proxy.admin(), path).status, 200, "{path}");
    }
    assert_eq!(client::get(proxy.admin(), "/nothing").status, 404);
}

#[test]
fn the_admin_listener_asks_for_its_token_but_not_for_health() {
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    std::fs::write(&token, "correct-horse\n").expect("written");
    let proxy = limited(&format!("admin: {{ address: '127.0.0.1:0', token_file: {} }}\n", token.display()));
    assert_eq!(client::get(proxy.admin(), "/healthz").status, 200);
    let status = |request: Request| client::Client::connect(proxy.admin()).send(&request).status;
    assert_eq!(status(Request::get("/metrics")), 401);
    assert_eq!(status(Request::get("/metrics").header("authorization", "Bearer wrong-horse")), 401);
    assert_eq!(status(Request::get("/metrics").header("authorization", "Bearer correct-horse")), 200);
}

#[test]
fn the_request_id_goes_both_ways_and_only_a_trusted_proxy_may_choose_it() {
    let upstream = Upstream::answering(|peer, request| peer.answer(&request.field("x-request-id").unwrap_or_default()));
    let chosen = Request::get("/").header("x-request-id", "chosen-by-client");
    let stranger = Tollgate::start(&format!("listen: 127.0.0.1:0\nupstream: {}\n", upstream.url()));
    let answer = stranger.client().send(&chosen);
    assert_eq!(answer.header("x-request-id"), Some(answer.text().as_str()));
    assert_eq!(answer.text().len(), 36);
    let yaml = format!("listen: 127.0.0.1:0\nupstream: {}\ntrusted_proxies: [127.0.0.1/32]\n", upstream.url());
    assert_eq!(Tollgate::start(&yaml).client().send(&chosen).text(), "chosen-by-client");
}

#[test]
fn a_connection_is_active_while_a_request_is_answered_and_idle_after() {
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::answering(move |peer, request| {
        if request.field("x-slow").is_some() {
            told.lock().expect("one such request").recv().map_err(std::io::Error::other)?;
        }
        peer.answer("done")
    });
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nupstream: {}\n", upstream.url()));
    let connections = |state| {
        let labels = [("listener", "default"), ("state", state)];
        proxy.metrics().count("tollgate_connections", &labels)
    };
    let mut client = proxy.client();
    client.get("/");
    eventually("one idle connection", || (connections("idle") == 1 && connections("active") == 0).then_some(()));
    client.write(&Request::get("/").header("x-slow", "1").bytes()).expect("sent");
    eventually("it is active", || (connections("active") == 1 && connections("idle") == 0).then_some(()));
    go_on.send(()).expect("the upstream waits");
    client.answer_to("GET").expect("answered");
    eventually("it is idle again", || (connections("idle") == 1 && connections("active") == 0).then_some(()));
    drop(client);
    eventually("it is gone", || (connections("idle") == 0).then_some(()));
}

#[test]
fn connections_beyond_the_cap_of_one_address_are_closed_and_counted() {
    let proxy = Tollgate::start(
        "listeners: { default: { address: '127.0.0.1:0', max_connections_per_ip: 2 } }\nworkers: 2\n\
         upstreams: { web: echo }\nroutes: [{ name: all, match: { path: /* }, upstream: web }]\n",
    );
    let mut kept = [proxy.client(), proxy.client()];
    for client in &mut kept {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(proxy.client().exchange(&Request::get("/")).is_err(), "the third is closed");
    let labels = [("listener", "default"), ("reason", "max_connections_per_ip")];
    assert_eq!(proxy.metrics().count("tollgate_connections_refused_total", &labels), 1);
    drop(kept);
    eventually("there is room again", || {
        proxy.client().exchange(&Request::get("/")).is_ok_and(|answer| answer.status == 200).then_some(())
    });
}

#[test]
fn a_second_proxy_starts_beside_one_that_has_the_default_admin_address() {
    let start = || {
        let mut command = crate::support::tollgate::program();
        command.args(["run", "--from", "127.0.0.1:0", "--to", "echo", "--log-format", "json"]);
        Tollgate::spawn(command, tempfile::tempdir().expect("a directory"))
    };
    let proxies = [start(), start()];
    for proxy in &proxies {
        assert_eq!(client::get(proxy.admin(), "/readyz").status, 200);
    }
    assert_ne!(proxies[0].admin(), proxies[1].admin());
}

#[test]
fn an_upstream_that_goes_and_comes_is_two_lines_of_the_log() {
    let taken = Port::take();
    let port = taken.number();
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 2\n\
         upstreams: {{ web: {{ servers: ['http://127.0.0.1:{port}'] }} }}\n\
         routes: [{{ name: all, match: {{ path: /* }}, upstream: web }}]\n"
    ));
    for _ in 0..20 {
        assert_eq!(proxy.get("/").status, 502);
    }
    let server = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free again");
    std::thread::spawn(move || {
        for mut stream in server.incoming().map_while(Result::ok) {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
        }
    });
    eventually("the log says so", || {
        assert_eq!(proxy.get("/").status, 204);
        proxy.log().iter().any(|line| line.contains("answers again")).then_some(())
    });
    let log = proxy.log();
    let about: Vec<_> = log.iter().filter(|line| line.contains(&format!("127.0.0.1:{port}"))).collect();
    assert_eq!(about.len(), 2, "{about:#?}");
    assert!(about[0].contains("upstream server fails") && about[0].contains("refused"), "{}", about[0]);
    assert!(about[1].contains("\"failures\":20"), "{}", about[1]);
    assert!(!log.iter().any(|line| line.contains("rejected")), "requests are the access log's: {log:#?}");
}

#[test]
fn silent_connections_to_the_admin_listener_keep_nobody_out() {
    let proxy = Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\n");
    let mut streams = client::Client::connect(proxy.admin());
    streams.write(b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    let mut silent: Vec<_> =
        (0..300).map(|_| std::net::TcpStream::connect(proxy.admin()).expect("it listens")).collect();
    assert_eq!(client::get(proxy.admin(), "/healthz").status, 200);
    let mut closed = [0];
    silent[0].set_read_timeout(Some(crate::support::PATIENCE)).expect("a socket option");
    let ended = std::io::Read::read(&mut silent[0], &mut closed);
    assert!(matches!(ended, Ok(0)) || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    silent[299].set_nonblocking(true).expect("a socket option");
    let open = std::io::Read::read(&mut silent[299], &mut closed).expect_err("nothing to read");
    assert_eq!(open.kind(), std::io::ErrorKind::WouldBlock, "the last ones are there");
}

/// The second cause is often the one that matters: what the server does since it was started again.
#[test]
fn each_cause_of_an_outage_is_one_line() {
    let taken = Port::take();
    let port = taken.number();
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nupstream: http://127.0.0.1:{port}\n"));
    (0..5).for_each(|_| assert_eq!(proxy.get("/").status, 502));
    let server = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free again");
    std::thread::spawn(move || {
        for mut stream in server.incoming().map_while(Result::ok) {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        }
    });
    (0..5).for_each(|_| assert_eq!(proxy.get("/").status, 502));
    let log = proxy.log();
    let told: Vec<_> = log.iter().filter(|line| line.contains("upstream server fails")).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("refused") && !told[1].contains("refused"), "{told:#?}");
}

#[test]
fn each_change_of_the_store_is_one_line_whatever_the_number_of_workers() {
    let mut redis = RedisServer::start();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 4\nupstream: echo\nlimits: [{{ name: two, key: client_ip, rate: 1000/s }}]\n\
         store: {{ redis: {{ url: '{}' }}, on_store_error: deny }}\n",
        redis.url()
    ));
    let up = |wanted| {
        eventually("the store is seen", || (proxy.metrics().count("tollgate_store_up", &[]) == wanted).then_some(()));
    };
    up(1);
    redis.cli(&["ACL", "SETUSER", "default", "-evalsha"]);
    // A new connection each: every worker takes a part.
    eventually("every worker has been told", || {
        let _ = proxy.get("/");
        (proxy.metrics().count("tollgate_store_errors_total", &[("kind", "noperm")]) >= 8).then_some(())
    });
    redis.kill();
    eventually("it is gone", || {
        assert_eq!(proxy.get("/").status, 503);
        (proxy.metrics().count("tollgate_store_errors_total", &[("kind", "refused")]) >= 8).then_some(())
    });
    redis.restart();
    up(1);
    let of = |message: &str| proxy.log().into_iter().filter(|line| line.contains(message)).collect::<Vec<_>>();
    eventually("its return is logged", || (of("is back").len() == 1).then_some(()));
    let away = of("redis is away");
    assert_eq!((of("connected to redis").len(), away.len()), (1, 1), "{:#?}", proxy.log());
    assert!(
        away[0].contains("NOPERM") && away[0].contains("users.acl"),
        "what redis says, and what to do: {}",
        away[0]
    );
    assert_eq!(of("redis is still away").iter().filter(|line| line.contains("refused")).count(), 1);
    assert!(of("rejected").is_empty(), "requests are the access log's");
}

#[test]
fn a_warning_about_the_configuration_is_a_line_of_the_json_log() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nupstream: echo\nlimits: [{ name: keyed, key: 'header:x-api-key', rate: 1/h }]\n",
    );
    let warning = proxy.wait_for_log("the warning", |line| line["level"] == "WARN" && line["line"] == 3);
    assert!(warning["help"].as_str().is_some_and(|help| help.contains("client_ip")), "{warning}");
    for line in proxy.log() {
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "not JSON: {line}");
    }
}

/// What the sources announce and what the page lists are the same metrics, by the names that a scrape has.
#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let root = tollgate::repository();
    let mut sources = vec![root.join("src/admin/metrics.rs")];
    let parts = std::fs::read_dir(root.join("src/admin/metrics")).expect("a directory");
    sources.extend(parts.map(|entry| entry.expect("an entry").path()));
    let family = regex::Regex::new(r#""(tollgate_[a-z_]+)",\s*Kind::(\w+)"#).expect("an expression");
    let mut announced = BTreeSet::new();
    for source in sources {
        let text = std::fs::read_to_string(source).expect("a source");
        let found = family.captures_iter(&text).map(|found| match &found[2] {
            "Counter" => format!("{}_total", &found[1]),
            _ => found[1].to_owned(),
        });
        announced.extend(found);
    }
    assert!(announced.len() > 40, "only {announced:?}: the reading of the sources is broken");
    let page = std::fs::read_to_string(root.join("docs/observability.md")).expect("the page");
    let name = regex::Regex::new("`(tollgate_[a-z_]+)`").expect("an expression");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `tollgate_").map(|_| line.split('|').nth(1)));
    let cells: Vec<_> = rows.flatten().collect();
    let documented: BTreeSet<_> =
        cells.iter().flat_map(|cell| name.captures_iter(cell)).map(|found| found[1].to_owned()).collect();
    assert_eq!(announced, documented);
}
