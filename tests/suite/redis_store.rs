//! The Redis store against a real redis-server: what it writes there, and what it does when the server
//! forgets, refuses, hangs, dies and comes back. Every wait has a generous bound that only a hang breaks.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tollgate::limit::algorithm::{Algorithm, Bucket};
use tollgate::limit::key::{Hashing, Subject};
use tollgate::limit::stats::{LimitStats, StoreErrorKind};
use tollgate::limit::store::redis::RedisStore;
use tollgate::limit::store::settings::{HashTags, RedisSettings, RedisTls, Secret, ServerAddress, Servers};
use tollgate::limit::store::{Ask, Reply};

use crate::support::redis_server::RedisServer;

/// Only a hang takes so much longer than the deadline.
pub(crate) const HANG: Duration = Duration::from_secs(1);
/// A deadline that no healthy server misses, however busy the machine is.
pub(crate) const PATIENT: Duration = Duration::from_secs(2);
/// A deadline for servers that do not answer.
pub(crate) const IMPATIENT: Duration = Duration::from_millis(50);
/// Within this a store must be back; the promise is one second, the machine may be busy.
pub(crate) const BACK: Duration = Duration::from_secs(10);

/// 5 at once, then one per hour.
const SCARCE: Algorithm =
    Algorithm::TokenBucket(Bucket { capacity: 5, rate: 1, period: 3_600_000_000, tick: 1, debt: 0 });
/// 1000 at once, then 3 per second.
const PLENTY: Algorithm =
    Algorithm::TokenBucket(Bucket { capacity: 1000, rate: 3, period: 1_000_000, tick: 1, debt: 0 });

pub(crate) fn block_on<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(test)
}

pub(crate) fn settings(server: &RedisServer) -> RedisSettings {
    settings_for(server.port(), PATIENT)
}

/// The same for a server that will not answer.
fn impatient(server: &RedisServer) -> RedisSettings {
    settings_for(server.port(), IMPATIENT)
}

pub(crate) fn settings_for(port: u16, timeout: Duration) -> RedisSettings {
    RedisSettings {
        servers: Servers::One { address: ServerAddress::new("127.0.0.1", port), database: 0 },
        tls: None,
        username: None,
        password: None,
        key_prefix: "tollgate".into(),
        hash_tags: HashTags::Subject,
        timeout,
        hashing: Hashing::Hashed(None),
    }
}

pub(crate) async fn until_up(store: &RedisStore) {
    within(BACK, "the store answers", || store.up()).await;
}

pub(crate) async fn within(bound: Duration, what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + bound;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A store with its statistics.
struct Subjected {
    store: Rc<RedisStore>,
    stats: Arc<LimitStats>,
    timeout: Duration,
}

impl Subjected {
    fn start(settings: &RedisSettings) -> Self {
        let stats = Arc::new(LimitStats::new());
        Self { store: RedisStore::start(settings, Arc::clone(&stats)), stats, timeout: settings.timeout }
    }

    async fn connected(settings: &RedisSettings) -> Self {
        let this = Self::start(settings);
        until_up(&this.store).await;
        this
    }

    async fn take(&self, limit: &Algorithm, key: &str) -> Result<Reply, StoreErrorKind> {
        let subject = Subject::from_slice(key.as_bytes());
        let began = Instant::now();
        let ask = Ask::new("api", limit, &subject, 1);
        let result = self.store.decide(&[ask]).await;
        assert!(began.elapsed() < self.timeout + HANG, "a decision took {:?}: {result:?}", began.elapsed());
        result
    }

    fn errors(&self, kind: StoreErrorKind) -> u64 {
        self.stats.errors[kind as usize].value()
    }

    /// Asks until the breaker opens; returns the errors seen on the way.
    async fn until_down(&self) -> Vec<StoreErrorKind> {
        let deadline = Instant::now() + BACK;
        let mut seen = Vec::new();
        while self.store.up() {
            assert!(Instant::now() < deadline, "the breaker does not open: {seen:?}");
            if let Err(kind) = self.take(&PLENTY, "down").await {
                seen.push(kind);
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(self.stats.store_up.load(Ordering::Relaxed), 0);
        seen
    }

    /// While the breaker is open a decision fails without waiting.
    async fn assert_fails_at_once(&self) {
        let calls = self.stats.store_calls.value();
        let began = Instant::now();
        for _ in 0..1000 {
            if !self.store.up() {
                self.take(&PLENTY, "open").await.unwrap_err();
            }
        }
        println!("1000 decisions with an open breaker: {:?}", began.elapsed());
        assert!(self.stats.store_calls.value() - calls < 100, "only probes are sent");
    }

    /// The fault is cured: exact decisions again, in time.
    async fn assert_comes_back(&self, what: &str) {
        let began = Instant::now();
        until_up(&self.store).await;
        println!("{what}: back after {:?}", began.elapsed());
        assert_eq!(self.stats.store_up.load(Ordering::Relaxed), 1);
        assert!(self.take(&PLENTY, "back").await.unwrap().granted);
    }

    /// Drives a fault that shows as `kind` and its cure.
    async fn assert_fault(&self, kind: StoreErrorKind, cure: impl FnOnce()) {
        let epoch = self.store.epoch();
        let seen = self.until_down().await;
        assert!(self.errors(kind) > 0, "{kind:?} expected, seen {seen:?}");
        assert_ne!(self.store.epoch(), epoch, "what was remembered is void");
        self.assert_fails_at_once().await;
        cure();
        self.assert_comes_back(&format!("{kind:?}")).await;
    }
}

#[test]
fn a_first_decision_waits_for_the_first_connection() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::start(&settings(&server));
        let subject = Subject::from_slice(b"early");
        let ask = Ask::new("api", &SCARCE, &subject, 1);
        assert!(subjected.store.decide(&[ask]).await.unwrap().granted);
    });
}

#[test]
fn a_burst_is_admitted_by_the_servers_clock_and_then_denied_with_a_true_retry() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        for left in (0..5).rev() {
            let reply = subjected.take(&SCARCE, "192.0.2.7").await.unwrap();
            assert_eq!((reply.granted, reply.answers[0].remaining), (true, left));
        }
        let reply = subjected.take(&SCARCE, "192.0.2.7").await.unwrap();
        let now: Vec<i64> = server.cli(&["TIME"]).lines().map(|line| line.parse().unwrap()).collect();
        assert!(!reply.granted);
        assert!((now[0] * 1_000_000 + now[1]).abs_diff(reply.now_us) < 2_000_000);
        assert!((3_590_000_000..=3_600_000_000).contains(&reply.retry_us), "{}", reply.retry_us);
        assert_eq!(server.keys(), ["tollgate:{192.0.2.7}:api:b1"]);
    });
}

#[test]
fn a_denial_changes_no_key_and_charges_no_other_limit() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        let subject = Subject::from_slice(b"client");
        let ask = |id, algorithm, shadow| Ask { shadow, ..Ask::new(id, algorithm, &subject, 1) };
        let leaky = Algorithm::LeakyBucket { bucket: *PLENTY.bucket().unwrap(), delay_after: 1 };
        let both =
            [ask("plenty", &PLENTY, 0), ask("leaky", &leaky, 0), ask("watched", &SCARCE, 1), ask("scarce", &SCARCE, 0)];
        for _ in 0..5 {
            assert!(subjected.store.decide(&both).await.unwrap().granted);
        }
        within(BACK, "the probe's key expires", || server.keys().len() == 4).await;
        let before = server.dump();
        for _ in 0..20 {
            let reply = subjected.store.decide(&both).await.unwrap();
            assert!(!reply.granted);
            assert!(reply.answers[0].allowed && reply.answers[1].allowed);
            assert!(!reply.answers[2].allowed && !reply.answers[3].allowed);
        }
        assert_eq!(server.dump(), before);
    });
}

#[test]
fn every_key_expires_when_its_state_equals_never_seen() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        let ticks = Algorithm::TokenBucket(Bucket {
            capacity: 1_000_003,
            rate: 1_000_003,
            period: 2_592_000_000,
            tick: 1000,
            debt: 0,
        });
        let start = 2_082_758_400_000_000_i64;
        for (step, limit) in [&SCARCE, &PLENTY, &ticks].into_iter().cycle().take(300).enumerate() {
            let subject = Subject::from_slice(format!("s{}", step % 7).as_bytes());
            let ask = Ask::new(["a", "b", "c"][step % 3], limit, &subject, 1 + step as u64 % 2);
            let now_us = start + i64::try_from(step).unwrap() * 1_234_567;
            let reply = subjected.store.decide_at(now_us, &[ask]).await.unwrap();
            if !reply.granted {
                continue;
            }
            let tick = i64::try_from(limit.bucket().unwrap().tick).unwrap();
            let neutral_us = now_us / tick * tick + i64::try_from(reply.answers[0].reset_us).unwrap();
            let key = format!("tollgate:{{s{}}}:{}:b1", step % 7, ["a", "b", "c"][step % 3]);
            let expires: i64 = server.cli(&["PEXPIRETIME", &key]).parse().unwrap();
            assert_eq!(expires, (neutral_us + 999) / 1000 + 1, "{key}");
        }
        let keys = server.keys();
        assert!(keys.len() >= 21, "{keys:?}");
        for key in keys {
            assert_ne!(server.cli(&["PTTL", &key]), "-1", "{key} never expires");
        }
    });
}

#[test]
fn a_key_that_became_full_is_gone() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        let quick = Algorithm::TokenBucket(Bucket { capacity: 10, rate: 1, period: 1000, tick: 1, debt: 0 });
        for client in 0..20 {
            assert!(subjected.take(&quick, &format!("c{client}")).await.unwrap().granted);
        }
        within(BACK, "all keys expire", || server.keys().is_empty()).await;
    });
}

#[test]
fn what_is_no_state_of_ours_counts_as_empty_and_is_replaced() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        let garbage = ["hello", "", "nan", "inf", "12.5", "1:2:3", "99999999999999999999", "1e300", "-:1"];
        for (index, value) in garbage.into_iter().enumerate() {
            for limit in [&SCARCE, &Algorithm::LeakyBucket { bucket: *SCARCE.bucket().unwrap(), delay_after: 1 }] {
                let key = format!("tollgate:{{g{index}}}:api:{}1", limit.letter());
                server.cli(&["SET", &key, value]);
                let reply = subjected.take(limit, &format!("g{index}")).await.unwrap();
                assert!(!reply.granted, "{value:?} is empty");
                assert_eq!(reply.retry_us, 3_600_000_000, "{value:?} is empty now");
                assert_ne!(server.cli(&["PTTL", &key]), "-1");
            }
        }
        server.cli(&["RPUSH", "tollgate:{list}:api:b1", "x"]);
        assert!(!subjected.take(&SCARCE, "list").await.unwrap().granted);
        assert_eq!(server.cli(&["TYPE", "tollgate:{list}:api:b1"]), "string");
    });
}

#[test]
fn a_server_that_forgot_the_scripts_is_not_noticed() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        for round in 0..20 {
            server.cli(&["SCRIPT", "FLUSH"]);
            let replies: Vec<_> = (0..10)
                .map(|_| {
                    let store = Rc::clone(&subjected.store);
                    tokio::task::spawn_local(async move {
                        let subject = Subject::from_slice(b"flushed");
                        let ask = Ask::new("api", &PLENTY, &subject, 1);
                        store.decide_at(2_082_758_400_000_000, &[ask]).await
                    })
                })
                .collect();
            for (index, reply) in replies.into_iter().enumerate() {
                let reply = reply.await.unwrap().unwrap();
                assert_eq!(reply.answers[0].remaining, 1000 - 10 * round - index as u64 - 1, "charged once each");
            }
        }
        assert!(subjected.store.up());
        assert!(subjected.errors(StoreErrorKind::Noscript) >= 20, "it is counted");
        within(BACK, "the scripts are loaded again", || {
            let loads = server.info("cmdstat_script|load");
            loads.strip_prefix("calls=").and_then(|rest| rest.split(',').next()?.parse().ok()) > Some(3)
        })
        .await;
    });
}

#[test]
fn a_server_that_is_not_there_yet_is_used_once_it_is() {
    let mut server = RedisServer::not_started();
    block_on(async {
        let subjected = Subjected::start(&settings(&server));
        assert_eq!(subjected.take(&PLENTY, "k").await, Err(StoreErrorKind::Refused));
        subjected.assert_fails_at_once().await;
        server.restart();
        subjected.assert_comes_back("started late").await;
    });
}

#[test]
fn a_killed_server_is_left_at_once_and_found_again() {
    let mut server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        for _ in 0..3 {
            let epoch = subjected.store.epoch();
            server.kill();
            subjected.until_down().await;
            assert_ne!(subjected.store.epoch(), epoch);
            subjected.assert_fails_at_once().await;
            server.restart();
            subjected.assert_comes_back("killed").await;
        }
    });
}

#[test]
fn a_stopped_server_is_left_after_a_few_deadlines_and_late_replies_confuse_nothing() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&impatient(&server)).await;
        for round in 0..3 {
            server.stop();
            let seen = subjected.until_down().await;
            assert!(seen.iter().all(|kind| *kind == StoreErrorKind::Timeout), "{seen:?}");
            subjected.assert_fails_at_once().await;
            server.resume();
            subjected.assert_comes_back("stopped").await;
            for left in (0..5).rev() {
                let reply = subjected.take(&SCARCE, &format!("round {round}")).await.unwrap();
                assert_eq!(reply.answers[0].remaining, left, "each reply belongs to its own call");
            }
        }
    });
}

#[test]
fn a_server_that_is_stopped_for_less_than_the_breaker_needs_answers_its_own_callers_only() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&impatient(&server)).await;
        for round in 0..10 {
            server.stop();
            let lost = subjected.take(&PLENTY, &format!("lost {round}")).await;
            assert_eq!(lost, Err(StoreErrorKind::Timeout));
            server.resume();
            let expected = format!("kept {round}");
            for left in (0..5).rev() {
                if let Ok(reply) = subjected.take(&SCARCE, &expected).await {
                    assert_eq!(reply.answers[0].remaining, left);
                }
            }
            until_up(&subjected.store).await;
        }
    });
}

#[test]
fn paused_clients_open_the_breaker_even_when_only_writes_are_paused() {
    for mode in ["ALL", "WRITE"] {
        let server = RedisServer::start();
        block_on(async {
            let subjected = Subjected::connected(&impatient(&server)).await;
            server.cli(&["CLIENT", "PAUSE", "2000", mode]);
            let paused = Instant::now();
            subjected.until_down().await;
            subjected.assert_comes_back(mode).await;
            assert!(paused.elapsed() >= Duration::from_millis(1900), "a probe passed while {mode} was paused");
        });
    }
}

#[test]
fn a_full_server_is_a_fault_and_no_denial() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        subjected.assert_fault(StoreErrorKind::Oom, || drop(server.cli(&["CONFIG", "SET", "maxmemory", "0"]))).await;
    });
}

#[test]
fn a_demoted_server_is_a_fault() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
        subjected.assert_fault(StoreErrorKind::Readonly, || drop(server.cli(&["REPLICAOF", "NO", "ONE"]))).await;
    });
}

#[test]
fn missing_replicas_are_a_fault() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        server.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        let cure = || drop(server.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]));
        subjected.assert_fault(StoreErrorKind::Misconf, cure).await;
    });
}

#[test]
fn somebody_elses_endless_script_is_a_fault_until_it_is_killed() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&impatient(&server)).await;
        server.cli(&["CONFIG", "SET", "busy-reply-threshold", "100"]);
        let endless = std::thread::spawn({
            let port = server.port();
            move || RedisServer::cli_of(port, &["EVAL", "while true do end", "0"])
        });
        let seen = subjected.until_down().await;
        within(BACK, "a probe is told BUSY", || subjected.errors(StoreErrorKind::Busy) > 0).await;
        assert!(seen.iter().all(|kind| [StoreErrorKind::Timeout, StoreErrorKind::Busy].contains(kind)), "{seen:?}");
        subjected.assert_fails_at_once().await;
        within(BACK, "the script is killed", || server.cli(&["SCRIPT", "KILL"]).contains("OK")).await;
        endless.join().unwrap();
        subjected.assert_comes_back("busy").await;
    });
}

#[test]
fn a_wrong_password_is_told_from_a_missing_one_and_healed_by_the_right_one() {
    let mut server = RedisServer::start_with(&["--requirepass", "right"]);
    server.login("default", "right");
    block_on(async {
        for password in [None, Some("wrong")] {
            let mut settings = settings(&server);
            settings.password = password.map(Secret::new);
            let subjected = Subjected::start(&settings);
            assert_eq!(subjected.take(&PLENTY, "k").await, Err(StoreErrorKind::Noauth));
            if password.is_some() {
                server.cli(&["CONFIG", "SET", "requirepass", "wrong"]);
                server.login("default", "wrong");
                subjected.assert_comes_back("the password").await;
            }
        }
    });
}

/// A file of `deploy/redis`, with the password `secret`.
fn users(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/redis").join(file);
    std::fs::read_to_string(path).unwrap().replace("<password>", "secret")
}

/// The line of a user in `deploy/redis`, so that what is recommended is what is tested.
pub(crate) fn recommended_user(name: &str) -> Vec<String> {
    let text = ["users.acl", "sentinel-users.acl"].map(users).concat();
    let line = text.lines().find(|line| line.starts_with(&format!("user {name} "))).unwrap();
    line.split_whitespace().skip(1).map(str::to_owned).collect()
}

#[test]
fn servers_and_sentinels_load_the_files_of_users_as_they_stand() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let server = RedisServer::start_with(&["--aclfile", &write("users.acl", &users("users.acl"))]);
    assert_eq!(server.cli(&["ACL", "USERS"]).lines().count(), 4, "three, and the default one");
    let acl = write("sentinel-users.acl", &users("sentinel-users.acl"));
    let port = crate::support::port::Port::take();
    let config = write("sentinel.conf", &format!("port {}\nbind 127.0.0.1\naclfile {acl}\n", port.number()));
    let mut sentinel = std::process::Command::new("redis-server").args([&config, "--sentinel"]).spawn().unwrap();
    let users = crate::support::eventually("the sentinel answers", || {
        assert!(sentinel.try_wait().unwrap().is_none(), "the sentinel did not start");
        std::net::TcpStream::connect(("127.0.0.1", port.number())).ok()?;
        Some(RedisServer::cli_of(port.number(), &["ACL", "USERS"]))
    });
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
    assert!(users.contains("tollgate-watch"), "{users}");
}

#[test]
fn the_recommended_acl_user_may_do_all_that_is_needed_and_missing_rights_are_a_fault() {
    let server = RedisServer::start();
    let rights = recommended_user("tollgate");
    let mut setuser = vec!["ACL", "SETUSER"];
    setuser.extend(rights.iter().map(String::as_str));
    assert_eq!(server.cli(&setuser), "OK");
    assert_eq!(server.cli(&["ACL", "LOG", "RESET"]), "OK");
    block_on(async {
        let mut settings = settings(&server);
        settings.username = Some("tollgate".to_owned());
        settings.password = Some(Secret::new("secret"));
        let subjected = Subjected::connected(&settings).await;
        assert!(subjected.take(&PLENTY, "k").await.unwrap().granted);
        server.cli(&["SCRIPT", "FLUSH"]);
        assert!(subjected.take(&PLENTY, "k").await.unwrap().granted, "EVAL is allowed too");
        assert_eq!(server.cli(&["ACL", "LOG"]), "", "something was not allowed");
        // Without this right scripts cannot read the clock: then it is the proxy's, and nothing is wrong.
        server.cli(&["ACL", "SETUSER", "tollgate", "-time"]);
        let before = subjected.take(&PLENTY, "k").await.unwrap();
        let after = subjected.take(&PLENTY, "k").await.unwrap();
        assert_eq!(
            before.answers[0].remaining,
            after.answers[0].remaining + 1,
            "charged once each: {before:?} {after:?}"
        );
        assert!(server.cli(&["ACL", "LOG"]).contains("time"));
        assert_eq!(server.cli(&["ACL", "LOG", "RESET"]), "OK");
        subjected.take(&PLENTY, "k").await.unwrap();
        assert_eq!(server.cli(&["ACL", "LOG"]), "", "the clock is asked for once");
        server.cli(&["ACL", "SETUSER", "tollgate", "+time"]);
        for right in ["set", "evalsha", "get"] {
            server.cli(&["ACL", "SETUSER", "tollgate", &format!("-{right}")]);
            let cure = || drop(server.cli(&["ACL", "SETUSER", "tollgate", &format!("+{right}")]));
            subjected.assert_fault(StoreErrorKind::Noperm, cure).await;
        }
    });
}

#[test]
fn valkey_decides_as_redis_does() {
    let Some(server) = RedisServer::start_valkey() else {
        return println!("there is no valkey-server on this machine: only its greeting is tested, in redis_replies");
    };
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        for left in (0..5).rev() {
            assert_eq!(subjected.take(&SCARCE, "k").await.unwrap().answers[0].remaining, left);
        }
        assert!(!subjected.take(&SCARCE, "k").await.unwrap().granted);
        assert_eq!(server.keys(), ["tollgate:{k}:api:b1"]);
    });
}

#[test]
fn tls_with_an_authority_and_a_client_certificate_of_our_own() {
    let server = RedisServer::start_with_tls();
    let files = server.tls.clone().unwrap();
    block_on(async {
        let mut settings = settings(&server);
        settings.tls = Some(RedisTls { ca: Some(files.ca.clone()), client: Some(files.client.clone()) });
        let subjected = Subjected::connected(&settings).await;
        assert!(subjected.take(&PLENTY, "k").await.unwrap().granted);

        settings.tls = Some(RedisTls { ca: Some(files.client.0), client: None });
        let distrustful = Subjected::start(&settings);
        within(BACK, "the attempt ends", || distrustful.stats.errors.iter().any(|count| count.value() > 0)).await;
        assert!(distrustful.take(&PLENTY, "k").await.is_err());

        settings.tls = Some(RedisTls { ca: Some("/nowhere/ca.pem".into()), client: None });
        let without = Subjected::start(&settings);
        assert_eq!(without.take(&PLENTY, "k").await, Err(StoreErrorKind::Tls));
    });
}

#[test]
fn the_database_and_the_prefix_are_respected() {
    let server = RedisServer::start();
    block_on(async {
        let mut settings = settings(&server);
        settings.servers = Servers::One { address: ServerAddress::new("127.0.0.1", server.port()), database: 3 };
        settings.key_prefix = "edge".into();
        let subjected = Subjected::connected(&settings).await;
        subjected.take(&SCARCE, "k").await.unwrap();
        assert_eq!(server.cli(&["-n", "3", "--scan"]), "edge:{k}:api:b1");
        assert!(server.keys().is_empty());
        assert!(server.cli(&["CLIENT", "LIST"]).contains("name=tollgate"));
    });
}

#[test]
fn decisions_of_one_turn_leave_in_one_write() {
    let server = RedisServer::start();
    block_on(async {
        let subjected = Subjected::connected(&settings(&server)).await;
        let reads = |server: &RedisServer| server.info("total_reads_processed").parse::<u64>().unwrap();
        let before = reads(&server);
        let tasks: Vec<_> = (0..500)
            .map(|_| {
                let store = Rc::clone(&subjected.store);
                tokio::task::spawn_local(async move {
                    let subject = Subject::from_slice(b"turn");
                    let ask = Ask::new("api", &PLENTY, &subject, 1);
                    store.decide(&[ask]).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().granted);
        }
        let after = reads(&server) - before;
        assert!(after < 50, "500 decisions took {after} reads");
    });
}
