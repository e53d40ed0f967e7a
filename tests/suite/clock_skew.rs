//! Two proxies whose clocks are a tenth of a second apart, on one Redis. Decisions are made by the
//! store's clock, so nothing comes of it; where a server keeps its clock from scripts the proxies' own
//! clocks are used, and no more comes of it than what can be earned in that tenth.

use std::fmt::Write as _;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::contract::{
    Terms, assert_no_window_of_the_store, count, redis_store, saturate, short_by_the_store, spilled_by_the_store,
};
use super::redis_replies::{number, word};
use crate::support::client::{Client, Request};
use crate::support::eventually;
use crate::support::monitor::{Monitor, Write as Charge};
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{Tollgate, field};

/// How far the proxies' clocks are from each other.
const APART: Duration = Duration::from_millis(100);

/// How far a proxy's clock is from the right one, which Redis has.
#[derive(Debug, Clone, Copy)]
struct Skew {
    seconds: &'static str,
    millis: i64,
}

fn skew(seconds: &'static str, millis: i64) -> Skew {
    Skew { seconds, millis }
}

/// Two seconds deep: no pause of the machine fills it.
const EVERYONE: Terms = Terms { burst: 120.0, rate: 60.0 };

/// More requests, one after the other, than the burst and all that is earned meanwhile.
const MOST: usize = 5_000;

fn configuration(store: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\n\
         limits: [{{ name: everyone, key: global, rate: 60/s, burst: 120 }}]\n\
         access_log: {{ format: json, sample: 100% }}\n{store}"
    )
}

/// A proxy whose wall clock is wrong; its timers are not.
fn started(yaml: &str, skew: Skew) -> Tollgate {
    let library = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let library = library.expect("faketime must be installed (Debian: apt-get install faketime)").stdout;
    let library = String::from_utf8(library).expect("a path");
    let monotonic = [("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")];
    let proxy = Tollgate::start_with(
        yaml,
        &[("LD_PRELOAD", library.trim()), ("FAKETIME", skew.seconds), monotonic[0], monotonic[1]],
    );
    // A process that is killed would leave them behind.
    for file in [format!("faketime_shm_{}", proxy.pid()), format!("sem.faketime_sem_{}", proxy.pid())] {
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(file));
    }
    proxy
}

/// What the proxy takes for the time of a request lies between its sending and its answer, shifted. Returns
/// by how many milliseconds.
fn assert_skewed(proxy: &Tollgate, skew: Skew) -> f64 {
    let readings: Vec<_> = (0..5).map(|n| reading(proxy, &format!("/clock{n}"))).collect();
    let shifted = readings.iter().filter(|reading| reading.is_shifted_by(skew.millis)).count();
    // The library has been seen to leave out one reading of many.
    assert!(shifted + 1 >= readings.len(), "{skew:?}: {readings:?}");
    let mut apart: Vec<_> = readings.iter().map(Reading::apart).collect();
    apart.sort_unstable_by(f64::total_cmp);
    apart[apart.len() / 2]
}

/// A look at a proxy's clock, milliseconds since 1970.
#[derive(Debug)]
struct Reading {
    sent: i64,
    logged: i64,
    answered: i64,
}

impl Reading {
    fn is_shifted_by(&self, millis: i64) -> bool {
        (self.sent + millis - 1..=self.answered + millis).contains(&self.logged)
    }

    fn apart(&self) -> f64 {
        f64::from(i32::try_from(2 * self.logged - self.sent - self.answered).expect("a short time")) / 2.0
    }
}

fn reading(proxy: &Tollgate, path: &str) -> Reading {
    let millis = |time: SystemTime| Timestamp::try_from(time).expect("a date").as_millisecond();
    let sent = millis(SystemTime::now());
    proxy.client().send(&Request::get(path));
    let answered = millis(SystemTime::now());
    let logged = eventually("the line of this request", || {
        let lines = proxy.output();
        let line = lines.iter().find(|line| line.contains(&format!("\"{path}\"")))?;
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        Some(field(&line, "time").parse::<Timestamp>().expect("a time").as_millisecond())
    });
    Reading { sent, logged, answered }
}

/// Empties the bucket through the slow clock, then lets both proxies take what each thinks is there.
/// Every admission, as Redis saw it.
fn under_pressure(behind: &Tollgate, ahead: &Tollgate, redis: &RedisServer) -> Vec<Charge> {
    let monitor = Monitor::start(redis);
    let mut first = Client::connect(behind.web());
    let statuses = std::iter::repeat_with(|| first.get("/").status).take(MOST);
    let burst = statuses.take_while(|&status| status == 200).count();
    assert!(burst < MOST, "there is no limit");
    let samples = saturate(&[behind, ahead, ahead, ahead]);
    assert!(samples.iter().all(|sample| matches!(sample.status(), 200 | 429)), "only 200 and 429");
    let admitted = burst + samples.iter().filter(|sample| sample.status() == 200).count();
    let charges = one_by_one(monitor.writes(redis, ":everyone:"));
    assert_eq!(admitted, charges.len(), "every admission is charged once, nothing else is");
    charges
}

/// Clients of the proxy that is ahead, the most that one write can charge.
const WAITING: usize = 3;

/// Requests that wait in one worker at the same time are charged in one write: so often it stands here.
fn one_by_one(writes: Vec<Charge>) -> Vec<Charge> {
    let mut full_at = 0.0;
    let mut charges = Vec::with_capacity(writes.len());
    for write in writes {
        let before = std::mem::replace(&mut full_at, write.full_at());
        // A bucket that was not full before is full later by what was charged. While it could be full by
        // some clock, one client asked, one request after the other.
        let charged = if before > write.at + 1.0 { (full_at - before) * EVERYONE.rate } else { 1.0 };
        let times = (1..=WAITING).find(|&times| (charged - count(times)).abs() < 0.01);
        let times = times.unwrap_or_else(|| panic!("{charged} requests charged: {write:?}"));
        charges.extend(std::iter::repeat_n(write, times));
    }
    charges
}

#[test]
fn t1_holds_with_equality_over_proxies_whose_clocks_are_wrong() {
    let redis = RedisServer::start();
    let yaml = configuration(&redis_store(&redis));
    let skews = [skew("-0.05", -50), skew("+0.05", 50)];
    let [behind, ahead] = skews.map(|skew| started(&yaml, skew));
    let charges = under_pressure(&behind, &ahead, &redis);
    assert_no_window_of_the_store(&charges, &EVERYONE, Duration::ZERO);
    let short = short_by_the_store(&charges, &EVERYONE, &spilled_by_the_store(&charges, EVERYONE.rate));
    let clocks = [assert_skewed(&behind, skews[0]), assert_skewed(&ahead, skews[1])];
    println!("clocks off by {clocks:?} ms: {} admitted, {short:.3} short of all that was allowed", charges.len());
    assert!(short.abs() <= 1.0, "{short} less was admitted than allowed");
    for proxy in [&behind, &ahead] {
        assert_eq!(proxy.metrics().count("tollgate_store_errors_total", &[]), 0, "every decision was the store's");
    }
}

#[test]
fn where_a_server_keeps_its_clock_from_scripts_no_more_than_the_skew_is_earned() {
    let redis = RedisServer::start();
    let (secretive, begun) = (Secretive::before(&redis), Instant::now());
    let yaml =
        configuration(&format!("store:\n  redis: {{ url: 'redis://127.0.0.1:{}', timeout: 2s }}\n", secretive.port));
    let skews = [skew("-0.05", -50), skew("+0.05", 50)];
    let [behind, ahead] = skews.map(|skew| started(&yaml, skew));
    for proxy in [&behind, &ahead] {
        proxy.wait_for_log("the warning", |line| field(line, "message").contains("this proxy's clock is used"));
    }
    let charges = under_pressure(&behind, &ahead, &redis);
    assert_no_window_of_the_store(&charges, &EVERYONE, APART);
    let short = short_by_the_store(&charges, &EVERYONE, &vec![0.0; charges.len()]);
    let clocks = [assert_skewed(&behind, skews[0]), assert_skewed(&ahead, skews[1])];
    let earned = EVERYONE.rate * APART.as_secs_f64();
    println!(
        "own clocks, off by {clocks:?} ms: {} admitted, {:.3} more than by one clock, at most {earned}",
        charges.len(),
        -short
    );
    // The bucket was empty by the slow clock before the fast one looked: this is what the test of the
    // store's clock would see if the proxies' clocks were used there.
    assert!(-short >= earned / 2.0, "{short} less was admitted than one clock allows");
    let refusals = secretive.refusals.load(Ordering::SeqCst);
    // Each worker asks at first, and then once in ten seconds whether it may by now.
    let most = 4 * (1 + usize::try_from(begun.elapsed().as_secs() / 10).unwrap());
    assert!((2..=most).contains(&refusals), "{refusals} of at most {most}");
}

/// A Redis whose scripts may not call TIME: a call that would is answered by the real server as one that
/// forbids it does, every other command is passed on.
struct Secretive {
    port: u16,
    refusals: Arc<AtomicUsize>,
}

impl Secretive {
    fn before(redis: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (server, refusals) = (redis.port(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&refusals);
        std::thread::spawn(move || {
            for proxy in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
                for side in [&proxy, &server] {
                    side.set_nodelay(true).expect("a socket option");
                }
                let replies = (server.try_clone().expect("a socket"), proxy.try_clone().expect("a socket"));
                std::thread::spawn(move || std::io::copy(&mut &replies.0, &mut &replies.1));
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || relay(proxy, server, &counted));
            }
        });
        Self { port, refusals }
    }
}

/// Passes commands on until either side ends.
fn relay(proxy: TcpStream, mut server: TcpStream, refusals: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(proxy);
    loop {
        let mut words: Vec<String> = (0..number(&mut reader)?).map(|_| word(&mut reader)).collect::<Option<_>>()?;
        let keys = words.get(2).and_then(|keys| keys.parse::<usize>().ok());
        if words[0] == "EVALSHA" && words.get(3 + keys?).is_some_and(|now| now == "0") {
            refusals.fetch_add(1, Ordering::SeqCst);
            let refusal = "return redis.error_reply('ERR This Redis command is not allowed from script')";
            words = ["EVAL", refusal, "0"].map(str::to_owned).to_vec();
        }
        let mut command = format!("*{}\r\n", words.len());
        for word in &words {
            let _ = write!(command, "${}\r\n{word}\r\n", word.len());
        }
        server.write_all(command.as_bytes()).ok()?;
    }
}
