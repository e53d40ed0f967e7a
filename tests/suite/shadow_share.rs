//! Limits that only watch, and deny a fixed share of their keys all the same; and limits that warn.

use crate::support::client::Request;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;

const CLIENTS: usize = 400;

fn with_store(shadow: &str, store: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits:\n\
         \x20 - {{ name: watched, key: 'header:x-id', rate: 1/d, mode: shadow, shadow: {shadow} }}\n{store}"
    )
}

fn watching(shadow: &str, redis: &RedisServer) -> Tollgate {
    Tollgate::start(&with_store(shadow, &format!("store: {{ redis: {{ url: '{}' }} }}\n", redis.url())))
}

/// The clients whose second request is denied.
fn denied(proxy: &Tollgate, base: usize) -> Vec<usize> {
    let mut client = proxy.client();
    let mut denied = Vec::new();
    for number in 0..CLIENTS {
        let request = Request::get("/").header("x-id", &format!("client-{number}"));
        let first = client.send(&request);
        assert_eq!(first.status, if base == 0 { 200 } else { first.status }, "fresh keys pass");
        let second = client.send(&request);
        assert_eq!(second.status == 429, second.header("retry-after").is_some());
        if second.status == 429 {
            assert!(second.list("ratelimit").contains("\"watched\";r=0"), "{:?}", second.headers);
            denied.push(number);
        } else {
            assert_eq!(second.header("ratelimit"), None, "nothing is told of a limit that only watches");
        }
    }
    denied
}

#[test]
fn a_share_of_the_keys_is_denied_and_on_every_proxy_the_same() {
    let redis = RedisServer::start();
    let [one, other] = ["{ enforce: 10% }"; 2].map(|shadow| watching(shadow, &redis));
    let first = denied(&one, 0);
    assert!((20..=65).contains(&first.len()), "about 40 of {CLIENTS}: {}", first.len());
    assert_eq!(denied(&other, 1), first);
    let metrics = one.metrics();
    let decided = |kind| metrics.count("tollgate_limit_decisions_total", &[("limit", "watched"), ("decision", kind)]);
    assert_eq!(decided("deny"), first.len() as u64);
    assert_eq!(decided("shadow_deny"), (CLIENTS - first.len()) as u64);

    let in_memory = Tollgate::start(&with_store("{ enforce: 10% }", ""));
    assert_eq!(denied(&in_memory, 0), first, "the store has no part in it");

    let redis = RedisServer::start();
    let more = denied(&watching("{ enforce: 30% }", &redis), 0);
    assert!(first.iter().all(|client| more.contains(client)), "a larger share holds the smaller one");
    assert!(more.len() > first.len());
}

#[test]
fn nobody_is_denied_at_nothing_and_everybody_at_all() {
    let redis = RedisServer::start();
    assert_eq!(denied(&watching("{ headers: false }", &redis), 0), Vec::<usize>::new());
    let redis = RedisServer::start();
    assert_eq!(denied(&watching("{ enforce: 100% }", &redis), 0).len(), CLIENTS);
}

#[test]
fn a_client_is_warned_before_it_is_denied() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nrate_limit_headers: none\nlimits:\n\
         \x20 - { name: soft, key: client_ip, rate: 10/h, warn_at: 80% }\n  - { name: plain, key: client_ip, rate: 99/h }\n",
    );
    let answers: Vec<_> = (0..11).map(|_| proxy.get("/")).collect();
    let warnings: Vec<_> = answers.iter().map(|answer| answer.list("x-ratelimit-warning")).collect();
    assert!(warnings[..7].iter().all(String::is_empty), "{warnings:?}");
    assert_eq!(warnings[7..], ["\"soft\";used=80", "\"soft\";used=90", "\"soft\";used=100", ""]);
    assert_eq!(answers[10].status, 429, "a denial needs no warning");
    let metrics = proxy.metrics();
    let decided = |kind| metrics.count("tollgate_limit_decisions_total", &[("limit", "soft"), ("decision", kind)]);
    assert_eq!((decided("allow"), decided("warn"), decided("deny")), (7, 3, 1));
}

#[test]
fn a_limit_that_watches_in_silence_does_not_warn_and_several_rates_warn_each() {
    let with =
        |limit: &str| Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits: [{limit}]\n"));
    let silent = with("{ name: w, key: client_ip, rate: 2/h, mode: shadow, warn_at: 50% }");
    assert_eq!(silent.get("/").header("x-ratelimit-warning"), None);
    let told = with("{ name: w, key: client_ip, rate: 2/h, mode: shadow, shadow: { headers: true }, warn_at: 50% }");
    assert_eq!(told.get("/").list("x-ratelimit-warning"), "\"w\";used=50");
    let several = with("{ name: w, key: client_ip, rate: [2/h, 3/d], warn_at: 50% }");
    assert_eq!(several.get("/").list("x-ratelimit-warning"), "\"w~1h\";used=50");
    assert_eq!(several.get("/").list("x-ratelimit-warning"), "\"w~1h\";used=100, \"w~1d\";used=66");
}
