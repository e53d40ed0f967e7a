//! A new process takes the place of a running one: no connection is refused or reset, and where it cannot start
//! nothing happens.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::client::{self, Client, Request};
use crate::support::key_server::{Behaviour, KeyServer};
use crate::support::load::Load;
use crate::support::tokens::{Issuer, key_set, now};
use crate::support::tollgate::{Finished, Tollgate, field, finish, program, signal};
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

/// A proxy whose program stands in a directory of its own, with every process that follows it.
struct Line {
    first: Tollgate,
    program: PathBuf,
    /// The process that serves now, once it is another.
    successor: Option<u32>,
}

impl Line {
    fn start(yaml: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tollgate");
        std::fs::copy(program().get_program(), &path).expect("copied");
        let config = directory.path().join("proxy.yaml");
        std::fs::write(&config, yaml).expect("written");
        let mut command = Command::new(&path);
        command.args(["run", "--log-format", "json", "-c"]).arg(&config);
        command.env_remove("TOLLGATE_CONFIG").env_remove("TOLLGATE_ADMIN_TOKEN");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let first = Tollgate::spawn(command, directory);
        first.wait_until_ready();
        Self { first, program: path, successor: None }
    }

    fn configure(&self, yaml: &str) {
        std::fs::write(self.first.config_path(), yaml).expect("written");
    }

    fn pid(&self) -> u32 {
        self.successor.unwrap_or_else(|| self.first.pid())
    }

    fn ask(&self) -> Finished {
        finish(program().args(["upgrade", "--admin", &self.first.admin().to_string()]), "")
    }

    /// Has the next one take over.
    #[track_caller]
    fn upgrade(&mut self) -> u32 {
        let told = self.ask();
        assert_eq!(told.code, Some(0), "{}{}", told.errors, self.first.log().join("\n"));
        let pid = told.output.strip_prefix("process ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        self.successor = pid;
        pid.expect("the number of a process")
    }

    /// Waits until the process that was started first is gone, and how it ended.
    fn first_ended(&mut self) -> Option<i32> {
        self.first.wait()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(pid) = self.successor.filter(|pid| is_alive(*pid)) else { return };
        signal(pid, "TERM");
        within(Duration::from_secs(40), "the last process ends", || (!is_alive(pid)).then_some(()));
    }
}

/// Whether a process runs; not one that has ended and nobody has asked how.
fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn echo(more: &str) -> String {
    format!("listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nadmin: {{ address: 127.0.0.1:0 }}\n{more}")
}

/// The number of upgrades; 100 in the long form.
fn times() -> usize {
    std::env::var("TOLLGATE_UPGRADES").ok().and_then(|times| times.parse().ok()).unwrap_or(6)
}

#[test]
fn no_connection_is_refused_or_reset_while_processes_follow_each_other() {
    let mut line = Line::start(&echo(""));
    let web = line.first.web();
    // Five hundred connections a second, as far as the machine lets them, and some that are kept.
    let once = Request::get("/").header("connection", "close");
    let opening = Load::start(vec![(web, once); 12], Duration::from_millis(19));
    let keeping = Load::start(vec![(web, Request::get("/kept")); 4], Duration::from_millis(5));
    let mut seen = vec![line.pid()];
    for _ in 0..times() {
        let (opened, kept) = (opening.answered(), keeping.answered());
        seen.push(line.upgrade());
        eventually("requests by the new one", || {
            (opening.answered() > opened + 50 && keeping.answered() > kept + 50).then_some(())
        });
    }
    let (opened, kept) = (opening.stop(), keeping.stop());
    let failed: Vec<_> = opened.iter().chain(&kept).filter(|sample| sample.status() != 200).collect();
    println!("{} upgrades, {} connections, {} requests on kept ones", times(), opened.len(), kept.len());
    assert!(failed.is_empty(), "{} failed, as {:?}", failed.len(), failed.first());
    seen.dedup();
    assert_eq!(seen.len(), times() + 1, "every time another process");
    assert_eq!(line.first_ended(), Some(0));
}

#[test]
fn the_program_that_is_installed_by_then_takes_over_with_the_same_arguments() {
    let mut line = Line::start(&echo(""));
    // As a package manager does: another file under the old name.
    let next = line.program.with_extension("next");
    std::fs::copy(program().get_program(), &next).expect("copied");
    std::fs::rename(&next, &line.program).expect("replaced");
    let before = arguments(line.pid());
    let pid = line.upgrade();
    let running = std::fs::metadata(format!("/proc/{pid}/exe")).expect("it runs");
    assert_eq!(running.ino(), std::fs::metadata(&line.program).expect("a file").ino());
    assert_eq!(arguments(pid), before);
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/fd/0")).expect("an input"), Path::new("/dev/null"));
    assert_eq!(line.first.get("/").status, 200);
    assert_eq!(line.first_ended(), Some(0));
}

fn arguments(pid: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).expect("it runs")
}

#[test]
fn a_new_process_that_cannot_start_is_told_of_and_changes_nothing() {
    let good = echo("");
    let mut line = Line::start(&good);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let elsewhere = taken.local_addr().expect("an address");
    let away = line.program.with_extension("away");
    for (what, expected) in [
        ("mistake", "did you mean `workers`?"),
        ("port", "already in use by another process"),
        ("program", "No such file or directory"),
    ] {
        match what {
            "mistake" => line.configure(&good.replace("workers", "worker")),
            "port" => line.configure(&good.replace("listen: 127.0.0.1:0", &format!("listen: {elsewhere}"))),
            _ => {
                line.configure(&good);
                std::fs::rename(&line.program, &away).expect("moved");
            }
        }
        let told = line.ask();
        assert_eq!(told.code, Some(1), "{}", told.output);
        assert!(told.errors.starts_with("error: not upgraded, what ran before goes on\n"), "{}", told.errors);
        assert!(told.errors.contains(expected), "{what}: {}", told.errors);
        assert!(is_alive(line.first.pid()));
        assert_eq!(line.first.get("/").status, 200, "{what}");
    }
    std::fs::rename(&away, &line.program).expect("moved back");
    line.upgrade();
    assert_eq!(line.first.get("/").status, 200);
    assert_eq!(line.first_ended(), Some(0));
}

#[test]
fn what_has_begun_ends_in_the_process_in_which_it_began() {
    let (go, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::answering(move |peer, request| {
        if request.line.contains("/slow") {
            let _ = told.lock().expect("one").recv_timeout(Duration::from_secs(30));
        }
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let mut line = Line::start(&echo("").replace("echo", &upstream.url()));
    let mut slow = line.first.client();
    slow.write(&Request::get("/slow").bytes()).expect("sent");
    eventually("the upstream", || upstream.seen().iter().any(|request| request.line.contains("/slow")).then_some(()));
    let mut kept = line.first.client();
    assert_eq!(kept.get("/").header("connection"), None);
    line.upgrade();
    assert_eq!(line.first.get("/").status, 200, "the new one serves");
    assert_eq!(kept.get("/").header("connection"), Some("close"), "the old one says goodbye");
    assert!(is_alive(line.first.pid()), "it waits for its request");
    go.send(()).expect("told");
    let answer = slow.answer_to("GET").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    assert_eq!(line.first_ended(), Some(0));
}

#[test]
fn a_new_process_may_have_other_workers_and_listeners_and_keeps_what_stays() {
    let sockets = tempfile::tempdir().expect("a directory");
    let (stays, goes) = (sockets.path().join("stays.sock"), sockets.path().join("goes.sock"));
    let listener = |path: &Path, mode: &str| format!("{{ address: 'unix:{}', mode: '{mode}' }}", path.display());
    let yaml = |workers: usize, listeners: &str| {
        format!(
            "workers: {workers}\nadmin: {{ address: 127.0.0.1:0 }}\nupstream: echo\n\
             listeners: {{ default: 127.0.0.1:0, {listeners} }}\n"
        )
    };
    let both = format!("stays: {}, goes: {}", listener(&stays, "0600"), listener(&goes, "0600"));
    let mut line = Line::start(&yaml(1, &both));
    let file = std::fs::metadata(&stays).expect("a file").ino();
    line.configure(&yaml(3, &format!("stays: {}", listener(&stays, "0660"))));
    let pid = line.upgrade();
    assert_eq!(line.first_ended(), Some(0));
    let metadata = std::fs::metadata(&stays).expect("still a file");
    assert_eq!((metadata.ino(), metadata.permissions().mode() & 0o777), (file, 0o660));
    assert!(!goes.exists(), "its listener is gone");
    let stream = UnixStream::connect(&stays).expect("connected");
    let mut by_file = Client::over(line.first.web(), stream);
    assert_eq!(by_file.ask(&Request::get("/")).expect("an answer").status, 200);
    for _ in 0..20 {
        assert_eq!(line.first.get("/").status, 200, "each socket has a worker");
    }
    let overview = client::get(line.first.admin(), "/api/v1/overview").json();
    assert_eq!(overview["workers"], 3);
    // Back to fewer workers than there are sockets.
    line.configure(&yaml(1, &format!("stays: {}", listener(&stays, "0660"))));
    let last = line.upgrade();
    within(Duration::from_secs(40), "the second one ends", || (!is_alive(pid)).then_some(()));
    for _ in 0..20 {
        assert_eq!(line.first.get("/").status, 200, "each socket has a worker");
    }
    signal(last, "TERM");
    eventually("it takes its file along", || (!stays.exists()).then_some(()));
}

#[test]
fn a_socket_that_systemd_opened_is_passed_on() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("proxy.yaml");
    // By its name alone: nobody could bind this address.
    let yaml = "listeners: { web: '127.0.0.1:1' }\nadmin: { address: 127.0.0.1:0 }\nupstream: echo\n";
    std::fs::write(&config, yaml).expect("written");
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\""])
        .arg(program().get_program())
        .args(["run", "--log-format", "json", "-c"])
        .arg(&config)
        .envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "web")])
        .stdin(std::os::fd::OwnedFd::from(socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let first = Tollgate::spawn(command, directory);
    first.wait_until_ready();
    let program = PathBuf::from(program().get_program());
    let mut line = Line { first, program, successor: None };
    line.upgrade();
    assert_eq!(line.first_ended(), Some(0));
    assert_eq!(client::get(address, "/").status, 200);
}

#[test]
fn a_signal_upgrades_and_an_end_while_the_new_one_starts_is_the_end_of_both() {
    let mut line = Line::start(&echo(""));
    line.first.signal("USR2");
    let told = line.first.wait_for_log("who took over", |told| field(told, "message").contains("has taken over"));
    line.successor = field(&told, "pid").parse().ok();
    assert_eq!(line.first_ended(), Some(0));
    assert_eq!(line.first.get("/").status, 200);
    drop(line);

    let line = Line::start(&echo(""));
    std::fs::rename(&line.program, line.program.with_extension("away")).expect("moved");
    std::fs::write(&line.program, "#!/bin/sh\nexec sleep 600\n").expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&line.program, mode).expect("a program");
    line.first.signal("USR2");
    let starts = |told: &serde_json::Value| field(told, "message").contains("another process starts");
    let told = line.first.wait_for_log("that one starts", starts);
    let pid = field(&told, "pid").parse().expect("a number");
    line.first.signal("USR2");
    line.first.wait_for_log("one is enough", |told| field(told, "message").contains("is starting already"));
    assert_eq!(line.first.get("/").status, 200, "it serves meanwhile");
    let mut line = line;
    line.first.signal("TERM");
    assert_eq!(line.first_ended(), Some(0));
    eventually("nobody is left", || (!is_alive(pid)).then_some(()));
}

#[test]
fn what_nobody_can_read_again_and_what_nobody_hands_over_is_said() {
    let mut command = program();
    command.args(["run", "--log-format", "json", "-c", "-"]).stdin(Stdio::piped());
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("proxy.yaml"), echo("")).expect("written");
    let input = std::fs::File::open(directory.path().join("proxy.yaml")).expect("a file");
    command.stdin(input);
    let proxy = Tollgate::spawn(command, directory);
    proxy.wait_until_ready();
    let told = finish(program().args(["upgrade", "--admin", &proxy.admin().to_string()]), "");
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("came through a pipe"), "{}", told.errors);
    assert_eq!(proxy.get("/").status, 200);

    let mut alone = program();
    let told = finish(alone.args(["run", "--to", "echo", "--from", "127.0.0.1:0"]).env("TOLLGATE_HANDOVER", "x"), "");
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("unset it"), "{}", told.errors);
}

/// Each of a listener's files is as it was, and whoever serves it.
#[test]
fn a_refused_upgrade_leaves_socket_files_alone_and_nobody_elses_file_is_touched() {
    let sockets = tempfile::tempdir().expect("a directory");
    let path = sockets.path().join("s.sock");
    let yaml = |mode: &str, more: &str| {
        format!(
            "workers: 2\nadmin: {{ address: 127.0.0.1:0 }}\nupstream: echo\n\
             listeners: {{ default: 127.0.0.1:0, s: {{ address: 'unix:{}', mode: '{mode}' }}{more} }}\n",
            path.display()
        )
    };
    let mut line = Line::start(&yaml("0600", ""));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (file, other) = (|| std::fs::metadata(&path).expect("a file"), taken.local_addr().expect("an address"));
    let before = file().ino();
    line.configure(&yaml("0666", &format!(", taken: '{other}'")));
    assert_eq!(line.ask().code, Some(1));
    assert_eq!((file().ino(), file().permissions().mode() & 0o777), (before, 0o600));
    let ask = || Client::over(line.first.web(), UnixStream::connect(&path)?).ask(&Request::get("/"));
    assert_eq!(ask().expect("an answer").status, 200);
    // Somebody else listens there by now: that is neither taken over nor removed.
    std::fs::remove_file(&path).expect("removed");
    let stranger = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let theirs = (file().ino(), file().permissions().mode());
    line.configure(&yaml("0600", ""));
    let told = line.ask();
    assert!(told.code == Some(1) && told.errors.contains("another process listens there"), "{}", told.errors);
    assert_eq!((file().ino(), file().permissions().mode()), theirs);
    drop(stranger);
    line.upgrade();
    assert_eq!(line.first_ended(), Some(0));
    assert!(path.exists(), "the new one's");
}

/// Where the source of keys or names is away the process that knows them goes on.
#[test]
fn a_new_process_that_does_not_learn_what_the_old_one_knows_is_refused() {
    let issuer = Issuer::new("RS256", Some("one"));
    let set = key_set(&[&issuer]);
    let keys = KeyServer::start(&set);
    let token = issuer.token(&json!({ "sub": "ann", "exp": now() + 600 }));
    let yaml = echo(&format!(
        "jwt: {{ jwks_url: '{}' }}\nlimits: [{{ name: users, key: 'jwt:sub', missing: deny, rate: 100/s }}]\n",
        keys.url()
    ));
    let mut line = Line::start(&yaml);
    let request = Request::get("/").header("authorization", &format!("Bearer {token}"));
    let status = |line: &Line| line.first.client().send(&request).status;
    eventually("the keys are there", || (status(&line) == 200).then_some(()));
    keys.become_(Behaviour::Status(503, set.clone()));
    let told = line.ask();
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("has not learned") && told.errors.contains("keys of tokens"), "{}", told.errors);
    assert_eq!(status(&line), 200);
    keys.become_(Behaviour::Body(set));
    let load = Load::start(vec![(line.first.web(), request.clone()); 2], Duration::from_millis(5));
    line.upgrade();
    let failed = load.run_for(Duration::from_millis(300)).iter().filter(|sample| sample.status() != 200).count();
    assert_eq!(failed, 0, "nobody met a process without keys");
    assert_eq!(line.first_ended(), Some(0));
}

#[test]
fn the_first_signal_after_a_handover_cuts_nothing_and_the_second_does() {
    let upstream = Upstream::answering(|peer, request| {
        if request.line.contains("/slow") {
            std::thread::sleep(Duration::from_secs(2));
        }
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let mut line = Line::start(&echo("").replace("echo", &upstream.url()));
    let mut slow = line.first.client();
    slow.write(&Request::get("/slow").bytes()).expect("sent");
    eventually("the upstream", || upstream.seen().iter().any(|request| request.line.contains("/slow")).then_some(()));
    line.upgrade();
    line.first.signal("TERM");
    line.first.wait_for_log("it is heard", |told| field(told, "message").contains("may still finish"));
    assert_eq!(slow.answer_to("GET").expect("an answer").status, 200);
    assert_eq!(line.first_ended(), Some(0));
}

#[test]
fn health_checks_are_told_the_truth_while_a_process_hands_over() {
    let mut line = Line::start(&echo(""));
    let admin = line.first.admin();
    let ready = Request::get("/readyz").header("connection", "close");
    let fresh = Load::start(vec![(admin, ready); 2], Duration::from_millis(3));
    let kept = Load::start(vec![(admin, Request::get("/readyz")); 2], Duration::from_millis(40));
    for _ in 0..5 {
        line.upgrade();
    }
    for samples in [fresh.stop(), kept.stop()] {
        let failed: Vec<_> = samples.iter().filter(|sample| sample.status() != 200).collect();
        assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), samples.len(), failed.first());
    }
}

#[test]
fn a_program_that_does_not_know_what_it_is_given_gets_no_socket() {
    let mut line = Line::start(&echo(""));
    let web = line.first.web();
    std::fs::rename(&line.program, line.program.with_extension("away")).expect("moved");
    // The one that keeps what it was given is not the one that is ended.
    std::fs::write(&line.program, "#!/bin/sh\nsleep 5\n:\n").expect("written");
    std::fs::set_permissions(&line.program, std::fs::Permissions::from_mode(0o755)).expect("a program");
    line.first.signal("USR2");
    line.first.wait_for_log("that one starts", |told| field(told, "message").contains("another process starts"));
    line.first.signal("TERM");
    assert_eq!(line.first_ended(), Some(0));
    let refused = std::net::TcpStream::connect(web).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_is_no_json_is_refused_and_what_is_done_is_told_although_its_client_left() {
    let mut line = Line::start(&echo(""));
    let post =
        |body: &str| Request::new("POST", "/api/v1/upgrade").header("content-type", "application/json").body(body);
    let refused = Client::connect(line.first.admin()).send(&post("{bad"));
    assert_eq!((refused.status, refused.header("content-type")), (400, Some("application/problem+json")));
    let mut leaves = Client::connect(line.first.admin());
    leaves.write(&post("").bytes()).expect("sent");
    line.first.wait_for_log("it begins", |told| field(told, "message").contains("another process starts"));
    drop(leaves);
    let told = line.first.wait_for_log("what was done", |told| field(told, "message") == "upgrade asked for");
    assert_eq!(field(&told, "client"), "127.0.0.1");
    line.successor = field(&told, "detail").strip_prefix("process ").and_then(|pid| pid.parse().ok());
    assert_eq!(line.first_ended(), Some(0));
}
