//! What the Redis store makes of servers that answer otherwise than a healthy Redis: too old ones, ones
//! that keep their clock from scripts, and ones that answer garbage or nothing.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tollgate::limit::algorithm::{Algorithm, Bucket};
use tollgate::limit::key::Subject;
use tollgate::limit::stats::{LimitStats, StoreErrorKind};
use tollgate::limit::store::redis::RedisStore;
use tollgate::limit::store::{Ask, Reply};

use super::redis_store::{HANG, IMPATIENT, PATIENT, block_on, settings_for, until_up};
use crate::support::redis_stub::{GRANTED, Stub, hello};

const LIMIT: Algorithm = Algorithm::TokenBucket(Bucket { capacity: 10, rate: 1, period: 1_000_000, tick: 1, debt: 0 });

/// A server of this version whose scripts answer what it is told.
fn scripted(version: &'static str, decide: impl Fn(&[String]) -> String + Send + Sync + 'static) -> Stub {
    Stub::start(move |words| match words[0].as_str() {
        "HELLO" => Some(hello("redis", version)),
        "EVALSHA" | "EVAL" => Some(decide(words)),
        _ => None,
    })
}

pub(crate) fn number(reader: &mut impl BufRead) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.get(1..)?.trim().parse().ok()
}

pub(crate) fn word(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = vec![0; number(reader)? + 2];
    reader.read_exact(&mut bytes).ok()?;
    bytes.truncate(bytes.len() - 2);
    String::from_utf8(bytes).ok()
}

async fn take(store: &RedisStore, key: &str) -> Result<Reply, StoreErrorKind> {
    let subject = Subject::from_slice(key.as_bytes());
    let began = Instant::now();
    let result = store.decide(&[Ask::new("api", &LIMIT, &subject, 1)]).await;
    assert!(began.elapsed() < PATIENT + HANG, "{:?}", began.elapsed());
    result
}

/// Asks about another subject until there is a decision.
async fn until_decided(store: &RedisStore, otherwise: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while take(store, "other").await.is_err() {
        assert!(Instant::now() < deadline, "{otherwise}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_server_that_is_too_old_is_not_used() {
    for (version, usable) in [("5.0.14", false), ("6.0.20", false), ("6.2.0", true), ("7.0.15", true), ("10.1", true)] {
        let server = scripted(version, |_| GRANTED.to_owned());
        block_on(async {
            let store = RedisStore::start(&settings_for(server.port, PATIENT), Arc::new(LimitStats::new()));
            let result = take(&store, "k").await;
            assert_eq!(result.is_ok(), usable, "{version}: {result:?}");
            assert_eq!(result.err(), (!usable).then_some(StoreErrorKind::Protocol));
        });
    }
}

#[test]
fn valkey_counts_its_versions_by_itself() {
    // Also one that counts anew, and one that says what Redis it stands for.
    for (name, version) in [("valkey", "8.0.1"), ("valkey", "9.1.0-rc1"), ("valkey", "1.0.0"), ("redis", "7.2.4")] {
        let server = Stub::start(move |words| (words[0] == "HELLO").then(|| hello(name, version)));
        block_on(async {
            let store = RedisStore::start(&settings_for(server.port, PATIENT), Arc::new(LimitStats::new()));
            assert!(take(&store, "k").await.unwrap().granted, "{name} {version}");
        });
    }
}

#[test]
fn a_server_that_keeps_its_clock_from_scripts_is_given_ours() {
    let server = scripted("7.0.0", |words| {
        if words[4] == "0" {
            "-ERR This Redis command is not allowed from script script: 0123, on @user_script:7.\r\n".to_owned()
        } else {
            GRANTED.to_owned()
        }
    });
    block_on(async {
        let stats = Arc::new(LimitStats::new());
        let store = RedisStore::start(&settings_for(server.port, PATIENT), Arc::clone(&stats));
        for _ in 0..10 {
            assert!(take(&store, "k").await.unwrap().granted);
        }
        assert_eq!(stats.own_clock.load(Ordering::Relaxed), 1, "it is told");
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let asked = server.asked();
        let clocks: Vec<i128> =
            asked.iter().filter(|words| words[0] == "EVALSHA").map(|words| words[4].parse().unwrap()).collect();
        assert_eq!(clocks.iter().filter(|&&clock| clock == 0).count(), 1, "it is asked for its clock once");
        let last = -clocks.last().unwrap();
        assert!((i128::try_from(wall.as_micros()).unwrap() - last).abs() < 5_000_000);
    });
}

#[test]
fn garbage_is_a_fault_and_never_a_decision() {
    let garbage = [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "*8\r\n:1\r\n:1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*8\r\n:1\r\n:2\r\n:0\r\n:0\r\n:0\r\n:9\r\n:0\r\n:1\r\n",
        "*8\r\n:x\r\n",
        "*999999999\r\n:1\r\n",
        "$999999999\r\nabc",
        "$5\r\nhello\r\n",
        "-ERR nonsense\r\n",
        "-\r\n",
        "+OK\r\n",
        "_\r\n",
        "%1\r\n+a\r\n:1\r\n",
        "\0\0\0\0",
        "\r\n",
        "",
    ];
    for text in garbage {
        let server =
            scripted("7.0.0", move |words| if words[3].contains("{k}") { text.to_owned() } else { GRANTED.to_owned() });
        block_on(async {
            let store = RedisStore::start(&settings_for(server.port, IMPATIENT), Arc::new(LimitStats::new()));
            until_up(&store).await;
            for _ in 0..3 {
                let result = take(&store, "k").await;
                assert!(result.is_err(), "{text:?} became {result:?}");
                until_up(&store).await;
            }
            until_decided(&store, &format!("{text:?} is still in the way")).await;
        });
    }
}

#[test]
fn a_charge_whose_fate_is_unknown_is_never_sent_again() {
    let server =
        scripted("7.0.0", |words| if words[3].contains("{lost}") { String::new() } else { GRANTED.to_owned() });
    block_on(async {
        let store = RedisStore::start(&settings_for(server.port, IMPATIENT), Arc::new(LimitStats::new()));
        until_up(&store).await;
        for _ in 0..3 {
            assert_eq!(take(&store, "lost").await, Err(StoreErrorKind::Timeout));
        }
        until_decided(&store, "nothing is decided any more").await;
        assert_eq!(server.count("{lost}"), 3);
    });
}
