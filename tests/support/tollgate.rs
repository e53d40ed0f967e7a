//! The program under test: the real binary with a configuration of its own, its logs readable while
//! it runs, ended with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{self, Answer, Client, Request};
use super::metrics::Metrics;
use super::{PATIENCE, eventually};

/// Lines that a thread reads from a pipe.
pub(crate) type Lines = Arc<Mutex<Vec<String>>>;

/// A running `tollgate run`.
pub(crate) struct Tollgate {
    child: Child,
    directory: tempfile::TempDir,
    log: Lines,
    output: Lines,
}

/// What a command that ends by itself left behind.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// The program, with an environment that no other configuration leaks into.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_remove("TOLLGATE_CONFIG").env_remove("TOLLGATE_ADMIN_TOKEN").env_remove("NO_COLOR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command that ends by itself; `input` is its standard input.
pub(crate) fn finish(command: &mut Command, input: &str) -> Finished {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program starts");
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let (output, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = wait_for_exit(&mut child, PATIENCE);
    let text = |thread: std::thread::JoinHandle<String>| thread.join().expect("the reader ends");
    Finished { code: status.code(), output: text(output), errors: text(errors) }
}

/// Runs `tollgate` with these arguments to its end.
pub(crate) fn tollgate(arguments: &[&str]) -> Finished {
    finish(program().args(arguments), "")
}

/// Waits for the end of a process; kills it when that takes too long, and fails.
#[track_caller]
fn wait_for_exit(child: &mut Child, limit: Duration) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the process can be waited for") {
            return status;
        }
        if begun.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the process did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Tollgate {
    /// Starts the program with this configuration and waits until it listens. Without an `admin:`
    /// of its own, the configuration gets one on a port that the system chooses.
    #[track_caller]
    pub(crate) fn start(yaml: &str) -> Self {
        let started = Self::launch(yaml);
        started.wait_until_ready();
        started
    }

    /// [`Tollgate::start`] with these variables in the program's environment.
    #[track_caller]
    pub(crate) fn start_with(yaml: &str, environment: &[(&str, &str)]) -> Self {
        let started = Self::launch_with(yaml, environment);
        started.wait_until_ready();
        started
    }

    /// [`Tollgate::start`] without waiting.
    pub(crate) fn launch(yaml: &str) -> Self {
        Self::launch_with(yaml, &[])
    }

    fn launch_with(yaml: &str, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the configuration");
        let path = directory.path().join("proxy.yaml");
        let admin = if yaml.contains("admin:") { "" } else { "\nadmin: { address: 127.0.0.1:0 }\n" };
        std::fs::write(&path, format!("{yaml}{admin}")).expect("the configuration can be written");
        let mut command = program();
        command.arg("run").arg("-c").arg(&path).args(["--log-format", "json"]).envs(environment.iter().copied());
        Self::spawn(command, directory)
    }

    /// Starts a prepared command.
    pub(crate) fn spawn(mut command: Command, directory: tempfile::TempDir) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let (log, output) = (follow(child.stderr.take()), follow(child.stdout.take()));
        Self { child, directory, log, output }
    }

    /// The configuration file it was started with.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.directory.path().join("proxy.yaml")
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where a listener really listens.
    #[track_caller]
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let line = self.wait_for_log(&format!("listening as {listener}"), |line| {
            field(line, "message") == "listening" && field(line, "listener") == listener
        });
        field(&line, "address").parse().expect("the logged address is one")
    }

    /// The first listener of a short configuration.
    #[track_caller]
    pub(crate) fn web(&self) -> SocketAddr {
        self.address("default")
    }

    /// The admin listener.
    #[track_caller]
    pub(crate) fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// A new connection to the `default` listener.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.web())
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.client().get(target)
    }

    /// A scrape of `/metrics`.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = client::get(self.admin(), "/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::parse(&answer.text())
    }

    /// A scrape by somebody who has the token, as text.
    #[track_caller]
    pub(crate) fn scrape(&self, token: &str) -> String {
        let request = Request::get("/metrics").header("authorization", &format!("Bearer {token}"));
        let answer = Client::connect(self.admin()).send(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// The process log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("the reader lives").clone()
    }

    /// The access log (standard output) so far.
    pub(crate) fn output(&self) -> Vec<String> {
        self.output.lock().expect("the reader lives").clone()
    }

    /// Waits for a log line; returns it parsed.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let lines = self.log();
            let found = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).find(|line| wanted(line));
            if let Some(line) = found {
                return line;
            }
            assert!(begun.elapsed() < PATIENCE, "no log line: {what}; the log so far:\n{}", lines.join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it has said that it serves. A warning may be said long before.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        self.wait_for_log("that it is ready", |line| line["message"] == "ready");
    }

    /// Waits until the access log has this many lines; returns them parsed.
    #[track_caller]
    pub(crate) fn access_lines(&self, count: usize) -> Vec<Value> {
        let lines = eventually("access log lines", || Some(self.output()).filter(|lines| lines.len() >= count));
        lines.iter().map(|line| serde_json::from_str(line).expect("an access log line is JSON")).collect()
    }

    /// Sends a signal by name (`TERM`, `STOP`, …).
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Asks it to end and waits; its exit code.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// Waits until it has ended; its exit code.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait_for_exit(&mut self.child, PATIENCE).code()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a VmRSS line");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1024
    }
}

impl Drop for Tollgate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            println!("log of process {}:\n{}", self.child.id(), log.join("\n"));
        } else {
            let panic = log.iter().find(|line| line.contains("panicked"));
            assert!(panic.is_none(), "the program panicked: {panic:?}");
        }
    }
}

/// Sends a signal by name to a process that a test started.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

/// A field of a JSON log line as text, whether nested under `fields` or not; empty when absent.
pub(crate) fn field(line: &Value, name: &str) -> String {
    let value = line.get("fields").and_then(|fields| fields.get(name)).or_else(|| line.get(name));
    value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default()
}

fn follow(pipe: Option<impl Read + Send + 'static>) -> Lines {
    let lines = Lines::default();
    let (pipe, kept) = (pipe.expect("the output is piped"), Arc::clone(&lines));
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            kept.lock().expect("no reader panics").push(line);
        }
    });
    lines
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    let mut pipe = pipe.expect("the output is piped");
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = pipe.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}
