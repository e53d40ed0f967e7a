//! Each algorithm's own bound, through the whole proxy: four clients, two proxies, one Redis. Always from both
//! sides: nothing beyond the bound is admitted, and nothing is denied that it allows.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tollgate::limit::algorithm::fixed_window::Align;
use tollgate::limit::algorithm::penalty::Watches;
use tollgate::limit::algorithm::zone::Zone;
use tollgate::limit::algorithm::{
    Algorithm, Bucket, FixedWindow, InFlight, Penalty, Settlement, SlidingLog, SlidingWindow,
};
use tollgate::limit::key::Subject;
use tollgate::limit::stats::LimitStats;
use tollgate::limit::store::redis::RedisStore;
use tollgate::limit::store::{Answer, Ask, Settle};

use super::contract::{Terms, assert_exact, assert_no_window_holds_too_much, count, redis_store, saturate};
use super::redis_store::{block_on, settings, until_up};
use crate::support::client::Request;
use crate::support::eventually;
use crate::support::load::{Load, Sample};
use crate::support::monitor::Monitor;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;

/// Two clocks of this machine may be read a little apart.
const SLACK: Duration = Duration::from_millis(1);

/// Two proxies with one limit for all clients together.
fn two_proxies(redis: &RedisServer, limit: &str) -> [Tollgate; 2] {
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits:\n  - {{ name: all, key: global, {limit} }}\n{}",
        redis_store(redis)
    );
    [Tollgate::start(&yaml), Tollgate::start(&yaml)]
}

/// Four clients that send all the time.
fn press(proxies: &[Tollgate; 2]) -> Load {
    let clients = (0..4).map(|n| (proxies[n % 2].web(), Request::get("/")));
    Load::start(clients.collect(), Duration::from_micros(500))
}

fn admitted(samples: &[Sample]) -> Vec<&Sample> {
    let mut admitted: Vec<_> = samples.iter().filter(|sample| sample.status() == 200).collect();
    admitted.sort_by_key(|sample| sample.received);
    admitted
}

fn denied(samples: &[Sample]) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(|sample| sample.status() == 429)
}

/// The most that is sure to have been admitted within any window of this width: an admission lies between
/// the sending of its request and the answer.
fn most_within(admitted: &[&Sample], width: Duration) -> usize {
    let surely = |begin: &Sample, sample: &Sample| sample.sent >= begin.sent && sample.received < begin.sent + width;
    let within = |begin: &&Sample| admitted.iter().filter(|sample| surely(begin, sample)).count();
    admitted.iter().map(within).max().unwrap_or(0)
}

fn assert_only_decisions(samples: &[Sample], proxies: &[Tollgate; 2]) {
    assert!(samples.iter().all(|sample| matches!(sample.status(), 200 | 429)), "only 200 and 429");
    for proxy in proxies {
        assert_eq!(proxy.metrics().count("tollgate_store_errors_total", &[]), 0, "every decision was the store's");
    }
}

/// The store's clock is this machine's: an instant as microseconds since 1970.
#[derive(Clone, Copy)]
pub(crate) struct Clock(SystemTime, Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(SystemTime::now(), Instant::now())
    }

    pub(crate) fn at(self, instant: Instant) -> i64 {
        let since = self.0.duration_since(UNIX_EPOCH).expect("after 1970") + instant.saturating_duration_since(self.1);
        i64::try_from(since.as_micros()).expect("before 294247")
    }

    /// Waits until so much of a window of the clock has passed.
    fn wait_for(width: Duration, passed: Duration) {
        let width = u64::try_from(width.as_micros()).expect("a short window");
        let now = u64::try_from(Self::new().at(Instant::now())).expect("after 1970");
        let wanted = u64::try_from(passed.as_micros()).expect("part of it");
        std::thread::sleep(Duration::from_micros((wanted + width - now % width) % width));
    }
}

#[test]
fn a_sliding_log_admits_its_count_in_every_window_and_no_less() {
    const COUNT: usize = 20;
    const WIDTH: Duration = Duration::from_millis(600);
    let redis = RedisServer::start();
    let proxies = two_proxies(&redis, "algorithm: sliding_log, rate: 20/600ms");
    let samples = saturate(&[&proxies[0], &proxies[1]]);
    assert_only_decisions(&samples, &proxies);
    let admitted = admitted(&samples);
    let most = most_within(&admitted, WIDTH);
    println!("{} admitted, at most {most} of them within {WIDTH:?}", admitted.len());
    assert!(most <= COUNT, "{most} within {WIDTH:?}, at most {COUNT}");
    let mut denials = 0;
    for denial in denied(&samples) {
        let before = admitted
            .iter()
            .filter(|sample| sample.received + WIDTH + SLACK > denial.sent && sample.sent < denial.received);
        let before = before.count();
        assert!(
            before >= COUNT,
            "denied although only {before} of {COUNT} can have been admitted in the window before"
        );
        denials += 1;
    }
    assert!(denials > 20, "it was under pressure: {denials} denials");
    // Each entry is followed by the next one as soon as somebody asks.
    let windows = (samples[samples.len() - 1].sent - samples[0].received).as_micros() / WIDTH.as_micros();
    let least = COUNT * usize::try_from(windows - 1).expect("a few");
    assert!(admitted.len() >= least, "{} admitted, at least {least}", admitted.len());
}

#[test]
fn a_fixed_window_admits_its_count_in_each_window_of_the_clock_and_no_less() {
    const COUNT: usize = 20;
    const WIDTH: i64 = 600_000;
    let redis = RedisServer::start();
    let proxies = two_proxies(&redis, "algorithm: fixed_window, rate: 20/600ms");
    let clock = Clock::new();
    let samples = saturate(&[&proxies[0], &proxies[1]]);
    assert_only_decisions(&samples, &proxies);
    let admitted = admitted(&samples);
    // The windows of the clock in which a request can have been decided; slack is added or taken away.
    let windows = |sample: &Sample, slack: i64| {
        let (sent, received) = (clock.at(sample.sent) - slack, clock.at(sample.received) + slack);
        sent.div_euclid(WIDTH)..=received.div_euclid(WIDTH)
    };
    let first = clock.at(samples[0].sent).div_euclid(WIDTH) + 1;
    let last = clock.at(samples[samples.len() - 1].sent).div_euclid(WIDTH);
    for window in first..last {
        let surely = admitted.iter().filter(|sample| windows(sample, 1_000) == (window..=window)).count();
        let perhaps = admitted.iter().filter(|sample| windows(sample, 1_000).contains(&window)).count();
        assert!(surely <= COUNT && perhaps >= COUNT, "{surely} to {perhaps} in one window, {COUNT} are right");
    }
    for denial in denied(&samples) {
        let full = windows(denial, 1_000)
            .any(|window| admitted.iter().filter(|sample| windows(sample, 1_000).contains(&window)).count() >= COUNT);
        assert!(full, "denied in a window that was not full");
    }
    assert!(last - first >= 3, "{} whole windows under pressure", last - first);
    assert!(most_within(&admitted, Duration::from_millis(600)) <= 2 * COUNT);
}

/// Drives a pattern until it got most of the way to twice the count (a busy machine may miss a border; where
/// the pattern itself sees that, there are no samples).
fn most_of_twice(count: usize, width: Duration, mut pattern: impl FnMut() -> Option<Vec<Sample>>) {
    let mut reached = 0;
    for _ in 0..8 {
        let Some(samples) = pattern() else { continue };
        assert!(samples.iter().all(|sample| matches!(sample.status(), 200 | 429)), "only 200 and 429");
        let most = most_within(&admitted(&samples), width);
        println!("{most} within {width:?}, {count} per window");
        assert!(most <= 2 * count, "{most} within {width:?}, at most twice {count}");
        reached = reached.max(most);
        if reached > count * 3 / 2 {
            return;
        }
    }
    panic!("never more than {reached} within {width:?}: the worst case was not driven");
}

const SECOND: Duration = Duration::from_secs(1);

/// What a window holds in the patterns, so few that a busy machine fills it in no time.
const FEW: usize = 20;

#[test]
fn two_fixed_windows_that_meet_admit_up_to_twice_the_count_and_never_more() {
    let redis = RedisServer::start();
    let proxies = two_proxies(&redis, "algorithm: fixed_window, rate: 20/1s");
    most_of_twice(FEW, SECOND, || {
        Clock::wait_for(SECOND, Duration::from_millis(600));
        Some(press(&proxies).run_for(Duration::from_millis(800)))
    });
}

#[test]
fn windows_that_a_request_opens_hold_their_count_each_and_up_to_twice_it_where_they_meet() {
    let redis = RedisServer::start();
    let proxies = two_proxies(&redis, "algorithm: fixed_window, align: first_request, rate: 20/1s");
    let monitor = Monitor::start(&redis);
    let mut total = 0;
    most_of_twice(FEW, SECOND, || {
        // The window before is over, whenever it began.
        std::thread::sleep(SECOND);
        assert_eq!(proxies[0].get("/").status, 200, "it opens a window");
        std::thread::sleep(Duration::from_millis(600));
        let samples = press(&proxies).run_for(Duration::from_millis(800));
        total += 1 + admitted(&samples).len();
        Some(samples)
    });
    let mut windows: Vec<(i64, usize)> = Vec::new();
    for write in monitor.writes(&redis, ":all:") {
        let (start, admitted) = write.value.split_once(':').expect("start:count");
        let (start, admitted) = (start.parse().expect("an instant"), admitted.parse().expect("a count"));
        assert!(admitted <= FEW, "{admitted} in one window");
        match windows.last_mut() {
            Some(window) if window.0 == start => window.1 = admitted,
            Some((before, _)) => {
                assert!(start - *before >= 1_000_000, "windows overlap: {before} and {start}");
                windows.push((start, admitted));
            }
            None => windows.push((start, admitted)),
        }
    }
    println!("windows and what they held: {windows:?}");
    assert_eq!(windows.iter().map(|(_, admitted)| admitted).sum::<usize>(), total, "all stood in some window");
    assert!(windows.iter().any(|(_, admitted)| *admitted == FEW), "one was full");
}

#[test]
fn a_sliding_window_admits_less_than_twice_its_count_and_exactly_what_its_estimate_allows() {
    let redis = RedisServer::start();
    let proxies = two_proxies(&redis, "algorithm: sliding_window, rate: 20/2s");
    let clock = Clock::new();
    let mut rounds = 0;
    most_of_twice(FEW, 2 * SECOND, || {
        // Two windows later nothing counts any more. All of one at its end, then what the next one allows.
        std::thread::sleep(4 * SECOND * u32::from(rounds > 0));
        rounds += 1;
        Clock::wait_for(2 * SECOND, Duration::from_millis(1_600));
        let samples = press(&proxies).run_for(Duration::from_secs(2));
        assert!(most_within(&admitted(&samples), 2 * SECOND) < 2 * FEW, "below twice the count");
        is_exact_by_estimate(&samples, clock).then_some(samples)
    });
}

/// Whether the first window was filled; then, in the second, every admission is within the estimate and every
/// denial is due: after a share s of the window exactly `count · s` have been admitted.
fn is_exact_by_estimate(samples: &[Sample], clock: Clock) -> bool {
    const WIDTH: i64 = 2_000_000;
    let border = (clock.at(samples[0].sent) / WIDTH + 1) * WIDTH;
    let admitted = admitted(samples);
    let before = admitted.iter().filter(|sample| clock.at(sample.received) < border - 1_000).count();
    let after: Vec<_> = admitted.iter().filter(|sample| clock.at(sample.sent) > border + 1_000).collect();
    if before != FEW || before + after.len() != admitted.len() {
        return false;
    }
    // The clocks are read up to a millisecond apart.
    let allowed = |instant: Instant, slack: i64| {
        let micros = u32::try_from(clock.at(instant) - border + slack).expect("within seconds");
        count(FEW) * f64::from(micros) / 2e6
    };
    for (position, sample) in after.iter().enumerate() {
        let allowed = allowed(sample.received, 1_000);
        assert!(count(position + 1) <= allowed, "{} admitted where {allowed} fit", position + 1);
    }
    let after_border = |sample: &&Sample| clock.at(sample.sent) > border + 1_000;
    for denial in denied(samples).filter(after_border) {
        let taken = after.iter().filter(|sample| sample.sent < denial.received).count();
        let allowed = allowed(denial.sent, -1_000);
        assert!(count(taken) > allowed - 1.0, "denied although only {taken} of {allowed} had been admitted");
    }
    true
}

#[test]
fn several_rates_of_one_limit_all_hold_and_nothing_is_lost() {
    let (narrow, wide) = (Terms { burst: 30.0, rate: 60.0 }, Terms { burst: 60.0, rate: 30.0 });
    let redis = RedisServer::start();
    let proxies = two_proxies(&redis, "rate: [30/500ms, 60/2s]");
    let samples = saturate(&[&proxies[0], &proxies[1]]);
    assert_only_decisions(&samples, &proxies);
    for terms in [&narrow, &wide] {
        assert_no_window_holds_too_much(&samples.iter().collect::<Vec<_>>(), terms);
    }
    // From the first second on it is the wider one that denies.
    assert_exact(&samples, &wide, "all");
}

#[test]
fn of_several_rates_all_are_charged_or_none() {
    let redis = RedisServer::start();
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits:\n\
         \x20 - {{ name: log, key: global, algorithm: sliding_log, rate: [5/1d, 8/300d], match: {{ path: /log }} }}\n\
         \x20 - {{ name: fixed, key: global, algorithm: fixed_window, rate: [8/100d, 5/300d], match: {{ path: /fixed }} }}\n{}",
        redis_store(&redis)
    );
    let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
    for path in ["/log", "/fixed"] {
        let statuses: Vec<_> = (0..9).map(|n| proxies[n % 2].get(path).status).collect();
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429, 429], "{path}");
    }
    let keys = redis.keys();
    let state = |part: &str| keys.iter().find(|key| key.contains(part)).unwrap_or_else(|| panic!("{part} in {keys:?}"));
    for log in [":log~1d:", ":log~300d:"] {
        assert_eq!(redis.cli(&["LLEN", state(log)]), "5", "{log}");
    }
    for fixed in [":fixed~100d:", ":fixed~300d:"] {
        assert!(redis.cli(&["GET", state(fixed)]).ends_with(":5"), "{fixed}");
    }
}

/// Limits of every algorithm that counts by time, each on a path of its own.
fn every_window(rates: [&str; 3], store: &str) -> String {
    let [rate, first, second] = rates;
    let limits = [
        ("utc", format!("algorithm: fixed_window, rate: {rate}")),
        ("zone", format!("algorithm: fixed_window, align: Europe/Berlin, rate: {rate}")),
        ("first", format!("algorithm: fixed_window, align: first_request, rate: {rate}")),
        ("sliding", format!("algorithm: sliding_window, rate: {rate}")),
        ("log", format!("algorithm: sliding_log, rate: {rate}")),
        ("rates", format!("algorithm: sliding_log, rate: [{first}, {second}]")),
        ("tokens", format!("rate: [{first}, {second}]")),
    ];
    let limits = limits.map(|(name, numbers)| {
        format!("  - {{ name: {name}, key: 'header:x-client', {numbers}, match: {{ path: /{name} }} }}\n")
    });
    format!("listen: 127.0.0.1:0\nworkers: 2\nupstream: echo\nlimits:\n{}{store}", limits.concat())
}

const WINDOWS: [&str; 7] = ["utc", "zone", "first", "sliding", "log", "rates", "tokens"];

fn t2(store: &str) {
    let proxy = Tollgate::start(&every_window(["3/2s", "2/1s", "3/3s"], store));
    let clients = WINDOWS.map(|name| {
        let (web, request) = (proxy.web(), Request::get(&format!("/{name}")).header("x-client", name));
        std::thread::spawn(move || {
            let mut client = crate::support::client::Client::connect(web);
            for _round in 0..2 {
                let denied = (0..10).map(|_| client.send(&request)).find(|answer| answer.status == 429);
                let denied = denied.unwrap_or_else(|| panic!("{name}: no more than 3 are admitted at once"));
                std::thread::sleep(Duration::from_secs(denied.retry_after()));
                let after = client.send(&request);
                assert_eq!(after.status, 200, "{name} after exactly {} s: {}", denied.retry_after(), after.text());
            }
        })
    });
    for client in clients {
        client.join().expect("T2 holds for each");
    }
}

#[test]
fn t2_who_waits_as_a_window_told_is_admitted_by_the_memory_store() {
    t2("");
}

#[test]
fn t2_who_waits_as_a_window_told_is_admitted_by_redis() {
    let redis = RedisServer::start();
    t2(&redis_store(&redis));
}

#[test]
fn t3_a_denial_by_a_window_leaves_every_key_of_redis_as_it_was() {
    let redis = RedisServer::start();
    let yaml = every_window(["3/300d", "3/100d", "4/300d"], &redis_store(&redis));
    let proxies = [Tollgate::start(&yaml), Tollgate::start(&yaml)];
    let states = || {
        let mut all = redis.dump();
        all.retain(|(key, ..)| {
            WINDOWS.iter().any(|name| key.contains(&format!("{name}:")) || key.contains(&format!("{name}~")))
        });
        all
    };
    let requests = WINDOWS.map(|name| Request::get(&format!("/{name}")).header("x-client", "a"));
    for request in &requests {
        let statuses: Vec<_> = (0..3).map(|n| proxies[n % 2].client().send(request).status).collect();
        assert_eq!(statuses, [200; 3], "{request:?}");
    }
    let before = states();
    assert_eq!(before.len(), WINDOWS.len() + 2, "a state per rate: {:?}", redis.keys());
    for request in &requests {
        for proxy in proxies.iter().cycle().take(12) {
            assert_eq!(proxy.client().send(request).status, 429, "{request:?}");
        }
    }
    assert_eq!(states(), before, "the denied changed nothing");
    let endless: Vec<_> = before.iter().filter(|(.., expiry)| expiry == "-1").collect();
    assert!(endless.is_empty(), "no key without expiry: {endless:?}");
}

/// Every algorithm, some in two ways, with what is asked of it.
fn every_algorithm() -> Vec<(&'static str, Algorithm, u64)> {
    let rate = |text: &str| text.parse().expect("a rate");
    let bucket = |text: &str, burst| Bucket::with_debt(rate(text), burst, 5).expect("an exact bucket");
    let fixed = |text: &str, align| Algorithm::FixedWindow(FixedWindow::new(rate(text), align, 5).expect("a window"));
    let sliding = |text: &str| Algorithm::SlidingWindow(SlidingWindow::new(rate(text), 0).expect("a window"));
    let berlin = || Align::Zone(Zone::find("Europe/Berlin").expect("a zone"));
    vec![
        ("tokens", Algorithm::TokenBucket(bucket("7/3s", 5)), 3),
        ("coarse", Algorithm::TokenBucket(bucket("1000003/30d", 1_000_003)), 77_777),
        ("queue", Algorithm::LeakyBucket { bucket: bucket("10/s", 10), delay_after: 1 }, 2),
        ("utc", fixed("5/700ms", Align::Utc), 2),
        ("week", fixed("5/7d", Align::Utc), 2),
        ("berlin", fixed("5/1d", berlin()), 2),
        ("first", fixed("5/1500ms", Align::FirstRequest), 2),
        ("sliding", sliding("5/700ms"), 2),
        ("sliding-coarse", sliding("1000003/30d"), 77_777),
        ("log", Algorithm::SlidingLog(SlidingLog::new(rate("5/1300ms"), 0).expect("a log")), 2),
        ("slots", Algorithm::InFlight(InFlight { limit: 3, slot_us: 1_700_000 }), 1),
    ]
}

/// The one state of a limit expires after the instant from which it equals "never seen", by at most 2 ms.
fn assert_expires(redis: &RedisServer, id: &str, now_us: i64, reset_us: u64) {
    let never_seen = now_us + reset_us.cast_signed();
    let keys: Vec<_> = redis.keys().into_iter().filter(|key| key.contains(&format!(":{id}:"))).collect();
    assert!(keys.len() <= 1, "{id} in {keys:?}");
    let number = |text: String| text.parse::<i64>().expect("a number");
    let expires = keys.first().map(|key| number(redis.cli(&["PEXPIRETIME", key]))).filter(|expires| *expires != -2);
    let Some(expires) = expires else {
        // A machine that is busy is late to ask.
        let time = number(redis.cli(&["TIME"]).lines().next().unwrap_or_default().to_owned());
        assert!((time + 1) * 1_000_000 > never_seen, "{id} was gone before it equals never seen");
        return;
    };
    let late = expires * 1_000 - never_seen;
    assert!((1..=2_000).contains(&late), "{id} is gone {late} µs after it equals never seen");
}

#[test]
fn t6_every_state_is_gone_from_redis_within_2_ms_of_equalling_never_seen() {
    let redis = RedisServer::start();
    block_on(async {
        let store = RedisStore::start(&settings(&redis), Arc::new(LimitStats::new()));
        until_up(&store).await;
        let subject = Subject::from_slice(b"global");
        for (id, algorithm, cost) in every_algorithm() {
            let ask = |cost| Ask { slot: "proxy:1", ..Ask::new(id, &algorithm, &subject, cost) };
            let reply = store.decide(&[ask(cost)]).await.expect("a decision");
            assert!(reply.granted, "{id}");
            assert_expires(&redis, id, reply.now_us, reply.answers[0].reset_us);
            // A second charge, a refund and a further charge move it; a look says to where.
            for amount in [None, Some(-1), Some(1)] {
                match amount {
                    None => drop(store.decide(&[ask(cost)]).await.expect("a decision")),
                    // For a slot, below 0 is its end.
                    Some(-1) if id == "slots" => continue,
                    Some(amount) => {
                        let settlement = Settlement { amount, charged_at_us: reply.now_us, slot: "proxy:1" };
                        let settle = Settle { state_id: id, algorithm: &algorithm, subject: &subject, settlement };
                        store.settle(&[settle]).await.expect("settled");
                    }
                }
                let look = store.decide(&[ask(0)]).await.expect("a look");
                if look.answers[0].reset_us > 1_000 {
                    assert_expires(&redis, id, look.now_us, look.answers[0].reset_us);
                }
            }
        }
        t6_of_a_penalty(&redis, &store).await;
    });
    let short = ["tokens", "queue", "utc", "first", "sliding:", "log", "slots", "scarce", "penalty"];
    eventually("what is over is gone", || {
        let keys = redis.keys();
        assert!(keys.iter().all(|key| redis.cli(&["PTTL", key]) != "-1"), "no key without expiry");
        (!keys.iter().any(|key| short.iter().any(|id| key.contains(id)))).then_some(())
    });
}

/// A strike, a block.
async fn t6_of_a_penalty(redis: &RedisServer, store: &Rc<RedisStore>) {
    let subject = Subject::from_slice(b"global");
    let scarce = Algorithm::TokenBucket(Bucket::new("1/300ms".parse().expect("a rate"), 1).expect("a bucket"));
    let penalty = Algorithm::Penalty(Penalty {
        after: 2,
        block_us: 400_000,
        max_us: 1_100_000,
        watches: Watches::Denials(1),
        round_us: 1_100_000,
    });
    let asks = || [Ask::new("scarce", &scarce, &subject, 1), Ask::new("penalty", &penalty, &subject, 1)];
    let mut blocked = false;
    let begun = Instant::now();
    while !blocked {
        assert!(begun.elapsed() < Duration::from_secs(10), "two strikes block");
        let reply = store.decide(&asks()).await.expect("a decision");
        let [_, Answer { allowed, reset_us, .. }] = reply.answers[..] else { panic!("two answers") };
        blocked = !allowed;
        if reset_us > 0 {
            assert_expires(redis, "penalty", reply.now_us, reset_us);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
