//! What a Redis server does, by its own clock: every command as MONITOR tells it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::eventually;
use super::redis_server::RedisServer;

/// A running MONITOR.
#[derive(Debug)]
pub(crate) struct Monitor {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A SET that a script made.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// Seconds on the server's clock.
    pub(crate) at: f64,
    /// What was stored.
    pub(crate) value: String,
}

/// A script call.
#[derive(Debug)]
pub(crate) struct Call {
    /// Seconds on the server's clock.
    pub(crate) at: f64,
    /// EVALSHA or EVAL.
    pub(crate) command: String,
    /// Its keys.
    pub(crate) keys: Vec<String>,
}

impl Write {
    /// When the bucket whose state this is will be full, in seconds of the clock that decided (the value:
    /// microseconds, and thirds of one).
    pub(crate) fn full_at(&self) -> f64 {
        let (at, thirds) = self.value.split_once(':').unwrap_or((&self.value, "0"));
        (at.parse::<f64>().expect("an instant") + thirds.parse::<f64>().expect("a remainder") / 3.0) / 1e6
    }
}

impl Monitor {
    /// Watches `redis` from now on.
    pub(crate) fn start(redis: &RedisServer) -> Self {
        let port = redis.port().to_string();
        let mut child = Command::new("redis-cli")
            .args(["-p", &port, "MONITOR"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli must be installed (Debian: redis-tools)");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, kept) = (child.stdout.take().expect("piped"), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                kept.lock().expect("the reader lives").push(line);
            }
        });
        let monitor = Self { child, lines };
        eventually("the monitor runs", || monitor.has("OK").then_some(()));
        monitor
    }

    /// Every SET that scripts have made of the key that holds `part`, in order.
    pub(crate) fn writes(&self, redis: &RedisServer, part: &str) -> Vec<Write> {
        redis.cli(&["ECHO", "the monitor has caught up"]);
        eventually("all lines", || self.has("the monitor has caught up").then_some(()));
        let lines = self.lines.lock().expect("the reader lives");
        lines.iter().filter(|line| line.contains(" lua] \"SET\" ")).filter_map(|line| write(line, part)).collect()
    }

    /// Every script call of a client since the start, as it was told; those of probes are left out.
    pub(crate) fn calls(&self, redis: &RedisServer) -> Vec<Call> {
        redis.cli(&["ECHO", "the monitor has caught up with calls"]);
        eventually("all lines", || self.has("the monitor has caught up with calls").then_some(()));
        let lines = self.lines.lock().expect("the reader lives");
        lines
            .iter()
            .filter(|line| line.contains("\"EVAL") && !line.contains("~probe"))
            .filter_map(|line| call(line))
            .collect()
    }

    fn has(&self, text: &str) -> bool {
        self.lines.lock().expect("the reader lives").iter().any(|line| line.contains(text))
    }
}

/// `1700000000.000001 [0 127.0.0.1:50000] "EVALSHA" "…" "1" "key" …`
fn call(line: &str) -> Option<Call> {
    let at = line.split(' ').next()?.parse().ok()?;
    let words: Vec<_> = line.split('"').skip(1).step_by(2).collect();
    let command = words.first()?.to_string();
    // A text holds quotes of its own, so its keys are looked for by their form.
    let keys = words.iter().filter(|word| word.starts_with("tollgate:{")).map(ToString::to_string).collect();
    Some(Call { at, command, keys })
}

/// `1700000000.000001 [0 lua] "SET" "key" "value" "PXAT" "…"`
fn write(line: &str, part: &str) -> Option<Write> {
    let at = line.split(' ').next()?.parse().ok()?;
    let mut words = line.split('"').skip(1).step_by(2);
    let value = words.find(|word| word.contains(part)).and_then(|_| words.next())?;
    Some(Write { at, value: value.to_owned() })
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
