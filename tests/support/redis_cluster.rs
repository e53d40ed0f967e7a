//! A Redis Cluster on loopback, put together by hand: quicker than `redis-cli --cluster create`, and with the
//! slots where the tests want them.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::eventually;
use super::port::Port;
use super::redis_server::{RedisServer, TlsFiles};

/// Slots of the first, second and third master: thirds.
const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Three masters, and a replica of each if wanted.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    /// Masters at the start, then their replicas in the same order.
    pub(crate) nodes: Vec<RedisServer>,
    /// The ports of the nodes' own talk.
    buses: Vec<Port>,
    /// Certificates, when everybody speaks TLS.
    _directory: Option<TempDir>,
}

impl RedisCluster {
    /// Three masters.
    pub(crate) fn of_masters() -> Self {
        Self::start(3, None)
    }

    /// Three masters with a replica each.
    pub(crate) fn with_replicas() -> Self {
        Self::start(6, None)
    }

    /// Three masters that are reached by TLS only.
    pub(crate) fn with_tls() -> Self {
        let directory = TempDir::new().unwrap();
        let tls = TlsFiles::make(directory.path());
        Self { _directory: Some(directory), ..Self::start(3, Some(&tls)) }
    }

    fn start(count: usize, tls: Option<&TlsFiles>) -> Self {
        let buses: Vec<_> = (0..count).map(|_| Port::take()).collect();
        let mut nodes = Vec::new();
        for bus in &buses {
            let mut node = RedisServer::not_started_with(&["--cluster-port", &bus.number().to_string()], tls);
            let arguments = "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout 1000\n\
                             cluster-require-full-coverage no\ncluster-replica-validity-factor 0\n\
                             repl-diskless-sync-delay 0\n";
            node.configure(&format!(
                "{arguments}{}",
                if tls.is_some() { "tls-cluster yes\ntls-replication yes\n" } else { "" }
            ));
            node.restart();
            nodes.push(node);
        }
        let cluster = Self { nodes, buses, _directory: None };
        cluster.join();
        cluster
    }

    /// Gives the masters their slots and introduces everybody.
    fn join(&self) {
        for (index, (node, (first, last))) in self.nodes.iter().zip(SLOTS).enumerate() {
            let epoch = (index + 1).to_string();
            assert_eq!(node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), "OK");
            assert_eq!(node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]), "OK");
        }
        let first = &self.nodes[0];
        for (node, bus) in self.nodes.iter().zip(&self.buses).skip(1) {
            let (port, bus) = (node.port().to_string(), bus.number().to_string());
            assert_eq!(first.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]), "OK");
        }
        self.wait_until_known();
        for (replica, master) in self.nodes.iter().skip(3).zip(&self.nodes) {
            let id = master.cli(&["CLUSTER", "MYID"]);
            eventually("a replica", || (replica.cli(&["CLUSTER", "REPLICATE", &id]) == "OK").then_some(()));
        }
        for replica in self.nodes.iter().skip(3) {
            eventually("the replica follows", || replica.cli(&["ROLE"]).contains("connected").then_some(()));
        }
        if self.nodes.len() > 3 {
            let expected = self.nodes.len() - 3;
            for node in &self.nodes {
                let replicas = || node.cli(&["CLUSTER", "NODES"]).matches("slave").count();
                eventually("everybody knows the replicas", || (replicas() == expected).then_some(()));
            }
        }
    }

    fn wait_until_known(&self) {
        let count = self.nodes.len();
        for node in &self.nodes {
            eventually("everybody knows everybody and every slot", || {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let known = info.contains(&format!("cluster_known_nodes:{count}\r"))
                    && info.contains("cluster_slots_assigned:16384")
                    && info.contains("cluster_state:ok");
                (known && !node.cli(&["CLUSTER", "NODES"]).contains("handshake")).then_some(())
            });
        }
    }

    /// The index of the master, at the start, of this key's slot.
    pub(crate) fn first_owner(&self, key: &str) -> usize {
        let slot: u16 = self.slot(key).parse().unwrap();
        SLOTS.iter().position(|(_, last)| slot <= *last).unwrap()
    }

    /// The slot of a key.
    pub(crate) fn slot(&self, key: &str) -> String {
        self.nodes[1].cli(&["CLUSTER", "KEYSLOT", key])
    }

    /// `host:port` of the nodes, as a YAML list.
    pub(crate) fn list(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("['{}']", nodes.join("', '"))
    }

    /// Every key of every node, with value and expiry, but those of probes.
    pub(crate) fn dump(&self) -> Vec<(String, String, String)> {
        let mut all: Vec<_> = self.nodes.iter().take(3).flat_map(RedisServer::dump).collect();
        all.retain(|(key, value, _)| !key.contains("~probe") && !value.is_empty());
        all.sort();
        all
    }

    /// Makes a replica the master, without loss. Voters refuse for a while after the vote before.
    pub(crate) fn fail_over_to(&self, replica: usize) {
        eventually("the replica is the master", || {
            let node = &self.nodes[replica];
            assert_eq!(node.cli(&["CLUSTER", "FAILOVER"]), "OK");
            within(Duration::from_secs(1), || node.cli(&["ROLE"]).starts_with("master"))
        });
    }

    /// The index of a slot's owner as this node sees it now.
    pub(crate) fn owner(&self, seen_by: usize, slot: &str) -> Option<usize> {
        let slot: u16 = slot.parse().unwrap();
        let nodes = self.nodes[seen_by].cli(&["CLUSTER", "NODES"]);
        let has = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let bounds = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
            bounds.is_some_and(|(first, last)| (first..=last).contains(&slot))
        };
        let line = nodes.lines().find(|line| line.contains("master") && line.split(' ').skip(8).any(has))?;
        let port: u16 = line.split([':', '@']).nth(1)?.parse().ok()?;
        self.nodes.iter().position(|node| node.port() == port)
    }

    /// Moves a slot with its keys to another master, as resharding does.
    pub(crate) fn migrate(&self, slot: &str, from: usize, to: usize) {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let (source_id, target_id) = (source.cli(&["CLUSTER", "MYID"]), target.cli(&["CLUSTER", "MYID"]));
        assert_eq!(target.cli(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source_id]), "OK");
        assert_eq!(source.cli(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target_id]), "OK");
        loop {
            let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", slot, "10"]);
            if keys.is_empty() {
                break;
            }
            for key in keys.lines() {
                self.migrate_key(key, from, to);
            }
        }
        for node in [target, source].into_iter().chain(self.nodes.iter().take(3)) {
            assert_eq!(node.cli(&["CLUSTER", "SETSLOT", slot, "NODE", &target_id]), "OK");
        }
    }

    /// Moves one key of a slot that is being moved.
    pub(crate) fn migrate_key(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        let said = self.nodes[from].cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        assert!(["OK", "NOKEY"].contains(&said.as_str()), "{said}");
    }
}

/// Whether it becomes true in time.
fn within(limit: Duration, condition: impl Fn() -> bool) -> Option<()> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if condition() {
            return Some(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}
