//! The store behind Redis Sentinel: the master dies, is demoted or is replaced, sentinels tell the truth, late
//! news or lies, and what is decided stays within its bounds.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tollgate::limit::algorithm::{Algorithm, Bucket};
use tollgate::limit::key::Subject;
use tollgate::limit::stats::{LimitStats, StoreErrorKind};
use tollgate::limit::store::redis::RedisStore;
use tollgate::limit::store::settings::{RedisSettings, RedisTls, Secret, SentinelSettings, ServerAddress, Servers};
use tollgate::limit::store::{Ask, Reply};

use super::redis_store::{BACK, PATIENT, block_on, recommended_user, settings_for, until_up, within};
use crate::support::client::Request;
use crate::support::load::{Load, Sample};
use crate::support::redis_sentinel::{NAME, SentinelGroup};
use crate::support::redis_server::RedisServer;
use crate::support::redis_stub::{Stub, array, bulk};
use crate::support::tollgate::Tollgate;
use crate::support::{eventually, quantile};

static PLENTY: Algorithm =
    Algorithm::TokenBucket(Bucket { capacity: 1000, rate: 3, period: 1_000_000, tick: 1, debt: 0 });

/// The deadline of one decision under load.
pub(crate) const DEADLINE: Duration = Duration::from_millis(100);
/// The limit under load, per second and at once.
pub(crate) const RATE: f64 = 100.0;
pub(crate) const BURST: f64 = 20.0;

fn settings(ports: &[u16], timeout: Duration) -> RedisSettings {
    let nodes = ports.iter().map(|&port| ServerAddress::new("127.0.0.1", port)).collect();
    let sentinel = SentinelSettings { master: NAME.into(), nodes, database: 0, username: None, password: None };
    RedisSettings { servers: Servers::Sentinel(Box::new(sentinel)), ..settings_for(0, timeout) }
}

struct Subjected {
    store: Rc<RedisStore>,
    stats: Arc<LimitStats>,
}

impl Subjected {
    fn start(settings: &RedisSettings) -> Self {
        let stats = Arc::new(LimitStats::new());
        Self { store: RedisStore::start(settings, Arc::clone(&stats)), stats }
    }

    async fn connected(settings: &RedisSettings) -> Self {
        let this = Self::start(settings);
        until_up(&this.store).await;
        this
    }

    async fn take(&self, key: &str) -> Result<Reply, StoreErrorKind> {
        let subject = Subject::from_slice(key.as_bytes());
        let ask = Ask::new("api", &PLENTY, &subject, 1);
        self.store.decide(&[ask]).await
    }

    /// Decides about new keys until this server holds one of them.
    async fn until_decided_by(&self, server: &RedisServer) {
        static ATTEMPTS: AtomicU16 = AtomicU16::new(0);
        let deadline = Instant::now() + BACK;
        loop {
            let key = format!("attempt-{}", ATTEMPTS.fetch_add(1, Ordering::Relaxed));
            let granted = self.take(&key).await.is_ok_and(|reply| reply.granted);
            // A replica has the keys as well.
            let is_master = || server.cli(&["ROLE"]).starts_with("master");
            if granted && server.keys().iter().any(|name| name.contains(&key)) && is_master() {
                return;
            }
            assert!(Instant::now() < deadline, "this server never decides");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A sentinel that names whatever port it is given as the master's.
fn sentinel_stub() -> (Stub, Arc<AtomicU16>) {
    let named = Arc::new(AtomicU16::new(0));
    let stub = Stub::start({
        let named = Arc::clone(&named);
        move |words| {
            let port = named.load(Ordering::Relaxed);
            let asks = words[0] == "SENTINEL" && words[1] == "get-master-addr-by-name" && words[2] == NAME;
            asks.then(|| if port == 0 { "_\r\n".to_owned() } else { array(&["127.0.0.1", &port.to_string()]) })
        }
    });
    (stub, named)
}

#[test]
fn a_server_that_is_no_master_is_not_believed_to_be_one_and_not_pestered() {
    let (liar, named) = sentinel_stub();
    let replica = Stub::start(|words| {
        (words[0] == "ROLE").then(|| format!("*5\r\n{}{}:1\r\n{}:0\r\n", bulk("slave"), bulk("10.0.0.9"), bulk("sync")))
    });
    named.store(replica.port, Ordering::Relaxed);
    block_on(async {
        let subjected = Subjected::start(&settings(&[liar.port], PATIENT));
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            assert_eq!(subjected.take("k").await.err(), Some(StoreErrorKind::Readonly));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let attempts = replica.count("ROLE");
        println!("{attempts} attempts in 2 s");
        assert!((4..=24).contains(&attempts), "a pause between attempts: {attempts} in 2 s");
        assert_eq!(replica.count("EVALSHA"), 0, "it decides nothing");
    });
}

#[test]
fn one_honest_sentinel_is_enough() {
    let server = RedisServer::start();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &server.port().to_string()]);
    let (liar, named_by_liar) = sentinel_stub();
    let (honest, named) = sentinel_stub();
    let (ignorant, _) = sentinel_stub();
    let dead = crate::support::port::Port::take();
    named_by_liar.store(replica.port(), Ordering::Relaxed);
    block_on(async {
        let subjected = Subjected::start(&settings(&[liar.port, dead.number(), ignorant.port, honest.port], PATIENT));
        assert!(subjected.take("early").await.is_err());
        named.store(server.port(), Ordering::Relaxed);
        subjected.until_decided_by(&server).await;
        // The liar is listened to as well, and a master that works is not left for what it names.
        let epoch = subjected.store.epoch();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(subjected.take("late").await.unwrap().granted);
        assert_eq!(subjected.store.epoch(), epoch);
        assert!(liar.count("SENTINEL") > 0);
    });
}

/// The old master lives on, cut off from the sentinels: nothing but their announcement tells.
#[test]
fn an_announced_switch_moves_the_connection_although_the_old_master_still_answers() {
    let servers = [RedisServer::start(), RedisServer::start()];
    for announced in [true, false] {
        let (sentinel, named) = sentinel_stub();
        named.store(servers[0].port(), Ordering::Relaxed);
        block_on(async {
            let subjected = Subjected::connected(&settings(&[sentinel.port], PATIENT)).await;
            subjected.until_decided_by(&servers[0]).await;
            within(BACK, "the sentinel is listened to", || sentinel.count("+switch-master") > 0).await;
            let epoch = subjected.store.epoch();
            named.store(servers[1].port(), Ordering::Relaxed);
            let switched = Instant::now();
            if announced {
                let message = format!("{NAME} 127.0.0.1 {} 127.0.0.1 {}", servers[0].port(), servers[1].port());
                let words = [bulk("message"), bulk("+switch-master"), bulk(&message)].concat();
                sentinel.push(&format!(">3\r\n{words}"));
            }
            subjected.until_decided_by(&servers[1]).await;
            println!("moved {:?} after the switch, announced: {announced}", switched.elapsed());
            assert_ne!(subjected.store.epoch(), epoch, "what was remembered is void");
            assert!(subjected.take("after").await.unwrap().granted);
        });
    }
}

#[test]
fn a_planned_failover_moves_the_connection() {
    let group = SentinelGroup::start();
    let ports: Vec<_> = group.sentinels.iter().map(RedisServer::port).collect();
    block_on(async {
        let subjected = Subjected::connected(&settings(&ports, PATIENT)).await;
        subjected.until_decided_by(&group.servers[0]).await;
        let epoch = subjected.store.epoch();
        assert_eq!(group.sentinels[1].cli(&["SENTINEL", "FAILOVER", NAME]), "OK");
        eventually("the replica is the master", || group.master(|index| index == 1));
        let answers = Instant::now();
        eventually("a sentinel names it", || group.is_named(1).then_some(()));
        let named = Instant::now();
        subjected.until_decided_by(&group.servers[1]).await;
        println!(
            "named by a sentinel {:?} after it became the master, decides {:?} after that",
            named - answers,
            named.elapsed()
        );
        assert_ne!(subjected.store.epoch(), epoch);
        assert_eq!(subjected.stats.store_up.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn tls_and_users_with_the_recommended_rights_are_enough() {
    let group = SentinelGroup::start_with_tls();
    for (servers, user) in [(&group.servers, "tollgate-sentinel"), (&group.sentinels, "tollgate-watch")] {
        let rights = recommended_user(user);
        for server in servers {
            let mut setuser = vec!["ACL", "SETUSER"];
            setuser.extend(rights.iter().map(String::as_str));
            assert_eq!(server.cli(&setuser), "OK");
            assert_eq!(server.cli(&["ACL", "LOG", "RESET"]), "OK");
        }
    }
    let files = group.servers[0].tls.clone().unwrap();
    let ports: Vec<_> = group.sentinels.iter().map(RedisServer::port).collect();
    let mut settings = settings(&ports, PATIENT);
    let Servers::Sentinel(sentinel) = &mut settings.servers else { unreachable!() };
    (sentinel.username, sentinel.password) = (Some("tollgate-watch".to_owned()), Some(Secret::new("secret")));
    sentinel.database = 3;
    (settings.username, settings.password) = (Some("tollgate-sentinel".to_owned()), Some(Secret::new("secret")));
    settings.tls = Some(RedisTls { ca: Some(files.ca.clone()), client: Some(files.client.clone()) });
    block_on(async {
        let subjected = Subjected::connected(&settings).await;
        assert!(subjected.take("k").await.unwrap().granted);
        assert!(group.servers[0].cli(&["-n", "3", "--scan"]).contains("tollgate:{k}:api:b1"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        for server in group.servers.iter().chain(&group.sentinels) {
            assert_eq!(server.cli(&["ACL", "LOG"]), "", "something was not allowed");
        }
        let subscribed = group.sentinels.iter().filter(|sentinel| {
            sentinel.cli(&["PUBSUB", "NUMSUB", "+switch-master"]).ends_with('1')
                || sentinel.cli(&["CLIENT", "LIST"]).contains("user=tollgate-watch")
        });
        assert!(subscribed.count() > 0, "a sentinel is listened to");

        let Servers::Sentinel(sentinel) = &mut settings.servers else { unreachable!() };
        sentinel.password = Some(Secret::new("wrong"));
        let refused = Subjected::start(&settings);
        assert_eq!(refused.take("k").await, Err(StoreErrorKind::Noauth));
        settings.tls = Some(RedisTls { ca: Some(files.client.0), client: None });
        let distrustful = Subjected::start(&settings);
        assert!(distrustful.take("k").await.is_err());
    });
}

/// Two proxies on one store: a limit by client under pressure, and one that is asked by hand.
pub(crate) fn two_proxies(store: &str, policy: &str) -> [Tollgate; 2] {
    let yaml = format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 1\ntrusted_proxies: [private]\nroutes:\n\
         \x20 - name: busy\n    match: {{ path: /busy }}\n    upstream: echo\n\
         \x20   limits: [{{ name: busy, key: client_ip, rate: {RATE}/s, burst: {BURST} }}]\n\
         \x20 - name: probe\n    match: {{ path: /probe }}\n    upstream: echo\n\
         \x20   limits: [{{ name: probe, key: client_ip, rate: 1/h }}]\n\
         store:\n  redis: {{ {store}, timeout: {}ms }}\n  on_store_error: {policy}\n",
        DEADLINE.as_millis()
    );
    let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
    for proxy in &proxies {
        eventually("the store is up", || (proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(()));
    }
    proxies
}

/// Every one of these clients through both proxies, all the time.
pub(crate) fn load(proxies: &[Tollgate; 2], clients: &[&str]) -> Load {
    let requests =
        clients.iter().flat_map(|client| proxies.iter().map(|proxy| (proxy.web(), Request::get("/busy").from(client))));
    let load = Load::start(requests.collect(), Duration::from_millis(4));
    eventually("traffic", || (load.answered() > 100 * clients.len()).then_some(()));
    load
}

/// Whether a client that was never seen gets exactly what its limit says, through both proxies.
pub(crate) fn exact(proxies: &[Tollgate; 2], client: &str) -> bool {
    let request = Request::get("/probe").from(client);
    let statuses = [0, 1].map(|proxy: usize| proxies[proxy].client().send(&request).status);
    statuses == [200, 429]
}

/// Nobody hangs and nobody is told nonsense. Returns the p99 of the latency.
pub(crate) fn assert_answered(samples: &[Sample], policy: &str, what: &str) -> Duration {
    for sample in samples {
        let answer = sample.outcome.as_ref().unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
        match answer.status {
            200 | 429 => {}
            503 if policy == "deny" => assert!(answer.text().contains("temporary-reduced-capacity")),
            status => panic!("{what}: {status} under {policy}: {}", answer.text()),
        }
    }
    let mut latencies: Vec<_> = samples.iter().map(Sample::latency).collect();
    let slowest = latencies.iter().max().copied().unwrap_or_default();
    let p99 = quantile(&mut latencies, 0.99);
    println!("{what}: p99 {p99:?}, slowest {slowest:?} of {} requests; deadline {DEADLINE:?}", samples.len());
    assert!(slowest < 10 * DEADLINE, "{what}: a request took {slowest:?}");
    p99
}

/// The clients' requests that were sent within these instants.
pub(crate) fn between(samples: &[Sample], (from, to): (Instant, Instant)) -> Vec<&Sample> {
    samples.iter().filter(|sample| (from..to).contains(&sample.sent)).collect()
}

/// At most `C + R·t`, and what was lost on the way once more, was admitted to one client.
pub(crate) fn assert_bound(samples: &[&Sample], lost: f64, what: &str) {
    let first = samples.iter().map(|sample| sample.sent).min().expect("requests");
    let last = samples.iter().map(|sample| sample.received).max().expect("requests");
    let admitted = samples.iter().filter(|sample| sample.status() == 200).count();
    let admitted = f64::from(u32::try_from(admitted).expect("a small number"));
    let bound = BURST + RATE * (last - first).as_secs_f64() + lost;
    println!("{what}: {admitted} admitted, at most {bound:.1}");
    assert!(admitted <= bound, "{what}: {admitted} admitted, at most {bound}");
    assert!(admitted > BURST, "{what}: something was admitted");
}

fn the_master_is_killed(policy: &str) {
    let mut group = SentinelGroup::start();
    let proxies = two_proxies(&format!("sentinel: {{ master: {NAME}, nodes: {} }}", group.nodes()), policy);
    let load = load(&proxies, &["10.0.0.1"]);
    let killed = Instant::now();
    group.servers[0].kill();
    eventually("the replica is the master", || group.master(|index| index == 1));
    let answers = Instant::now();
    eventually("a sentinel names it", || group.is_named(1).then_some(()));
    let named = answers.elapsed();
    let attempts = (0..50_000).find(|attempt| exact(&proxies, &format!("10.1.{}.{}", attempt / 200, attempt % 200)));
    let back = answers.elapsed();
    println!(
        "{policy}: the new master answers {:?} after the kill, is named {named:?} later, and limits are exact again \
         {back:?} after it answered (attempt {attempts:?})",
        answers - killed
    );
    assert!(back < Duration::from_secs(5), "exact again only after {back:?}");
    std::thread::sleep(Duration::from_millis(500));
    let samples = load.stop();
    assert_answered(&samples, policy, policy);
    let outage = (answers - killed + back).as_secs_f64();
    // A new master may have lost what it was told last; each proxy's own limiter adds its own.
    let lost = if policy == "local" { 3.0 * BURST + 2.0 * RATE * outage } else { BURST };
    assert_bound(&samples.iter().collect::<Vec<_>>(), lost, policy);
    let after = between(&samples, (answers + back, Instant::now()));
    assert!(after.iter().all(|sample| sample.status() != 503), "the store decides again");
    assert_bound(&after, 0.0, &format!("{policy}, afterwards"));
}

#[test]
fn the_master_is_killed_under_load_with_the_deny_policy() {
    the_master_is_killed("deny");
}

#[test]
fn the_master_is_killed_under_load_with_the_local_policy() {
    the_master_is_killed("local");
}
