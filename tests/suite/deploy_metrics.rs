//! Alert rules and dashboard: sound to Prometheus' own tools, and about metrics that there are. A real Prometheus
//! scrapes a proxy that something of everything happened to.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::Value;

use crate::support::certificates::{Authority, Wanted};
use crate::support::client::{self, Client, Request};
use crate::support::judge::{accepts, deploy, text, tool};
use crate::support::port::Port;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually};

static METRIC: LazyLock<Regex> = LazyLock::new(|| Regex::new("tollgate_[a-z_]+").unwrap());
const TOKEN: &str = "a-token-for-scrapes";

/// Every text below a key of this name.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| texts(value, key, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == key => found.push(text),
                    _ => texts(value, key, found),
                }
            }
        }
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&text("grafana/tollgate.json")).unwrap()
}

fn rules() -> Value {
    serde_yaml::from_str(&text("prometheus/rules.yml")).unwrap()
}

/// A proxy with every part that is measured, and traffic of every kind.
struct Watched {
    proxy: Tollgate,
    _kept: (RedisServer, Upstream, Authority, Client),
}

impl Watched {
    fn start() -> Self {
        let (redis, authority) = (RedisServer::start(), Authority::new());
        let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let certificate = authority.sign(&Wanted::server("localhost", &["localhost"]));
        let token = authority.write("token", TOKEN);
        let proxy = Tollgate::start(&format!(
            "listeners:\n\
             \x20 web: {{ address: '127.0.0.1:0' }}\n\
             \x20 tiny: {{ address: '127.0.0.1:0', max_connections: 1 }}\n\
             \x20 secure: {{ address: '127.0.0.1:0', tls: {{ certificates: [{}] }} }}\n\
             upstreams: {{ app: {{ servers: ['{}'], max_requests: 8, circuit_breaker: {{ min_requests: 100 }} }} }}\n\
             routes: [{{ name: all, upstream: app }}]\n\
             limits:\n\
             \x20 - {{ name: three, key: client_ip, rate: 3/h }}\n\
             \x20 - {{ name: claim, key: 'jwt:sub', missing: skip, rate: 9/s }}\n\
             jwt: {{ jwks_url: 'http://127.0.0.1:1/' }}\n\
             store: {{ redis: {{ url: '{}', timeout: 1s }} }}\n\
             memory: {{ max: 64GiB }}\n\
             admin: {{ address: '127.0.0.1:0', token_file: '{}' }}\n",
            certificate.yaml(),
            upstream.url(),
            redis.url(),
            token.display(),
        ));
        let held = Client::connect(proxy.address("tiny"));
        let watched = Self { proxy, _kept: (redis, upstream, authority, held) };
        watched.traffic();
        watched
    }

    /// Requests that are answered, denied and malformed; connections that are refused; handshakes that fail.
    fn traffic(&self) {
        let statuses = [(); 5].map(|()| client::get(self.proxy.address("web"), "/").status);
        assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
        for (listener, bytes) in [("web", "GET / HTTP/1.1\nHost: a\n\n"), ("secure", "nonsense\r\n\r\n"), ("tiny", "")]
        {
            let mut stream = TcpStream::connect(self.proxy.address(listener)).unwrap();
            stream.write_all(bytes.as_bytes()).unwrap();
            // A reset is an end too.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
}

#[test]
fn every_metric_of_dashboard_and_rules_is_in_a_scrape() {
    let watched = Watched::start();
    let (dashboard, rules) = (dashboard(), rules());
    let mut expressions = Vec::new();
    texts(&dashboard, "expr", &mut expressions);
    texts(&dashboard, "definition", &mut expressions);
    texts(&rules, "expr", &mut expressions);
    texts(&rules, "description", &mut expressions);
    assert!(expressions.len() > 60, "{} expressions", expressions.len());
    let named: BTreeSet<_> =
        expressions.iter().flat_map(|text| METRIC.find_iter(text)).map(|found| found.as_str()).collect();
    let unknown = |scrape: &str| {
        let lines = scrape.lines().filter(|line| !line.starts_with('#'));
        let samples: BTreeSet<_> = lines.filter_map(|line| METRIC.find(line)).map(|found| found.as_str()).collect();
        // Prose may name a histogram.
        let known = |name: &&str| samples.contains(*name) || samples.contains(format!("{name}_count").as_str());
        named.iter().filter(|name| !known(name)).copied().collect::<Vec<_>>()
    };
    // What is refused is counted a moment after the other side sees it.
    let (begun, mut scrape) = (Instant::now(), watched.proxy.scrape(TOKEN));
    while !unknown(&scrape).is_empty() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
        scrape = watched.proxy.scrape(TOKEN);
    }
    assert!(unknown(&scrape).is_empty(), "{:?} are in no scrape:\n{scrape}", unknown(&scrape));

    let mut promtool = tool("promtool");
    let mut checking =
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    checking.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let checked = checking.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn the_rules_are_sound_and_each_alert_is_tested() {
    accepts(tool("promtool").args(["check", "rules"]).arg(deploy("prometheus/rules.yml")));
    accepts(tool("promtool").args(["test", "rules"]).arg(deploy("prometheus/rules_test.yml")));
    let (rules, tests): (_, Value) = (rules(), serde_yaml::from_str(&text("prometheus/rules_test.yml")).unwrap());
    let fired: BTreeSet<_> = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
        .filter(|test| test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()))
        .map(|test| test["alertname"].as_str().unwrap())
        .collect();
    let mut alerts = Vec::new();
    texts(&rules, "alert", &mut alerts);
    assert!(alerts.len() > 10, "{alerts:?}");
    let untested: Vec<_> = alerts.iter().filter(|alert| !fired.contains(**alert)).collect();
    assert!(untested.is_empty(), "no test lets these fire: {untested:?}");
}

/// A Prometheus of our own with the configuration of `deploy/`, for this target.
struct Prometheus {
    child: Child,
    port: Port,
    directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let mut config = text("prometheus/prometheus.yml");
        for (from, to) in [
            ("\"proxy-1:9901\", \"proxy-2:9901\"", format!("\"{target}\"")),
            ("/etc/prometheus/tollgate-admin-token", token.display().to_string()),
            ("scrape_interval: 5s", "scrape_interval: 1s".to_owned()),
            ("evaluation_interval: 5s", "evaluation_interval: 1s".to_owned()),
        ] {
            assert!(config.contains(from), "{from} in\n{config}");
            config = config.replace(from, &to);
        }
        let path = directory.path().join("prometheus.yml");
        std::fs::write(&path, config).unwrap();
        std::fs::copy(deploy("prometheus/rules.yml"), directory.path().join("rules.yml")).unwrap();
        accepts(tool("promtool").args(["check", "config"]).arg(&path));
        let port = Port::take();
        let child = Self::spawn(&path, &port, directory.path());
        Self { child, port, directory }
    }

    fn spawn(config: &Path, port: &Port, directory: &Path) -> Child {
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut command = tool("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{}", port.number()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("prometheus is installed")
    }

    /// The `data` of an answer of its API; nothing while it starts.
    fn ask(&self, target: &str) -> Option<Value> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port.number()));
        let answer = Client::open(address).ok()?.exchange(&Request::get(target)).ok()?;
        if answer.status == 503 {
            return None;
        }
        let json = answer.json();
        assert_eq!(json["status"], "success", "{target}: {json}");
        Some(json["data"].clone())
    }

    /// The number of series that an expression has now.
    fn series(&self, expression: &str) -> Option<usize> {
        let mut target = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            let _ = write!(target, "%{byte:02X}");
        }
        self.ask(&target).map(|data| data["result"].as_array().unwrap().len())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
    }
}

#[test]
fn a_prometheus_scrapes_it_and_every_panel_shows_something() {
    let watched = Watched::start();
    let prometheus = Prometheus::start(watched.proxy.admin());
    eventually("Prometheus gets its metrics by the token", || {
        watched.traffic();
        prometheus.series("up{job=\"tollgate\"} == 1").filter(|series| *series == 1)
    });
    let dashboard = dashboard();
    let mut expressions = Vec::new();
    texts(&dashboard, "expr", &mut expressions);
    for expression in expressions {
        let filled =
            ["$instance", "$route", "$limit"].iter().fold(expression.to_owned(), |text, name| text.replace(name, ".*"));
        let filled = filled.replace("$__rate_interval", "30s");
        // What is hidden while it is nothing.
        let wanted = usize::from(!filled.ends_with(" > 0"));
        eventually(&filled, || {
            let shown = prometheus.series(&filled).filter(|series| *series >= wanted);
            shown.or_else(|| {
                watched.traffic();
                None
            })
        });
    }
    let loaded = prometheus.ask("/api/v1/rules").unwrap();
    let (mut loaded_alerts, mut health) = (Vec::new(), Vec::new());
    texts(&loaded, "name", &mut loaded_alerts);
    let rules = rules();
    let mut alerts = Vec::new();
    texts(&rules, "alert", &mut alerts);
    assert!(alerts.iter().all(|alert| loaded_alerts.contains(alert)), "{loaded_alerts:?}");
    let failing = || {
        let loaded = prometheus.ask("/api/v1/rules")?;
        health.clear();
        let mut found = Vec::new();
        texts(&loaded, "health", &mut found);
        health.extend(found.into_iter().map(str::to_owned));
        health.iter().all(|health| health == "ok").then_some(())
    };
    eventually("every rule was judged", failing);
}

#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies on another panel", panel["title"]);
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: BTreeSet<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    let mut expressions = Vec::new();
    texts(&dashboard, "expr", &mut expressions);
    let used = Regex::new(r"\$([a-z]+)").unwrap();
    for name in expressions.iter().flat_map(|text| used.captures_iter(text)).map(|found| found.extract::<1>().1[0]) {
        assert!(names.contains(name), "${name} is no variable: {names:?}");
    }
}
