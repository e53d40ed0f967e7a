//! What an operator is told of the store: what is wrong, once, with its true cause and what to do; and that it is
//! over. What a proxy can do without, it does without.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::{Answer, Client, Request};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::metrics::Metrics;
use crate::support::port::Port;
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::{RedisServer, TlsFiles};
use crate::support::tollgate::{Tollgate, field};
use crate::support::{eventually, within};

/// More than any interval at which the program looks again.
const LONG: Duration = Duration::from_mins(1);

fn configuration(store: &str, more: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits: [{{ name: one, key: client_ip, rate: 1000/s{more} }}]\n\
         store: {{ redis: {{ {store} }}, on_store_error: deny }}\n"
    )
}

fn proxy(store: &str) -> Tollgate {
    Tollgate::start(&configuration(store, ""))
}

fn at(port: u16) -> String {
    format!("url: 'redis://127.0.0.1:{port}'")
}

fn of(proxy: &Tollgate, metric: &str) -> u64 {
    proxy.metrics().count(metric, &[])
}

fn errors(metrics: &Metrics, kind: &str) -> u64 {
    metrics.count("tollgate_store_errors_total", &[("kind", kind)])
}

#[track_caller]
fn until_up(proxy: &Tollgate) {
    eventually("the store answers", || (of(proxy, "tollgate_store_up") == 1).then_some(()));
}

fn lines(proxy: &Tollgate, message: &str) -> Vec<String> {
    proxy.log().into_iter().filter(|line| line.contains(message)).collect()
}

/// Sets an override.
fn put(proxy: &Tollgate) -> Answer {
    let request = Request::new("PUT", "/api/v1/limits/one/overrides/127.0.0.1");
    let request = request.header("content-type", "application/json").body(r#"{"rate": "8/s", "ttl": "1h"}"#);
    Client::connect(proxy.admin()).send(&request)
}

/// The first line that begins so.
#[track_caller]
fn line(proxy: &Tollgate, message: &str) -> serde_json::Value {
    proxy.wait_for_log(message, |line| field(line, "message").starts_with(message))
}

#[test]
fn proxies_are_counted_where_redis_keeps_its_clock_to_itself() {
    let redis = RedisServer::start();
    redis.cli(&["ACL", "SETUSER", "default", "-time"]);
    let both = [proxy(&at(redis.port())), proxy(&at(redis.port()))];
    for proxy in &both {
        eventually("both are counted", || (of(proxy, "tollgate_proxies") == 2).then_some(()));
        assert_eq!(lines(proxy, "let scripts read its clock").len(), 1, "{:#?}", proxy.log());
    }
}

#[test]
fn what_keeps_proxies_from_being_counted_is_told_and_its_end_too() {
    let redis = RedisServer::start();
    redis.cli(&["ACL", "SETUSER", "default", "-zadd"]);
    let proxy = proxy(&at(redis.port()));
    let told = line(&proxy, "proxies cannot be counted");
    assert_eq!((field(&told, "level").as_str(), field(&told, "cause").as_str()), ("WARN", "noperm"));
    assert!(errors(&proxy.metrics(), "noperm") > 0);
    assert_eq!(of(&proxy, "tollgate_store_up"), 1, "decisions are made all the same");
    redis.cli(&["ACL", "SETUSER", "default", "+zadd"]);
    line(&proxy, "proxies are counted");
    assert_eq!(lines(&proxy, "proxies cannot be counted").len(), 1, "{:#?}", proxy.log());
}

/// Whatever ends between two commands leaves what the first has done: that may be a key without an end.
#[test]
fn the_set_of_living_proxies_is_written_and_given_an_end_in_one_step() {
    let redis = RedisServer::start();
    let mut monitor = TcpStream::connect(("127.0.0.1", redis.port())).expect("connected");
    monitor.write_all(b"MONITOR\r\n").expect("sent");
    monitor.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    let proxy = proxy(&at(redis.port()));
    let mut seen = BufReader::new(monitor).lines().map_while(Result::ok).map(|line| line.to_ascii_lowercase());
    let written = seen.find(|line| line.contains("\"zadd\"")).expect("the proxy tells that it lives");
    assert!(written.contains(" lua]"), "by itself: {written}");
    let key = "tollgate:{~proxies}";
    eventually("it has an end", || redis.cli(&["PTTL", key]).parse::<i64>().is_ok_and(|ttl| ttl > 0).then_some(()));
    drop(proxy);
}

#[test]
fn a_redis_that_falls_silent_is_noticed_without_traffic() {
    let redis = RedisServer::start();
    let proxy = proxy(&at(redis.port()));
    until_up(&proxy);
    redis.stop();
    eventually("the proxy knows", || (of(&proxy, "tollgate_store_up") == 0).then_some(()));
    assert_eq!(field(&line(&proxy, "redis is away"), "cause"), "timeout");
    assert!(errors(&proxy.metrics(), "timeout") > 0);
    redis.resume();
    until_up(&proxy);
    line(&proxy, "redis is back");
}

#[test]
fn a_connection_that_is_lost_is_counted() {
    let redis = RedisServer::start();
    let link = FaultProxy::to(redis.port());
    let proxy = proxy(&at(link.port()));
    until_up(&proxy);
    assert_eq!(errors(&proxy.metrics(), "reset"), 0);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("it is counted", || (errors(&proxy.metrics(), "reset") > 0).then_some(()));
}

/// Too few to take it for away, too many to be right.
#[test]
fn a_redis_that_fails_now_and_then_is_told() {
    let redis = RedisServer::start();
    let link = FaultProxy::to(redis.port());
    let proxy = proxy(&format!("{}, timeout: 100ms", at(link.port())));
    until_up(&proxy);
    let mut client = proxy.client();
    within(LONG, "it is told", || {
        // One call in some dozens fails.
        link.set(Fault::BlackHole);
        let _ = client.get("/");
        link.set(Fault::None);
        for _ in 0..30 {
            let _ = client.get("/");
        }
        lines(&proxy, "calls to redis fail").first().cloned()
    });
    let told = line(&proxy, "calls to redis fail");
    assert_eq!((field(&told, "level").as_str(), field(&told, "cause").as_str()), ("WARN", "timeout"), "{told}");
    let number = |name| field(&told, name).parse::<u64>().expect("a number");
    assert!(number("failed") >= 5 && number("calls") > number("failed"), "{told}");
    assert!(field(&told, "help").contains("SLOWLOG"), "{told}");
    assert!(lines(&proxy, "redis is away").is_empty(), "{:#?}", proxy.log());
    assert_eq!(lines(&proxy, "calls to redis fail").len(), 1, "{:#?}", proxy.log());
}

#[test]
fn a_redis_that_comes_and_goes_is_told_in_few_lines_with_their_number() {
    let redis = RedisServer::start();
    let link = FaultProxy::to(redis.port());
    let proxy = proxy(&at(link.port()));
    until_up(&proxy);
    for _ in 0..6 {
        link.set(Fault::Refused);
        eventually("it is away", || (of(&proxy, "tollgate_store_up") == 0).then_some(()));
        link.set(Fault::None);
        until_up(&proxy);
    }
    let told = proxy.wait_for_log("the others are summed up", |line| {
        field(line, "store").contains("redis") && !["", "0"].contains(&field(line, "outages").as_str())
    });
    assert!(field(&told, "outages").parse::<u64>().is_ok_and(|outages| outages <= 6), "{told}");
    let said = lines(&proxy, "redis is away").len() + lines(&proxy, "redis is back").len();
    assert!(said < 10, "{:#?}", proxy.log());
}

#[test]
fn a_password_file_is_read_again_when_the_password_changes() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    std::fs::write(&file, "first\n").expect("written");
    let mut redis = RedisServer::start_with(&["--requirepass", "first"]);
    redis.login("default", "first");
    let proxy = proxy(&format!("{}, password_file: {}", at(redis.port()), file.display()));
    until_up(&proxy);
    redis.cli(&["CONFIG", "SET", "requirepass", "second"]);
    redis.login("default", "second");
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("the old one is refused", || (errors(&proxy.metrics(), "noauth") > 0).then_some(()));
    let told = proxy.wait_for_log("refused", |line| field(line, "cause") == "noauth");
    assert!(field(&told, "help").contains("password"), "{told}");
    std::fs::write(&file, "second\n").expect("written");
    until_up(&proxy);
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn a_link_without_trust_is_named_as_such() {
    let redis = RedisServer::start_with_tls();
    let files = redis.tls.clone().expect("it has certificates");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let stranger = TlsFiles::make(elsewhere.path());
    let url = format!("url: 'rediss://127.0.0.1:{}'", redis.port());
    let client = format!("cert: {}, key: {}", files.client.0.display(), files.client.1.display());
    for (tls, words) in [
        (format!("ca: {}, {client}", stranger.ca.display()), ["certificate", "store.redis.tls.ca"]),
        (format!("ca: {}", files.ca.display()), ["certificate", "store.redis.tls.cert"]),
    ] {
        let proxy = proxy(&format!("{url}, tls: {{ {tls} }}"));
        let told = line(&proxy, "redis is away");
        assert_eq!(field(&told, "cause"), "tls", "{told}");
        assert!(field(&told, "error").to_lowercase().contains(words[0]), "{told}");
        assert!(field(&told, "help").contains(words[1]), "{told}");
        assert!(errors(&proxy.metrics(), "tls") > 0);
    }
}

#[test]
fn a_clock_that_is_given_back_is_used_again_and_each_change_is_one_line() {
    let redis = RedisServer::start();
    let proxy = proxy(&at(redis.port()));
    until_up(&proxy);
    redis.cli(&["ACL", "SETUSER", "default", "-time"]);
    // A new connection each: every worker takes a part.
    for _ in 0..40 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert_eq!(of(&proxy, "tollgate_store_own_clock"), 1);
    redis.cli(&["ACL", "SETUSER", "default", "+time"]);
    within(LONG, "the server's clock is used", || (of(&proxy, "tollgate_store_own_clock") == 0).then_some(()));
    line(&proxy, "redis lets scripts read its clock again");
    assert_eq!(lines(&proxy, "redis does not let scripts read its clock").len(), 1, "{:#?}", proxy.log());
    assert_eq!(lines(&proxy, "read its clock again").len(), 1, "{:#?}", proxy.log());
}

const OVERRIDABLE: &str = ", dynamic_overrides: { max_rate: 9000/s, max_ttl: 2h }";

#[test]
fn overrides_that_cannot_be_read_and_then_can_are_two_lines() {
    let redis = RedisServer::start();
    let proxy = Tollgate::start(&configuration(&at(redis.port()), OVERRIDABLE));
    until_up(&proxy);
    redis.cli(&["ACL", "SETUSER", "default", "-hget"]);
    line(&proxy, "dynamic overrides cannot be read");
    redis.cli(&["ACL", "SETUSER", "default", "+hget"]);
    line(&proxy, "dynamic overrides are read again");
    assert_eq!(lines(&proxy, "dynamic overrides").len(), 2, "{:#?}", proxy.log());
}

#[test]
fn an_override_that_cannot_be_set_is_answered_with_the_true_cause() {
    let mut redis = RedisServer::not_started();
    let proxy = Tollgate::start(&configuration(&at(redis.port()), OVERRIDABLE));
    line(&proxy, "redis is away");
    let refused = put(&proxy);
    assert!(refused.status == 503 && refused.text().contains("refused"), "{}", refused.text());
    redis.restart();
    eventually("it is set", || (put(&proxy).status == 200).then_some(()));
}

#[test]
fn sentinels_that_are_all_dead_are_told_although_the_master_lives() {
    let master = RedisServer::start();
    let mut sentinel = RedisServer::not_started_with(&["--sentinel"], None);
    sentinel.configure(&format!("sentinel monitor main 127.0.0.1 {} 1\n", master.port()));
    sentinel.restart();
    let dead = Port::take();
    let nodes = format!("['127.0.0.1:{}', '127.0.0.1:{}']", dead.number(), sentinel.port());
    let proxy = proxy(&format!("sentinel: {{ master: main, nodes: {nodes} }}"));
    until_up(&proxy);
    eventually("one answers", || (of(&proxy, "tollgate_store_sentinel_up") == 1).then_some(()));
    sentinel.kill();
    let told = line(&proxy, "no sentinel answers");
    assert_eq!(field(&told, "level"), "WARN");
    assert_eq!((of(&proxy, "tollgate_store_sentinel_up"), of(&proxy, "tollgate_store_up")), (0, 1));
    sentinel.restart();
    line(&proxy, "a sentinel answers again");
    eventually("it is shown", || (of(&proxy, "tollgate_store_sentinel_up") == 1).then_some(()));
    // A busy worker may notice only when the other has heard again already: that is news.
    assert!(lines(&proxy, "no sentinel answers").len() <= 2, "{:#?}", proxy.log());
}

#[test]
fn a_sentinels_own_password_is_named_and_read_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    std::fs::write(&file, "wrong\n").expect("written");
    let master = RedisServer::start();
    let mut sentinel = RedisServer::not_started_with(&["--sentinel", "--requirepass", "right"], None);
    sentinel.configure(&format!("sentinel monitor main 127.0.0.1 {} 1\n", master.port()));
    sentinel.login("default", "right");
    sentinel.restart();
    let nodes = format!("['127.0.0.1:{}']", sentinel.port());
    let password = format!("password_file: {}", file.display());
    let proxy = proxy(&format!("sentinel: {{ master: main, nodes: {nodes}, {password} }}"));
    let told = line(&proxy, "redis is away");
    assert_eq!(field(&told, "cause"), "noauth", "{told}");
    assert!(field(&told, "help").contains("store.redis.sentinel"), "{told}");
    std::fs::write(&file, "right\n").expect("written");
    until_up(&proxy);
}

#[test]
fn another_master_is_one_line_whatever_the_number_of_workers() {
    let masters = [RedisServer::start(), RedisServer::start()];
    let mut sentinel = RedisServer::not_started_with(&["--sentinel"], None);
    sentinel.configure(&format!("sentinel monitor main 127.0.0.1 {} 1\n", masters[0].port()));
    sentinel.restart();
    let proxy = proxy(&format!("sentinel: {{ master: main, nodes: ['127.0.0.1:{}'] }}", sentinel.port()));
    until_up(&proxy);
    sentinel.cli(&["SENTINEL", "REMOVE", "main"]);
    sentinel.cli(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &masters[1].port().to_string(), "1"]);
    let connected = || masters[1].cli(&["CLIENT", "LIST"]).matches("name=tollgate").count();
    eventually("both workers have moved", || (connected() == 2).then_some(()));
    until_up(&proxy);
    let told = line(&proxy, "the master is another server now");
    assert!(field(&told, "to").ends_with(&masters[1].port().to_string()), "{told}");
    assert_eq!(lines(&proxy, "the master is another server now").len(), 1, "{:#?}", proxy.log());
}

#[test]
fn overrides_are_kept_in_a_cluster_that_keeps_its_clock_to_itself() {
    let cluster = RedisCluster::of_masters();
    for node in &cluster.nodes {
        node.cli(&["ACL", "SETUSER", "default", "-time"]);
    }
    let seed = format!("cluster: ['127.0.0.1:{}']", cluster.nodes[0].port());
    let proxy = Tollgate::start(&configuration(&seed, OVERRIDABLE));
    until_up(&proxy);
    let set = put(&proxy);
    assert_eq!(set.status, 200, "{}", set.text());
}
