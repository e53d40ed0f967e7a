//! The store on a Redis Cluster that stays as it is: what is decided together, in which order, what a denial
//! gives back, and that it all comes to what the memory store says.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate::limit::algorithm::{Algorithm, Bucket};
use tollgate::limit::key::Subject;
use tollgate::limit::stats::{LimitStats, StoreErrorKind};
use tollgate::limit::store::memory::MemoryStore;
use tollgate::limit::store::redis::RedisStore;
use tollgate::limit::store::settings::{RedisSettings, RedisTls, Secret, ServerAddress, Servers};
use tollgate::limit::store::{Ask, Reply};

use super::redis_store::{BACK, IMPATIENT, PATIENT, block_on, recommended_user, settings_for, until_up, within};
use crate::support::client::Request;
use crate::support::monitor::{Call, Monitor};
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::RedisServer;
use crate::support::redis_stub::{DENIED, Stub};
use crate::support::tollgate::Tollgate;
use crate::support::{eventually, port};

static PLENTY: Algorithm =
    Algorithm::TokenBucket(Bucket { capacity: 1000, rate: 3, period: 1_000_000, tick: 1, debt: 0 });
/// 1000 at once, then one per hour: what was taken is seen for long.
static STEADY: Algorithm =
    Algorithm::TokenBucket(Bucket { capacity: 1000, rate: 1, period: 3_600_000_000, tick: 1, debt: 0 });
/// 2 at once, then one per hour.
static SCARCE: Algorithm =
    Algorithm::TokenBucket(Bucket { capacity: 2, rate: 1, period: 3_600_000_000, tick: 1, debt: 0 });
/// 1 at once, then one per day.
static RARE: Algorithm =
    Algorithm::TokenBucket(Bucket { capacity: 1, rate: 1, period: 86_400_000_000, tick: 1, debt: 0 });
/// Far in the future: no key may expire by the server's clock while a test runs (2036).
const START_US: i64 = 2_082_758_400_123_457;

/// A store that was told of one node only.
fn settings(cluster: &RedisCluster, timeout: Duration) -> RedisSettings {
    let seed = ServerAddress::new("127.0.0.1", cluster.nodes[2].port());
    RedisSettings { servers: Servers::Cluster(vec![seed]), ..settings_for(0, timeout) }
}

async fn connected(settings: &RedisSettings) -> (Rc<RedisStore>, Arc<LimitStats>) {
    let stats = Arc::new(LimitStats::new());
    let store = RedisStore::start(settings, Arc::clone(&stats));
    until_up(&store).await;
    (store, stats)
}

fn ask<'a>(state_id: &'a str, algorithm: &'a Algorithm, subject: &'a Subject) -> Ask<'a> {
    Ask::new(state_id, algorithm, subject, 1)
}

fn subjects<const N: usize>(texts: [&str; N]) -> [Subject; N] {
    texts.map(|text| Subject::from_slice(text.as_bytes()))
}

/// What all nodes were asked, in the order of this machine's one clock.
fn calls(cluster: &RedisCluster, monitors: &[Monitor]) -> Vec<Call> {
    let mut calls: Vec<_> =
        monitors.iter().zip(&cluster.nodes).flat_map(|(monitor, node)| monitor.calls(node)).collect();
    calls.sort_by(|a, b| a.at.total_cmp(&b.at));
    calls
}

#[test]
fn limits_of_one_subject_are_one_call_and_different_subjects_come_narrow_to_wide() {
    let cluster = RedisCluster::of_masters();
    let [client, route, everybody] = subjects(["ip=192.0.2.1", "route=orders", "global"]);
    let monitors: Vec<_> = cluster.nodes.iter().map(Monitor::start).collect();
    block_on(async {
        let (store, _) = connected(&settings(&cluster, PATIENT)).await;
        let asks = [
            ask("all", &PLENTY, &everybody),
            ask("second", &PLENTY, &client),
            ask("route", &PLENTY, &route),
            ask("day", &SCARCE, &client),
        ];
        let reply = store.decide(&asks).await.unwrap();
        assert!(reply.granted);
        assert_eq!(reply.answers.iter().map(|answer| answer.remaining).collect::<Vec<_>>(), [999, 999, 999, 1]);
    });
    let calls: Vec<_> = calls(&cluster, &monitors).into_iter().map(|call| (call.command, call.keys)).collect();
    let once = |keys: &[&str]| ("EVALSHA".to_owned(), keys.iter().map(ToString::to_string).collect::<Vec<_>>());
    let expected = [
        once(&["tollgate:{ip=192.0.2.1}:second:b1", "tollgate:{ip=192.0.2.1}:day:b1"]),
        once(&["tollgate:{route=orders}:route:b1"]),
        once(&["tollgate:{global}:all:b1"]),
    ];
    assert_eq!(calls, expected);
}

#[test]
fn a_denial_by_a_wider_limit_gives_back_what_the_narrower_ones_were_charged() {
    let cluster = RedisCluster::of_masters();
    let [client, route, everybody] = subjects(["ip=192.0.2.1", "route=orders", "global"]);
    block_on(async {
        let (store, _) = connected(&settings(&cluster, PATIENT)).await;
        let leaky = Algorithm::LeakyBucket { bucket: *STEADY.bucket().unwrap(), delay_after: 1 };
        let watching = Ask { shadow: 1, ..ask("watched", &STEADY, &client) };
        let asks =
            [ask("all", &RARE, &everybody), ask("second", &leaky, &client), watching, ask("route", &SCARCE, &route)];
        assert!(store.decide(&asks).await.unwrap().granted);
        assert!(store.decide(&[ask("route", &SCARCE, &route)]).await.unwrap().granted);
        let before = cluster.dump();
        assert_eq!(before.len(), 4, "{before:?}");
        for _ in 0..20 {
            // The limit of the route denies, so that of everybody is only looked at.
            let reply = store.decide(&asks).await.unwrap();
            assert!(!reply.granted);
            let allowed: Vec<_> = reply.answers.iter().map(|answer| answer.allowed).collect();
            assert_eq!(allowed, [false, true, true, false]);
            assert!(reply.retry_us > 23 * 3_600_000_000, "the longest wait: {}", reply.retry_us);
            assert_eq!(reply.wait_us, 0);
            assert_eq!(cluster.dump(), before);
        }
        // A client that was never seen is not there afterwards either.
        let [stranger] = subjects(["ip=192.0.2.2"]);
        let asks = [ask("second", &STEADY, &stranger), ask("route", &SCARCE, &route)];
        let reply = store.decide(&asks).await.unwrap();
        assert_eq!((reply.granted, reply.answers[0].remaining), (false, 1000));
        assert_eq!(cluster.dump(), before);
    });
}

#[test]
fn what_a_narrow_limit_denies_is_charged_to_nobody() {
    let cluster = RedisCluster::of_masters();
    let [client, everybody] = subjects(["ip=192.0.2.1", "global"]);
    let monitors: Vec<_> = cluster.nodes.iter().map(Monitor::start).collect();
    block_on(async {
        let (store, _) = connected(&settings(&cluster, PATIENT)).await;
        let asks = [ask("all", &STEADY, &everybody), ask("day", &RARE, &client)];
        assert!(store.decide(&asks).await.unwrap().granted);
        let before = cluster.dump();
        assert!(!store.decide(&asks).await.unwrap().granted);
        assert_eq!(cluster.dump(), before);
    });
    let calls = calls(&cluster, &monitors);
    assert!(calls.iter().all(|call| call.command == "EVALSHA"), "nothing is to be given back: {calls:?}");
    let writes: Vec<_> = monitors.iter().zip(&cluster.nodes).flat_map(|(m, node)| m.writes(node, "all:b1")).collect();
    assert_eq!(writes.len(), 1, "that of everybody was charged once");
}

/// Through the whole proxy: the configuration makes one slot of a route.
#[test]
fn with_the_route_as_the_tag_all_of_its_limits_are_one_atomic_call() {
    let cluster = RedisCluster::of_masters();
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 1\nroutes:\n\
         \x20 - name: orders\n    match: {{ path: /orders }}\n    upstream: echo\n    limits:\n\
         \x20     - {{ name: client, key: client_ip, rate: 100/s }}\n\
         \x20     - {{ name: key, key: 'header:x-key', rate: 3/h }}\n\
         \x20     - {{ name: all, key: route, rate: 5/h }}\n\
         \x20 - name: other\n    match: {{ path: /other }}\n    upstream: echo\n    limits:\n\
         \x20     - {{ name: elsewhere, key: client_ip, rate: 100/s }}\n\
         store: {{ redis: {{ cluster: {}, hash_tag: route, timeout: 2s }}, on_store_error: deny }}\n",
        cluster.list()
    ));
    let request = |key| Request::get("/orders").header("x-key", key);
    eventually("the store is up", || (proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(()));
    let monitors: Vec<_> = cluster.nodes.iter().map(Monitor::start).collect();
    let statuses: Vec<_> =
        ["a", "a", "a", "a", "b", "b", "b"].iter().map(|key| proxy.client().send(&request(key)).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 200, 200, 429]);
    assert_eq!(proxy.get("/other").status, 200);
    let calls = calls(&cluster, &monitors);
    assert_eq!(calls.len(), 8, "one call each, and none to give back: {calls:?}");
    for call in &calls[..7] {
        assert_eq!(call.keys.len(), 3);
        assert!(call.keys.iter().all(|key| key.starts_with("tollgate:{orders}:")), "{call:?}");
        assert!(call.keys.contains(&"tollgate:{orders}:route=orders:all:b1".to_owned()), "{call:?}");
    }
    assert_eq!(calls[7].keys, ["tollgate:{other}:ip=127.0.0.1:elsewhere:b1"]);
}

/// One drawn limit: state id, algorithm, subject, cost, shadow.
type Drawn = (&'static str, Algorithm, Subject, u64, bool);

fn draw(random: &mut Rng, subjects: &[Subject]) -> Drawn {
    let buckets = [
        Bucket { capacity: 10, rate: 1, period: 100_000, tick: 1, debt: 0 },
        Bucket { capacity: 10, rate: 3, period: 1_000_000, tick: 1, debt: 0 },
        Bucket { capacity: 1, rate: 1, period: 1_000_000, tick: 1, debt: 0 },
        Bucket { capacity: 100, rate: 7, period: 13_000_000, tick: 1, debt: 0 },
        Bucket { capacity: 5, rate: 3, period: 1000, tick: 1000, debt: 0 },
        Bucket { capacity: 7, rate: 2, period: 7, tick: 1_000_000, debt: 0 },
    ];
    // A state is read with one limit's numbers only, or a refund would count in another's.
    let number = random.usize(..buckets.len());
    let bucket = buckets[number];
    let algorithm = if number.is_multiple_of(2) {
        Algorithm::TokenBucket(bucket)
    } else {
        Algorithm::LeakyBucket { bucket, delay_after: 1 + (bucket.capacity / 3) }
    };
    let cost = if random.u8(..) < 25 { 0 } else { random.u64(1..=1 + bucket.capacity / 3) };
    let subject = subjects[random.usize(..subjects.len())].clone();
    (["a", "b", "c", "d", "e", "f"][number], algorithm, subject, cost, random.u8(..) < 50)
}

fn asks(limits: &[Drawn]) -> Vec<Ask<'_>> {
    limits
        .iter()
        .enumerate()
        .map(|(place, (state_id, algorithm, subject, cost, shadow))| Ask {
            shadow: if *shadow { u8::try_from(place + 1).unwrap() } else { 0 },
            ..Ask::new(state_id, algorithm, subject, *cost)
        })
        .collect()
}

fn next_instant(random: &mut Rng, now_us: i64) -> i64 {
    now_us
        + match random.u8(..) {
            0..=100 => 0,
            101..=230 => random.i64(0..40_000),
            231..=248 => random.i64(0..2_000_000),
            249..=252 => -random.i64(0..900_000),
            _ => -random.i64(0..3_000_000),
        }
}

fn seeded() -> Rng {
    let seed =
        std::env::var("TOLLGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("TOLLGATE_SEED={seed}");
    Rng::with_seed(seed)
}

#[test]
fn limits_of_one_subject_get_the_replies_of_the_memory_store() {
    let cluster = RedisCluster::of_masters();
    let memory = MemoryStore::new(100_000);
    let mut random = seeded();
    let subjects: Vec<_> = (0..24).map(|n| Subject::from_slice(format!("ip=10.0.0.{n}").as_bytes())).collect();
    block_on(async {
        let (store, _) = connected(&settings(&cluster, Duration::from_secs(20))).await;
        let mut now_us = START_US;
        let (mut granted, mut denied) = (0, 0);
        for _ in 0..60 {
            let batch: Vec<(i64, Vec<Drawn>)> = (0..200)
                .map(|_| {
                    now_us = next_instant(&mut random, now_us);
                    let subject = &subjects[random.usize(..subjects.len())];
                    (
                        now_us,
                        (0..random.usize(1..=4)).map(|_| draw(&mut random, std::slice::from_ref(subject))).collect(),
                    )
                })
                .collect();
            let tasks: Vec<_> = batch
                .iter()
                .cloned()
                .map(|(now_us, limits)| {
                    let store = Rc::clone(&store);
                    tokio::task::spawn_local(async move { store.decide_at(now_us, &asks(&limits)).await.unwrap() })
                })
                .collect();
            for ((now_us, limits), task) in batch.iter().zip(tasks) {
                let reply = task.await.unwrap();
                assert_eq!(reply, memory.decide_at(*now_us, &asks(limits)), "{now_us}: {limits:?}");
                granted += usize::from(reply.granted);
                denied += usize::from(!reply.granted);
            }
        }
        println!("{granted} granted, {denied} denied");
        assert!(granted > 1000 && denied > 1000, "the mix is one-sided");
    });
}

/// Nobody else asks meanwhile, so that charging and giving back comes to what one atomic decision does.
#[test]
fn limits_of_several_subjects_get_the_verdicts_of_the_memory_store() {
    let cluster = RedisCluster::of_masters();
    let memory = MemoryStore::new(100_000);
    let mut random = seeded();
    let names = ["ip=10.0.0.1", "ip=10.0.0.2", "route=orders", "host=a", "global", "12:route=orders10:method=GET"];
    let subjects = names.map(|name| Subject::from_slice(name.as_bytes()));
    block_on(async {
        let (store, _) = connected(&settings(&cluster, Duration::from_secs(20))).await;
        let mut now_us = START_US;
        let (mut granted, mut denied) = (0, 0);
        for step in 0..3000 {
            // Forward only: what was given back and is full now is gone, and would be missed in the past.
            now_us = next_instant(&mut random, now_us).max(now_us);
            let limits: Vec<_> = (0..random.usize(1..=4)).map(|_| draw(&mut random, &subjects)).collect();
            let asks = asks(&limits);
            let reply = store.decide_at(now_us, &asks).await.unwrap();
            let expected = memory.decide_at(now_us, &asks);
            let verdict = |reply: &Reply| {
                // How long a state lasts that got its charge back is told as before that.
                let known = |answer: &tollgate::limit::store::Answer| {
                    (answer.allowed, answer.remaining, answer.retry_us, if reply.granted { answer.reset_us } else { 0 })
                };
                (reply.granted, reply.wait_us, reply.retry_us, reply.answers.iter().map(known).collect::<Vec<_>>())
            };
            assert_eq!(verdict(&reply), verdict(&expected), "step {step} at {now_us}: {limits:?}");
            granted += usize::from(reply.granted);
            denied += usize::from(!reply.granted);
        }
        println!("{granted} granted, {denied} denied");
        assert!(granted > 300 && denied > 300, "the mix is one-sided");
    });
}

/// While a slot is on its way its keys are in two places: nothing is lost, doubled or refused.
#[test]
fn a_slot_that_is_being_moved_is_asked_state_by_state_and_stays_exact() {
    let cluster = RedisCluster::of_masters();
    let subject = Subject::from_slice(b"ip=10.0.0.1");
    let limits: Vec<Drawn> =
        ["a", "b", "c", "d"].map(|id| (id, PLENTY.clone(), subject.clone(), 1 + id.len() as u64, false)).to_vec();
    let memory = MemoryStore::new(100);
    let slot = cluster.slot("ip=10.0.0.1");
    let from = cluster.first_owner("ip=10.0.0.1");
    let to = (from + 1) % 3;
    block_on(async {
        let (store, stats) = connected(&settings(&cluster, PATIENT)).await;
        let mut now_us = START_US;
        let mut compare = async |limits: &[Drawn]| {
            now_us += 1000;
            let reply = store.decide_at(now_us, &asks(limits)).await.unwrap();
            let expected = memory.decide_at(now_us, &asks(limits));
            let known = |reply: &Reply| (reply.granted, reply.retry_us, reply.answers.clone());
            assert_eq!(known(&reply), known(&expected));
        };
        compare(&limits[..2]).await;
        let ids = [from, to].map(|node| cluster.nodes[node].cli(&["CLUSTER", "MYID"]));
        assert_eq!(cluster.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]), "OK");
        assert_eq!(cluster.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]), "OK");
        for key in ["a", "b"] {
            // Two known states, one of them here; then with states that nobody has seen.
            compare(&limits[..2]).await;
            compare(&limits).await;
            cluster.migrate_key(&format!("tollgate:{{ip=10.0.0.1}}:{key}:b1"), from, to);
            compare(&limits[..2]).await;
            compare(&limits).await;
            compare(&limits[2..]).await;
        }
        for node in [to, from, 3 - from - to] {
            assert_eq!(cluster.nodes[node].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]), "OK");
        }
        compare(&limits).await;
        compare(&limits).await;
        assert!(stats.errors[StoreErrorKind::Moved as usize].value() > 0, "redirections were followed");
        assert!(store.up(), "a redirection is no failure");
    });
}

#[test]
fn without_a_cluster_decisions_fail_and_with_it_they_come_back() {
    block_on(async {
        let mut alone = RedisServer::start();
        let nobody = port::Port::take();
        for (port, kind) in [(nobody.number(), StoreErrorKind::Refused), (alone.port(), StoreErrorKind::Protocol)] {
            let servers = Servers::Cluster(vec![ServerAddress::new("127.0.0.1", port)]);
            let stats = Arc::new(LimitStats::new());
            let store = RedisStore::start(&RedisSettings { servers, ..settings_for(0, PATIENT) }, Arc::clone(&stats));
            let subject = Subject::from_slice(b"k");
            let began = Instant::now();
            assert_eq!(store.decide(&[ask("a", &PLENTY, &subject)]).await, Err(kind));
            assert!(began.elapsed() < PATIENT, "the first attempt's end is the first decision's");
            assert_eq!(stats.store_up.load(Ordering::Relaxed), 0);
        }
        alone.kill();
    });
}

/// Two stubs that are a cluster: the first has the slots of `{a}`, the second those of `{b}`.
fn two_stubs(
    answers: impl Fn(usize, &[String]) -> Option<String> + Send + Sync + 'static,
) -> (Arc<[Stub; 2]>, RedisSettings) {
    let ports: Arc<OnceLock<[u16; 2]>> = Arc::default();
    let answers = Arc::new(answers);
    let stub = |own: usize| {
        let (ports, answers) = (Arc::clone(&ports), Arc::clone(&answers));
        Stub::start(move |words| match words[0].as_str() {
            "CLUSTER" => ports.get().map(|ports| {
                let node = |port: u16| format!("*3\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$1\r\nx\r\n");
                // {a} is slot 15495 and {b} is 3300.
                format!("*2\r\n*3\r\n:8000\r\n:16383\r\n{}*3\r\n:0\r\n:7999\r\n{}", node(ports[0]), node(ports[1]))
            }),
            _ => answers(own, words),
        })
    };
    let stubs = Arc::new([stub(0), stub(1)]);
    ports.set([stubs[0].port, stubs[1].port]).unwrap();
    let servers = Servers::Cluster(vec![ServerAddress::new("127.0.0.1", stubs[1].port)]);
    (stubs, RedisSettings { servers, ..settings_for(0, IMPATIENT) })
}

fn is_call(words: &[String], part: &str) -> bool {
    words[0].starts_with("EVAL") && words.iter().any(|word| word.contains(part))
}

/// What is given back is a settlement below zero.
fn refunds(stub: &Stub) -> usize {
    stub.asked().iter().filter(|words| is_call(words, "") && words.iter().any(|word| word == "-1")).count()
}

#[test]
fn a_call_of_unknown_fate_is_neither_repeated_nor_are_the_others_given_back() {
    let (stubs, settings) = two_stubs(|_, words| is_call(words, "{b}").then(String::new));
    let [a, b] = subjects(["a", "b"]);
    block_on(async {
        let (store, _) = connected(&settings).await;
        let asks = [ask("x", &PLENTY, &a), ask("y", &PLENTY, &b)];
        for _ in 0..3 {
            assert_eq!(store.decide(&asks).await, Err(StoreErrorKind::Timeout));
        }
        within(BACK, "calls arrive", || stubs[1].count("{b}") == 3).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((stubs[0].count("{a}"), stubs[1].count("{b}")), (3, 3));
        assert_eq!((refunds(&stubs[0]), refunds(&stubs[1])), (0, 0));
    });
}

#[test]
fn a_known_denial_is_given_back_once_and_so_is_a_decision_that_is_given_up() {
    let (stubs, mut settings) = two_stubs(|_, words| match () {
        () if is_call(words, "{b}:denied") => Some(DENIED.to_owned()),
        () if is_call(words, "{b}:slow") => Some(String::new()),
        () => None,
    });
    settings.timeout = PATIENT;
    let [a, b] = subjects(["a", "b"]);
    block_on(async {
        let (store, _) = connected(&settings).await;
        let asks = [ask("x", &PLENTY, &a), ask("denied", &PLENTY, &b)];
        let reply = store.decide(&asks).await.unwrap();
        assert_eq!((reply.granted, reply.retry_us), (false, 1_000_000));
        assert_eq!((store.proof_lasts(&asks), store.proof_lasts(&asks[1..])), (PATIENT, Duration::MAX));
        assert_eq!((reply.answers[0].remaining, refunds(&stubs[0]), refunds(&stubs[1])), (10, 1, 0));
        // The client leaves while the second limit is asked.
        let asks = [ask("x", &PLENTY, &a), ask("slow", &PLENTY, &b)];
        let given_up = tokio::time::timeout(Duration::from_millis(200), store.decide(&asks)).await;
        assert!(given_up.is_err());
        within(BACK, "the charge is given back", || refunds(&stubs[0]) == 2).await;
        assert_eq!(stubs[1].count("{b}:slow"), 1);
    });
}

#[test]
fn each_node_has_a_clock_of_its_own() {
    let refusing = |own: usize, words: &[String]| {
        let asks_for_time = words[0] == "EVALSHA" && words[4] == "0";
        (own == 0 && asks_for_time).then(|| {
            "-ERR This Redis command is not allowed from script script: 0123, on @user_script:7.\r\n".to_owned()
        })
    };
    let (stubs, settings) = two_stubs(refusing);
    let [a, b] = subjects(["a", "b"]);
    block_on(async {
        let (store, stats) = connected(&settings).await;
        for _ in 0..5 {
            assert!(store.decide(&[ask("x", &PLENTY, &a), ask("y", &PLENTY, &b)]).await.unwrap().granted);
        }
        assert_eq!(stats.own_clock.load(Ordering::Relaxed), 1);
        let clocks = |stub: &Stub| -> Vec<String> {
            let calls = stub.asked().into_iter().filter(|words| words[0] == "EVALSHA");
            calls.map(|words| words[4].clone()).collect()
        };
        assert_eq!(clocks(&stubs[0]).iter().filter(|clock| *clock == "0").count(), 1);
        assert!(clocks(&stubs[1]).iter().all(|clock| clock == "0"));
        drop(store);
        within(BACK, "the gauge follows", || stats.own_clock.load(Ordering::Relaxed) == 0).await;
    });
}

/// A shard that is away does not excuse the limits of the others, and what only watches excuses nothing.
#[test]
fn a_limit_that_can_be_asked_counts_although_another_one_cannot() {
    let (_stubs, settings) = two_stubs(|_, words| match () {
        () if is_call(words, "{a}:denied") => Some(DENIED.to_owned()),
        () if is_call(words, "{b}") => Some("-CLUSTERDOWN The cluster is down\r\n".to_owned()),
        () => None,
    });
    let [a, b] = subjects(["a", "b"]);
    block_on(async {
        let (store, _) = connected(&settings).await;
        let down = |id| ask(id, &PLENTY, &b);
        for _ in 0..10 {
            let denied = store.decide(&[down("y"), ask("denied", &PLENTY, &a)]).await.unwrap();
            assert!(!denied.granted, "a denial is a denial");
            let failed = store.decide(&[down("y"), ask("x", &PLENTY, &a)]).await;
            assert_eq!(failed, Err(StoreErrorKind::Clusterdown));
            let watching = Ask { shadow: 1, ..down("z") };
            assert!(store.decide(&[watching, ask("x", &PLENTY, &a)]).await.unwrap().granted);
        }
        assert!(!store.up());
    });
}

#[test]
fn tls_and_a_user_with_the_recommended_rights_are_enough() {
    let cluster = RedisCluster::with_tls();
    let rights = recommended_user("tollgate-cluster");
    for node in &cluster.nodes {
        let mut setuser = vec!["ACL", "SETUSER"];
        setuser.extend(rights.iter().map(String::as_str));
        assert_eq!(node.cli(&setuser), "OK");
        assert_eq!(node.cli(&["ACL", "LOG", "RESET"]), "OK");
    }
    let files = cluster.nodes[0].tls.clone().unwrap();
    let [client, everybody] = subjects(["ip=192.0.2.1", "global"]);
    block_on(async {
        let mut settings = settings(&cluster, PATIENT);
        settings.username = Some("tollgate-cluster".to_owned());
        settings.password = Some(Secret::new("secret"));
        settings.tls = Some(RedisTls { ca: Some(files.ca.clone()), client: Some(files.client.clone()) });
        let (store, _) = connected(&settings).await;
        let asks = [ask("all", &RARE, &everybody), ask("second", &STEADY, &client)];
        assert!(store.decide(&asks).await.unwrap().granted);
        let before = cluster.dump();
        assert!(!store.decide(&asks).await.unwrap().granted);
        assert_eq!(cluster.dump(), before, "refunds are allowed too");
        for node in &cluster.nodes {
            node.cli(&["SCRIPT", "FLUSH"]);
        }
        assert!(!store.decide(&asks).await.unwrap().granted);
        // The slot moves without its key: a redirection and a fresh state.
        let (slot, owner) = (cluster.slot("global"), cluster.first_owner("global"));
        assert_eq!(cluster.nodes[owner].cli(&["DEL", "tollgate:{global}:all:b1"]), "1");
        let target = cluster.nodes[(owner + 1) % 3].cli(&["CLUSTER", "MYID"]);
        for node in &cluster.nodes {
            assert_eq!(node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]), "OK");
        }
        assert!(store.decide(&asks).await.unwrap().granted);
        for node in &cluster.nodes {
            assert_eq!(node.cli(&["ACL", "LOG"]), "", "something was not allowed");
        }
        settings.tls = Some(RedisTls { ca: Some(files.client.0), client: None });
        let distrustful = RedisStore::start(&settings, Arc::new(LimitStats::new()));
        assert!(distrustful.decide(&asks).await.is_err());
    });
}

/// Windows and logs are given back by the instant of the charge, which is their own server's.
#[test]
fn what_does_not_count_is_given_back_beside_limits_of_another_slot() {
    let cluster = RedisCluster::of_masters();
    for each in ["rate: 10/h, algorithm: sliding_log", "rate: 5/200ms, algorithm: sliding_window", "rate: 10/h"] {
        let proxy = Tollgate::start(&format!(
            "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits:\n\
             \x20 - {{ name: each, key: client_ip, count: {{ status: [401] }}, {each} }}\n\
             \x20 - {{ name: all, key: global, rate: 1000000/s }}\n\
             store: {{ redis: {{ cluster: {}, timeout: 2s }}, on_store_error: deny }}\n",
            cluster.list()
        ));
        eventually("the store is up", || (proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(()));
        for _ in 0..30 {
            eventually(&format!("{each}: it was given back"), || (proxy.get("/").status == 200).then_some(()));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
