//! A master, replicas and three sentinels on loopback, brought up without the usual waiting: everybody is told
//! about everybody else.

use std::fmt::Write as _;

use tempfile::TempDir;

use super::eventually;
use super::redis_server::{RedisServer, TlsFiles};

/// What the sentinels call the master.
pub(crate) const NAME: &str = "main";

/// A running group.
#[derive(Debug)]
pub(crate) struct SentinelGroup {
    /// The master at the start, then the replicas.
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
    /// Certificates, when everybody speaks TLS.
    directory: Option<TempDir>,
}

impl SentinelGroup {
    /// A master and a replica.
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    /// The same, reached by TLS only.
    pub(crate) fn start_with_tls() -> Self {
        let directory = TempDir::new().unwrap();
        let tls = TlsFiles::make(directory.path());
        let mut group = Self::start_with(Some(&tls));
        group.directory = Some(directory);
        group
    }

    fn start_with(tls: Option<&TlsFiles>) -> Self {
        let everywhere: &[&str] = if tls.is_some() { &["--tls-replication", "yes"] } else { &[] };
        let begin = |arguments: &[&str]| RedisServer::not_started_with(&[everywhere, arguments].concat(), tls);
        let mut master = begin(&["--repl-diskless-sync-delay", "0"]);
        let port = master.port().to_string();
        let mut replica = begin(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
        master.restart();
        replica.restart();
        let mut sentinels: Vec<_> = (0..3).map(|_| begin(&["--sentinel"])).collect();
        let ports: Vec<_> = sentinels.iter().map(RedisServer::port).collect();
        for (own, sentinel) in sentinels.iter_mut().enumerate() {
            sentinel.configure(&configuration(own, &ports, master.port(), replica.port()));
            sentinel.restart();
            assert_eq!(sentinel.cli(&["SENTINEL", "DEBUG", "INFO-PERIOD", "100", "PUBLISH-PERIOD", "200"]), "OK");
        }
        let group = Self { servers: vec![master, replica], sentinels, directory: None };
        group.wait_until_whole();
        group
    }

    /// `host:port` of the sentinels, as a YAML list.
    pub(crate) fn nodes(&self) -> String {
        let nodes: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("['{}']", nodes.join("', '"))
    }

    /// The index of the server that is the master now, by its own word.
    pub(crate) fn master(&self, among: impl Fn(usize) -> bool) -> Option<usize> {
        let is_master = |&index: &usize| self.servers[index].cli(&["ROLE"]).starts_with("master");
        (0..self.servers.len()).filter(|&index| among(index)).find(is_master)
    }

    /// Whether a sentinel names this server as the master.
    pub(crate) fn is_named(&self, index: usize) -> bool {
        let port = self.servers[index].port().to_string();
        let names =
            |sentinel: &RedisServer| sentinel.cli(&["SENTINEL", "get-master-addr-by-name", NAME]).contains(&port);
        self.sentinels.iter().any(names)
    }

    /// Until the replica has the master's data and every sentinel knows both and the other two.
    fn wait_until_whole(&self) {
        eventually("the replica follows", || self.servers[1].cli(&["ROLE"]).contains("connected").then_some(()));
        for sentinel in &self.sentinels {
            eventually("the sentinel is ready", || {
                let known = sentinel.cli(&["SENTINEL", "CKQUORUM", NAME]);
                let replicas = sentinel.cli(&["SENTINEL", "REPLICAS", NAME]);
                let follows = replicas.contains("master-link-status\nok");
                (known.starts_with("OK 3 usable") && follows).then_some(())
            });
            // A replica whose last word is older than three periods is not promoted.
            assert_eq!(sentinel.cli(&["SENTINEL", "DEBUG", "INFO-PERIOD", "1000"]), "OK");
        }
    }
}

fn configuration(own: usize, ports: &[u16], master: u16, replica: u16) -> String {
    let id = |index: usize| format!("{index}").repeat(40);
    let mut text = format!(
        "sentinel myid {}\nsentinel monitor {NAME} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {NAME} 600\nsentinel failover-timeout {NAME} 3000\n\
         sentinel known-replica {NAME} 127.0.0.1 {replica}\n",
        id(own)
    );
    for (other, port) in ports.iter().enumerate().filter(|(other, _)| *other != own) {
        let _ = writeln!(text, "sentinel known-sentinel {NAME} 127.0.0.1 {port} {}", id(other));
    }
    text
}

impl Drop for SentinelGroup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for sentinel in &self.sentinels {
                println!("log of the sentinel on port {}:\n{}", sentinel.port(), sentinel.log());
            }
        }
    }
}
