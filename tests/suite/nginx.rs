//! The buckets beside nginx's `limit_req`, whose users are to find what they know: a running nginx is
//! sent random schedules, and the arrival times that it logged are judged by our pure functions.
//!
//! nginx counts `excess` in thousandths of a request at whole milliseconds: a leaky bucket of capacity
//! `burst` + 1. Each request that it accepts loses less than a thousandth to truncation, and its
//! monotonic milliseconds and the logged ones tick at different instants. Only where the exact level is
//! nearer to a boundary than these two may a verdict differ.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate::limit::algorithm::{Algorithm, Bucket, Evaluation, State};
use tollgate::units::Rate;

use super::redis_store::block_on;
use crate::support::nginx::Nginx;
use crate::support::quantile;

/// Schedules, each with a key of its own.
const SCHEDULES: usize = 1_000;
/// Different `limit_req` lines; each has a location and a zone.
const LOCATIONS: usize = 48;
/// Schedules begin within this time.
const BEGINNINGS: Duration = Duration::from_secs(4);
/// The longest that nginx may hold a request here.
const LONGEST_DELAY_MS: u64 = 1_000;
/// How far the milliseconds that nginx counts with and those that it logs may be apart.
const GRANULARITY_MS: u64 = 2;

/// How long a turn of nginx' loop may take on a busy machine: it reads its clock once in each, so that a timer may
/// seem to be early by that.
const TURN_MS: u64 = 50;

/// One `limit_req`.
#[derive(Debug, Clone, Copy)]
struct Terms {
    count: u64,
    unit: char,
    burst: u64,
    /// `None` is `nodelay`.
    delay: Option<u64>,
}

impl Terms {
    fn draw(random: &mut Rng) -> Self {
        let (count, unit) = [
            (2, 's'),
            (5, 's'),
            (10, 's'),
            (20, 's'),
            (33, 's'),
            (50, 's'),
            (100, 's'),
            (7, 'm'),
            (59, 'm'),
            (300, 'm'),
        ][random.usize(..10)];
        let burst = random.u64(..15);
        let drawn = Self { count, unit, burst, delay: None };
        let held = LONGEST_DELAY_MS * drawn.thousandths() / 1_000_000;
        match random.u8(..5) {
            0 => Self { burst: 0, delay: Some(0), ..drawn },
            1 => drawn,
            2 => Self { burst: burst.min(held), delay: Some(0), ..drawn },
            _ => {
                let delay = random.u64(..=burst);
                Self { burst: burst.min(delay + held), delay: Some(delay), ..drawn }
            }
        }
    }

    /// The rate as nginx has it: thousandths of a request per second, truncated.
    fn thousandths(&self) -> u64 {
        self.count * 1000 / if self.unit == 'm' { 60 } else { 1 }
    }

    /// Requests per second.
    fn per_second(&self) -> f64 {
        float(self.thousandths()) / 1000.0
    }

    fn zone(&self, number: usize) -> String {
        format!("    limit_req_zone $arg_k zone=z{number}:1m rate={}r/{};\n", self.count, self.unit)
    }

    fn location(&self, number: usize) -> String {
        let burst = if self.burst > 0 { format!("burst={}", self.burst) } else { String::new() };
        let delay = self.delay.map_or_else(|| "nodelay".to_owned(), |delay| format!("delay={delay}"));
        let delay = if self.burst > 0 && delay != "delay=0" { delay } else { String::new() };
        format!("        location = /{number} {{ limit_req zone=z{number} {burst} {delay}; alias empty; }}\n")
    }

    /// The same limit in our terms.
    fn algorithm(&self) -> Algorithm {
        let rate = Rate { count: self.thousandths(), period: Duration::from_secs(1000) };
        let bucket = Bucket::new(rate, self.burst + 1).expect("it can be counted exactly");
        match self.delay {
            None => Algorithm::TokenBucket(bucket),
            Some(delay) => Algorithm::LeakyBucket { bucket, delay_after: delay + 1 },
        }
    }
}

/// What becomes of a request, in the order in which requests of one instant get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Passed,
    Delayed,
    Rejected,
}

/// nginx's own arithmetic for one key.
#[derive(Debug, Clone, Copy)]
struct Account {
    excess: u64,
    last_ms: i64,
}

/// What a new request makes of it.
fn excess_after(account: Option<Account>, terms: &Terms, now_ms: i64) -> u64 {
    let Some(account) = account else { return 0 };
    let elapsed = u64::try_from(now_ms - account.last_ms).unwrap_or(0);
    (account.excess + 1000).saturating_sub(terms.thousandths() * elapsed / 1000)
}

/// What becomes of it, and the milliseconds it is held.
fn judged(excess: u64, terms: &Terms) -> (Kind, u64) {
    if excess > terms.burst * 1000 {
        return (Kind::Rejected, 0);
    }
    let over = terms.delay.map_or(0, |delay| excess.saturating_sub(delay * 1000));
    let delay_ms = over * 1000 / terms.thousandths();
    (if delay_ms > 0 { Kind::Delayed } else { Kind::Passed }, delay_ms)
}

/// Our verdict in nginx's words, which have no delays below a millisecond.
fn kind_of(evaluation: &Evaluation) -> Kind {
    match evaluation {
        Evaluation { allowed: false, .. } => Kind::Rejected,
        Evaluation { wait_us: 1000.., .. } => Kind::Delayed,
        _ => Kind::Passed,
    }
}

/// A request as nginx logged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Logged {
    arrived_ms: i64,
    kind: Kind,
    took_ms: u64,
}

/// When a key's requests leave.
struct Schedule {
    location: usize,
    begins: Duration,
    gaps: Vec<Duration>,
}

impl Schedule {
    fn draw(random: &mut Rng, terms: &[Terms]) -> Self {
        let location = random.usize(..terms.len());
        let interval_us = (1_000_000_000 / terms[location].thousandths()).min(300_000);
        let gap = |random: &mut Rng| match random.u8(..) {
            0..=110 => 0,
            111..=160 => random.u64(..30_000),
            161..=220 => random.u64(interval_us / 2..=interval_us * 3 / 2),
            221.. => random.u64(..500_000),
        };
        let begins = Duration::from_micros(random.u64(..u64::try_from(BEGINNINGS.as_micros()).expect("small")));
        let gaps = (0..random.usize(6..=18)).map(|_| Duration::from_micros(gap(random))).collect();
        Self { location, begins, gaps }
    }
}

type Idle = Rc<RefCell<Vec<TcpStream>>>;

/// Sends everything when it is due; requests of one key do not wait for each other.
async fn send_all(address: SocketAddr, schedules: &[Schedule]) {
    let (begun, idle) = (Instant::now(), Idle::default());
    let mut tasks = Vec::new();
    for (key, schedule) in schedules.iter().enumerate() {
        let target = format!("/{}?k={key}", schedule.location);
        let mut due = begun + schedule.begins;
        for gap in &schedule.gaps {
            due += *gap;
            let (target, idle) = (target.clone(), Rc::clone(&idle));
            tasks.push(tokio::task::spawn_local(async move {
                tokio::time::sleep_until(due.into()).await;
                ask(address, &target, &idle).await
            }));
        }
    }
    for task in tasks {
        task.await.expect("no request panics").expect("an answer");
    }
}

/// One request on an idle connection or a new one.
async fn ask(address: SocketAddr, target: &str, idle: &Idle) -> io::Result<()> {
    let kept = idle.borrow_mut().pop();
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    idle.borrow_mut().push(stream);
    Ok(())
}

/// Whether an answer with a Content-Length is complete.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    body.len() >= length.expect("a length").parse().expect("a number")
}

/// `1700000000.123 DELAYED 0.100 7`: the key, and what it says.
fn logged(line: &str) -> (usize, Logged) {
    let words: Vec<_> = line.split(' ').collect();
    let [arrived, status, took, key] = words[..] else { panic!("{line:?}") };
    let kind = match status {
        "PASSED" => Kind::Passed,
        "DELAYED" => Kind::Delayed,
        "REJECTED" => Kind::Rejected,
        _ => panic!("{line:?}"),
    };
    let millis = |text: &str| text.replace('.', "").parse::<i64>().expect("seconds with three decimals");
    let took_ms = u64::try_from(millis(took)).expect("not negative");
    (key.parse().expect("a key"), Logged { arrived_ms: millis(arrived), kind, took_ms })
}

/// What was found, over all schedules.
#[derive(Debug, Default)]
struct Found {
    verdicts: HashMap<Kind, usize>,
    /// Our verdicts, and those of nginx's arithmetic at the logged times, that nginx did not give.
    ours_excused: usize,
    arithmetic_excused: usize,
    waits: usize,
    furthest_wait_us: u64,
    late: Vec<Duration>,
}

/// One key's requests, judged by both arithmetics, which then follow what nginx did.
struct Comparison<'a> {
    terms: &'a Terms,
    accepted: u64,
    account: Option<Account>,
    stored: Option<State>,
}

impl Comparison<'_> {
    fn judge(&mut self, request: Logged, found: &mut Found) {
        let (algorithm, now_us) = (self.terms.algorithm(), request.arrived_ms * 1000);
        let bucket = algorithm.bucket().expect("a bucket");
        let stored = if let Some(State::Bucket(state)) = self.stored { Some(state) } else { None };
        let deficit = bucket.read(stored, now_us).deficit;
        let evaluation = algorithm.evaluate(self.stored.as_ref(), 1, now_us);
        let ours = kind_of(&evaluation);
        let excess = excess_after(self.account, self.terms, request.arrived_ms);
        let (theirs, delay_ms) = judged(excess, self.terms);
        let level = float(deficit) / float(bucket.period) + 1.0;
        let what = format!(
            "{:?}: {request:?} with {} accepted before, level {level}, {evaluation:?}, excess {excess}",
            self.terms, self.accepted
        );
        *found.verdicts.entry(request.kind).or_default() += 1;
        found.ours_excused += usize::from(self.is_excused(level, [ours, request.kind], &what));
        found.arithmetic_excused += usize::from(self.is_excused(level, [theirs, request.kind], &what));
        if [ours, theirs] == [Kind::Delayed; 2] {
            found.waits += 1;
            let apart = evaluation.wait_us.abs_diff(delay_ms * 1000);
            found.furthest_wait_us = found.furthest_wait_us.max(apart);
            assert!(apart <= 1_001 + self.truncated_us(), "{apart} us apart: {what}");
        }
        if [theirs, request.kind] == [Kind::Delayed; 2] {
            // Begin and end are logged in truncated milliseconds.
            let least = delay_ms.saturating_sub(TURN_MS + 1 + GRANULARITY_MS + self.truncated_us().div_ceil(1000));
            assert!(request.took_ms >= least, "not held for {delay_ms} ms: {what}");
            found.late.push(Duration::from_millis(request.took_ms.saturating_sub(delay_ms)));
        }
        if request.kind != Kind::Rejected {
            self.accepted += 1;
            self.account = Some(Account { excess, last_ms: request.arrived_ms });
            let written = algorithm.written(&evaluation, true, "").map(|change| change.applied(None));
            let charged = || State::Bucket(bucket.state(bucket.charged(deficit, 1), now_us));
            self.stored = Some(written.unwrap_or_else(charged));
        }
    }

    /// What nginx's truncation of each accepted request is worth, in microseconds of delay.
    fn truncated_us(&self) -> u64 {
        (self.accepted + 1) * 1_000_000 / self.terms.thousandths()
    }

    /// Whether two verdicts differ, which they may only near the boundary between them.
    fn is_excused(&self, level: f64, verdicts: [Kind; 2], what: &str) -> bool {
        if verdicts[0] == verdicts[1] {
            return false;
        }
        let boundary = if verdicts.contains(&Kind::Rejected) {
            float(self.terms.burst + 1)
        } else {
            float(self.terms.delay.unwrap_or(self.terms.burst) + 1) + self.terms.per_second() / 1000.0
        };
        let tolerance = 0.001 * float(self.accepted + 1) + self.terms.per_second() * float(GRANULARITY_MS) / 1000.0;
        assert!((level - boundary).abs() <= tolerance, "{verdicts:?}, {boundary} +- {tolerance}: {what}");
        true
    }
}

#[expect(clippy::cast_precision_loss, reason = "everything here is below 2^52")]
fn float(n: u64) -> f64 {
    n as f64
}

fn start(terms: &[Terms]) -> Nginx {
    let numbered = |line: fn(&Terms, usize) -> String| terms.iter().enumerate().map(move |(n, terms)| line(terms, n));
    let zones: String = numbered(Terms::zone).collect();
    let locations: String = numbered(Terms::location).collect();
    Nginx::start(
        &format!(
            "    log_format arrivals '$arrived $limit_req_status $request_time $arg_k';\n\
             \x20   limit_req_log_level info;\n{zones}"
        ),
        &format!("        set $arrived $msec;\n        access_log arrivals.log arrivals;\n{locations}"),
    )
}

#[test]
fn the_buckets_judge_as_nginx_does() {
    let seed =
        std::env::var("TOLLGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("TOLLGATE_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let terms: Vec<_> = (0..LOCATIONS).map(|_| Terms::draw(&mut random)).collect();
    let schedules: Vec<_> = (0..SCHEDULES).map(|_| Schedule::draw(&mut random, &terms)).collect();
    let total: usize = schedules.iter().map(|schedule| schedule.gaps.len()).sum();
    let nginx = start(&terms);
    block_on(send_all(nginx.address(), &schedules));
    let mut of_key = vec![Vec::new(); SCHEDULES];
    for line in nginx.log_lines("arrivals.log", total) {
        let (key, logged) = logged(&line);
        of_key[key].push(logged);
    }
    let mut found = Found::default();
    for (schedule, mut requests) in schedules.iter().zip(of_key) {
        assert_eq!(requests.len(), schedule.gaps.len());
        // A held request is logged when it ends; within one millisecond nothing leaks.
        requests.sort_unstable();
        let terms = &terms[schedule.location];
        let mut comparison = Comparison { terms, accepted: 0, account: None, stored: None };
        for request in requests {
            comparison.judge(request, &mut found);
        }
    }
    assert_found(found, total);
}

fn assert_found(mut found: Found, total: usize) {
    let of = |kind| found.verdicts.get(&kind).copied().unwrap_or_default();
    let (passed, delayed, rejected) = (of(Kind::Passed), of(Kind::Delayed), of(Kind::Rejected));
    let held_at_least = quantile(&mut found.late, 0.1);
    println!(
        "{total} verdicts over {SCHEDULES} schedules compared with nginx: {passed} passed, {delayed} delayed, {rejected} \
         rejected; {} near a boundary differ and are excused ({} of nginx's own arithmetic at the logged times); \
         {} waits compared, at most {} us apart; held longer than computed: p10 {held_at_least:?}, p50 {:?}, p99 {:?}",
        found.ours_excused,
        found.arithmetic_excused,
        found.waits,
        found.furthest_wait_us,
        quantile(&mut found.late, 0.5),
        quantile(&mut found.late, 0.99)
    );
    assert_eq!(passed + delayed + rejected, total);
    assert!(passed > total / 20 && delayed > total / 20 && rejected > total / 20, "the mix is one-sided");
    assert!(found.waits > delayed * 9 / 10, "most delays are compared");
    assert!(found.ours_excused * 50 < total && found.arithmetic_excused * 50 < total, "too many are excused");
    assert!(held_at_least <= Duration::from_millis(50), "nginx holds longer than this arithmetic says");
}

/// Eight requests at one instant, and three more, under `rate=10r/s burst=5 delay=2`.
#[test]
fn a_known_schedule_gets_the_verdicts_and_delays_of_nginx() {
    use Kind::{Delayed, Passed, Rejected};
    let terms = Terms { count: 10, unit: 's', burst: 5, delay: Some(2) };
    let algorithm = terms.algorithm();
    let instants = [1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1050, 1100, 1250];
    let expected = [
        (Passed, 0),
        (Passed, 0),
        (Passed, 0),
        (Delayed, 100),
        (Delayed, 200),
        (Delayed, 300),
        (Rejected, 0),
        (Rejected, 0),
        (Rejected, 0),
        (Delayed, 300),
        (Delayed, 250),
    ];
    let (mut account, mut stored): (_, Option<State>) = (None, None);
    for (now_ms, expected) in instants.into_iter().zip(expected) {
        let excess = excess_after(account, &terms, now_ms);
        assert_eq!(judged(excess, &terms), expected, "nginx's arithmetic at {now_ms}");
        let evaluation = algorithm.evaluate(stored.as_ref(), 1, now_ms * 1000);
        assert_eq!((kind_of(&evaluation), evaluation.wait_us / 1000), expected, "ours at {now_ms}");
        if expected.0 != Rejected {
            account = Some(Account { excess, last_ms: now_ms });
            stored = algorithm.written(&evaluation, true, "").map(|change| change.applied(None));
        }
    }
}
