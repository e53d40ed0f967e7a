//! Redis is well, and the link to it is not: slow, thin, silent, cut, damaged, half closed. Under each
//! policy nothing hangs, every answer is the policy's, exact limiting comes back by itself, and no
//! request is charged twice. (What a failing server does is `store_failure`, what strange replies do is
//! `redis_replies`.)

use std::time::{Duration, Instant};

use super::store_failure::{DEADLINE, Policy, assert_policy, exact_again};
use crate::support::client::Request;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::load::{Load, Sample};
use crate::support::metrics::Metrics;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::{eventually, within};

/// How long a link stays bad.
const OUTAGE: Duration = Duration::from_secs(1);
/// Clients of each proxy.
const CLIENTS: usize = 4;
/// Connections to Redis of all proxies: one of each worker.
const CONNECTIONS: usize = 6;

/// Each request comes from an address of its own, so that Redis has a state for each.
fn configuration(port: u16, policy: Policy, timeout: &str) -> String {
    let policy = policy.word();
    format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 2\ntrusted_proxies: [127.0.0.1/32]\nroutes:\n\
         \x20 - name: once\n    match: {{ path: /once }}\n    upstream: echo\n\
         \x20   limits: [{{ name: once, key: client_ip, rate: 1/h, burst: 5 }}]\n\
         \x20 - name: probe\n    match: {{ path: /probe }}\n    upstream: echo\n\
         \x20   limits: [{{ name: probe, key: 'header:x-probe', rate: 1/h }}]\n\
         store:\n  redis: {{ url: 'redis://127.0.0.1:{port}', timeout: {timeout}, key_prefix: {policy} }}\n\
         \x20 on_store_error: {policy}\n"
    )
}

/// A proxy under load behind the link.
struct Site {
    policy: Policy,
    proxy: Tollgate,
    load: Load,
}

impl Site {
    fn start(link: &FaultProxy, policy: Policy, timeout: &str) -> Self {
        let proxy = Tollgate::start(&configuration(link.port(), policy, timeout));
        let request = |client, n| Request::get("/once").from(&format!("10.{client}.{}.{}", n / 256, n % 256));
        let load = Load::start_each(vec![proxy.web(); CLIENTS], DEADLINE / 5, request);
        Self { policy, proxy, load }
    }

    fn is_up(&self) -> bool {
        self.proxy.metrics().count("tollgate_store_up", &[]) == 1
    }
}

fn decided(metrics: &Metrics, decision: &str) -> u64 {
    metrics.count("tollgate_limit_decisions_total", &[("limit", "once"), ("decision", decision)])
}

/// How often Redis was charged for each of this policy's requests: `[once, more often]`. A state is the
/// instant of full, and a charge moves it by an hour.
fn charges(redis: &RedisServer, policy: Policy) -> [usize; 2] {
    const COUNT: &str = "local time, counts = redis.call('TIME'), {0, 0} local now = time[1] * 1000000 + time[2] \
                         for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
                         local times = math.ceil((tonumber(redis.call('GET', key)) - now) / 3600000000) \
                         local which = times == 1 and 1 or 2 counts[which] = counts[which] + 1 end return counts";
    let counted = redis.cli(&["EVAL", COUNT, "0", &format!("{}:{{*}}:once:*", policy.word())]);
    let counts: Vec<_> = counted.lines().map(|count| count.parse().expect("a number")).collect();
    counts.try_into().expect("two numbers")
}

/// Three proxies on one link, each with a policy of its own, through a fault and out of it.
struct Outage {
    what: &'static str,
    begun: Instant,
    ended: Instant,
    redis: RedisServer,
    /// What each proxy had counted and its clients had seen in the end.
    seen: Vec<(Policy, Metrics, Vec<Sample>)>,
}

impl Outage {
    fn run(what: &'static str, fault: Fault) -> Self {
        let redis = RedisServer::start();
        let link = FaultProxy::to(redis.port());
        let policies = [Policy::Local, Policy::Allow, Policy::Deny];
        let sites = policies.map(|policy| Site::start(&link, policy, "25ms"));
        for site in &sites {
            eventually("traffic", || (site.load.answered() > 50 && site.is_up()).then_some(()));
        }
        let (begun, connections) = (Instant::now(), link.connections());
        link.set(fault);
        std::thread::sleep(OUTAGE);
        let (ended, attempts) = (Instant::now(), link.connections() - connections);
        link.set(Fault::None);
        println!("{what}: {attempts} attempts to connect over {CONNECTIONS} connections in {OUTAGE:?}");
        assert!(attempts <= 40 * CONNECTIONS, "a storm of {attempts} connections");
        for site in &sites {
            assert_recovery(site, &redis, ended, what);
        }
        let seen = sites.map(|site| {
            let (policy, load, proxy) = (site.policy, site.load, site.proxy);
            let samples = load.stop();
            (policy, proxy.metrics(), samples)
        });
        Self { what, begun, ended, redis, seen: seen.into() }
    }

    /// What holds whatever the fault is.
    fn assert_harmless(&self) {
        for (policy, metrics, samples) in &self.seen {
            let what = format!("{}, {}", self.what, policy.word());
            assert_policy(*policy, samples, (self.begun, self.ended), &what);
            let slowest = samples.iter().map(Sample::latency).max().unwrap_or_default();
            assert!(slowest < 80 * DEADLINE, "{what}: a request took {slowest:?}");
            assert!(samples.iter().all(|sample| sample.status() != 429), "{what}: no request exceeds a limit");
            let (allowed, failed) = (decided(metrics, "allow"), metrics.count("tollgate_store_errors_total", &[]));
            let [once, more] = charges(&self.redis, *policy);
            println!(
                "{what}: {} requests, {allowed} decided by Redis, {once} charged there, {failed} failures",
                samples.len()
            );
            assert_eq!(more, 0, "{what}: charged more than once");
            let once = u64::try_from(once).expect("small");
            // What was decided locally may be told to Redis afterwards.
            let most = allowed + failed + decided(metrics, "local_allow");
            assert!(allowed <= once && once <= most, "{what}: {allowed} admitted, {once} charged, at most {most}");
        }
    }

    /// That the fault was felt as this, and what each policy made of it.
    fn assert_felt_as(&self, kinds: &[&str]) {
        for (policy, metrics, samples) in &self.seen {
            let what = format!("{}, {}", self.what, policy.word());
            let felt: u64 =
                kinds.iter().map(|kind| metrics.count("tollgate_store_errors_total", &[("kind", kind)])).sum();
            assert!(felt > 0, "{what}: no {kinds:?} among {:?}", metrics.containing("tollgate_store_errors_total"));
            let with = |status| samples.iter().filter(|sample| sample.status() == status).count() as u64;
            let stood_in = decided(
                metrics,
                match policy {
                    Policy::Local => "local_allow",
                    Policy::Allow => "error_allow",
                    Policy::Deny => "error_deny",
                },
            );
            assert!(stood_in > 0, "{what}: the policy was needed");
            let denied = if *policy == Policy::Deny { stood_in } else { 0 };
            assert_eq!([with(503), with(200)], [denied, decided(metrics, "allow") + stood_in - denied], "{what}");
        }
    }
}

/// Waits until Redis decides again.
fn assert_recovery(site: &Site, redis: &RedisServer, healed: Instant, what: &str) {
    let mut attempt = 0;
    within(Duration::from_secs(5), "exact limiting is back", || {
        attempt += 1;
        exact_again(&site.proxy, redis, attempt).then_some(())
    });
    println!("{what}, {}: exact again {:?} after the link is good", site.policy.word(), healed.elapsed());
}

#[test]
fn a_link_that_is_slower_than_the_deadline_is_a_timeout() {
    let outage = Outage::run("20 ms each way", Fault::Delay(Duration::from_millis(20)));
    outage.assert_harmless();
    outage.assert_felt_as(&["timeout"]);
}

#[test]
fn a_link_that_passes_a_byte_a_second_is_a_timeout() {
    let outage = Outage::run("a byte a second", Fault::Rate(1));
    outage.assert_harmless();
    outage.assert_felt_as(&["timeout"]);
}

#[test]
fn a_black_hole_is_a_timeout_and_what_was_sent_into_it_is_charged_once() {
    let outage = Outage::run("black hole", Fault::BlackHole);
    outage.assert_harmless();
    outage.assert_felt_as(&["timeout"]);
}

#[test]
fn a_refused_connection_is_made_again() {
    let outage = Outage::run("refused", Fault::Refused);
    outage.assert_harmless();
    outage.assert_felt_as(&["refused", "reset"]);
}

#[test]
fn a_connection_that_is_reset_in_the_handshake_is_made_again() {
    let outage = Outage::run("reset after 100 bytes", Fault::CutAfter(100));
    outage.assert_harmless();
    outage.assert_felt_as(&["reset"]);
}

#[test]
fn a_connection_that_is_reset_within_replies_again_and_again_loses_and_repeats_nothing() {
    let outage = Outage::run("reset after 2000 bytes", Fault::CutAfter(2000));
    outage.assert_harmless();
    outage.assert_felt_as(&["reset"]);
}

#[test]
fn damaged_replies_decide_nothing() {
    let outage = Outage::run("damaged", Fault::Garbled(400));
    outage.assert_harmless();
    outage.assert_felt_as(&["protocol", "reset"]);
}

#[test]
fn a_half_closed_connection_is_made_again() {
    let outage = Outage::run("half closed", Fault::HalfClosed);
    outage.assert_harmless();
    outage.assert_felt_as(&["reset"]);
}

/// A deadline is a bound and nothing else: the same link with time enough for it only takes longer.
#[test]
fn a_slow_link_within_the_deadline_is_only_slow() {
    const DELAY: Duration = Duration::from_millis(20);
    let redis = RedisServer::start();
    let link = FaultProxy::to(redis.port());
    let site = Site::start(&link, Policy::Deny, "2s");
    eventually("traffic", || (site.load.answered() > 50 && site.is_up()).then_some(()));
    let begun = Instant::now();
    link.set(Fault::Delay(DELAY));
    std::thread::sleep(OUTAGE);
    let ended = Instant::now();
    let Site { proxy, load, .. } = site;
    let samples = load.stop();
    assert!(samples.iter().all(|sample| sample.status() == 200), "Redis decides each");
    let slowed: Vec<_> = samples.iter().filter(|sample| sample.sent > begun && sample.sent < ended).collect();
    let quickest = slowed.iter().map(|sample| sample.latency()).min().expect("some were sent");
    println!("{} requests over a slow link, the quickest in {quickest:?}", slowed.len());
    assert!(slowed.len() >= 2 * CLIENTS && quickest >= 2 * DELAY, "the link is slow: {quickest:?}");
    let metrics = proxy.metrics();
    assert_eq!(decided(&metrics, "allow"), samples.len() as u64);
    assert_eq!(metrics.count("tollgate_store_errors_total", &[]), 0, "nothing failed");
    assert_eq!(metrics.count("tollgate_store_up", &[]), 1);
    assert_eq!(charges(&redis, Policy::Deny), [samples.len(), 0], "each is charged once");
}
