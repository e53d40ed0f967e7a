//! Which state a limit reads: its own, by name, override, rate, algorithm and window; and what it makes of
//! that after its numbers were changed.

use std::sync::Arc;

use tollgate::limit::algorithm::fixed_window::Align;
use tollgate::limit::algorithm::{Algorithm, Bucket, FixedWindow, InFlight, SlidingLog, SlidingWindow};
use tollgate::limit::key::Subject;
use tollgate::limit::stats::LimitStats;
use tollgate::limit::store::Ask;
use tollgate::limit::store::memory::MemoryStore;
use tollgate::limit::store::redis::RedisStore;

use super::contract::redis_store;
use super::redis_store::{block_on, settings, until_up};
use crate::support::client::{Answer, Request};
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;

/// Every algorithm, those with windows in two widths; each admits three.
fn algorithms() -> Vec<Algorithm> {
    let bucket = Bucket::new("3/1h".parse().unwrap(), 3).unwrap();
    let mut all = vec![
        Algorithm::TokenBucket(bucket),
        Algorithm::LeakyBucket { bucket, delay_after: 3 },
        Algorithm::InFlight(InFlight { limit: 3, slot_us: 3_600_000_000 }),
    ];
    for rate in ["3/100d", "3/200d"] {
        let rate = rate.parse().unwrap();
        all.push(Algorithm::FixedWindow(FixedWindow::new(rate, Align::Utc, 0).unwrap()));
        all.push(Algorithm::SlidingWindow(SlidingWindow::new(rate, 0).unwrap()));
        all.push(Algorithm::SlidingLog(SlidingLog::new(rate, 0).unwrap()));
    }
    all
}

/// A limit, its overrides, their rates, and names that look alike when they are put together.
const IDS: [&str; 8] = ["api", "api@1", "api@2", "api~1h", "api~1d", "api@1~1h", "ap", "api@1~1d"];

#[test]
fn no_two_limits_share_a_state_in_either_store() {
    let server = RedisServer::start();
    let memory = MemoryStore::new(100_000);
    let subjects = ["a", "b", "api"].map(|text| Subject::from_slice(text.as_bytes()));
    let algorithms = algorithms();
    block_on(async {
        let redis = RedisStore::start(&settings(&server), Arc::new(LimitStats::new()));
        until_up(&redis).await;
        let mut slot = 0;
        // Whoever shared the state of one before it would be denied the third request at the latest.
        let of = |id| algorithms.iter().flat_map(move |algorithm| [0, 1, 2].map(|subject| (id, algorithm, subject)));
        for (id, algorithm, subject) in IDS.into_iter().flat_map(of) {
            let subject = &subjects[subject];
            for left in [2, 1, 0] {
                slot += 1;
                let slot = format!("slot {slot}");
                let ask = || [Ask { slot: &slot, ..Ask::new(id, algorithm, subject, 1) }];
                for reply in [memory.decide(&ask()), redis.decide(&ask()).await.unwrap()] {
                    let answer = reply.answers[0];
                    assert_eq!((answer.allowed, answer.remaining), (true, left), "{id} {algorithm:?}");
                }
            }
        }
    });
    let states = IDS.len() * algorithms.len() * subjects.len();
    assert_eq!(memory.len(), states);
    assert_eq!(server.keys().iter().filter(|key| key.contains("}:ap")).count(), states, "{:?}", server.keys());
}

fn yaml(limits: &str, store: &RedisServer) -> String {
    format!("listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits:\n{limits}{}", redis_store(store))
}

fn ask(proxy: &Tollgate, path: &str, client: &str) -> Answer {
    proxy.client().send(&Request::get(path).header("x-client", client))
}

#[test]
fn overrides_and_rate_lists_have_states_of_their_own() {
    let redis = RedisServer::start();
    let with = "  - name: api\n    key: 'header:x-client'\n    rate: 4/d\n    overrides:\n\
                \x20     - { key: gold, rate: 9/d }\n      - { key: [silver, bronze], rate: [3/h, 7/d] }\n";
    let proxy = Tollgate::start(&yaml(with, &redis));
    for (client, admitted) in [("gold", 9), ("silver", 3), ("bronze", 3), ("other", 4)] {
        let statuses: Vec<_> = (0..=admitted).map(|_| ask(&proxy, "/", client).status).collect();
        let (last, first) = statuses.split_last().unwrap();
        assert!(first.iter().all(|status| *status == 200) && *last == 429, "{client}: {statuses:?}");
    }
    let keys = redis.keys();
    let having = |part: &str| keys.iter().filter(|key| key.ends_with(part)).count();
    assert_eq!([":api:b1", ":api@1:b1", ":api@2~1h:b1", ":api@2~1d:b1"].map(having), [1, 1, 2, 2], "{keys:?}");
    drop(proxy);
    // Whoever loses an override begins afresh, as whoever gets one does.
    let without = "  - name: api\n    key: 'header:x-client'\n    rate: 4/d\n    overrides:\n\
                   \x20     - { key: other, rate: 9/d }\n";
    let proxy = Tollgate::start(&yaml(without, &redis));
    assert_eq!(ask(&proxy, "/", "gold").remaining("api"), 3);
    assert_eq!(ask(&proxy, "/", "silver").remaining("api"), 3);
    // The first override is another one now, and its state was that of another client.
    assert_eq!(ask(&proxy, "/", "other").remaining("api"), 8);
}

/// A limit before and after a change of the file: what it says, how many requests come before, and what the
/// first one after it finds left: `None` when it is denied.
const CHANGES: [(&str, &str, &str, usize, Option<u64>); 16] = [
    // A bucket keeps the time until it is full: 4 of 10 per hour are 24 minutes, which are 8 of 20 per hour.
    ("rate-up", "rate: 10/h", "rate: 20/h", 4, Some(11)),
    // One hour is a twenty-fourth of a day, in which 10 are earned.
    ("rate-down", "rate: 10/h", "rate: 10/d", 10, Some(8)),
    ("burst-up", "rate: 10/h, burst: 10", "rate: 10/h, burst: 15", 4, Some(10)),
    ("burst-down", "rate: 10/h, burst: 10", "rate: 10/h, burst: 5", 4, Some(0)),
    // A day until full is more than an hour until full: empty.
    ("lowered", "rate: 30/d", "rate: 10/h", 30, None),
    // One hour is what 113.8 of them take; the clock of so slow a rate ticks 100 times per second.
    ("tick", "rate: 10/h", "rate: 1000003/366d", 10, Some(999_888)),
    ("fixed-up", "algorithm: fixed_window, rate: 5/300d", "algorithm: fixed_window, rate: 9/300d", 3, Some(5)),
    ("fixed-down", "algorithm: fixed_window, rate: 5/300d", "algorithm: fixed_window, rate: 2/300d", 3, None),
    ("sliding-up", "algorithm: sliding_window, rate: 5/300d", "algorithm: sliding_window, rate: 9/300d", 3, Some(5)),
    ("log-up", "algorithm: sliding_log, rate: 5/300d", "algorithm: sliding_log, rate: 9/300d", 3, Some(5)),
    ("log-down", "algorithm: sliding_log, rate: 5/300d", "algorithm: sliding_log, rate: 3/300d", 3, None),
    // Another window or another algorithm is another state.
    ("fixed-width", "algorithm: fixed_window, rate: 5/300d", "algorithm: fixed_window, rate: 5/200d", 3, Some(4)),
    ("sliding-width", "algorithm: sliding_window, rate: 5/300d", "algorithm: sliding_window, rate: 5/200d", 3, Some(4)),
    ("log-width", "algorithm: sliding_log, rate: 5/300d", "algorithm: sliding_log, rate: 5/200d", 3, Some(4)),
    ("algorithm", "algorithm: sliding_log, rate: 5/300d", "algorithm: fixed_window, rate: 5/300d", 3, Some(4)),
    ("queue", "rate: 10/h", "algorithm: leaky_bucket, rate: 10/h, delay_after: 10, max_wait: 10s", 4, Some(9)),
];

fn changed(after: bool) -> String {
    let line = |(name, old, new, ..): (&str, &str, &str, usize, Option<u64>)| {
        let numbers = if after { new } else { old };
        format!("  - {{ name: {name}, key: 'header:x-client', {numbers}, match: {{ path: /{name} }} }}\n")
    };
    CHANGES.map(line).concat()
}

#[test]
fn a_changed_rate_burst_or_count_goes_on_with_the_state_and_another_window_begins_afresh() {
    let redis = RedisServer::start();
    let before = Tollgate::start(&yaml(&changed(false), &redis));
    for (name, .., requests, _) in CHANGES {
        for _ in 0..requests {
            assert_eq!(ask(&before, &format!("/{name}"), "a").status, 200, "{name}");
        }
    }
    drop(before);
    let after = Tollgate::start(&yaml(&changed(true), &redis));
    for (name, _, new, _, left) in CHANGES {
        let answer = ask(&after, &format!("/{name}"), "a");
        let found = (answer.status == 200).then(|| answer.remaining(name));
        assert_eq!(found, left, "{name}, now {new}: {}", answer.text());
    }
    // What is too far ahead of a lowered limit was written back as empty.
    let key = redis.keys().into_iter().find(|key| key.contains(":lowered:")).expect("a state");
    let left: i64 = redis.cli(&["PTTL", &key]).parse().expect("milliseconds");
    assert!(left <= 3_600_002, "an hour at most: {left} ms");
    let told = ask(&after, "/lowered", "a").retry_after();
    assert!((1..=360).contains(&told), "one of ten per hour: {told} s");
}
