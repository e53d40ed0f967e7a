//! Overrides of limits whose key has several parts: a value is that of the part it names, so that no client takes
//! somebody else's override by writing the value into another part.

use serde_json::{Value, json};
use tollgate::config::{Origin, expanded, parse};

use crate::support::client::{Answer, Client, Request};
use crate::support::redis_server::RedisServer;
use crate::support::tokens::{Issuer, key_set};
use crate::support::tollgate::{Tollgate, field};

/// A limit of three a day with this key and these overrides, and an issuer whose tokens are believed.
fn believing(key: &str, overrides: &str) -> (Tollgate, Issuer, tempfile::TempDir) {
    let issuer = Issuer::new("EdDSA", Some("ed"));
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("jwks.json");
    std::fs::write(&keys, key_set(&[&issuer])).unwrap();
    let more = format!("jwt: {{ jwks_file: '{}' }}\n", keys.display());
    (limited(key, &format!("overrides: [{overrides}]"), &more), issuer, directory)
}

/// A limit of three a day with this key.
fn limited(key: &str, more_of_limit: &str, more: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\ntrusted_proxies: [127.0.0.1/32]\n{more}\
         limits: [{{ name: three, key: {key}, rate: 3/d, {more_of_limit} }}]\n"
    ))
}

/// How many of six requests pass.
#[track_caller]
fn admitted(proxy: &Tollgate, request: &Request) -> usize {
    let mut client = proxy.client();
    let statuses: Vec<_> = (0..6).map(|_| client.send(request).status).collect();
    let passed = statuses.iter().take_while(|status| **status == 200).count();
    assert!(statuses[passed..].iter().all(|status| *status == 429), "{statuses:?}");
    passed
}

fn get() -> Request {
    Request::get("/")
}

fn bearing(token: &str) -> Request {
    get().header("authorization", &format!("Bearer {token}"))
}

#[test]
fn an_override_of_a_claim_is_nothing_that_a_field_can_claim() {
    let (proxy, issuer, _kept) = believing(
        "'jwt:sub | header:x-api-key | client_ip'",
        "{ key: ['jwt:sub=batch', 10.0.0.0/8], rate: unlimited }, { key: 'header:x-api-key=shut', rate: 0/s }",
    );
    assert_eq!(admitted(&proxy, &bearing(&issuer.token(&json!({ "sub": "batch" })))), 6);
    assert_eq!(admitted(&proxy, &bearing(&issuer.token(&json!({ "sub": "shut" })))), 3);
    assert_eq!(admitted(&proxy, &get().header("x-api-key", "shut")), 0);
    for invented in ["batch", "jwt:sub=batch", "10.1.2.3", "10.0.0.0/8"] {
        assert_eq!(admitted(&proxy, &get().header("x-api-key", invented)), 3, "{invented}");
    }
    assert_eq!(admitted(&proxy, &get().from("10.1.2.3")), 6, "a block is one of client addresses");
}

#[test]
fn an_override_of_one_part_of_a_combined_key_holds_for_that_part_alone() {
    let (proxy, issuer, _kept) =
        believing("['jwt:tenant', 'header:x-device']", "{ key: 'jwt:tenant=acme', rate: unlimited }");
    let of =
        |tenant: &str, device: &str| bearing(&issuer.token(&json!({ "tenant": tenant }))).header("x-device", device);
    assert_eq!(admitted(&proxy, &of("acme", "phone")), 6);
    assert_eq!(admitted(&proxy, &of("evil", "acme")), 3);
    let redis = RedisServer::start();
    let store = format!("store: {{ redis: {{ url: '{}' }} }}\n", redis.url());
    let proxy = limited("[host, 'header:d']", "overrides: [{ key: host=acme, rate: unlimited }]", &store);
    assert_eq!(admitted(&proxy, &get().host("a.example").header("d", "acme")), 3);
    assert_eq!(admitted(&proxy, &get().host("acme").header("d", "x")), 6);
}

#[test]
fn a_value_may_hold_equal_signs_and_may_name_its_part_where_there_is_only_one() {
    let overrides =
        "overrides: [{ key: ['dGVzdA==', 'header:X-Api-Key=10.0.0.1', 'header:x-api-key=bmFtZQ=='], rate: 0/s }]";
    let proxy = limited("'header:x-api-key | client_ip'", overrides, "");
    for (value, expected) in [("dGVzdA==", 0), ("10.0.0.1", 0), ("bmFtZQ==", 0), ("dGVzdA", 3), ("test", 3)] {
        assert_eq!(admitted(&proxy, &get().header("x-api-key", value)), expected, "{value}");
    }
    assert_eq!(admitted(&proxy, &get().from("10.0.0.1")), 3, "the field's value is no address");
}

#[test]
fn the_expanded_form_names_the_part_and_hides_the_value() {
    let text = "listen: :8080\nupstream: echo\nlimits: [{ name: a, key: [host, 'header:x-api-key', client_ip], rate: 3/d, \
                overrides: [{ key: ['header:x-api-key=secret', client_ip=10.0.0.0/8, 'host=a.example'], rate: 0/s }] }]\n";
    let read = |text: &str| parse(text, &Origin::Stdin, &|_| None).map(|loaded| expanded(&loaded.config));
    let Ok(first) = read(text) else { panic!("refused") };
    for key in ["header:x-api-key=***", "10.0.0.0/8", "host=***"] {
        assert!(first.contains(key) && !first.contains("secret"), "{key} in {first}");
    }
    assert!(read(&first).is_ok_and(|again| again == first), "{first}");
}

fn api(proxy: &Tollgate, method: &str, key: &str) -> Answer {
    let path = format!("/api/v1/limits/three/overrides/{key}");
    let body = r#"{"rate": "unlimited", "ttl": "1h"}"#;
    let request = Request::new(method, &path).header("content-type", "application/json").body(body);
    Client::connect(proxy.admin()).send(&request)
}

fn listed(proxy: &Tollgate) -> Vec<Value> {
    let list = Client::connect(proxy.admin()).get("/api/v1/limits/three/overrides").json();
    list["overrides"].as_array().unwrap().iter().map(|one| one["key"].clone()).collect()
}

#[test]
fn what_is_set_while_the_proxy_runs_goes_by_the_same_rules() {
    let redis = RedisServer::start();
    for store in [String::new(), format!("store: {{ redis: {{ url: '{}', timeout: 2s }} }}\n", redis.url())] {
        let proxy = limited(
            "['header:x-tenant', 'query:device | client_ip']",
            "dynamic_overrides: { max_rate: unlimited }",
            &store,
        );
        let of = |tenant: &str, device: &str| Request::get(&format!("/?device={device}")).header("x-tenant", tenant);
        for method in ["PUT", "DELETE"] {
            let refused = api(&proxy, method, "acme");
            let cure = "Say of which part: write `header:x-tenant=acme` or `query:device=acme`.";
            assert_eq!(refused.status, 422, "{}", refused.text());
            assert_eq!(refused.json()["detail"], cure);
        }
        assert_eq!(api(&proxy, "PUT", "header:x-tenant%3D").status, 422, "no value");
        assert_eq!(api(&proxy, "PUT", "header:x-tenant=acme").status, 200);
        assert_eq!(api(&proxy, "PUT", "192.0.2.7").status, 200);
        assert_eq!(admitted(&proxy, &of("acme", "phone")), 6);
        assert_eq!(admitted(&proxy, &of("evil", "acme")), 3);
        assert_eq!(admitted(&proxy, &of("evil", "192.0.2.7")), 3);
        assert_eq!(admitted(&proxy, &get().header("x-tenant", "other").from("192.0.2.7")), 6);
        let list = listed(&proxy);
        assert!(list[1].as_str().unwrap().starts_with("header:x-tenant=#") && list[0] == "192.0.2.7", "{list:?}");
        assert_eq!(api(&proxy, "DELETE", "query:device=acme").status, 404);
        assert_eq!(api(&proxy, "DELETE", "header:x-tenant=acme").status, 200);
        assert_eq!(listed(&proxy), ["192.0.2.7"]);
        assert_eq!(admitted(&proxy, &of("acme", "phone")), 3);
    }
}

#[test]
fn an_override_that_was_set_for_another_part_holds_no_more_once_the_key_is_another() {
    let redis = RedisServer::start();
    let store = format!("store: {{ redis: {{ url: '{}', timeout: 2s }} }}\n", redis.url());
    let with = |key: &str| limited(key, "dynamic_overrides: { max_rate: unlimited }", &store);
    let before = with("'header:x-tenant'");
    assert_eq!(api(&before, "PUT", "acme").status, 200);
    drop(before);
    let after = with("'header:x-device'");
    let told = "dynamic overrides that this configuration does not allow are left out";
    after.wait_for_log("they are read", |line| field(line, "message") == told);
    assert_eq!(admitted(&after, &get().header("x-device", "acme")), 3);
    assert_eq!(listed(&after), Vec::<Value>::new());
}

#[test]
fn what_was_meant_for_an_address_or_another_part_is_no_value() {
    let with = |key: &str| {
        format!(
            "listen: :8080\nupstream: echo\nlimits:\n  - key: header:x-id | client_ip\n    rate: 3/d\n    \
             overrides: [{{ key: '{key}', rate: unlimited }}]\n"
        )
    };
    for key in
        ["10.20.0.0/33", "client_ip=10.20.0.300", "10.0.0.5-10.0.0.9", "[::1]", "jwt:tenant=acme", "header:x-idd=a"]
    {
        let report = parse(&with(key), &Origin::Arguments, &|_| None).expect_err(key);
        let text = report.render(tollgate::config::frames::Colour::Plain);
        assert!(text.contains("6:24") && text.contains(&format!("header:x-id={key}")), "{text}");
    }
    let proxy = limited("'header:x-id | client_ip'", "dynamic_overrides: { max_rate: unlimited }", "");
    for key in ["10.20.0.0%2F16", "client_ip=10.20.0.300", "10.20.0.7%20", "header:x-apikey=acme"] {
        let answer = api(&proxy, "PUT", key);
        assert_eq!(answer.status, 422, "{key}: {}", answer.text());
        assert!(answer.text().contains("header:x-id="), "{key}: {}", answer.text());
    }
}

#[test]
fn a_block_of_mapped_addresses_is_one_of_ipv4() {
    for block in ["::ffff:127.0.0.1", "::ffff:127.0.0.0/104"] {
        let proxy = Tollgate::start(&format!(
            "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\ntrusted_proxies: ['{block}']\n\
             limits: [{{ key: client_ip, rate: 3/d, overrides: [{{ key: '{block}', rate: 0/s }}] }}]\n"
        ));
        assert_eq!(proxy.get("/").status, 429, "{block}");
        assert_eq!(proxy.client().send(&get().from("192.0.2.1")).status, 200, "{block}: the proxy is trusted");
    }
}
