//! Overrides that are set through the admin API: capped by the file, with an end, and on every proxy of a store.

use serde_json::{Value, json};

use crate::support::client::{Answer, Client, Request};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{Tollgate, field};
use crate::support::upstream::Upstream;

const KEY: &str = "client-key-7f3a";

/// A proxy with a limit of three a day per key (or address), capped overrides, and a second, fixed one.
fn proxy(store: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\ntrusted_proxies: [127.0.0.1/32]\n{store}\nlimits:\n\
         \x20 - name: calls/all\n    key: 'header:x-id | client_ip'\n    rate: 3/d\n\
         \x20   overrides: [{{ key: listed, rate: 1/d }}]\n    tiers: {{ by: 'header:x-plan', values: {{ pro: 4/d }} }}\n\
         \x20   dynamic_overrides: {{ max_rate: 8/d, max_ttl: 2h }}\n  - {{ name: plain, key: client_ip, rate: 999/s }}\n"
    ))
}

fn on(redis: &RedisServer) -> String {
    format!("store: {{ redis: {{ url: '{}', timeout: 2s }} }}", redis.url())
}

fn api(proxy: &Tollgate, method: &str, key: &str, body: &str) -> Answer {
    let path = format!("/api/v1/limits/calls%2Fall/overrides/{key}");
    let request = Request::new(method, &path).header("content-type", "application/json").body(body);
    Client::connect(proxy.admin()).send(&request)
}

#[track_caller]
fn set(proxy: &Tollgate, key: &str, body: &str) {
    let answer = api(proxy, "PUT", key, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn listed(proxy: &Tollgate) -> Value {
    let answer = Client::connect(proxy.admin()).get("/api/v1/limits/calls%2Fall/overrides");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// How many of these requests pass before the first is denied, up to twelve.
#[track_caller]
fn admitted(proxy: &Tollgate, request: &Request) -> usize {
    let mut client = proxy.client();
    let statuses: Vec<_> = (0..12).map(|_| client.send(request).status).collect();
    let passed = statuses.iter().take_while(|status| **status == 200).count();
    assert!(statuses[passed..].iter().all(|status| *status == 429), "{statuses:?}");
    passed
}

fn of(key: &str) -> Request {
    Request::get("/").header("x-id", key)
}

const EIGHT: &str = r#"{"rate": "8/d", "ttl": "1h"}"#;

#[test]
fn an_override_holds_on_every_proxy_of_the_store_until_it_is_removed() {
    let redis = RedisServer::start();
    let [one, other] = [on(&redis), on(&redis)].map(|store| proxy(&store));
    assert_eq!(admitted(&one, &of(KEY)), 3);
    set(&one, KEY, EIGHT);
    assert_eq!(admitted(&one, &of(KEY)), 8, "at once here, with a state of its own");
    eventually("the other proxy knows of it", || (listed(&other)["overrides"] != json!([])).then_some(()));
    let keys = |proxy: &Tollgate| listed(proxy)["overrides"][0]["key"].to_string();
    assert_eq!(keys(&one), keys(&other));
    assert_eq!(admitted(&other, &of(KEY)), 0, "and shares its state");
    assert_eq!(admitted(&other, &of("somebody")), 3);

    set(&other, KEY, r#"{"rate": "unlimited", "ttl": "1h"}"#.replace("unlimited", "0/s").as_str());
    eventually("the first proxy knows of the change", || {
        let answer = one.client().send(&of(KEY));
        (answer.header("retry-after").is_none() && answer.status == 429).then_some(())
    });
    assert_eq!(api(&one, "DELETE", KEY, "").status, 200);
    assert_eq!(api(&one, "DELETE", KEY, "").status, 404);
    eventually("it is gone everywhere", || (listed(&other)["overrides"] == json!([])).then_some(()));
    let denied = other.client().send(&of(KEY));
    assert_eq!(denied.status, 429, "the limit's own state is as it was");
    assert!(denied.header("retry-after").is_some());

    let mut ids: Vec<_> = redis.keys().iter().map(|key| key.split_once("}:").expect("a tag").1.to_owned()).collect();
    ids.sort();
    ids.dedup();
    // The generous limit's state is full again within milliseconds.
    ids.retain(|id| !id.starts_with("plain"));
    assert_eq!(ids, ["calls/all:b1", "calls/all@dynamic:b1", "h1"]);
    for key in redis.keys() {
        let ends = redis.cli(&["PEXPIRETIME", &key]);
        assert!(ends.starts_with(|digit: char| digit.is_ascii_digit()) || ends == "-2", "{key} never ends: {ends}");
    }
    let everything = redis.keys().iter().map(|key| key.clone() + &redis.cli(&["HGETALL", key])).collect::<String>();
    assert!(!everything.contains(KEY), "the key itself never reaches Redis: {everything}");
    for (proxy, message) in [(&one, "override set"), (&one, "override removed"), (&other, "override set")] {
        let line = proxy.wait_for_log(message, |line| field(line, "message") == message);
        assert_eq!(field(&line, "limit"), "calls/all");
        assert!(!proxy.log().iter().any(|line| line.contains(KEY)), "no key in a log");
    }
}

#[test]
fn its_state_is_carried_over_when_its_numbers_change() {
    let redis = RedisServer::start();
    for store in [String::new(), on(&redis)] {
        // One worker, whose memory of denials all requests meet.
        let proxy = proxy(&format!("workers: 1\n{store}"));
        set(&proxy, KEY, r#"{"rate": "4/d", "burst": 4, "ttl": "1h"}"#);
        assert_eq!(admitted(&proxy, &of(KEY)), 4);
        set(&proxy, KEY, EIGHT);
        // A day until it is full, at either rate: nothing fresh comes with the new numbers.
        assert_eq!(admitted(&proxy, &of(KEY)), 0);
        set(&proxy, "other", r#"{"rate": "8/d", "burst": 1, "ttl": "1h"}"#);
        assert_eq!(admitted(&proxy, &of("other")), 1);
        set(&proxy, "other", EIGHT);
        // Three hours until it is full, of a day: a denial that was remembered does not stand in the way.
        assert_eq!(admitted(&proxy, &of("other")), 7);
    }
}

#[test]
fn it_comes_before_the_files_override_and_a_tier_and_ends_by_itself() {
    let proxy = proxy("");
    assert_eq!(admitted(&proxy, &of("listed")), 1);
    set(&proxy, "listed", EIGHT);
    assert_eq!(admitted(&proxy, &of("listed").header("x-plan", "pro")), 8);
    set(&proxy, "brief", r#"{"rate": "0/s", "ttl": "1s"}"#);
    assert_eq!(admitted(&proxy, &of("brief")), 0);
    eventually("it ends", || (proxy.client().send(&of("brief")).status == 200).then_some(()));
    assert!(!listed(&proxy).to_string().contains("0/s"));
}

#[test]
fn addresses_are_named_as_they_are_counted() {
    let redis = RedisServer::start();
    for store in [String::new(), on(&redis)] {
        let proxy = proxy(&store);
        let by_address = |address: &str| Request::get("/").from(address);
        set(&proxy, "192.0.2.7", r#"{"rate": "5/d", "ttl": "1h"}"#);
        set(&proxy, "2001:db8:1:2::99", r#"{"rate": "6/d", "ttl": "1h"}"#);
        set(&proxy, "2001:db8:1:3::%2F64", r#"{"rate": "7/d", "ttl": "1h"}"#);
        assert_eq!(admitted(&proxy, &by_address("192.0.2.7")), 5);
        assert_eq!(admitted(&proxy, &by_address("2001:db8:1:2::1")), 6, "its whole /64");
        assert_eq!(admitted(&proxy, &by_address("2001:db8:1:3::1")), 7);
        assert_eq!(admitted(&proxy, &by_address("192.0.2.8")), 3);
        set(&proxy, KEY, EIGHT);
        let list = listed(&proxy);
        let keys: Vec<_> =
            list["overrides"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap()).collect();
        assert!(keys[0].starts_with('#') && keys[0].len() == 33, "a client's key shows as a hash: {keys:?}");
        assert_eq!(keys[1..], ["192.0.2.7", "2001:db8:1:2::/64", "2001:db8:1:3::/64"]);
        let first = &list["overrides"][1];
        assert_eq!((&first["key"], &first["rate"], &first["burst"]), (&json!("192.0.2.7"), &json!("5/d"), &json!(5)));
        assert!(["1h", "59m59s", "59m58s"].contains(&first["expires_in"].as_str().unwrap()), "{first}");
        assert_eq!((&list["max_rate"], &list["max_burst"], &list["max_ttl"]), (&json!("8/d"), &json!(8), &json!("2h")));
    }
}

#[test]
fn what_is_above_the_cap_or_makes_no_sense_is_refused_in_a_sentence() {
    let proxy = proxy("");
    for (body, sentence) in [
        (r#"{"rate": "9/d", "ttl": "1h"}"#, "A rate of 9/d is above this limit's max_rate, 8/d."),
        (r#"{"rate": "1/s", "ttl": "1h"}"#, "A rate of 1/s is above this limit's max_rate, 8/d."),
        (r#"{"rate": "unlimited", "ttl": "1h"}"#, "`unlimited` is above this limit's max_rate, 8/d."),
        (r#"{"rate": "1/d", "burst": 9, "ttl": "1h"}"#, "9 at once is above this limit's max_burst, 8"),
        (r#"{"rate": "1/d", "burst": 0, "ttl": "1h"}"#, "0 at once never admit a request that costs 1."),
        (r#"{"rate": "0/s", "burst": 2, "ttl": "1h"}"#, "A burst has no meaning beside this rate."),
        (r#"{"rate": "1/d", "ttl": "3h"}"#, "A ttl of 3h is above this limit's max_ttl, 2h."),
        (r#"{"rate": "1/d", "ttl": "0s"}"#, "at least 1s"),
        (r#"{"rate": "1/d", "ttl": "soon"}"#, "`soon` is not a duration"),
        (r#"{"rate": "fast", "ttl": "1h"}"#, "`fast` is not a rate"),
        (r#"{"rate": "1/d"}"#, "missing field `ttl`"),
        (r#"{"rate": "1/d", "ttl": "1h", "brust": 1}"#, "unknown field `brust`"),
    ] {
        let answer = api(&proxy, "PUT", KEY, body);
        assert_eq!(answer.status, 422, "{body}: {}", answer.text());
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains(sentence), "{body}: {detail}");
    }
    let broken = api(&proxy, "PUT", KEY, "rate=1");
    assert_eq!(broken.status, 400);
    assert!(broken.text().contains("This is not JSON"), "{}", broken.text());
    assert_eq!(listed(&proxy)["overrides"], json!([]));
    let long = format!(r#"{{"rate": "1/d", "ttl": "{}"}}"#, "1".repeat(5000));
    assert_eq!(api(&proxy, "PUT", KEY, &long).status, 413);
}

#[test]
fn only_put_and_delete_with_json_from_who_may_change_anything() {
    let proxy = proxy("");
    let path = format!("/api/v1/limits/calls%2Fall/overrides/{KEY}");
    let send = |request: Request| Client::connect(proxy.admin()).send(&request);
    let json = |request: Request| request.header("content-type", "application/json");
    assert_eq!(send(Request::new("PUT", &path).body(EIGHT)).status, 415);
    assert_eq!(send(Request::new("PUT", &path).header("content-type", "text/plain").body(EIGHT)).status, 415);
    assert_eq!(send(Request::new("DELETE", &path)).status, 415);
    let post = send(json(Request::post(&path, EIGHT.as_bytes())));
    assert_eq!((post.status, post.header("allow")), (405, Some("PUT, DELETE")));
    assert_eq!(send(json(Request::new("PUT", &path).header("origin", "http://evil.example").body(EIGHT))).status, 403);
    assert_eq!(send(json(Request::new("PUT", &path).host("rebound.example").body(EIGHT))).status, 403);
    assert_eq!(send(json(Request::new("PUT", "/api/v1/limits/plain/overrides/x").body(EIGHT))).status, 404);
    assert_eq!(send(json(Request::new("PUT", "/api/v1/limits/nothing/overrides/x").body(EIGHT))).status, 404);
    assert_eq!(listed(&proxy)["overrides"], json!([]));
    let plain = Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\n");
    assert_eq!(Client::connect(plain.admin()).get("/api/v1/limits/x/overrides").status, 404);

    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "correct-horse-battery").unwrap();
    let guarded = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\nadmin: {{ address: 127.0.0.1:0, token_file: '{}' }}\n\
         limits: [{{ name: l, key: client_ip, rate: 3/d, dynamic_overrides: {{ max_rate: unlimited }} }}]\n",
        token.display()
    ));
    let put =
        json(Request::new("PUT", "/api/v1/limits/l/overrides/127.0.0.1").body(r#"{"rate":"unlimited","ttl":"1h"}"#));
    let send = |request: &Request| Client::connect(guarded.admin()).send(request).status;
    assert_eq!(send(&put), 401);
    assert_eq!(send(&put.header("authorization", "Bearer correct-horse-battery")), 200);
    assert_eq!(admitted(&guarded, &Request::get("/")), 12);
}

#[test]
fn what_was_read_last_survives_an_outage_and_a_new_proxy_reads_what_stands_there() {
    let mut redis = RedisServer::start();
    let proxy = proxy(&on(&redis));
    set(&proxy, KEY, r#"{"rate": "0/s", "ttl": "1h"}"#);
    let late = self::proxy(&on(&redis));
    eventually("a proxy that started later denies too", || (late.client().send(&of(KEY)).status == 429).then_some(()));
    redis.kill();
    let refused = api(&proxy, "PUT", KEY, EIGHT);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.json()["detail"].as_str().unwrap().starts_with("Redis did not do it"), "{}", refused.text());
    let told = "dynamic overrides cannot be read: those read last go on until they end";
    proxy.wait_for_log("the reading fails", |line| field(line, "message") == told);
    let denied = proxy.client().send(&of(KEY));
    assert_eq!((denied.status, denied.header("retry-after")), (429, None));
    redis.restart();
    eventually("Redis came back empty, and so do the overrides", || {
        (listed(&proxy)["overrides"] == json!([])).then_some(())
    });
}

#[test]
fn what_was_set_under_a_higher_cap_is_cut_to_the_lower_one() {
    let redis = RedisServer::start();
    let generous = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\n{}\nlimits: [{{ name: calls/all, key: 'header:x-id', rate: 3/d, \
         dynamic_overrides: {{ max_rate: unlimited }} }}]\n",
        on(&redis)
    ));
    set(&generous, KEY, r#"{"rate": "unlimited", "ttl": "30h"}"#);
    set(&generous, "second", r#"{"rate": "100/s", "burst": 5, "ttl": "1h"}"#);
    let careful = proxy(&on(&redis));
    eventually("it reads both", || (listed(&careful)["overrides"].as_array()?.len() == 2).then_some(()));
    assert_eq!(admitted(&careful, &of(KEY)), 8);
    assert_eq!(admitted(&careful, &of("second")), 5);
    let list = listed(&careful).to_string();
    assert!(list.contains(r#""expires_in":"2h""#) && !list.contains("unlimited"), "{list}");
}

#[test]
fn a_thousand_overrides_fit_and_no_more() {
    let redis = RedisServer::start();
    for store in [String::new(), on(&redis)] {
        let proxy = proxy(&store);
        let mut admin = Client::connect(proxy.admin());
        let mut put = |number: usize| {
            let path = format!("/api/v1/limits/calls%2Fall/overrides/tenant-{number}");
            let request = Request::new("PUT", &path).header("content-type", "application/json").body(EIGHT);
            admin.send(&request).status
        };
        if store.is_empty() {
            assert!((0..1000).all(|number| put(number) == 200));
        } else {
            // As another proxy would have left them: a thousand in the hash.
            assert_eq!(put(0), 200);
            let fill = "local ends = redis.call('TIME')[1] * 1000 + 3600000 for n = 1, 999 do redis.call('HSET', KEYS[1], \
                        'calls/all@header:x-id=#' .. n, string.format('%.0f 8/d 8', ends)) end \
                        redis.call('HSET', KEYS[1], '~version', '7') return redis.call('HLEN', KEYS[1])";
            assert_eq!(redis.cli(&["EVAL", fill, "1", "tollgate:{~overrides}:h1"]), "1001");
        }
        eventually("all are listed", || (listed(&proxy)["overrides"].as_array()?.len() == 1000).then_some(()));
        assert_eq!(put(5000), 409);
        assert_eq!(put(0), 200, "one that is there already may be changed");
        assert_eq!(admitted(&proxy, &of("tenant-0")), 8);
    }
}

#[test]
fn what_an_answer_cost_is_owed_under_an_override_too() {
    let upstream =
        Upstream::answering(|peer, _| peer.send("HTTP/1.1 200 OK\r\nx-cost: 110\r\ncontent-length: 0\r\n\r\n"));
    let redis = RedisServer::start();
    let owing = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\n{}\nlimits:\n\
         \x20 - name: calls/all\n    key: header:x-id\n    rate: 10/10s\n    max_debt: 100\n\
         \x20   cost: {{ default: 1, response_header: x-cost }}\n    dynamic_overrides: {{ max_rate: 100/s }}\n",
        upstream.url(),
        on(&redis)
    ));
    eventually("it can be set", || {
        (api(&owing, "PUT", "special", r#"{"rate": "10/10s", "ttl": "1h"}"#).status == 200).then_some(())
    });
    for key in ["plain", "special"] {
        assert_eq!(owing.client().send(&of(key)).status, 200);
        let told = || owing.client().send(&of(key)).header("retry-after").and_then(|after| after.parse::<u64>().ok());
        eventually("the debt is told", || told().is_some_and(|after| after > 80).then_some(()));
    }
}
