//! The configuration is read again while the proxy runs: whole or not at all, and nobody notices.

use std::time::Duration;

use serde_json::Value;

use crate::support::client::{self, Client, Request};
use crate::support::eventually;
use crate::support::port::Port;
use crate::support::tollgate::{Tollgate, field, tollgate};
use crate::support::upstream::Upstream;

/// Writes another configuration over the one that runs; the admin listener stays as it is.
fn write(proxy: &Tollgate, yaml: &str) {
    let text = format!("{yaml}\nadmin: {{ address: 127.0.0.1:0 }}\n");
    std::fs::write(proxy.config_path(), text).expect("written");
}

/// Asks for a reload as a script would, and waits for what comes of it.
fn ask(proxy: &Tollgate) -> (u16, Value) {
    let answer = Client::connect(proxy.admin())
        .send(&Request::new("POST", "/api/v1/reload").header("content-type", "application/json"));
    (answer.status, answer.json())
}

/// Runs on another configuration from now on.
#[track_caller]
fn replace(proxy: &Tollgate, yaml: &str) {
    write(proxy, yaml);
    let (status, answer) = ask(proxy);
    // The watch may have been faster.
    assert!(status == 200, "{status} {answer:#}");
}

fn limited(rate: &str) -> String {
    format!("listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits: [{{ name: api, key: global, rate: {rate} }}]\n")
}

fn remaining(proxy: &Tollgate) -> u64 {
    proxy.get("/").remaining("api")
}

#[test]
fn limits_change_and_what_was_counted_stays() {
    let proxy = Tollgate::start(&limited("5/h"));
    (0..3).for_each(|_| assert_eq!(proxy.get("/").status, 200));
    replace(&proxy, &limited("5/h, burst: 10"));
    assert_eq!(remaining(&proxy), 6, "three were taken before");
    let metrics = proxy.metrics();
    assert_eq!(metrics.count("tollgate_http_requests_total", &[("route", "default")]), 4);
    assert_eq!(metrics.count("tollgate_limit_decisions_total", &[("limit", "api"), ("decision", "allow")]), 4);
    // As long as it took until it was full: nobody's debt is forgiven, so this one is empty for a millisecond.
    replace(&proxy, &limited("1000/s"));
    eventually("it is filled", || (proxy.get("/").status == 200).then_some(()));
}

#[test]
fn a_broken_file_changes_nothing_and_is_seen_in_four_places() {
    let proxy = Tollgate::start(&limited("5/h"));
    assert_eq!(proxy.metrics().count("tollgate_config_last_reload_successful", &[]), 1);
    write(&proxy, &limited("5/fortnight"));
    let (status, answer) = ask(&proxy);
    assert_eq!((status, answer["title"].as_str()), (422, Some("Configuration not reloaded")));
    let frames = answer["frames"].as_str().expect("frames");
    assert!(frames.contains("proxy.yaml:4:") && frames.contains("5/fortnight"), "{frames}");
    assert_eq!(answer["report"]["diagnostics"][0]["line"], 4);
    let line = proxy.wait_for_log("the place", |line| field(line, "line") == "4" && field(line, "level") == "ERROR");
    assert!(field(&line, "message").contains("fortnight"), "{line}");
    proxy.wait_for_log("the outcome", |line| field(line, "message").starts_with("configuration not reloaded"));
    assert_eq!(proxy.metrics().count("tollgate_config_last_reload_successful", &[]), 0);
    let told = tollgate(&["reload", "--admin", &proxy.admin().to_string()]);
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("proxy.yaml:4:") && told.errors.contains("5/fortnight"), "{}", told.errors);
    let overview = client::get(proxy.admin(), "/api/v1/overview").json();
    assert_eq!(overview["problems"][0]["kind"], "reload_failed", "{overview:#}");
    assert_eq!(proxy.get("/").status, 200);
    replace(&proxy, &limited("6/h"));
    assert_eq!(proxy.metrics().count("tollgate_config_last_reload_successful", &[]), 1);
}

#[test]
fn a_refused_configuration_shows_none_of_its_secrets() {
    let proxy = Tollgate::start(&limited("5/h"));
    for wrong in [
        "store: { redis: { url: 'redis://u:ab cdSECRETx@h:1' } }\nnonsense: 1\n",
        "store:\n  redis:\n    url: redis://h:1\n    password:\n      SECRET2\nnonsense: 1\n",
        "tracing: { otlp: { endpoint: http://127.0.0.1:1, headers: { x-api-key: SECRET3: x } } }\n",
        "upstreams: { u: { servers: ['http://u:SECRET4@127.0.0.1:1'] } }\n",
        "access: { x-token: SECRET5 }\n",
    ] {
        write(&proxy, &format!("{}{wrong}", limited("5/h")));
        let (status, answer) = ask(&proxy);
        assert_eq!(status, 422, "{wrong}");
        let overview = client::get(proxy.admin(), "/api/v1/overview").text();
        assert!(!format!("{answer} {overview}").contains("SECRET"), "{answer:#}");
    }
    assert!(!proxy.log().join("\n").contains("SECRET"), "{:#?}", proxy.log());
}

#[test]
fn what_is_unchanged_is_not_reloaded() {
    let proxy = Tollgate::start(&limited("5/h"));
    let loaded = proxy.metrics().count("tollgate_config_last_reload_success_timestamp_seconds", &[]);
    let (status, answer) = ask(&proxy);
    assert_eq!((status, answer["result"].as_str()), (200, Some("unchanged")));
    let told = tollgate(&["reload", "--admin", &proxy.admin().to_string()]);
    assert_eq!((told.code, told.output.starts_with("unchanged")), (Some(0), true), "{}", told.errors);
    proxy.signal("HUP");
    eventually("it is told each time", || {
        let told = proxy.log().iter().filter(|line| line.contains("configuration is unchanged")).count();
        (told == 3).then_some(())
    });
    assert_eq!(proxy.metrics().count("tollgate_config_last_reload_success_timestamp_seconds", &[]), loaded);
    assert_eq!(client::get(proxy.admin(), "/api/v1/reload").status, 405);
}

#[test]
fn a_signal_reloads_and_so_does_the_file_alone() {
    let proxy = Tollgate::start(&limited("5/h"));
    write(&proxy, &limited("7/h"));
    proxy.wait_for_log("the change", |line| field(line, "message") == "configuration reloaded");
    assert_eq!(remaining(&proxy), 6);
    // As Kubernetes and editors do it: another file in the place of this one.
    let other = proxy.config_path().with_extension("new");
    std::fs::write(&other, format!("{}\nadmin: {{ address: 127.0.0.1:0 }}\n", limited("1000/s"))).expect("written");
    std::fs::rename(&other, proxy.config_path()).expect("renamed");
    proxy.signal("HUP");
    eventually("both are told", || {
        let told = proxy.log().iter().filter(|line| line.contains("configuration reloaded")).count();
        (told == 2).then_some(())
    });
    eventually("it is filled", || (proxy.get("/").remaining("api") > 900).then_some(()));
}

#[test]
fn what_cannot_change_while_it_runs_is_refused_by_its_name() {
    let proxy = Tollgate::start(&limited("5/h"));
    let redis = "store: { redis: { url: 'redis://127.0.0.1:1' } }\n";
    write(&proxy, &format!("{}{redis}", limited("50/h").replace("workers: 2", "workers: 3")));
    let (status, answer) = ask(&proxy);
    let why = "a change of `workers`, `store` takes effect only at a restart; `tollgate upgrade` makes one that refuses no connection";
    assert_eq!((status, answer["detail"].as_str()), (422, Some(why)), "{answer:#}");
    (0..5).for_each(|_| assert_eq!(proxy.get("/").status, 200));
    assert_eq!(proxy.get("/").status, 429, "nothing of it was taken over");
}

#[test]
fn listeners_come_and_go_and_requests_that_have_begun_are_answered() {
    let upstream = Upstream::answering(|peer, head| {
        if head.line.contains("/slow") {
            std::thread::sleep(Duration::from_millis(700));
        }
        peer.answer("ok")
    });
    let [first, second] = [Port::take(), Port::take()].map(|port| port.number());
    let config = |listeners: &str| {
        format!("listeners: {{ {listeners} }}\nroutes: [{{ name: all, upstream: '{}' }}]\n", upstream.url())
    };
    let proxy = Tollgate::start(&config(&format!("a: '127.0.0.1:{first}'")));
    let at = |port: u16| ([127, 0, 0, 1], port).into();
    let mut kept = Client::connect(at(first));
    assert_eq!(kept.get("/").status, 200);
    let slow = std::thread::spawn(move || Client::connect(at(first)).get("/slow"));
    eventually("it is under way", || upstream.seen().iter().any(|head| head.line.contains("/slow")).then_some(()));
    replace(&proxy, &config(&format!("b: '127.0.0.1:{second}'")));
    assert_eq!(Client::connect(at(second)).get("/").status, 200);
    let answer = slow.join().expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    eventually("the first is closed", || Client::open(at(first)).is_err().then_some(()));
    // And back again, under the other's name.
    replace(&proxy, &config(&format!("b: '127.0.0.1:{first}'")));
    assert_eq!(Client::connect(at(first)).get("/").status, 200);
    write(&proxy, &config(&format!("b: '127.0.0.1:{first}', c: '127.0.0.1:{}'", proxy.admin().port())));
    let (status, answer) = ask(&proxy);
    assert!(status == 422 && answer["detail"].as_str().unwrap().contains("already in use"), "{answer:#}");
    assert_eq!(Client::connect(at(first)).get("/").status, 200);
}

#[test]
fn servers_keep_their_connections_and_what_is_known_of_them() {
    let upstream = Upstream::answering(|peer, _| peer.answer("ok"));
    let nobody = Port::take();
    let config = |keys: &str| {
        format!(
            "listen: 127.0.0.1:0\nworkers: 1\nupstream: api\nupstreams: {{ api: {{ servers: ['{}', \
             'http://127.0.0.1:{}'], health: {{ passive: {{ failures: 1, eject_for: 1h }} }}{keys} }} }}\n",
            upstream.url(),
            nobody.number()
        )
    };
    let proxy = Tollgate::start(&config(""));
    let ejected = || proxy.metrics().count("tollgate_upstream_endpoints", &[("state", "ejected")]);
    let mut client = proxy.client();
    eventually("one is ejected", || {
        client.get("/");
        (ejected() == 1).then_some(())
    });
    let (connections, answered) = (upstream.connections(), upstream.seen().len());
    for keys in ["", ", response_timeout: 30s", ", response_timeout: 7s"] {
        replace(&proxy, &config(keys));
        assert_eq!(ejected(), 1, "{keys}");
        (0..5).for_each(|_| assert_eq!(client.get("/").status, 200));
    }
    assert_eq!(upstream.connections(), connections);
    assert_eq!(upstream.seen().len(), answered + 15);
    replace(&proxy, &config(", protocol: h1"));
    assert_eq!(client.get("/").status, 200);
    assert_eq!(upstream.connections(), connections + 1, "what is spoken is another");
}

#[test]
fn routes_may_lead_to_the_built_in_echo_only_now() {
    let upstream = Upstream::answering(|peer, _| peer.answer("ok"));
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nupstream: {}\n", upstream.url()));
    assert_eq!(proxy.get("/").text(), "ok");
    replace(&proxy, "listen: 127.0.0.1:0\nupstream: echo\n");
    assert!(proxy.get("/path").text().contains("/path"));
}

#[test]
fn secrets_in_files_may_be_replaced_between_reloads() {
    let place = tempfile::tempdir().expect("a directory");
    let [password, token] = ["password", "token"].map(|name| place.path().join(name));
    let put = |text: &str| [&password, &token].iter().for_each(|file| std::fs::write(file, text).expect("written"));
    put("first");
    let config = |rate: &str| {
        format!(
            "{}store: {{ redis: {{ url: 'redis://127.0.0.1:1', password_file: '{}' }} }}\n\
             admin: {{ address: 127.0.0.1:0, token_file: '{}' }}\n",
            limited(rate),
            password.display(),
            token.display()
        )
    };
    let proxy = Tollgate::start(&config("5/h"));
    let reloaded = |token: &str| {
        let request = Request::new("POST", "/api/v1/reload").header("content-type", "application/json");
        Client::connect(proxy.admin()).send(&request.header("authorization", &format!("Bearer {token}")))
    };
    assert_eq!(reloaded("first").status, 200);
    put("second");
    std::fs::write(proxy.config_path(), config("6/h")).expect("written");
    eventually("the new token is asked for", || (reloaded("second").status == 200).then_some(()));
    assert_eq!(reloaded("first").status, 401);
    assert!(!proxy.log().iter().any(|line| line.contains("not reloaded")), "{:#?}", proxy.log());
}

#[test]
fn nobody_is_waited_for_who_writes_into_a_pipe() {
    let mut proxy = Tollgate::start(&limited("5/h"));
    std::fs::remove_file(proxy.config_path()).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(proxy.config_path()).status();
    assert!(made.is_ok_and(|made| made.success()));
    let (status, answer) = ask(&proxy);
    assert_eq!(status, 422, "{answer:#}");
    assert!(answer["frames"].as_str().is_some_and(|text| text.contains("no regular file")), "{answer:#}");
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn a_file_that_was_missing_is_waited_for() {
    let proxy = Tollgate::start(&limited("5/h"));
    let missing = proxy.config_path().with_file_name("ca.pem");
    let upstreams = "upstreams: { api: { servers: ['https://127.0.0.1:1'], tls: { ca: ca.pem } } }\n";
    write(&proxy, &format!("{}{upstreams}", limited("6/h")));
    proxy.wait_for_log("the refusal", |line| field(line, "message").starts_with("configuration not reloaded"));
    let authority = crate::support::certificates::Authority::new();
    std::fs::copy(authority.ca(), &missing).expect("copied");
    proxy.wait_for_log("the reload", |line| field(line, "message") == "configuration reloaded");
}

#[test]
fn what_came_by_arguments_does_not_change() {
    let mut command = crate::support::tollgate::program();
    command.args(["run", "--from", "127.0.0.1:0", "--to", "echo", "--log-format", "json"]);
    let proxy = Tollgate::spawn(command, tempfile::tempdir().expect("a directory"));
    assert_eq!(proxy.get("/").status, 200);
    proxy.signal("HUP");
    proxy.wait_for_log("the answer", |line| field(line, "message").starts_with("configuration is unchanged"));
    assert_eq!(proxy.metrics().count("tollgate_config_last_reload_successful", &[]), 1);
}

#[test]
fn a_listener_that_moves_on_its_own_port_is_told_so() {
    let port = Port::take().number();
    let config =
        |address: &str| format!("listeners: {{ a: '{address}:{port}' }}\nroutes: [{{ name: r, upstream: echo }}]\n");
    let proxy = Tollgate::start(&config("127.0.0.1"));
    write(&proxy, &config("0.0.0.0"));
    let (status, answer) = ask(&proxy);
    assert!(
        status == 422 && answer["detail"].as_str().is_some_and(|why| why.contains("as a on 127.0.0.1")),
        "{answer:#}"
    );
}

#[test]
fn there_is_no_reload_while_the_process_ends() {
    let upstream = Upstream::answering(|peer, _| {
        std::thread::sleep(Duration::from_secs(3));
        peer.answer("late")
    });
    let config = format!("listen: 127.0.0.1:0\nupstream: {}\nshutdown: {{ delay: 0s, grace: 20s }}\n", upstream.url());
    let proxy = Tollgate::start(&config);
    let slow = proxy.web();
    let slow = std::thread::spawn(move || client::get(slow, "/").status);
    eventually("it is under way", || (upstream.connections() == 1).then_some(()));
    proxy.signal("TERM");
    proxy.wait_for_log("the drain", |line| field(line, "message") == "draining");
    assert_eq!(ask(&proxy).0, 503);
    assert_eq!(slow.join().expect("an answer"), 200);
}
