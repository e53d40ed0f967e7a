//! Clients that send or read as slowly as they can, two thousand at a time, beside 500 requests a second
//! of others: the slow ones are closed by their timeouts, and nobody else notices.
//!
//! slowhttptest is the attacker. `TOLLGATE_SLOW_SECONDS` lets each attack be followed for longer.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::support::bystander::Bystander;
use crate::support::nginx::Nginx;
use crate::support::tollgate::Tollgate;
use crate::support::{eventually, within};

const CONNECTIONS: usize = 2_000;
/// How long the slowest of the proxy's timeouts and their consequences may take.
const LIMIT: Duration = Duration::from_mins(2);

/// One attack at a time: each is meant to have the machine to itself.
static TURN: Mutex<()> = Mutex::new(());

struct Attack(Child);

impl Attack {
    fn start(address: SocketAddr, arguments: &str) -> Self {
        // Each connection is a descriptor there too; soft limits of 1,024 are common.
        let script = format!(
            "ulimit -n 8192 2>/dev/null; exec slowhttptest -c {CONNECTIONS} -r 1000 -p 10 -l 300 -v 0 -u http://{address}{arguments}"
        );
        let child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("a shell"))
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connections that are open at the proxy.
fn open(proxy: &Tollgate) -> usize {
    let metrics = proxy.metrics();
    let count = |state| metrics.sum("tollgate_connections", &[("listener", "default"), ("state", state)]);
    format!("{:.0}", count("active") + count("idle")).parse().expect("a count")
}

/// Runs an attack (a path, and what slowhttptest is told) until all its connections are gone, with others beside it.
fn withstand(arguments: &str) {
    let found = Command::new("slowhttptest").arg("-h").output();
    found.expect("slowhttptest must be installed (Debian: apt-get install slowhttptest)");
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let files = tempfile::tempdir().expect("a directory");
    std::fs::write(files.path().join("large"), vec![b'x'; 8 << 20]).expect("a file");
    let server = format!(
        "location / {{ return 200; }} location /large {{ root '{}'; }}\n\
         location /upload {{ proxy_pass http://127.0.0.1:$PORT/; }} client_max_body_size 0;",
        files.path().display()
    );
    let nginx = Nginx::start("access_log off; proxy_buffering off;", &server);
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0', header_timeout: 3s, idle_timeout: 5s }} }}\nupstreams: {{ web: 'http://{}' }}\n\
         routes: [{{ name: all, match: {{ path: /* }}, upstream: web }}]\n",
        nginx.address()
    ));
    let bystander = Bystander::start(10, proxy.web(), Duration::from_millis(20));
    eventually("others are served", || (bystander.answered() > 100).then_some(()));
    let _attack = Attack::start(proxy.web(), arguments);
    within(LIMIT, "the attack is under way", || (open(&proxy) > CONNECTIONS / 2).then_some(()));
    within(LIMIT, "the slow connections are closed", || (open(&proxy) < 50).then_some(()));
    let seconds = std::env::var("TOLLGATE_SLOW_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    std::thread::sleep(Duration::from_secs(seconds.unwrap_or(0)));
    let answered = bystander.stop();
    println!("{answered} others were served");
    assert!(answered > 500, "others were served throughout: {answered}");
}

#[test]
fn heads_that_never_end_are_closed_and_disturb_nobody() {
    withstand("/ -H -i 1");
}

#[test]
fn bodies_that_drip_are_closed_and_disturb_nobody() {
    withstand("/upload -B -i 2 -x 10 -s 100000");
}

#[test]
fn answers_that_are_hardly_read_are_closed_and_disturb_nobody() {
    withstand("/large -X -n 5 -z 5 -w 10 -y 20");
}
