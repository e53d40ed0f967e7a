//! Penalties through the whole proxy: what is a strike, what is not, how long blocks last, and that nothing
//! that happens inside a block prolongs it.

use std::time::{Duration, Instant};

use super::bounds::Clock;
use super::contract::redis_store;
use crate::support::client::{Answer, Request};
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::within;

/// One request per second, and what follows for those who do not keep to it.
fn yaml(penalty: &str, store: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits:\n\
         \x20 - {{ name: login, key: 'header:x-client', rate: 1/s, penalty: {{ {penalty} }} }}\n{store}"
    )
}

/// Two proxies on one Redis, and one client that asks them by turns.
struct Stage {
    redis: RedisServer,
    proxies: [Tollgate; 2],
    turn: usize,
}

/// What Redis keeps of a penalty, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    strikes: i64,
    length: i64,
    /// Denials until then belong to the last strike.
    until: i64,
    blocked: i64,
}

impl Stage {
    fn new(penalty: &str) -> Self {
        let redis = RedisServer::start();
        let yaml = yaml(penalty, &redis_store(&redis));
        let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
        Self { redis, proxies, turn: 0 }
    }

    fn ask(&mut self) -> Answer {
        self.turn += 1;
        self.proxies[self.turn % 2].client().send(&Request::get("/").header("x-client", "a"))
    }

    #[track_caller]
    fn admitted(&mut self) {
        let answer = self.ask();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    #[track_caller]
    fn denied(&mut self) -> u64 {
        let answer = self.ask();
        assert_eq!(answer.status, 429);
        answer.retry_after()
    }

    fn key(&self) -> Option<String> {
        self.redis.keys().into_iter().find(|key| key.contains(":login~penalty:"))
    }

    #[track_caller]
    fn state(&self) -> State {
        let key = self.key().expect("a penalty is stored");
        let text = self.redis.cli(&["GET", &key]);
        let numbers: Vec<i64> = text.split(':').map(|number| number.parse().expect("a number")).collect();
        let [strikes, length, until, blocked] = numbers[..] else { panic!("four numbers: {text}") };
        State { strikes, length, until, blocked }
    }

    /// States of the limit and its penalty with their expiry.
    fn states(&self) -> Vec<(String, String, String)> {
        let mut all = self.redis.dump();
        all.retain(|(key, ..)| key.contains(":login"));
        all
    }
}

fn wait(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

#[test]
fn each_block_is_twice_as_long_up_to_the_longest_and_denials_inside_change_nothing() {
    let mut stage = Stage::new("after: 1, block: 1s, max: 3s");
    let clock = Clock::new();
    let mut told = 0;
    for length in [1, 2, 3] {
        wait(told);
        stage.admitted();
        assert_eq!(stage.denied(), length, "Retry-After is the block's end");
        let struck = stage.state();
        assert_eq!((struck.strikes, struck.length), (0, i64::try_from(length).unwrap() * 1_000_000));
        let before = stage.states();
        assert_eq!(before.len(), 2, "the limit and its penalty: {before:?}");
        for _ in 0..8 {
            let sent = clock.at(Instant::now());
            told = stage.denied();
            let received = clock.at(Instant::now());
            let left = |now: i64| u64::try_from(struck.blocked - now).unwrap_or(0).div_ceil(1_000_000).max(1);
            assert!((left(received + 1_000)..=left(sent - 1_000)).contains(&told), "{told} s until the block's end");
        }
        assert_eq!(stage.states(), before, "the denied changed nothing");
    }
}

#[test]
fn who_hammers_is_struck_once_per_round_and_blocked_by_the_last_strike() {
    let mut stage = Stage::new("after: 3, block: 10m, max: 1h");
    for strikes in 1..=2 {
        stage.admitted();
        let told = stage.denied();
        let struck = stage.state();
        assert_eq!((struck.strikes, struck.length, struck.blocked), (strikes, 0, 0));
        for _ in 0..6 {
            stage.denied();
        }
        assert_eq!(stage.state(), struck, "one round, one strike");
        wait(told);
    }
    stage.admitted();
    assert_eq!(stage.denied(), 600, "the third strike blocks");
    let State { strikes, length, .. } = stage.state();
    assert_eq!((strikes, length), (0, 600_000_000), "strikes begin anew");
    wait(1);
    assert!((590..600).contains(&stage.denied()), "the limit would admit, the block does not");
}

#[test]
fn who_waits_as_told_is_never_struck_again() {
    let mut stage = Stage::new("after: 2, block: 10m, max: 1h");
    stage.admitted();
    let mut told = stage.denied();
    let struck = stage.state();
    for _ in 0..3 {
        wait(told);
        stage.admitted();
        // What is left tells whoever looks that the next one has to wait as long.
        told = 1;
    }
    assert_eq!(stage.state(), struck, "no strike came after the first");
}

#[test]
fn all_is_forgotten_when_a_key_kept_quiet_for_the_longest_block() {
    let mut stage = Stage::new("after: 1, block: 1s, max: 2s");
    for length in [1, 2] {
        stage.admitted();
        assert_eq!(stage.denied(), length);
        wait(length);
    }
    within(Duration::from_secs(10), "the penalty is gone", || stage.key().is_none().then_some(()));
    stage.admitted();
    assert_eq!(stage.denied(), 1, "as long as the first block");
}

/// A denial of what costs more lasts longer than the round of a strike, and what follows it is a strike again.
#[test]
fn requests_of_other_costs_hide_no_strike() {
    let redis = RedisServer::start();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits:\n\
         \x20 - {{ name: login, key: 'header:x-client', rate: 1/s, burst: 9, cost: {{ default: 1, POST: 9 }},\n\
         \x20     penalty: {{ after: 2, block: 10m, max: 1h }} }}\n{}",
        redis_store(&redis)
    ));
    let ask = |method| proxy.client().send(&Request::new(method, "/").header("x-client", "a"));
    assert_eq!(ask("POST").status, 200);
    assert_eq!(ask("GET").retry_after(), 1, "the first strike, whose round lasts a second");
    assert_eq!(ask("POST").retry_after(), 9);
    wait(1);
    assert_eq!(ask("POST").retry_after(), 600, "the second strike");
}

/// A dear request is told to come much later; what cheap ones do meanwhile is not hidden behind that.
#[test]
fn a_dear_denial_shields_nobody() {
    let redis = RedisServer::start();
    for store in [String::new(), redis_store(&redis)] {
        let proxy = Tollgate::start(&format!(
            "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits:\n\
             \x20 - {{ name: login, key: 'header:x-client', rate: 1/s, burst: 100, cost: {{ default: 1, DELETE: 100 }},\n\
             \x20     penalty: {{ after: 3, block: 10m, max: 1h }} }}\n{store}"
        ));
        let ask = |method| proxy.client().send(&Request::new(method, "/").header("x-client", "a"));
        assert_eq!(ask("DELETE").status, 200);
        assert!(ask("DELETE").retry_after() > 90, "the first strike");
        let blocked = || ask("GET").header("retry-after").is_some_and(|after| after.parse::<u64>().unwrap() > 100);
        within(Duration::from_secs(15), "whoever hammers is blocked", || blocked().then_some(()));
    }
}

#[test]
fn blocks_double_in_the_memory_store_too() {
    let proxy = Tollgate::start(&yaml("after: 1, block: 1s, max: 1m", ""));
    let ask = || proxy.client().send(&Request::get("/").header("x-client", "a"));
    for length in [1, 2, 4] {
        assert_eq!(ask().status, 200);
        let told: Vec<u64> = (0..6).map(|_| ask().retry_after()).collect();
        assert_eq!(told[0], length, "{told:?}");
        assert!(told.is_sorted_by(|before, after| before >= after), "not prolonged: {told:?}");
        if length < 4 {
            wait(length);
        }
    }
}
