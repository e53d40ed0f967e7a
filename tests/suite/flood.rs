//! A flood on one denied key costs the store next to nothing.

use std::time::Duration;

use crate::support::client::{Client, Request};
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;

const CONNECTIONS: usize = 16;
const REQUESTS: usize = 10_000;

#[test]
fn ten_thousand_requests_on_a_denied_key_reach_redis_once_per_worker() {
    let redis = RedisServer::start();
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits: [{{ name: one, key: client_ip, rate: 1/h }}]\n\
         store:\n  redis: {{ url: '{}', timeout: 2s }}\n",
        redis.url()
    );
    let proxy = Tollgate::start(&yaml);
    assert_eq!(proxy.get("/").status, 200);
    let admitted = redis.script_calls();
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 429, "the first denial is back before the flood begins");
    }
    let threads: Vec<_> = clients.into_iter().map(|client| std::thread::spawn(move || flood(client))).collect();
    let denied: usize = threads.into_iter().map(|thread| thread.join().expect("no client panics")).sum();
    assert_eq!(denied, REQUESTS);
    let calls = redis.script_calls() - admitted;
    println!("{calls} calls for {} denials", REQUESTS + CONNECTIONS);
    assert!(calls <= 2, "at most one call of each of the two workers, not {calls}");
    let metrics = proxy.metrics();
    let total = u64::try_from(REQUESTS + CONNECTIONS).expect("small");
    assert_eq!(metrics.count("tollgate_limit_decisions_total", &[("limit", "one"), ("decision", "deny")]), total);
    assert_eq!(metrics.count("tollgate_limit_remembered_denials_total", &[]), total - calls);
    assert_eq!(metrics.count("tollgate_store_errors_total", &[]), 0);
}

fn flood(mut client: Client) -> usize {
    let answers = (0..REQUESTS / CONNECTIONS).map(|_| client.get("/"));
    answers.filter(|answer| answer.status == 429 && answer.retry_after() > 3_500).count()
}

#[test]
fn a_remembered_denial_ends_when_it_said() {
    let redis = RedisServer::start();
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits: [{{ name: one, key: client_ip, rate: 1/2s, burst: 1 }}]\n\
         store:\n  redis: {{ url: '{}', timeout: 2s }}\n",
        redis.url()
    );
    let proxy = Tollgate::start(&yaml);
    let mut client = proxy.client();
    for _round in 0..2 {
        assert_eq!(client.get("/").status, 200);
        let answers: Vec<_> = (0..50).map(|_| client.send(&Request::get("/"))).collect();
        let denied = &answers[49];
        assert_eq!(denied.status, 429);
        std::thread::sleep(Duration::from_secs(denied.retry_after()));
    }
    assert!(redis.script_calls() <= 8, "two admissions, two denials: {}", redis.script_calls());
}
