//! A Redis Cluster that changes under load: a planned failover, a slot that moves from node to node, a master that
//! is killed. Two proxies, no request hangs, and no client gets more than its limit allows.

use std::time::{Duration, Instant};

use super::redis_sentinel::{BURST, assert_answered, assert_bound, between, exact, load, two_proxies};
use crate::support::client::Request;
use crate::support::eventually;
use crate::support::load::{Load, Sample};
use crate::support::redis_cluster::RedisCluster;
use crate::support::tollgate::Tollgate;

/// A client whose states are on each master at the start.
fn clients(cluster: &RedisCluster) -> [String; 3] {
    [0, 1, 2].map(|owner| {
        let mut names = (1..250).map(|n| format!("10.0.0.{n}"));
        names.find(|name| cluster.first_owner(&format!("ip={name}")) == owner).expect("a client of each")
    })
}

/// Clients on a master at the start that nobody has seen yet.
fn strangers(cluster: &RedisCluster, owner: usize) -> impl Iterator<Item = String> {
    (0..65_000)
        .map(|n| format!("10.1.{}.{}", n / 250, n % 250))
        .filter(move |name| cluster.first_owner(&format!("ip={name}")) == owner)
}

fn start(cluster: &RedisCluster, policy: &str) -> [Tollgate; 2] {
    two_proxies(&format!("cluster: {}", cluster.list()), policy)
}

/// Of one client, the order of [`super::redis_sentinel::load`] being two loads per client.
fn of_client(samples: &[Sample], client: usize) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.client / 2 == client).collect()
}

/// Asks for clients of this shard that nobody has seen until one gets exactly its limit; how long that took.
fn until_exact(proxies: &[Tollgate; 2], cluster: &RedisCluster, owner: usize) -> Duration {
    let began = Instant::now();
    strangers(cluster, owner).find(|client| exact(proxies, client)).expect("exact again");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "exact again only after {took:?}");
    took
}

fn unavailable(samples: &[&Sample]) -> usize {
    samples.iter().filter(|sample| sample.status() == 503).count()
}

#[test]
fn planned_failovers_under_load() {
    let cluster = RedisCluster::with_replicas();
    let proxies = start(&cluster, "deny");
    let clients = clients(&cluster);
    let load = load(&proxies, &clients.each_ref().map(String::as_str));
    // There and back again.
    for (master, seen_by) in [(3, 0), (0, 3)] {
        cluster.fail_over_to(master);
        println!("failover: exact again {:?} after the new master answers", until_exact(&proxies, &cluster, 0));
        eventually("the old one follows", || cluster.nodes[seen_by].cli(&["ROLE"]).contains("connected").then_some(()));
    }
    let samples = load.stop();
    assert_answered(&samples, "deny", "failover");
    for client in 0..3 {
        let own = of_client(&samples, client);
        println!("client {client}: {} of {} were 503", unavailable(&own), own.len());
        // Two failovers, each of which may lose what was not replicated yet.
        assert_bound(&own, if client == 0 { 2.0 * BURST } else { 0.0 }, &format!("failover, client {client}"));
    }
    for other in [1, 2] {
        assert_eq!(unavailable(&of_client(&samples, other)), 0, "the other shards are not concerned");
    }
}

#[test]
fn a_slot_that_moves_under_load_loses_nothing() {
    let cluster = RedisCluster::of_masters();
    let proxies = start(&cluster, "deny");
    let clients = clients(&cluster);
    let load = load(&proxies, &clients.each_ref().map(String::as_str));
    let slot = cluster.slot(&format!("ip={}", clients[0]));
    let began = Instant::now();
    let route = [0, 1, 2, 0, 2, 1, 0];
    for hop in route.windows(2) {
        cluster.migrate(&slot, hop[0], hop[1]);
        assert_eq!(cluster.owner(2, &slot), Some(hop[1]));
        std::thread::sleep(Duration::from_millis(150));
    }
    println!("{} moves in {:?}", route.len() - 1, began.elapsed());
    println!("slot moved: exact again {:?} after it", until_exact(&proxies, &cluster, 0));
    let samples = load.stop();
    assert_answered(&samples, "deny", "migration");
    for client in 0..3 {
        let own = of_client(&samples, client);
        println!("client {client}: {} of {} were 503", unavailable(&own), own.len());
        // State moves with its slot: the bound is that of an undisturbed store.
        assert_bound(&own, 0.0, &format!("migration, client {client}"));
    }
    let moved = proxies.iter().map(|proxy| proxy.metrics().count("tollgate_store_errors_total", &[("kind", "moved")]));
    assert!(moved.sum::<u64>() > 0, "redirections were followed");
    assert_eq!(unavailable(&samples.iter().collect::<Vec<_>>()), 0, "nobody noticed");
}

#[test]
fn a_killed_master_concerns_only_its_own_keys_until_its_replica_takes_over() {
    let mut cluster = RedisCluster::with_replicas();
    let proxies = start(&cluster, "deny");
    let clients = clients(&cluster);
    let load = load(&proxies, &clients.each_ref().map(String::as_str));
    let killed = Instant::now();
    cluster.nodes[0].kill();
    eventually("the store is seen to be away", || {
        proxies.iter().all(|proxy| proxy.metrics().count("tollgate_store_up", &[]) == 0).then_some(())
    });
    for other in [1, 2] {
        assert!(strangers(&cluster, other).take(3).all(|client| exact(&proxies, &client)), "shard {other} is exact");
    }
    eventually("the replica is the master", || cluster.nodes[3].cli(&["ROLE"]).starts_with("master").then_some(()));
    let answers = Instant::now();
    let back = until_exact(&proxies, &cluster, 0);
    println!("killed: the new master answers {:?} later, exact again {back:?} after that", answers - killed);
    eventually("the store is whole", || {
        proxies.iter().all(|proxy| proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    let samples = load.stop();
    assert_answered(&samples, "deny", "killed");
    let (own, others) = (of_client(&samples, 0), [of_client(&samples, 1), of_client(&samples, 2)]);
    assert!(unavailable(&own) > 0, "its keys had no store for a while");
    assert_bound(&own, BURST, "killed, client 0");
    for (client, other) in others.iter().enumerate() {
        assert_eq!(unavailable(other), 0, "the others noticed nothing");
        assert_bound(other, 0.0, &format!("killed, client {}", client + 1));
    }
    let after = between(&samples, (answers + back, Instant::now()));
    assert_eq!(unavailable(&after), 0, "every shard decides again");
}

/// Limits of two subjects under pressure from both proxies at once: the widest one is exact, and the narrower one
/// admits no more than what was held by requests under way beyond it.
#[test]
fn limits_of_several_subjects_keep_their_bounds_under_pressure() {
    const CLIENTS: u16 = 4;
    let cluster = RedisCluster::of_masters();
    let yaml = format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 1\ntrusted_proxies: [private]\nroutes:\n\
         \x20 - name: all\n    match: {{ path: '/*' }}\n    upstream: echo\n    limits:\n\
         \x20     - {{ name: everyone, key: global, rate: 150/s, burst: 30 }}\n\
         \x20     - {{ name: client, key: client_ip, rate: 100/s, burst: 20 }}\n\
         store:\n  redis: {{ cluster: {}, timeout: 2s }}\n  on_store_error: deny\n",
        cluster.list()
    );
    let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
    let clients = clients(&cluster);
    let requests = (0..CLIENTS).map(|n| {
        let client = &clients[usize::from(n / 2)];
        (proxies[usize::from(n % 2)].web(), Request::get("/").from(client))
    });
    let samples = Load::start(requests.collect(), Duration::from_millis(1)).run_for(Duration::from_secs(2));
    assert!(samples.iter().all(|sample| matches!(sample.status(), 200 | 429)), "every decision was the store's");
    let count = |samples: &[&Sample]| {
        let admitted: Vec<_> = samples.iter().filter(|sample| sample.status() == 200).collect();
        let first = admitted.iter().map(|sample| sample.sent).min().expect("some");
        let last = admitted.iter().map(|sample| sample.received).max().expect("some");
        (f64::from(u32::try_from(admitted.len()).expect("few")), (last - first).as_secs_f64())
    };
    let (admitted, time) = count(&samples.iter().collect::<Vec<_>>());
    println!("everyone: {admitted} admitted in {time} s, at most {:.1}", 30.0 + 150.0 * time);
    assert!(admitted <= 30.0 + 150.0 * time);
    assert!(admitted >= 0.8 * (30.0 + 150.0 * time), "what is given back is there again");
    for client in 0..2 {
        let (admitted, time) = count(&of_client(&samples, client));
        let bound = 20.0 + 100.0 * time + f64::from(CLIENTS);
        println!("client {client}: {admitted} admitted in {time} s, at most {bound:.1}");
        assert!(admitted <= bound);
    }
}

#[test]
fn a_call_that_a_live_shard_may_have_heard_is_not_charged_again_when_a_dead_one_is_back() {
    let mut cluster = RedisCluster::of_masters();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\ntrusted_proxies: [127.0.0.0/8]\nupstream: echo\n\
         limits: [{{ name: few, key: client_ip, rate: 5/h }}]\n\
         store: {{ redis: {{ cluster: {}, timeout: 100ms }}, on_store_error: local }}\n",
        cluster.list()
    ));
    let is_up = || proxy.metrics().count("tollgate_store_up", &[]) == 1;
    eventually("the store is there", || is_up().then_some(()));
    let [of_the_dead, of_the_stopped, _] = clients(&cluster);
    let send = |client: &str| proxy.client().send(&Request::get("/").from(client)).status;
    let admitted = |client: &str| (0..10).take_while(|_| send(client) == 200).count();

    cluster.nodes[0].kill();
    eventually("one shard is seen to be away", || (!is_up()).then_some(()));
    assert_eq!([send(&of_the_dead), send(&of_the_dead)], [200, 200], "within this proxy's share");
    cluster.nodes[1].stop();
    assert_eq!(send(&of_the_stopped), 200, "locally, after a call that nobody answered");
    cluster.nodes[1].resume();
    eventually("the call was heard all the same", || (!cluster.nodes[1].keys().is_empty()).then_some(()));

    cluster.nodes[0].restart();
    eventually("what was admitted without the dead shard is charged there", || {
        cluster.nodes[0].keys().iter().any(|key| key.contains(":few:")).then_some(())
    });
    assert_eq!(admitted(&of_the_dead), 3, "two of five are charged");
    assert_eq!(admitted(&of_the_stopped), 4, "one of five is charged, once");
}
