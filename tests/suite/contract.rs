//! The published contract, T1 to T6, through the whole proxy, with both stores.

use std::time::{Duration, Instant, SystemTime};

use crate::support::client::Request;
use crate::support::eventually;
use crate::support::load::{Load, Sample};
use crate::support::monitor::{Monitor, Write};
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;

/// A limit as a test states it: at once, and per second.
pub(crate) struct Terms {
    pub(crate) burst: f64,
    pub(crate) rate: f64,
}

const PER_CLIENT: Terms = Terms { burst: 50.0, rate: 200.0 };
const EVERYONE: Terms = Terms { burst: 60.0, rate: 300.0 };

/// Two limits on one route: clients by header, and everyone together.
fn two_limits(store: &str) -> String {
    format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 2\n\
         routes:\n  - name: all\n    match: {{ path: '/*' }}\n    upstream: echo\n    limits:\n\
         \x20     - {{ name: per-client, key: 'header:x-client', rate: 200/s, burst: 50 }}\n\
         \x20     - {{ name: everyone, key: global, rate: 300/s, burst: 60 }}\n{store}"
    )
}

pub(crate) fn redis_store(redis: &RedisServer) -> String {
    format!("store:\n  redis: {{ url: '{}', timeout: 2s }}\n", redis.url())
}

/// Four clients, two of a name; both limits are under pressure all the time.
pub(crate) fn saturate(proxies: &[&Tollgate]) -> Vec<Sample> {
    let clients = (0..4).map(|n| {
        let name = if n < 2 { "a" } else { "b" };
        (proxies[n % proxies.len()].web(), Request::get("/").header("x-client", name))
    });
    Load::start(clients.collect(), Duration::from_micros(500)).run_for(Duration::from_secs(3))
}

/// T1 as an inequality over every pair: an admission lies between the sending and the answer of its
/// request, so no window from one sending to a later answer may hold more than `burst + rate · window`.
pub(crate) fn assert_no_window_holds_too_much(samples: &[&Sample], terms: &Terms) {
    let mut admitted: Vec<_> = samples.iter().filter(|sample| sample.status() == 200).collect();
    admitted.sort_by_key(|sample| sample.received);
    for begin in &admitted {
        let mut inside = 0.0;
        for end in admitted.iter().filter(|end| end.sent >= begin.sent) {
            inside += 1.0;
            let window = (end.received - begin.sent).as_secs_f64();
            let bound = terms.burst + terms.rate * window;
            assert!(inside <= bound + 1e-6, "{inside} admitted within {window} s, at most {bound}");
        }
    }
}

pub(crate) fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).expect("a small number"))
}

/// Both sides of T1 for the limit that is under pressure throughout: not more than `burst + rate·t`,
/// and not less either (the last denial proves that less than one whole request was left).
pub(crate) fn assert_exact(samples: &[Sample], terms: &Terms, limit: &str) {
    let admitted: Vec<_> = samples.iter().filter(|sample| sample.status() == 200).collect();
    let total = count(admitted.len());
    let first_sent = admitted.iter().map(|sample| sample.sent).min().expect("some are admitted");
    let first_answered = admitted.iter().map(|sample| sample.received).min().expect("some are admitted");
    let last_answered = admitted.iter().map(|sample| sample.received).max().expect("some are admitted");
    let denied = samples.iter().filter(|sample| sample.status() == 429);
    let denied_here = denied.filter(|sample| sample.answer().text().contains(&format!("\"{limit}\"")));
    let last_denied = denied_here.map(|sample| sample.sent).max().expect("the limit is under pressure");
    let most = terms.burst + terms.rate * (last_answered - first_sent).as_secs_f64();
    let spilled = spilled(&admitted, terms);
    // Each of two workers may answer a remembered denial up to a microsecond after its end.
    let least = (terms.burst + terms.rate * (last_denied - first_answered).as_secs_f64() - spilled - 1.0).floor();
    println!("{limit}: {total} admitted, between {least:.1} and {most:.1}");
    assert!(total <= most, "{total} admitted, at most {most}");
    assert!(total >= least, "{total} admitted, at least {least}");
    assert!(most - least < 0.1 * most + 5.0, "the bounds are too far apart to show anything: {least} to {most}");
}

/// What a full bucket could not take while nobody asked, as on a machine that stood still: the most
/// that was ever earned beyond what had been taken. Zero under constant pressure.
fn spilled(admitted: &[&Sample], terms: &Terms) -> f64 {
    let mut answered: Vec<_> = admitted.iter().map(|sample| sample.received).collect();
    answered.sort_unstable();
    let earned = |at: Instant| terms.rate * (at - answered[0]).as_secs_f64();
    answered.iter().enumerate().map(|(taken, at)| earned(*at) - count(taken)).fold(0.0, f64::max)
}

fn assert_t1(samples: &[Sample]) {
    assert!(samples.iter().all(|sample| matches!(sample.status(), 200 | 429)), "only 200 and 429");
    assert_exact(samples, &EVERYONE, "everyone");
    assert_no_window_holds_too_much(&samples.iter().collect::<Vec<_>>(), &EVERYONE);
    for pair in [0..2, 2..4] {
        let of_one: Vec<_> = samples.iter().filter(|sample| pair.contains(&sample.client)).collect();
        assert_no_window_holds_too_much(&of_one, &PER_CLIENT);
    }
}

#[test]
fn t1_holds_over_two_proxies_on_one_redis_and_nothing_is_lost() {
    let redis = RedisServer::start();
    let yaml = two_limits(&redis_store(&redis));
    let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
    // The store reads this machine's wall clock.
    let (store_begun, begun) = (SystemTime::now(), Instant::now());
    let samples = saturate(&[&proxies[0], &proxies[1]]);
    let (by_store, by_client) = (store_begun.elapsed().unwrap_or_default(), begun.elapsed());
    let apart = by_store.abs_diff(by_client);
    assert!(apart < Duration::from_millis(50), "the store's clock was stepped during the test: {apart:?}");
    for proxy in &proxies {
        let errors = proxy.metrics().count("tollgate_store_errors_total", &[]);
        assert_eq!(errors, 0, "every decision was the store's");
    }
    assert_t1(&samples);
}

#[test]
fn t1_is_met_with_equality_by_the_stores_own_clock() {
    let redis = RedisServer::start();
    let yaml = two_limits(&redis_store(&redis));
    let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
    let monitor = Monitor::start(&redis);
    let samples = saturate(&[&proxies[0], &proxies[1]]);
    let writes = monitor.writes(&redis, ":everyone:");
    let admitted = samples.iter().filter(|sample| sample.status() == 200).count();
    assert_eq!(writes.len(), admitted, "an admission is one write, a denial is none");
    assert_no_window_of_the_store(&writes, &EVERYONE, Duration::ZERO);
    let short = short_by_the_store(&writes, &EVERYONE, &spilled_by_the_store(&writes, EVERYONE.rate));
    println!("by the store's clock: {admitted} admitted, {short:.3} short of all that was allowed");
    assert!(short.abs() <= 1.0, "{short} less was admitted than allowed");
}

/// T1 by the store's clock: no window of admissions holds more than `burst + rate · window`, and what
/// clocks that differ by `skew` earn where they are used.
pub(crate) fn assert_no_window_of_the_store(writes: &[Write], terms: &Terms, skew: Duration) {
    // The clock of MONITOR is read a little after the script's; neither may make a token.
    let slack = 1.0;
    for (first, begin) in writes.iter().enumerate() {
        for (last, end) in writes.iter().enumerate().skip(first) {
            let bound = terms.burst + terms.rate * (end.at - begin.at + skew.as_secs_f64()) + slack;
            assert!(count(last - first + 1) <= bound, "{} admitted, at most {bound}", last - first + 1);
        }
    }
}

/// How much less was admitted than `burst + rate · t` and what had been spilled, when it was least.
pub(crate) fn short_by_the_store(writes: &[Write], terms: &Terms, spilled: &[f64]) -> f64 {
    let allowed = |at: f64, spilled: f64| terms.burst + terms.rate * (at - writes[0].at) - spilled;
    let behind = (0..writes.len()).map(|n| allowed(writes[n].at, spilled[n]) - count(n + 1));
    behind.skip(writes.len() * 3 / 4).fold(f64::MAX, f64::min)
}

/// What the full bucket could not take before each write: the time since the instant at which the
/// write before it says that the bucket is full.
pub(crate) fn spilled_by_the_store(writes: &[Write], rate: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let idle = writes.windows(2).map(|pair| (pair[1].at - pair[0].full_at()).max(0.0) * rate);
    std::iter::once(0.0)
        .chain(idle)
        .map(|spilled| {
            sum += spilled;
            sum
        })
        .collect()
}

#[test]
fn t1_holds_over_two_workers_on_the_memory_store_and_nothing_is_lost() {
    let proxy = Tollgate::start(&two_limits(""));
    assert_t1(&saturate(&[&proxy]));
}

fn t2(store: &str) {
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\n\
         limits:\n  - {{ name: slow, key: 'header:x-client', rate: 2/3s, burst: 2 }}\n{store}"
    );
    let proxy = Tollgate::start(&yaml);
    let clients: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let (web, request) = (proxy.web(), Request::get("/").header("x-client", name));
            std::thread::spawn(move || {
                let mut client = crate::support::client::Client::connect(web);
                for _round in 0..2 {
                    let denied = (0..4).map(|_| client.send(&request)).find(|answer| answer.status == 429);
                    let denied = denied.expect("the third is denied at the latest");
                    std::thread::sleep(Duration::from_secs(denied.retry_after()));
                    assert_eq!(client.send(&request).status, 200, "after exactly {}", denied.retry_after());
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("T2 holds for each");
    }
}

#[test]
fn t2_who_waits_as_told_is_admitted_by_the_memory_store() {
    t2("");
}

#[test]
fn t2_who_waits_as_told_is_admitted_by_redis() {
    let redis = RedisServer::start();
    t2(&redis_store(&redis));
}

/// The states of these limits with their expiry, as Redis keeps them.
fn states(redis: &RedisServer, limits: &[&str]) -> Vec<(String, String, String)> {
    let mut all = redis.dump();
    all.retain(|(key, ..)| limits.iter().any(|limit| key.contains(limit)));
    all
}

#[test]
fn t3_a_denied_request_leaves_every_key_of_redis_as_it_was() {
    let redis = RedisServer::start();
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits:\n\
         \x20 - {{ name: tight, key: 'header:x-client', rate: 2/h, cost: {{ default: 1, POST: 2 }} }}\n\
         \x20 - {{ name: wide, key: global, rate: 1000/h }}\n{}",
        redis_store(&redis)
    );
    let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
    let get = Request::get("/").header("x-client", "a");
    let post = Request::post("/", b"x").header("x-client", "a");
    assert_eq!(proxies[0].client().send(&get).status, 200);
    let before = states(&redis, &["tight", "wide"]);
    assert_eq!(before.len(), 2, "a state for each limit: {:?}", redis.keys());
    for proxy in &proxies {
        for _ in 0..5 {
            assert_eq!(proxy.client().send(&post).status, 429, "2 does not fit into 1");
        }
    }
    assert_eq!(states(&redis, &["tight", "wide"]), before, "the denied changed nothing");
    assert_eq!(proxies[1].client().send(&get).status, 200, "what was left is still there");
    let before = states(&redis, &["tight", "wide"]);
    for proxy in &proxies {
        for _ in 0..20 {
            assert_eq!(proxy.client().send(&get).status, 429);
        }
    }
    assert_eq!(states(&redis, &["tight", "wide"]), before, "the denied changed nothing");
}

#[test]
fn t3_hammering_does_not_prolong_a_denial_of_the_memory_store() {
    let yaml = "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits: [{ name: one, key: client_ip, rate: 1/2s, burst: 1 }]\n";
    let proxy = Tollgate::start(yaml);
    let begun = Instant::now();
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let mut denied = 0;
    while client.get("/").status == 429 {
        denied += 1;
        assert!(begun.elapsed() < Duration::from_secs(10), "still denied");
    }
    assert!(denied > 10, "it was hammered: {denied}");
    assert!(begun.elapsed() >= Duration::from_millis(1_990), "not earlier than the rate allows");
}

fn t4(store: &str) {
    let yaml = format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 2\n\
         limits: [{{ name: all-paths, key: client_ip, rate: 10/h }}]\nroutes:\n\
         \x20 - {{ name: wide, match: {{ path: /wide }}, upstream: echo }}\n\
         \x20 - name: narrow\n    match: {{ path: /narrow }}\n    upstream: echo\n\
         \x20   limits: [{{ name: narrow-path, key: client_ip, rate: 2/h }}]\n{store}"
    );
    let proxy = Tollgate::start(&yaml);
    let narrow: Vec<_> = (0..8).map(|_| proxy.get("/narrow").status).collect();
    assert_eq!(narrow, [200, 200, 429, 429, 429, 429, 429, 429]);
    assert_eq!(
        proxy.get("/wide").remaining("all-paths"),
        7,
        "two admitted and this one; the six denied are not charged"
    );
    let wide = (0..20).take_while(|_| proxy.get("/wide").status == 200).count();
    assert_eq!(wide, 7);
}

#[test]
fn t4_a_request_denied_by_one_limit_is_not_charged_to_another_in_memory() {
    t4("");
}

#[test]
fn t4_a_request_denied_by_one_limit_is_not_charged_to_another_in_redis() {
    let redis = RedisServer::start();
    t4(&redis_store(&redis));
}

fn t5(store: &str) {
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits: [{{ name: four, key: client_ip, rate: 2/s, burst: 4 }}]\n{store}"
    );
    let proxy = Tollgate::start(&yaml);
    for idle in [2, 4] {
        while proxy.get("/").status == 200 {}
        std::thread::sleep(Duration::from_secs(idle));
        assert_eq!(proxy.get("/").remaining("four"), 3, "the full burst of four, whatever the pause: {idle} s");
    }
}

#[test]
fn t5_a_pause_restores_the_full_burst_and_never_more_in_memory() {
    t5("");
}

#[test]
fn t5_a_pause_restores_the_full_burst_and_never_more_in_redis() {
    let redis = RedisServer::start();
    t5(&redis_store(&redis));
}

const SHORT_LIVED: &str = "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\n\
                           limits: [{ name: brief, key: 'header:x-client', rate: 4/s, burst: 4 }]\n";

#[test]
fn t6_a_neutral_state_is_gone_from_redis() {
    let redis = RedisServer::start();
    let proxy = Tollgate::start(&format!("{SHORT_LIVED}{}", redis_store(&redis)));
    for client in 0..20 {
        let request = Request::get("/").header("x-client", &format!("client-{client}"));
        assert_eq!(proxy.client().send(&request).status, 200);
    }
    let endless: Vec<_> = redis.keys().into_iter().filter(|key| redis.cli(&["PTTL", key]) == "-1").collect();
    assert!(endless.is_empty(), "no key without expiry: {endless:?}");
    eventually("no state is left", || states(&redis, &["brief"]).is_empty().then_some(()));
}

#[test]
fn t6_a_neutral_state_is_gone_from_memory() {
    let proxy = Tollgate::start(SHORT_LIVED);
    for client in 0..20 {
        let request = Request::get("/").header("x-client", &format!("client-{client}"));
        for _ in 0..4 {
            assert_eq!(proxy.client().send(&request).status, 200);
        }
    }
    assert!(proxy.metrics().has("tollgate_limit_keys"));
    eventually("no state is left", || (proxy.metrics().count("tollgate_limit_keys", &[]) == 0).then_some(()));
}
