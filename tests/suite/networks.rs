//! Penalties of the networks around IPv6 clients: many parts that misbehave block the whole, one alone never does.

use std::time::Duration;

use super::contract::redis_store;
use crate::support::client::{Answer, Request};
use crate::support::eventually;
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{Tollgate, tollgate};

/// One request per minute; the second within it blocks.
fn yaml(key: &str, penalty: &str, store: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\ntrusted_proxies: [127.0.0.1/32]\nlimits:\n\
         \x20 - {{ name: login, key: {key}, rate: 1/m, penalty: {{ after: 1, {penalty} }} }}\n{store}"
    )
}

const PENALTY: &str = "block: 10m, max: 1h, widen_after: 2";

/// Proxies that are asked by turns.
struct Stage<'a> {
    proxies: &'a [Tollgate],
    turn: usize,
    /// More fields of each request.
    field: (&'static str, &'static str),
}

impl<'a> Stage<'a> {
    fn of(proxies: &'a [Tollgate]) -> Self {
        Self { proxies, turn: 0, field: ("x-more", "1") }
    }

    fn ask(&mut self, address: &str) -> Answer {
        self.turn += 1;
        let request = Request::get("/").from(address).header(self.field.0, self.field.1);
        self.proxies[self.turn % self.proxies.len()].client().send(&request)
    }

    #[track_caller]
    fn admitted(&mut self, address: &str) {
        let answer = self.ask(address);
        assert_eq!(answer.status, 200, "{address}: {}", answer.text());
    }

    /// Denied for as long as a block of ten minutes lasts.
    #[track_caller]
    fn blocked(&mut self, address: &str) {
        let answer = self.ask(address);
        assert_eq!(answer.status, 429, "{address}");
        assert!(answer.text().contains("abnormal-usage-detected"), "{address}: {}", answer.text());
        assert!((590..=600).contains(&answer.retry_after()), "{address}: {}", answer.retry_after());
    }

    /// Asks twice, of which the second is one too many.
    #[track_caller]
    fn misbehaves(&mut self, address: &str) {
        self.admitted(address);
        self.blocked(address);
    }
}

/// From one address to its /64, from two of them to the /56, from two of those to the /48, and no further.
fn spreads(stage: &mut Stage<'_>) {
    stage.misbehaves("2001:db8:1:100::1");
    stage.blocked("2001:db8:1:100::2");
    stage.misbehaves("2001:db8:1:101::1");
    stage.blocked("2001:db8:1:102::1");
    stage.blocked("2001:db8:1:1ff::1");
    stage.misbehaves("2001:db8:1:200::1");
    stage.admitted("2001:db8:1:300::1");
    stage.misbehaves("2001:db8:1:201::1");
    stage.blocked("2001:db8:1:202::1");
    stage.blocked("2001:db8:1:400::1");
    stage.blocked("2001:db8:1::1");
    stage.admitted("2001:db8:2::1");
    stage.misbehaves("192.0.2.1");
    stage.misbehaves("192.0.2.2");
    stage.misbehaves("192.0.2.3");
}

#[test]
fn parts_that_misbehave_block_the_network_around_them_in_memory() {
    spreads(&mut Stage::of(&[Tollgate::start(&yaml("client_ip", PENALTY, ""))]));
}

#[test]
fn parts_that_misbehave_block_the_network_around_them_for_all_proxies() {
    let redis = RedisServer::start();
    let yaml = yaml("client_ip", PENALTY, &redis_store(&redis));
    spreads(&mut Stage::of(&[Tollgate::start(&yaml), Tollgate::start(&yaml)]));
    let keys = redis.keys();
    for key in [
        "tollgate:{ip=2001:db8:1::/48}:ip=2001:db8:1:100::/64:login:b1",
        "tollgate:{ip=2001:db8:1::/48}:ip=2001:db8:1:100::/64:login~penalty:p1",
        "tollgate:{ip=2001:db8:1::/48}:ip=2001:db8:1:100::/56:login~penalty/56:p1",
        "tollgate:{ip=2001:db8:1::/48}:ip=2001:db8:1::/48:login~penalty/48:p1",
        "tollgate:{ip=192.0.2.1}:login~penalty:p1",
    ] {
        assert!(keys.iter().any(|found| found == key), "{key} is not among {keys:?}");
    }
}

#[test]
fn parts_that_misbehave_block_the_network_around_them_in_a_cluster() {
    for tag in ["subject", "route"] {
        let cluster = RedisCluster::of_masters();
        let store = format!(
            "store: {{ redis: {{ cluster: {}, hash_tag: {tag}, timeout: 2s }}, on_store_error: deny }}\n",
            cluster.list()
        );
        let yaml = yaml("client_ip", PENALTY, &store);
        let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
        for proxy in &proxies {
            eventually("the store is up", || (proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(()));
        }
        spreads(&mut Stage::of(&proxies));
    }
}

#[test]
fn the_rest_of_a_combined_key_is_told_apart_and_a_missing_key_is_an_address() {
    let both = [Tollgate::start(&yaml("[client_ip, 'header:x-id']", PENALTY, ""))];
    let mut stage = Stage { field: ("x-id", "a"), ..Stage::of(&both) };
    spreads(&mut stage);
    spreads(&mut Stage { field: ("x-id", "b"), ..stage });
    let missing = [Tollgate::start(&yaml("'header:x-id'", PENALTY, ""))];
    spreads(&mut Stage::of(&missing));
    let mut named = Stage { field: ("x-id", "a"), ..Stage::of(&missing) };
    named.admitted("2001:db8:1:100::1");
}

#[test]
fn one_part_alone_blocks_nothing_but_itself_however_often_it_is_blocked() {
    let proxies = [Tollgate::start(
        &yaml("client_ip", "block: 1s, max: 1h, widen_after: 2", "").replace("rate: 1/m", "rate: 1/s"),
    )];
    let mut stage = Stage::of(&proxies);
    for length in [1, 2, 4] {
        stage.admitted("2001:db8:1:100::1");
        assert_eq!(stage.ask("2001:db8:1:100::1").retry_after(), length);
        std::thread::sleep(Duration::from_secs(length));
    }
    stage.admitted("2001:db8:1:101::1");
}

#[test]
fn a_network_is_left_alone_where_the_file_says_so_and_by_default_until_its_eighth_part() {
    let never = [Tollgate::start(&yaml("client_ip", "block: 10m, max: 1h, widen_after: 0", ""))];
    let usual = [Tollgate::start(&yaml("client_ip", "block: 10m, max: 1h", ""))];
    let (mut never, mut usual) = (Stage::of(&never), Stage::of(&usual));
    for part in 0..8 {
        never.misbehaves(&format!("2001:db8:1:10{part}::1"));
        usual.misbehaves(&format!("2001:db8:1:10{part}::1"));
    }
    never.admitted("2001:db8:1:1aa::1");
    usual.blocked("2001:db8:1:1aa::1");
}

#[test]
fn the_networks_stand_in_the_configuration_as_it_is_printed_and_explained() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.yaml");
    std::fs::write(&file, yaml("client_ip", PENALTY, "")).unwrap();
    let file = file.to_str().unwrap();
    let printed = tollgate(&["check", "-c", file, "--print"]);
    assert!(printed.output.contains("widen_after: 2"), "{}{}", printed.output, printed.errors);
    let explained = tollgate(&["explain", "-c", file, "GET", "/", "--ip", "2001:db8::1"]);
    assert!(explained.output.contains("2 blocked parts of a /56 block all of it"), "{}", explained.output);
}

/// Parts are counted as different ones, however long two of them go on.
#[test]
fn two_parts_that_take_turns_never_block_a_network_of_four() {
    let penalty = "block: 1s, max: 2s, widen_after: 4";
    let proxies = [Tollgate::start(&yaml("client_ip", penalty, "").replace("rate: 1/m", "rate: 5/s, burst: 1"))];
    let mut stage = Stage::of(&proxies);
    for round in 0..7 {
        let part = 1 + round % 2;
        for _ in 0..3 {
            stage.ask(&format!("2001:db8:1:10{part}::1"));
        }
        std::thread::sleep(Duration::from_millis(1_560));
    }
    stage.admitted("2001:db8:1:1aa::1");
}

#[test]
fn addresses_of_their_own_block_their_64_first() {
    let yaml = yaml("client_ip", PENALTY, "").replace("limits:", "client_ip: { ipv6_prefix: 128 }\nlimits:");
    let proxies = [Tollgate::start(&yaml)];
    let mut stage = Stage::of(&proxies);
    stage.misbehaves("2001:db8:1:100::1");
    stage.misbehaves("2001:db8:1:100::2");
    stage.blocked("2001:db8:1:100::3");
    stage.admitted("2001:db8:1:101::1");
}
