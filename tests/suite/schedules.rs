//! Schedules: the same limit with other numbers at certain hours, on the same states.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method};
use tollgate::config::{Config, Origin, parse};
use tollgate::limit::Facts;
use tollgate::limit::key::Hashing;
use tollgate::limit::plan::{Clock, Reading, Situation};
use tollgate::limit::policy::Terms;
use tollgate::limit::stats::LimitStats;
use tollgate::limit::store::memory::MemoryStore;
use tollgate::limit::store::redis::RedisStore;
use tollgate::limit::store::settings::{Backend, RedisSettings};
use tollgate::limit::store::{Ask, Reply};

use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{Tollgate, tollgate};

/// A limit of the only policy, with these schedules, and Redis beside it.
fn config(limit: &str, redis: &RedisServer) -> Config {
    let text = format!(
        "listen: :8080\nupstream: echo\nstore: {{ redis: {{ url: '{}', timeout: 5s }} }}\n\
         limits: [{{ name: l, key: client_ip, {limit} }}]\n",
        redis.url()
    );
    parse(&text, &Origin::Arguments, &|_| None).unwrap_or_else(|report| panic!("{report}")).config
}

fn us(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

/// The memory store and Redis, which are asked the same and must answer the same.
struct Both {
    memory: MemoryStore,
    redis: Rc<RedisStore>,
    config: Config,
}

impl Both {
    async fn start(config: Config) -> Self {
        let Backend::Redis(settings) = &config.store.backend else { panic!("redis") };
        let settings: &RedisSettings = settings;
        let redis = RedisStore::start(settings, Arc::new(LimitStats::new()));
        while !redis.up() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { memory: MemoryStore::new(1000), redis, config }
    }

    /// One request at this instant; `None` when no store is asked.
    async fn send(&self, at: &str) -> Option<Reply> {
        let (now_us, method, headers) = (us(at), Method::GET, HeaderMap::new());
        let facts = Facts {
            client_ip: Some(IpAddr::from([192, 0, 2, 1])),
            method: &method,
            host: "",
            path: "/",
            query: None,
            headers: &headers,
            has_unsized_body: false,
            params: &[],
            route: "",
            tls_subject: None,
            claims: &tollgate::limit::key::NoClaims,
        };
        let situation = Situation { hashing: &Hashing::Raw, overrides: None, clock: Clock::At(now_us), control: None };
        let reading = Reading::of(&self.config.policies[0], &facts, situation).unwrap();
        let Reading::Keyed { subject, terms: Terms::Limited(limits), .. } = reading else { return None };
        let asks: Vec<_> =
            limits.iter().map(|limit| Ask::new(&limit.state_id, &limit.algorithm, &subject, 1)).collect();
        let reply = self.memory.decide_at(now_us, &asks);
        assert_eq!(self.redis.decide_at(now_us, &asks).await.unwrap(), reply, "{at}");
        Some(reply)
    }

    /// How many requests pass at this instant before one is denied.
    async fn admitted(&self, at: &str) -> usize {
        let mut count = 0;
        while self.send(at).await.expect("counted").granted {
            count += 1;
        }
        count
    }
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_bucket_keeps_its_time_to_full_over_the_border() {
    let redis = RedisServer::start();
    let night = "schedules: [{ name: night, from: '22:00', to: '06:00', rate: 600/h, burst: 100 }]";
    let config = config(&format!("rate: 60/h, burst: 10, {night}"), &redis);
    block_on(async {
        let both = Both::start(config).await;
        assert_eq!(both.admitted("2031-11-27T21:59:59Z").await, 10);
        // Ten minutes until it is full, which are a hundred tokens at the rate of the night.
        assert_eq!(both.admitted("2031-11-27T22:00:00Z").await, 0, "no fresh burst where the night begins");
        assert_eq!(both.admitted("2031-11-27T22:05:00Z").await, 50);
        assert_eq!(both.admitted("2031-11-28T01:00:00Z").await, 100, "idle for long: the whole burst of the night");
        let morning = both.send("2031-11-28T06:00:00Z").await.unwrap();
        assert!(morning.granted && morning.answers[0].remaining == 9, "{morning:?}");
        assert_eq!(both.admitted("2031-11-29T05:59:59Z").await, 100);
        let morning = both.send("2031-11-29T06:00:00Z").await.unwrap();
        assert_eq!(
            (morning.granted, morning.retry_us),
            (false, 59_000_000),
            "599 s to full, of the 600 s that empty is"
        );
    });
    let ids: Vec<_> = redis.keys().iter().map(|key| key.split_once("}:").unwrap().1.to_owned()).collect();
    assert!(ids.iter().filter(|id| !id.starts_with('~')).all(|id| id == "l:b1"), "one state: {ids:?}");
}

#[test]
fn a_window_keeps_its_count_and_another_window_starts_afresh() {
    let redis = RedisServer::start();
    let late = "algorithm: fixed_window, rate: 5/h, schedules: [{ name: late, from: '22:30', rate: 8/h }]";
    let config = config(late, &redis);
    block_on(async {
        let both = Both::start(config).await;
        assert_eq!(both.admitted("2031-11-27T22:10:00Z").await, 5);
        assert_eq!(both.admitted("2031-11-27T22:30:00Z").await, 3);
    });
    let redis = RedisServer::start();
    let other = "algorithm: fixed_window, rate: 5/h, schedules: [{ name: late, from: '22:30', rate: 8/d }]";
    let config = self::config(other, &redis);
    block_on(async {
        let both = Both::start(config).await;
        assert_eq!(both.admitted("2031-11-27T22:10:00Z").await, 5);
        assert_eq!(both.admitted("2031-11-27T22:30:00Z").await, 8, "as `check` warns");
    });
}

#[test]
fn several_rates_carry_each_its_own_state() {
    let redis = RedisServer::start();
    let config = config("rate: [2/m, 6/h], schedules: [{ name: weekend, days: [sat, sun], rate: [9/h, 4/m] }]", &redis);
    block_on(async {
        let both = Both::start(config).await;
        assert_eq!(both.admitted("2031-11-28T23:50:00Z").await, 2, "Friday");
        assert_eq!(both.admitted("2031-11-28T23:52:00Z").await, 2);
        // Half an hour to full: of nine an hour four and a half are still out.
        let saturday = both.admitted("2031-11-29T00:00:00Z").await;
        assert_eq!(saturday, 4, "four a minute, which began afresh long ago");
        assert_eq!(both.admitted("2031-11-29T00:04:00Z").await, 1, "of nine an hour no more than was left");
    });
}

#[test]
fn a_schedule_may_close_or_open_a_limit() {
    let redis = RedisServer::start();
    let hours = "schedules: [{ name: closed, from: '03:00', to: '04:00', rate: 0/s }, \
                 { name: open, from: '04:00', to: '05:00', rate: unlimited, timezone: UTC }]";
    let config = config(&format!("rate: 5/h, {hours}"), &redis);
    block_on(async {
        let both = Both::start(config).await;
        assert_eq!(both.admitted("2031-11-27T02:59:59Z").await, 5);
        assert_eq!(both.send("2031-11-27T03:00:00Z").await, None);
        assert_eq!(both.send("2031-11-27T04:59:59Z").await, None);
        assert_eq!(both.admitted("2031-11-27T05:00:00Z").await, 5);
    });
}

#[test]
fn the_schedule_that_covers_now_holds_for_who_has_neither_override_nor_tier() {
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
    let clock = |hours: u64| format!("'{:02}:00'", (hour + hours) % 24);
    // The hour that ends a day is called 24.
    let end = |hours: u64| clock(hours).replace("'00:", "'24:");
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits:\n  - name: l\n    key: 'header:x-id'\n    rate: 2/d\n\
         \x20   overrides: [{{ key: named, rate: 1/d }}]\n    tiers: {{ by: 'header:x-plan', values: {{ pro: 3/d }} }}\n\
         \x20   schedules:\n\
         \x20     - {{ name: now, from: {}, to: {}, rate: 5/d }}\n      - {{ name: later, from: {}, to: {}, rate: 7/d }}\n",
        clock(23),
        end(2),
        clock(2),
        end(12)
    ));
    let admitted = |id: &str, plan: &str| {
        let request = crate::support::client::Request::get("/").header("x-id", id).header("x-plan", plan);
        (0..9).filter(|_| proxy.client().send(&request).status == 200).count()
    };
    assert_eq!([admitted("a", "none"), admitted("b", "pro"), admitted("named", "pro")], [5, 3, 1]);
}

#[test]
fn check_and_explain_tell_hours_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.yaml");
    let text = "listen: :8080\nupstream: echo\nlimits:\n  - name: l\n    key: client_ip\n    rate: 60/h\n    schedules:\n\
                \x20     - { name: night, days: [mon-fri], from: 22:00, to: 06:00, timezone: Europe/Berlin, rate: 600/h }\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let checked = tollgate(&["check", "-c", path]).output;
    let words = "by the clock of Europe/Berlin (night mon, tue, wed, thu, fri 22:00 to 06:00: at most 600 at once";
    assert!(checked.contains(words), "{checked}");
    let explain = |at: &str| tollgate(&["explain", "-c", path, "GET", "http://a/", "--at", at]).output;
    let night = explain("2026-11-27T21:00:00Z");
    assert!(night.contains("schedule night (mon, tue, wed, thu, fri 22:00 to 06:00): at most 600"), "{night}");
    let day = explain("2026-11-27T20:59:59Z");
    assert!(!day.contains("; schedule night"), "{day}");
}
