//! Starting, answering the first requests, and ending.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::client::Request;
use crate::support::load::{KEPT, Load};
use crate::support::port::Port;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{Tollgate, program, repository, tollgate};
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

/// The repository's own configuration, on a port that the system chooses.
fn first_configuration() -> String {
    let text = std::fs::read_to_string(repository().join("proxy.yaml")).expect("the repository has a proxy.yaml");
    let lines = text.lines().map(|line| if line.starts_with("listen:") { "listen: 127.0.0.1:0" } else { line });
    lines.filter(|line| !line.starts_with("admin:")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_first_configuration_admits_ten_of_twelve_and_then_says_when() {
    let proxy = Tollgate::start(&first_configuration());
    let answers: Vec<_> = (0..12).map(|_| proxy.get("/hello")).collect();
    let admitted = answers.iter().take_while(|answer| answer.status == 200).count();
    assert!((10..=11).contains(&admitted), "ten at once, and at most one more while they were sent: {admitted}");
    for answer in &answers[..admitted] {
        assert!(answer.list("ratelimit-policy").contains("q=10;w=10"), "{:?}", answer.headers);
        assert!(answer.list("ratelimit").contains("r="), "{:?}", answer.headers);
        assert!(answer.text().contains("/hello"), "echo answers with the request: {}", answer.text());
    }
    let denied = &answers[admitted];
    assert_eq!(denied.status, 429);
    assert_eq!(denied.retry_after(), 1);
    std::thread::sleep(Duration::from_secs(denied.retry_after()));
    assert_eq!(proxy.get("/hello").status, 200, "after exactly Retry-After the request is admitted");
    assert_eq!(proxy.stop(), Some(0));
}

#[test]
fn the_start_tells_a_newcomer_what_to_try() {
    let proxy = Tollgate::start(&first_configuration());
    let port = proxy.web().port();
    eventually("a curl line with the real port", || {
        proxy.log().iter().any(|line| line.contains("curl") && line.contains(&port.to_string())).then_some(())
    });
}

#[test]
fn an_address_in_use_is_said_in_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let yaml = format!("listen: {address}\nupstream: echo\n");
    let mut proxy = Tollgate::launch(&yaml);
    assert_eq!(proxy.wait(), Some(1));
    let log = eventually("the reason", || Some(proxy.log().join("\n")).filter(|log| log.contains(&address)));
    assert!(log.contains("cannot listen on") && log.contains("in use"), "{log}");
}

#[test]
fn the_reason_why_it_does_not_start_is_told_once() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let finished = tollgate(&["run", "--from", &address, "--to", "echo"]);
    assert_eq!(finished.code, Some(1));
    assert_eq!(finished.errors.matches("in use").count(), 1, "{}", finished.errors);
    assert!(finished.errors.contains("choose another port"), "{}", finished.errors);
    let finished = tollgate(&["run", "--from", "127.0.0.1:0", "--to", "echo", "--log", "verbose"]);
    assert_eq!(finished.code, Some(1), "a word that is no level would silence the log");
    assert!(finished.errors.contains("`verbose` is not a log filter"), "{}", finished.errors);
}

/// Started by a shell that lets it open only so many files.
fn with_open_files(limit: &str) -> Tollgate {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("proxy.yaml");
    std::fs::write(&file, "listen: 127.0.0.1:0\nupstream: echo\nadmin: { address: 127.0.0.1:0 }\n").expect("written");
    let program = program();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limit} && exec \"$0\" \"$@\"")).arg(program.get_program());
    command.args(["run", "--log-format", "json", "-c"]).arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Tollgate::spawn(command, directory)
}

#[test]
fn a_low_soft_limit_on_open_files_is_raised() {
    let proxy = with_open_files("ulimit -S -n 64");
    let mut clients: Vec<_> = (0..100).map(|_| proxy.client()).collect();
    let served = clients.iter_mut().filter_map(|client| client.exchange(&Request::get("/")).ok());
    assert_eq!(served.filter(|answer| answer.status == 200).count(), 100);
}

#[test]
fn a_limit_on_open_files_that_cannot_hold_all_connections_is_a_warning() {
    let proxy = with_open_files("ulimit -n 128");
    proxy.wait_for_log("the limit", |line| line["level"] == "WARN" && line["limit"] == 128);
}

#[test]
fn a_named_file_that_is_missing_is_said_in_one_sentence() {
    let finished = tollgate(&["run", "-c", "/nonexistent/proxy.yaml"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.errors.contains("/nonexistent/proxy.yaml"), "{}", finished.errors);
    assert_eq!(finished.errors.trim().lines().count(), 1, "one sentence: {}", finished.errors);
}

#[test]
fn a_configuration_error_shows_file_line_column_and_cure() {
    let mut proxy = Tollgate::launch("listen: 127.0.0.1:0\nupstraem: echo\n");
    assert_eq!(proxy.wait(), Some(1));
    let log = eventually("the frame", || Some(proxy.log().join("\n")).filter(|log| log.contains("upstraem")));
    let place = format!("{}:2:1", proxy.config_path().display());
    assert!(log.contains(&place), "file, line and column: {log}");
    assert!(log.contains("`upstream`"), "the cure: {log}");
}

#[test]
fn redis_away_at_start_is_not_fatal_and_its_return_makes_limiting_exact() {
    let mut redis = RedisServer::not_started();
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstream: echo\nlimits:\n  - {{ name: few, key: client_ip, rate: 3/h }}\n\
         store:\n  redis: {{ url: '{}', timeout: 1s }}\n  on_store_error: allow\n",
        redis.url()
    );
    let proxy = Tollgate::start(&yaml);
    for _ in 0..6 {
        assert_eq!(proxy.get("/").status, 200, "allowed while there is no store");
    }
    let metrics = proxy.metrics();
    assert_eq!(metrics.count("tollgate_store_up", &[]), 0);
    assert_eq!(metrics.count("tollgate_limit_decisions_total", &[("limit", "few"), ("decision", "error_allow")]), 6);
    let warning = proxy.wait_for_log("the store is away", |line| {
        line["level"] == "WARN" && line.to_string().to_lowercase().contains("redis")
    });
    assert!(!warning.to_string().contains('\n'));

    redis.restart();
    within(Duration::from_secs(5), "the store is up", || {
        (proxy.metrics().count("tollgate_store_up", &[]) == 1).then_some(())
    });
    let statuses: Vec<_> = (0..6).map(|_| proxy.get("/").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
}

#[test]
fn a_request_in_flight_is_finished_when_the_process_is_asked_to_end() {
    let upstream = Upstream::answering(|peer, _| {
        std::thread::sleep(Duration::from_millis(1_500));
        peer.answer("late")
    });
    let yaml = format!("listen: 127.0.0.1:0\nupstream: {}\nshutdown: {{ delay: 0s, grace: 10s }}\n", upstream.url());
    let mut proxy = Tollgate::start(&yaml);
    let mut client = proxy.client();
    client.write(&Request::get("/").bytes()).expect("sent");
    eventually("the request is upstream", || (upstream.seen().len() == 1).then_some(()));
    proxy.signal("TERM");
    let answer = client.answer_to("GET").expect("the answer comes all the same");
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn what_lasts_longer_than_the_grace_is_cut() {
    let upstream = Upstream::answering(|peer, _| {
        std::thread::sleep(Duration::from_secs(12));
        peer.answer("too late")
    });
    let yaml = format!("listen: 127.0.0.1:0\nupstream: {}\nshutdown: {{ delay: 0s, grace: 1s }}\n", upstream.url());
    let mut proxy = Tollgate::start(&yaml);
    let mut client = proxy.client();
    client.write(&Request::get("/").bytes()).expect("sent");
    eventually("the request is upstream", || (upstream.seen().len() == 1).then_some(()));
    let begun = std::time::Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "cut after the grace, not after the upstream");
}

#[test]
fn readiness_fails_and_requests_still_pass_during_the_shutdown_delay() {
    let mut proxy = Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\nshutdown: { delay: 2s, grace: 1s }\n");
    let (admin, web) = (proxy.admin(), proxy.web());
    let ready = |address| crate::support::client::get(address, "/readyz").status;
    assert_eq!(ready(admin), 200);
    proxy.signal("TERM");
    within(Duration::from_millis(1_500), "readiness fails", || (ready(admin) == 503).then_some(()));
    assert_eq!(crate::support::client::get(web, "/").status, 200);
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn ending_under_load_loses_no_request() {
    let yaml = "listen: 127.0.0.1:0\nupstream: echo\nshutdown: { delay: 0s, grace: 10s }\n";
    let mut proxy = Tollgate::start(yaml);
    let load = Load::start(vec![(proxy.web(), Request::get("/")); 8], Duration::from_millis(2));
    eventually("traffic", || (load.answered() > 100).then_some(()));
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), Some(0));
    let samples = load.stop();
    let cut = samples.iter().filter_map(|sample| sample.outcome.as_ref().err());
    // A new connection may come too late; one that was kept open must end with an answer that says so.
    let late = |error: &str| !error.starts_with(KEPT) && (error.contains("refused") || error.contains("reset"));
    let cut: Vec<_> = cut.filter(|error| !late(error)).collect();
    assert!(cut.is_empty(), "no answer is cut short: {cut:?}");
    assert!(samples.iter().all(|sample| matches!(sample.status(), 0 | 200)));
}

#[test]
fn the_limits_state_is_shared_by_all_workers_of_the_memory_store() {
    let yaml = "listen: 127.0.0.1:0\nworkers: 4\nupstream: echo\nlimits: [{ key: global, rate: 5/h }]\n";
    let proxy = Tollgate::start(yaml);
    let statuses: Vec<_> = (0..40).map(|_| proxy.get("/").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5);
}

#[test]
fn a_configuration_from_standard_input_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = crate::support::tollgate::program();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(b"listen: 127.0.0.1:0\nupstream: echo\nadmin: { address: 127.0.0.1:0 }\n").expect("written");
    drop(writer);
    command.args(["run", "-c", "-", "--log-format", "json"]).stdin(reader);
    let proxy = Tollgate::spawn(command, directory);
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn a_second_signal_ends_at_once_and_a_hangup_does_not() {
    let upstream = Upstream::answering(|peer, _| {
        std::thread::sleep(Duration::from_secs(20));
        peer.answer("too late")
    });
    let yaml = format!("listen: 127.0.0.1:0\nupstream: {}\nshutdown: {{ delay: 0s, grace: 30s }}\n", upstream.url());
    let mut proxy = Tollgate::start(&yaml);
    let mut client = proxy.client();
    client.write(&Request::get("/").bytes()).expect("sent");
    eventually("the request is upstream", || (upstream.seen().len() == 1).then_some(()));
    proxy.signal("HUP");
    proxy.wait_for_log("the hangup", |line| line["message"] == "configuration is unchanged, nothing to reload");
    proxy.signal("TERM");
    proxy.wait_for_log("the drain", |line| line["message"] == "draining");
    let begun = std::time::Instant::now();
    eventually("the end", || {
        proxy.signal("INT");
        proxy.log().iter().any(|line| line.contains("second signal")).then_some(())
    });
    assert_eq!(proxy.wait(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_signal_that_arrives_twice_at_once_still_drains() {
    let upstream = Upstream::answering(|peer, _| {
        std::thread::sleep(Duration::from_secs(1));
        peer.answer("in time")
    });
    let yaml = format!("listen: 127.0.0.1:0\nupstream: {}\nshutdown: {{ delay: 0s, grace: 30s }}\n", upstream.url());
    let mut proxy = Tollgate::start(&yaml);
    let mut client = proxy.client();
    client.write(&Request::get("/").bytes()).expect("sent");
    eventually("the request is upstream", || (upstream.seen().len() == 1).then_some(()));
    proxy.signal("TERM");
    proxy.signal("INT");
    assert_eq!(client.answer_to("GET").expect("an answer").text(), "in time");
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn a_closed_log_and_a_closed_access_log_stop_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("proxy.yaml");
    let (admin, web) = (Port::take(), Port::take());
    let yaml = format!(
        "listen: 127.0.0.1:{}\nupstream: echo\naccess_log: {{ format: json }}\nadmin: {{ address: 127.0.0.1:{} }}\n",
        web.number(),
        admin.number()
    );
    std::fs::write(&path, yaml).expect("written");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = crate::support::tollgate::program();
    command.args(["run", "--log-format", "json", "-c"]).arg(&path);
    command.stdout(writer.try_clone().expect("cloned")).stderr(writer);
    let mut child = command.spawn().expect("started");
    let get = |port: &Port, target| {
        let port = port.number();
        let mut client = crate::support::client::Client::open(([127, 0, 0, 1], port).into()).ok()?;
        client.exchange(&Request::get(target).host(&format!("127.0.0.1:{port}"))).ok()
    };
    eventually("it listens", || get(&web, "/"));
    let dropped = eventually("lost lines are counted", || {
        let metrics = crate::support::metrics::Metrics::parse(&get(&admin, "/metrics")?.text());
        Some(metrics.count("tollgate_log_dropped_total", &[("log", "access")])).filter(|&lines| lines > 0)
    });
    let still = get(&web, "/").map(|answer| answer.status);
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!((dropped, still), (1, Some(200)));
}

/// As systemd does it (`sd_listen_fds(3)`): a listening socket as descriptor 3, with a name.
#[test]
fn a_socket_that_was_opened_before_is_used_by_its_name_or_its_address() {
    for (name, is_named) in [("web", true), ("tollgate.socket", false)] {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("proxy.yaml");
        let configured = if is_named { "127.0.0.1:1".to_owned() } else { address.to_string() };
        let yaml = format!(
            "listeners: {{ web: '{configured}', other: '127.0.0.1:0' }}\nworkers: 3\nadmin: {{ address: 127.0.0.1:0 }}\n\
             routes: [{{ name: all, upstream: echo }}]\n"
        );
        std::fs::write(&config, yaml).expect("written");
        // A connection that came before the program did.
        let early = std::thread::spawn(move || crate::support::client::get(address, "/early").status);
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec 3<&0 0</dev/null; exec \"$0\" \"$@\""])
            .arg(program().get_program())
            .args(["run", "--log-format", "json", "-c"])
            .arg(&config)
            .envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", name)])
            .stdin(std::os::fd::OwnedFd::from(socket))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let proxy = Tollgate::spawn(command, directory);
        assert_eq!(proxy.address("web"), address);
        assert_eq!(early.join().expect("an answer"), 200);
        (0..20).for_each(|_| assert_eq!(crate::support::client::get(address, "/").status, 200));
        assert_eq!(crate::support::client::get(proxy.address("other"), "/").status, 200);
        assert!(!proxy.log().iter().any(|line| line.contains("systemd has opened")), "it was taken");
    }
}
