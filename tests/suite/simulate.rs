//! `simulate` and `advise`: access logs replayed on their own clock.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::support::client::Request;
use crate::support::redis_server::RedisServer;
use crate::support::tokens::Issuer;
use crate::support::tollgate::{Finished, Tollgate, finish, program, tollgate};

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).expect("written");
    }
    directory
}

/// Runs `tollgate` in a directory.
fn run(directory: &Path, arguments: &[&str], input: &str) -> Finished {
    finish(program().args(arguments).current_dir(directory), input)
}

#[track_caller]
fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.output).unwrap_or_else(|_| panic!("{}{}", finished.output, finished.errors))
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).expect("compressed");
    encoder.finish().expect("compressed")
}

/// Combined log lines: each a second (from 20:00:00) and a client.
fn combined(requests: &[(u32, &str)]) -> String {
    let mut log = String::new();
    for (second, client) in requests {
        let (minute, second) = (second / 60, second % 60);
        let _ = writeln!(
            log,
            "{client} - - [10/Oct/2025:20:{minute:02}:{second:02} +0000] \"GET /a HTTP/1.1\" 200 1 \"-\" \"x\""
        );
    }
    log
}

/// Three at once, one more each ten seconds.
const THREE: &str = "listen: :8080\nupstream: echo\nlimits: [{ name: three, key: client_ip, rate: 1/10s, burst: 3 }]\n";

/// Five at once: two of them are refused under [`THREE`].
fn five() -> String {
    combined(&[(0, "192.0.2.1"); 5])
}

/// Limits of every kind on one path; the log is on.
const BUSY: &str = r#"
listen: 127.0.0.1:0
workers: 2
trusted_proxies: [127.0.0.0/8]
access_log: { format: json }
routes:
  - name: tenants
    match: { path: "/t/{tenant}/*" }
    upstream: echo
    limits:
      - { name: per-tenant, key: ["path:tenant", method], rate: 40/s, burst: 15, cost: { default: 1, POST: 3 } }
  - { name: rest, match: { path: /* }, upstream: echo }
limits:
  - { name: per-ip, key: client_ip, rate: 30/s, burst: 10 }
  - { name: everybody, key: global, rate: 200/s, burst: 10 }
  - { name: watched, key: client_ip, rate: 5/s, mode: shadow }
"#;

/// 2,000 requests over four connections, spread over these proxies.
fn keep_busy(proxies: &[&Tollgate]) {
    let threads: Vec<_> = (0..4_u64)
        .zip(proxies.iter().cycle())
        .map(|(seed, proxy)| {
            let mut client = proxy.client();
            std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..500 {
                    let path = random.choice(["/t/acme/x", "/t/umbrella/y", "/t/%61cme/z", "//t/acme/./x", "/else"]);
                    let method = if random.u8(0..4) == 0 { "POST" } else { "GET" };
                    let request = Request::new(method, path.expect("one of them"));
                    let client_ip = if random.bool() { 1 } else { random.u8(2..40) };
                    client.send(&request.from(&format!("203.0.113.{client_ip}")));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("500 answers");
    }
}

/// Which lines of an access log were denied, and by which limit.
fn denied(lines: &[Value]) -> Vec<(usize, String)> {
    let denied = lines.iter().enumerate().filter(|(_, line)| line["decision"] == "denied");
    denied.map(|(index, line)| (index + 1, line["limit"].as_str().expect("who denied").to_owned())).collect()
}

/// The same from a file that `--verdicts` has written, for one log.
fn refused(place: &Path, log: &str) -> Vec<(usize, String)> {
    let verdicts = std::fs::read_to_string(place.join("out.tsv")).expect("the verdicts");
    let fields = verdicts.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|fields| fields[1] == log);
    let mut refused: Vec<_> =
        fields.map(|fields| (fields[2].parse().expect("a line number"), fields[3].to_owned())).collect();
    refused.sort();
    refused
}

#[test]
fn refusals_equal_line_by_line_those_that_the_proxy_logged() {
    let proxy = Tollgate::start(BUSY);
    keep_busy(&[&proxy]);
    let lines = proxy.access_lines(2_000);
    assert_eq!(lines.len(), 2_000);
    let config = std::fs::read(proxy.config_path()).expect("the configuration");
    let log = proxy.output().join("\n");
    let place = directory(&[("proxy.yaml", &config), ("access.log", log.as_bytes())]);
    let replayed = run(place.path(), &["simulate", "access.log", "--verdicts", "out.tsv", "--format", "json"], "");
    assert_eq!(replayed.code, Some(0), "{}", replayed.errors);

    let logged = denied(&lines);
    assert_eq!(refused(place.path(), "access.log"), logged);
    for limit in ["per-ip", "per-tenant", "everybody"] {
        let by = logged.iter().filter(|(_, name)| name == limit).count();
        println!("of 2000 requests {limit} refused {by}");
        assert!(by > 20, "{limit} was tried");
    }
    assert!(logged.len() < 1_950, "and some were admitted");
    let report = json(&replayed);
    assert_eq!((&report["as_logged"], &report["different"]), (&2_000.into(), &0.into()), "{report:#}");

    // And the comparison sees a difference where there is one: a changed limit decides otherwise.
    let looser = String::from_utf8(config).expect("text").replace("rate: 30/s, burst: 10", "rate: 30/s, burst: 11");
    std::fs::write(place.path().join("looser.yaml"), looser).expect("written");
    let otherwise =
        run(place.path(), &["simulate", "-c", "looser.yaml", "access.log", "--fail-if", "different > 0"], "");
    assert_eq!(otherwise.code, Some(3), "{}{}", otherwise.output, otherwise.errors);
}

#[test]
fn the_logs_of_two_proxies_on_one_redis_are_one_story() {
    let redis = RedisServer::start();
    let config = format!("{BUSY}store: {{ redis: {{ url: '{}', timeout: 5s }} }}\n", redis.url());
    let proxies = [Tollgate::start(&config), Tollgate::start(&config)];
    keep_busy(&[&proxies[0], &proxies[1]]);
    let lines = [proxies[0].access_lines(1_000), proxies[1].access_lines(1_000)];
    assert!(lines.iter().flatten().all(|line| line["degraded"] == false), "Redis decided everything");
    let logs = proxies.each_ref().map(|proxy| proxy.output().join("\n"));
    let place = directory(&[
        ("proxy.yaml", config.as_bytes()),
        ("one.log", logs[0].as_bytes()),
        ("two.log", logs[1].as_bytes()),
    ]);
    let arguments = ["simulate", "one.log", "two.log", "--verdicts", "out.tsv", "--format", "json"];
    let replayed = run(place.path(), &arguments, "");
    assert_eq!(replayed.code, Some(0), "{}", replayed.errors);
    // A denial that a worker remembered names the limit it remembered, not every one that denies.
    let only_lines = |denied: Vec<(usize, String)>| denied.into_iter().map(|(line, _)| line).collect::<Vec<_>>();
    for (name, lines) in ["one.log", "two.log"].into_iter().zip(&lines) {
        assert_eq!(only_lines(refused(place.path(), name)), only_lines(denied(lines)), "{name}");
    }
    let report = json(&replayed);
    assert_eq!((&report["as_logged"], &report["different"]), (&2_000.into(), &0.into()), "{report:#}");
    let alone = json(&run(place.path(), &["simulate", "one.log", "--format", "json"], ""));
    assert_ne!(alone["different"], 0, "one log alone does not tell the story");
}

#[test]
fn verdicts_are_never_written_over_a_log() {
    let log = five();
    let place = directory(&[("proxy.yaml", THREE.as_bytes()), ("a.log", log.as_bytes())]);
    let refused = run(place.path(), &["simulate", "a.log", "--verdicts", "./a.log"], "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.errors.contains("is a log that is read"), "{}", refused.errors);
    assert_eq!(std::fs::read_to_string(place.path().join("a.log")).expect("the log"), log);
}

/// One call decides many like requests at one instant; their lines come in the order of their ends.
#[test]
fn of_requests_of_one_instant_those_come_first_that_were_admitted() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\naccess_log: {}\nlimits: [{ key: client_ip, rate: 2/h }]\n",
    );
    (0..3).for_each(|_| drop(proxy.get("/")));
    let mut lines = proxy.access_lines(3);
    let instant = lines[0]["decided_at"].clone();
    for line in &mut lines {
        line["decided_at"] = instant.clone();
    }
    lines.rotate_right(1);
    assert_eq!(lines[0]["decision"], "denied");
    let log = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let config = std::fs::read(proxy.config_path()).expect("the configuration");
    let place = directory(&[("proxy.yaml", &config), ("access.log", log.as_bytes())]);
    let report = json(&run(place.path(), &["simulate", "access.log", "--format", "json"], ""));
    assert_eq!((&report["as_logged"], &report["different"]), (&3.into(), &0.into()), "{report:#}");
}

#[test]
fn what_never_reached_a_limit_is_not_counted_again() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nupstream: echo\naccess_log: {}\nlimits: [{ key: client_ip, rate: 1/h }]\n",
    );
    proxy.client().send(&Request::get("/a/..;/b"));
    proxy.client().send(&Request::new("TRACE", "/"));
    proxy.client().send(&Request::get("/"));
    let lines = proxy.access_lines(3);
    let config = std::fs::read(proxy.config_path()).expect("the configuration");
    let place = directory(&[("proxy.yaml", &config), ("access.log", proxy.output().join("\n").as_bytes())]);
    let report = json(&run(place.path(), &["simulate", "access.log", "--format", "json"], ""));
    let requests = (&report["logs"][0]["never_asked"], &report["requests"], &report["limited"]);
    assert_eq!(requests, (&2.into(), &1.into(), &0.into()), "{lines:?}");
}

#[test]
fn a_log_is_read_from_a_file_from_gzip_and_from_standard_input() {
    let log = five();
    let halves = [gzip(&log.as_bytes()[..100]), gzip(&log.as_bytes()[100..])].concat();
    let place = directory(&[
        ("proxy.yaml", THREE.as_bytes()),
        ("a.log", log.as_bytes()),
        ("b.gz", &gzip(log.as_bytes())),
        ("c", &halves),
    ]);
    for (name, input) in [("a.log", ""), ("b.gz", ""), ("c", ""), ("-", log.as_str())] {
        let report = json(&run(place.path(), &["simulate", name, "--format", "json"], input));
        assert_eq!((&report["requests"], &report["limited"]), (&5.into(), &2.into()), "{name}: {report:#}");
    }
}

#[test]
fn the_report_says_what_a_person_wants_to_know() {
    let log = [five(), "garbage\n".to_owned(), combined(&[(30, "192.0.2.1"), (30, "192.0.2.2")])].concat();
    let config = format!("{THREE}tests: []\n")
        .replace("burst: 3 }", "burst: 3 }, { name: keyed, key: 'header:x-api-key', rate: 100/s }");
    let place = directory(&[("proxy.yaml", config.as_bytes()), ("a.log", log.as_bytes())]);
    let simulated = run(place.path(), &["simulate", "a.log", "--color", "never"], "");
    assert_eq!(simulated.code, Some(0), "{}", simulated.errors);
    for expected in [
        "a.log  7 requests (combined)",
        "2025-10-10 20:00:00 to 2025-10-10 20:00:30 UTC (30 s)",
        "2 of 7 requests would be refused (28.57%)",
        "ip=192.0.2.1  2 times",
        "ip=192.0.2.1  5/s",
        "note  limit keyed: the logs hold no field x-api-key; 7 requests counted by client address instead",
        "note  the logs' times are whole seconds",
        "1 line could not be read:",
        "a.log:6: there is no time in brackets",
    ] {
        assert!(simulated.output.contains(expected), "{expected}\nin\n{}", simulated.output);
    }
    let row = simulated.output.lines().find(|line| line.starts_with("three ")).expect("the limit's row");
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[1..5], ["7", "2", "28.57%", "2"], "{row}");
    assert!(simulated.output.contains('█') && !simulated.output.contains('\u{1b}'), "{}", simulated.output);
    assert!(!simulated.errors.contains('%'), "no progress bar without a terminal: {}", simulated.errors);
}

#[test]
fn limits_that_count_by_status_take_it_from_the_log() {
    let config = "listen: :8080\nupstream: echo\nlimits:\n  \
        - { name: failures, key: client_ip, rate: 2/h, count: { status: 401 } }\n  \
        - { name: tokens, key: client_ip, rate: 1000/h, cost: { default: 1, response_header: x-used } }\n";
    let line = |status: &str| combined(&[(1, "192.0.2.1")]).replace(" 200 1 ", &format!(" {status} 1 "));
    let caddy = |status: u16| {
        format!(
            "{{\"ts\":1760126402,\"request\":{{\"client_ip\":\"192.0.2.2\",\"method\":\"GET\",\"host\":\"a\",\
             \"uri\":\"/\"}},\"status\":{status}}}\n"
        )
    };
    let good = [line("200").repeat(5), caddy(200).repeat(5)].concat();
    let bad = [line("401").repeat(5), caddy(401).repeat(5)].concat();
    // How these would have been answered is not known: they stay charged.
    let unknown = [line("429").repeat(5), line("-").repeat(5)].concat();
    let place = directory(&[
        ("proxy.yaml", config.as_bytes()),
        ("good.log", good.as_bytes()),
        ("bad.log", bad.as_bytes()),
        ("unknown.log", unknown.as_bytes()),
    ]);
    for (log, limited) in [("good.log", 0), ("bad.log", 6), ("unknown.log", 8)] {
        let report = json(&run(place.path(), &["simulate", log, "--format", "json"], ""));
        assert_eq!((&report["requests"], &report["limited"]), (&10.into(), &limited.into()), "{log}: {report:#}");
    }
    let text = run(place.path(), &["simulate", "bad.log", "--color", "never"], "").output;
    for expected in ["limit failures: counts by the statuses in the logs", "limit tokens: logs do not hold x-used"] {
        assert!(text.contains(expected), "{expected}\nin\n{text}");
    }
}

#[test]
fn a_request_counts_once_under_a_limit_of_several_rates() {
    let config = THREE.replace("rate: 1/10s, burst: 3", "rate: [3/10s, 100/h], penalty: { after: 100 }");
    let place = directory(&[("proxy.yaml", config.as_bytes()), ("a.log", five().as_bytes())]);
    let report = json(&run(place.path(), &["simulate", "a.log", "--format", "json"], ""));
    let limit = &report["limits"][0];
    assert_eq!((&limit["requests"], &limit["limited"]), (&5.into(), &2.into()), "{report:#}");
    assert_eq!(limit["peak"]["in_one_second"], 5, "{report:#}");
}

#[test]
fn limits_of_requests_in_flight_are_noted_to_refuse_none() {
    let config = "listen: :8080\nupstream: echo\nlimits:\n  \
        - { name: slots, key: client_ip, in_flight: 1 }\n  \
        - { name: by-tier, key: client_ip, rate: 100/s, tiers: { by: host, values: { a: { in_flight: 1 } } } }\n";
    let place = directory(&[("proxy.yaml", config.as_bytes()), ("a.log", five().as_bytes())]);
    let report = json(&run(place.path(), &["simulate", "a.log", "--format", "json"], ""));
    assert_eq!(report["limited"], 0);
    let notes = report["notes"].to_string();
    for limit in ["slots", "by-tier"] {
        assert!(
            notes.contains(&format!("limit {limit}: the logs do not tell how many requests were under way")),
            "{notes}"
        );
    }
}

#[test]
fn notes_are_of_limits_that_requests_reach() {
    let files = tempfile::tempdir().expect("a directory");
    let key = files.path().join("issuer.pem");
    std::fs::write(&key, Issuer::new("RS256", None).pem()).expect("written");
    let config = format!(
        "listen: :8080\nupstream: echo\njwt: {{ public_key_file: '{}' }}\nlimits:\n  \
        - {{ name: elsewhere, key: 'jwt:sub', missing: deny, rate: 1/s, match: {{ path: /b }} }}\n  \
        - {{ name: flight, key: client_ip, in_flight: 1, match: {{ path: /b }} }}\n  \
        - {{ name: skips, key: 'header:x-user', missing: skip, rate: 1/s }}\n  \
        - {{ name: denies, key: 'jwt:sub', missing: deny, rate: 1/s }}\n",
        key.display()
    );
    let log = combined(&[(0, "192.0.2.1")]);
    let place = directory(&[("proxy.yaml", config.as_bytes()), ("a.log", log.as_bytes())]);
    let text = run(place.path(), &["simulate", "a.log", "--color", "never"], "").output;
    for expected in [
        "limit skips: the logs hold no field x-user; requests without it are not counted",
        "limit denies: the logs hold no token with sub; 1 request denied, as `missing: deny` says",
        "(no key)  1 time ",
        "(no key)  1/s",
    ] {
        assert!(text.contains(expected), "{expected}\nin\n{text}");
    }
    for wrong in ["limit elsewhere", "limit flight", "stood in", "1 times"] {
        assert!(!text.contains(wrong), "{wrong}\nin\n{text}");
    }
}

#[test]
fn two_configurations_are_compared_request_by_request() {
    let place = directory(&[
        ("proxy.yaml", THREE.as_bytes()),
        ("one.yaml", THREE.replace("burst: 3", "burst: 1").as_bytes()),
        ("ten.yaml", THREE.replace("burst: 3", "burst: 10").as_bytes()),
        ("a.log", five().as_bytes()),
    ]);
    for (other, newly_limited, newly_passed, limited) in [("one.yaml", 2, 0, 4), ("ten.yaml", 0, 2, 0)] {
        let arguments = ["simulate", "a.log", "--compare", other, "--format", "json"];
        let report = json(&run(place.path(), &arguments, ""));
        let compare = &report["compare"];
        assert_eq!((&report["limited"], &compare["limited"]), (&2.into(), &limited.into()), "{report:#}");
        assert_eq!(
            (&compare["newly_limited"], &compare["newly_passed"]),
            (&newly_limited.into(), &newly_passed.into())
        );
    }
    let text = run(place.path(), &["simulate", "a.log", "--compare", "one.yaml", "--color", "never"], "").output;
    assert!(text.contains("With one.yaml, 2 requests that pass now would be refused, and 0 that are"), "{text}");
}

#[test]
fn a_threshold_that_holds_ends_with_3() {
    let place = directory(&[
        ("proxy.yaml", THREE.as_bytes()),
        ("one.yaml", THREE.replace("burst: 3", "burst: 1").as_bytes()),
        ("a.log", five().as_bytes()),
    ]);
    let code = |conditions: &[&str]| {
        let conditions = conditions.iter().flat_map(|condition| ["--fail-if", condition]);
        let arguments: Vec<&str> = ["simulate", "a.log"].into_iter().chain(conditions).collect();
        run(place.path(), &arguments, "").code
    };
    assert_eq!(code(&["limited > 40%"]), Some(0));
    assert_eq!(code(&["limited >= 40%"]), Some(3));
    assert_eq!(code(&["limited > 2", "requests < 5", "limit three: keys > 1"]), Some(0));
    assert_eq!(code(&["limited > 2", "limit three: limited > 1"]), Some(3));
    assert_eq!(code(&["limit four: limited > 1"]), Some(2));
    assert_eq!(code(&["newly_limited > 1"]), Some(2));
    assert_eq!(code(&["nonsense"]), Some(2));
    let compared = ["simulate", "a.log", "--compare", "one.yaml", "--fail-if", "newly_limited > 39%"];
    let compared = run(place.path(), &compared, "");
    assert_eq!(compared.code, Some(3), "{}", compared.output);
    assert!(compared.output.contains("failed  fail if newly_limited > 39%: it is 40.00%"), "{}", compared.output);
}

#[test]
fn what_cannot_be_simulated_is_said_and_ends_with_1() {
    let place = directory(&[
        ("proxy.yaml", THREE.as_bytes()),
        ("bad.log", b"nothing\nto see\n"),
        ("cut.gz", &gzip(five().as_bytes())[..40]),
        ("empty.log", b""),
        ("a.log", five().as_bytes()),
        (
            "early.log",
            br#"{"time":1,"client":"192.0.2.1","method":"GET","path":"/","status":400,"error":"bad_target"}"#,
        ),
    ]);
    for (arguments, expected) in [
        (&["simulate", "none.log"][..], "cannot read none.log"),
        (&["simulate", "bad.log"], "no line could be read as a request; the first is bad.log:1"),
        (&["simulate", "cut.gz"], "cannot read on in cut.gz"),
        (&["simulate", "."], "is a directory"),
        (&["simulate", "bad.log", "--compare", "none.yaml"], "no configuration file at none.yaml"),
        (&["simulate", "empty.log"], "there is nothing in empty.log"),
        (
            &["simulate", "early.log", "--fail-if", "limited > 1%"],
            "`limited > 1%` cannot be judged: no request in early",
        ),
        (&["advise", "bad.log"], "no request to compute with"),
        (&["advise", "a.log", "--key", "host"], "5 without the key, 0 left out, 0 unreadable; the logs name no host"),
    ] {
        let finished = run(place.path(), arguments, "");
        assert_eq!(finished.code, Some(1), "{arguments:?}");
        assert!(finished.errors.contains(expected), "{arguments:?}: {}", finished.errors);
    }
}

#[test]
fn a_host_is_given_where_the_log_names_none() {
    let config = "listen: :8080\nroutes:\n  - { name: api, match: { host: api.example.com }, upstream: echo, limits: [{ name: one, key: client_ip, rate: 1/h }] }\n";
    let place = directory(&[("proxy.yaml", config.as_bytes()), ("a.log", five().as_bytes())]);
    let without = run(place.path(), &["simulate", "a.log", "--color", "never"], "").output;
    assert!(without.contains("5 requests name no host") && without.contains("0 of 5"), "{without}");
    let with = run(place.path(), &["simulate", "a.log", "--host", "API.example.com", "--color", "never"], "").output;
    assert!(with.contains("4 of 5 requests would be refused"), "{with}");
}

#[test]
fn values_that_may_be_secrets_are_shown_hashed() {
    let line = r#"{"ts":1760126400.0,"logger":"http.log.access","request":{"remote_ip":"192.0.2.1","method":"GET","host":"h","uri":"/","headers":{"X-Api-Key":["hunter2"]}},"duration":0.1}"#;
    let config = THREE.replace("client_ip", "'header:x-api-key'");
    let place = directory(&[("proxy.yaml", config.as_bytes()), ("a.log", format!("{line}\n").repeat(5).as_bytes())]);
    for format in ["text", "json"] {
        let report = run(place.path(), &["simulate", "a.log", "--format", format], "").output;
        assert!(report.contains("header:x-api-key=#") && !report.contains("hunter2"), "{report}");
    }
    let report = json(&run(place.path(), &["simulate", "a.log", "--format", "json"], ""));
    assert_eq!(report["limited"], 2, "{report:#}");
}

#[test]
fn advice_is_the_least_burst_that_simulate_agrees_with() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut at = 1_760_126_400_000_000_u64;
    let mut log = String::new();
    for _ in 0..4_000 {
        at += random.u64(0..40_000);
        let client = if random.u8(0..3) == 0 { 1 } else { random.u8(2..30) };
        let _ = writeln!(
            log,
            r#"{{"ts":{}.{:06},"logger":"http.log.access","request":{{"remote_ip":"192.0.2.{client}","method":"GET","host":"h","uri":"/"}},"duration":0.0}}"#,
            at / 1_000_000,
            at % 1_000_000
        );
    }
    let place = directory(&[("a.log", log.as_bytes())]);
    for (share, allowed) in [("0%", 0), ("1%", 40), ("10%", 400)] {
        let advice = json(&run(place.path(), &["advise", "a.log", "--refuse", share, "--format", "json"], ""));
        assert_eq!((&advice["requests"], &advice["acceptable"]), (&4_000.into(), &allowed.into()));
        let curve = advice["curve"].as_array().expect("a curve");
        assert!(curve.len() > 3, "{advice:#}");
        for point in curve {
            let (rate, burst) = (point["rate"].as_str().expect("a rate"), point["burst"].as_u64().expect("a burst"));
            let refused = |burst: u64| {
                let yaml = format!(
                    "listen: :8080\nupstream: echo\nlimits: [{{ key: client_ip, rate: {rate}, burst: {burst} }}]\n"
                );
                std::fs::write(place.path().join("proxy.yaml"), yaml).expect("written");
                json(&run(place.path(), &["simulate", "a.log", "--format", "json"], ""))["limited"]
                    .as_u64()
                    .expect("a number")
            };
            assert_eq!(Some(refused(burst)), point["refused"].as_u64(), "{point}");
            assert!(refused(burst) <= allowed, "{point}");
            assert!(burst == 1 || refused(burst - 1) > allowed, "a smaller burst would do: {point}");
        }
        let yaml = advice["proposed"]["yaml"].as_str().expect("YAML");
        std::fs::write(place.path().join("proxy.yaml"), format!("listen: :8080\nupstream: echo\n{yaml}"))
            .expect("written");
        assert_eq!(run(place.path(), &["check"], "").code, Some(0), "{yaml}");
    }
}

#[test]
fn advice_is_for_a_key_and_a_path() {
    let log = [combined(&[(0, "192.0.2.1"); 3]), combined(&[(5, "192.0.2.2"); 7]).replace("/a", "/b/c")].concat();
    let place = directory(&[("a.log", log.as_bytes())]);
    let advice = |more: &[&str]| {
        let arguments: Vec<&str> =
            ["advise", "a.log", "--rate", "1/s", "--format", "json"].iter().chain(more).copied().collect();
        json(&run(place.path(), &arguments, ""))
    };
    let burst = |advice: &Value| advice["curve"][0]["burst"].as_u64();
    assert_eq!(burst(&advice(&[])), Some(7));
    assert_eq!(burst(&advice(&["--path", "/a"])), Some(3));
    assert_eq!(burst(&advice(&["--path", "/b/*"])), Some(7));
    assert_eq!(burst(&advice(&["--key", "global"])), Some(7));
    assert_eq!(burst(&advice(&["--key", "client_ip", "--key", "method", "--path", "/a"])), Some(3));
    assert_eq!(tollgate(&["advise", "x.log", "--key", "path:tenant"]).code, Some(2));
    let text = run(place.path(), &["advise", "a.log", "--color", "never"], "").output;
    for expected in ["10 requests of 2 keys by client_ip", "burst for 0%", "→", "  - key: client_ip\n    rate: "] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert_eq!(text.matches("burst for 0%").count(), 1, "{text}");
    let some = run(place.path(), &["advise", "a.log", "--refuse", "10%", "--color", "never"], "").output;
    assert!(some.contains("burst for 10%") && some.contains("keys refused"), "{some}");
}
