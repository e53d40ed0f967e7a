//! Two servers of which one is killed again and again, under load.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::client::{Request, get};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::port::Port;
use crate::support::tollgate::{Tollgate, program};

/// A server process that can be killed: the proxy's own echo, behind another Tollgate.
struct Server {
    port: Port,
    child: Child,
}

fn begin(port: &Port) -> Child {
    let address = format!("127.0.0.1:{}", port.number());
    let mut command: Command = program();
    command
        .args(["run", "--from", &address, "--to", "echo", "--log", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

impl Server {
    fn start() -> Self {
        let port = Port::take();
        let child = begin(&port);
        let server = Self { port, child };
        server.wait();
        server
    }

    fn wait(&self) {
        let address = ([127, 0, 0, 1], self.port.number()).into();
        eventually("the server listens", || std::net::TcpStream::connect(address).ok().map(drop));
        assert_eq!(get(address, "/").status, 200);
    }

    fn restart(&mut self) {
        self.child = begin(&self.port);
        self.wait();
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Between two kills.
const PAUSE: Duration = Duration::from_secs(5);
/// Kills, of one server and the other in turn.
const KILLS: usize = 4;

#[test]
fn idempotent_requests_do_not_notice_a_server_that_is_killed_every_five_seconds() {
    let mut servers = [Server::start(), Server::start()];
    let [one, two] = servers.each_ref().map(|server| server.port.url());
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: 127.0.0.1:0 }}\nworkers: 2\nupstreams: {{ api: {{ servers: ['{one}', '{two}'] }} }}\n\
         routes: [{{ name: all, upstream: api, retries: {{ attempts: 2 }} }}]\n"
    ));
    let clients = vec![(proxy.web(), Request::get("/")); 16];
    let load = Load::start(clients, Duration::from_millis(2));
    for kill in 0..KILLS {
        std::thread::sleep(PAUSE);
        let server = &mut servers[kill % 2];
        server.kill();
        std::thread::sleep(Duration::from_millis(300));
        server.restart();
    }
    let samples = load.stop();
    let good = samples.iter().filter(|sample| sample.status() == 200).count();
    let bad: Vec<_> = samples.iter().filter(|sample| sample.status() != 200).map(|sample| &sample.outcome).collect();
    println!("{good} of {} requests were answered with 200, {KILLS} kills", samples.len());
    assert!(samples.len() > 5_000, "only {} requests", samples.len());
    assert!(bad.len() * 1000 <= samples.len(), "{} failed: {:?}", bad.len(), bad.first());
}
