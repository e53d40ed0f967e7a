//! The limiters people start from, as `examples/` keeps them: each file runs and does what it says.

use std::time::{Duration, Instant};

use crate::support::client::Request;
use crate::support::tollgate::{Tollgate, repository};

/// Starts a recipe as it stands, but for its address, its upstream, its store and its admin address.
fn recipe(name: &str) -> Tollgate {
    let path = repository().join("examples").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut kept = String::from("workers: 2\n");
    let mut skipping = false;
    for line in text.lines() {
        let top = line.starts_with(|c: char| c.is_ascii_alphabetic());
        skipping =
            if top { ["store:", "admin:", "workers:"].iter().any(|key| line.starts_with(key)) } else { skipping };
        let line = match line.split_once(':') {
            _ if skipping => continue,
            Some(("listen", _)) => "listen: 127.0.0.1:0".to_owned(),
            Some((key, value)) if key.trim() == "upstream" && value.contains("http") => format!("{key}: echo"),
            _ => line.to_owned(),
        };
        kept.push_str(&line);
        kept.push('\n');
    }
    Tollgate::start(&kept)
}

fn statuses(proxy: &Tollgate, request: &Request, count: usize) -> Vec<u16> {
    (0..count).map(|_| proxy.client().send(request).status).collect()
}

#[test]
fn five_per_minute_and_client() {
    let proxy = recipe("fixed-count-per-client.yaml");
    assert_eq!(statuses(&proxy, &Request::get("/"), 7), [200, 200, 200, 200, 200, 429, 429]);
}

#[test]
fn api_data_is_limited_by_address_with_a_json_body() {
    let proxy = recipe("per-ip-api-data.yaml");
    let request = Request::get("/api/data");
    assert_eq!(statuses(&proxy, &request, 6), [200, 200, 200, 200, 200, 429]);
    let denied = proxy.client().send(&request);
    assert!(denied.header("content-type").is_some_and(|kind| kind.contains("json")), "{:?}", denied.headers);
    assert!(denied.json().is_object() && denied.retry_after() <= 60);
}

#[test]
fn ten_tokens_per_user() {
    let proxy = recipe("token-bucket-per-user.yaml");
    for user in ["ann", "bob"] {
        let request = Request::get("/").header("x-user-id", user);
        let admitted = statuses(&proxy, &request, 12).iter().filter(|status| **status == 200).count();
        assert_eq!(admitted, 10, "{user}");
    }
}

#[test]
fn slots_per_second_are_refused_when_taken() {
    let proxy = recipe("slots-per-second.yaml");
    let answers = statuses(&proxy, &Request::get("/").header("x-uid", "42"), 200);
    assert!(answers.contains(&429) && answers[0] == 200);
}

#[test]
fn slots_per_second_are_waited_for_when_asked() {
    let proxy = recipe("slots-per-second-waiting.yaml");
    let begun = Instant::now();
    let threads: Vec<_> = (0..20)
        .map(|_| {
            let mut client = proxy.client();
            std::thread::spawn(move || client.send(&Request::get("/").header("x-uid", "42")).status)
        })
        .collect();
    let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("an answer")).collect();
    assert!(answers.iter().all(|status| *status == 200), "each gets its turn: {answers:?}");
    assert!(begun.elapsed() > Duration::from_millis(50), "and some had to wait");
}

#[test]
fn api_keys_pay_by_what_they_ask() {
    let proxy = recipe("api-key-costs.yaml");
    let get = Request::get("/").header("x-api-key", "one");
    let post = Request::post("/", b"").header("x-api-key", "two");
    let admitted = |request| statuses(&proxy, request, 12).iter().filter(|status| **status == 200).count();
    let (cheap, dear) = (admitted(&get), admitted(&post));
    assert!((10..=12).contains(&cheap), "ten at once: {cheap}");
    assert!((1..10).contains(&dear), "a dearer request sooner meets the limit: {dear}");
}
