//! Redis and the memory store are the same limiter: the same asks at the same instants get the same
//! replies, to the microsecond, whatever was asked before. `oracle/` compares the memory store with the
//! definitions on operations of the same kinds: together that is oracle = memory = Redis.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate::limit::algorithm::fixed_window::Align;
use tollgate::limit::algorithm::penalty::Watches;
use tollgate::limit::algorithm::zone::Zone;
use tollgate::limit::algorithm::{
    Algorithm, Bucket, FixedWindow, InFlight, Penalty, Settlement, SlidingLog, SlidingWindow,
};
use tollgate::limit::key::Subject;
use tollgate::limit::stats::LimitStats;
use tollgate::limit::store::memory::MemoryStore;
use tollgate::limit::store::redis::RedisStore;
use tollgate::limit::store::{Ask, Reply, Settle};

use super::redis_store::{block_on, settings, until_up};
use crate::support::redis_server::RedisServer;

/// Decisions compared.
const DECISIONS: usize = 250_000;
/// Decisions under way at once.
const PIPELINED: usize = 256;
/// Far in the future: no key may expire by the server's clock while the test runs (2036).
pub(super) const START_US: i64 = 2_082_758_400_123_457;

/// One decision, as it was drawn, and what follows it.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) now_us: i64,
    pub(super) limits: Vec<Drawn>,
    /// Unique over all decisions.
    slot: String,
    /// By which amount, and how much later, the first limit is settled.
    settled: Option<(i64, i64)>,
}

#[derive(Debug, Clone)]
pub(super) struct Drawn {
    pub(super) state_id: &'static str,
    pub(super) algorithm: Algorithm,
    pub(super) subject: Subject,
    pub(super) cost: u64,
    pub(super) shadow: u8,
}

const STATE_IDS: [&str; 5] = ["api", "api@gold", "login", "day", "burst"];

fn bucket(random: &mut Rng) -> Bucket {
    let chosen = [
        Bucket { capacity: 10, rate: 1, period: 100_000, tick: 1, debt: 0 },
        Bucket { capacity: 10, rate: 3, period: 1_000_000, tick: 1, debt: 0 },
        Bucket { capacity: 1, rate: 1, period: 1_000_000, tick: 1, debt: 0 },
        Bucket { capacity: 100, rate: 7, period: 13_000_000, tick: 1, debt: 0 },
        Bucket { capacity: 1000, rate: 1_000_003, period: 1_000_000, tick: 1, debt: 0 },
        Bucket { capacity: 1_000_003, rate: 1_000_003, period: 2_592_000_000, tick: 1000, debt: 0 },
        Bucket { capacity: 5, rate: 3, period: 1000, tick: 1000, debt: 0 },
        Bucket { capacity: 7, rate: 2, period: 7, tick: 1_000_000, debt: 0 },
        Bucket { capacity: 5, rate: 1, period: 60, tick: 10_000, debt: 0 },
    ];
    if random.u8(..) < 200 {
        return chosen[random.usize(..chosen.len())];
    }
    let tick = 10_u64.pow(random.u32(0..=6));
    let capacity = random.u64(1..50);
    let rate = random.u64(1..20);
    Bucket { capacity, rate, period: random.u64(1..=3_000_000 / tick), tick, debt: 0 }
}

/// Windows, logs, slots.
fn other(random: &mut Rng, zone: &Zone) -> Algorithm {
    let rate = |count: u64, period: &str| format!("{count}/{period}").parse().unwrap();
    let count = [1, 3, 10, 100][random.usize(..4)];
    let debt = if random.bool() { 0 } else { count };
    let period = ["100ms", "1s", "7s", "1m", "1d", "7d"][random.usize(..6)];
    let align = match random.u8(..3) {
        0 => Align::FirstRequest,
        1 if Zone::suits(period_us(period)) => Align::Zone(zone.clone()),
        _ => Align::Utc,
    };
    match random.u8(..4) {
        0 => Algorithm::FixedWindow(FixedWindow::new(rate(count, period), align, debt).unwrap()),
        1 => Algorithm::SlidingWindow(SlidingWindow::new(rate(count, period), debt).unwrap()),
        2 => Algorithm::SlidingLog(SlidingLog::new(rate(count, period), debt).unwrap()),
        _ => Algorithm::InFlight(InFlight { limit: count, slot_us: [1_000_000, 30_000_000][random.usize(..2)] }),
    }
}

fn period_us(period: &str) -> u64 {
    u64::try_from(tollgate::units::parse_duration(period).unwrap().as_micros()).unwrap()
}

fn algorithm(random: &mut Rng, zone: &Zone) -> Algorithm {
    let with_debt = |bucket: Bucket, debt: u64| Bucket { debt: debt.min(bucket.capacity), ..bucket };
    let bucket = with_debt(bucket(random), [0, 0, 0, 3, 1_000_000][random.usize(..5)]);
    match random.u8(..) {
        0..=89 => Algorithm::TokenBucket(bucket),
        90..=139 => Algorithm::LeakyBucket { bucket, delay_after: random.u64(1..=bucket.capacity.min(4)) },
        _ => other(random, zone),
    }
}

fn cost(random: &mut Rng, algorithm: &Algorithm) -> u64 {
    let capacity = algorithm.capacity();
    match (algorithm, random.u8(..)) {
        (_, 0..=25) => 0,
        (Algorithm::InFlight(_), _) => 1,
        (_, 26..=200) => random.u64(1..=1 + capacity / 4),
        (_, 201..=240) => random.u64(1..=capacity),
        (_, 241..=250) => capacity + 1,
        _ => 1 << 31,
    }
}

pub(super) fn draw(random: &mut Rng, (now_us, number): (i64, usize), zone: &Zone) -> Operation {
    let count = [1, 1, 1, 2, 2, 3, 4][random.usize(..7)];
    let mut limits: Vec<Drawn> = Vec::new();
    for _ in 0..count {
        let algorithm = algorithm(random, zone);
        let cost = cost(random, &algorithm);
        let subject = Subject::from_slice(format!("ip-{}", random.u8(..8)).as_bytes());
        let state_id = STATE_IDS[random.usize(..STATE_IDS.len())];
        let number = u8::try_from(limits.len() + 1).unwrap();
        let shadow = if random.u8(..) < 50 { number } else { 0 };
        limits.push(Drawn { state_id, algorithm, subject, cost, shadow });
        let last = limits.len() - 1;
        match random.u8(..) {
            // The same state once more.
            0..=11 => {
                let again = limits[random.usize(..limits.len())].clone();
                if again.shadow == 0 {
                    limits.push(Drawn { cost: random.u64(0..2), ..again });
                }
            }
            // Another rate of the same shadow limit.
            12..=30 if shadow > 0 => {
                let bucket = bucket(random);
                let id = "other-rate";
                limits.push(Drawn { state_id: id, algorithm: Algorithm::TokenBucket(bucket), ..limits[last].clone() });
            }
            31..=60 if shadow == 0 => {
                let penalty = Penalty {
                    after: random.u64(1..4),
                    block_us: 1_500_000,
                    max_us: 5_000_000,
                    watches: Watches::Denials(random.usize(1..=limits.len())),
                    round_us: [5_000_000, 60_000_000][random.usize(..2)],
                };
                let algorithm = Algorithm::Penalty(penalty);
                limits.push(Drawn { state_id: "penalty", algorithm, cost: 1, ..limits[last].clone() });
                if random.bool() {
                    let network = Penalty { after: random.u64(1..4), watches: Watches::Parts, ..penalty };
                    let (algorithm, subject) = (Algorithm::Penalty(network), Subject::from_slice(b"around-all"));
                    limits.push(Drawn { state_id: "network", algorithm, subject, cost: 1, shadow: 0 });
                }
            }
            _ => {}
        }
    }
    let mut seen: Vec<(_, u8)> = Vec::new();
    limits.retain(|limit| {
        let is_list = matches!(limit.algorithm, Algorithm::InFlight(_) | Algorithm::Penalty(_));
        let place = (limit.state_id, limit.algorithm.letter(), limit.algorithm.window_us(), limit.subject.clone());
        // No decision asks for two slots or two penalties of one key, nor for one state by two policies.
        let again = seen.iter().any(|(other, shadow)| *other == place && (is_list || *shadow + limit.shadow > 0));
        seen.push((place, limit.shadow));
        !again
    });
    limits.truncate(4);
    let settled = (random.u8(..) < 60).then(|| (random.i64(-12..12), random.i64(0..2_000_000)));
    Operation { now_us, limits, slot: format!("proxy:{number}"), settled }
}

/// Mostly forward by little, at times by minutes, at times back by less or more than a second.
pub(super) fn next_instant(random: &mut Rng, now_us: i64) -> i64 {
    now_us
        + match random.u8(..) {
            0..=60 => 0,
            61..=220 => random.i64(0..20_000),
            221..=240 => random.i64(0..2_000_000),
            241..=246 => random.i64(0..60_000_000),
            247..=251 => -random.i64(0..1_000_000),
            252..=254 => -random.i64(0..3_000_000),
            255 => -random.i64(0..100_000_000),
        }
}

pub(super) fn asks(operation: &Operation) -> Vec<Ask<'_>> {
    operation
        .limits
        .iter()
        .map(|limit| Ask {
            shadow: limit.shadow,
            slot: &operation.slot,
            ..Ask::new(limit.state_id, &limit.algorithm, &limit.subject, limit.cost)
        })
        .collect()
}

/// What follows a decision, and when.
pub(super) fn settles(operation: &Operation) -> Option<(i64, [Settle<'_>; 1])> {
    let (amount, later) = operation.settled?;
    let limit = &operation.limits[0];
    if amount == 0 || matches!(limit.algorithm, Algorithm::Penalty(_)) {
        return None;
    }
    let settlement = Settlement { amount, charged_at_us: operation.now_us, slot: &operation.slot };
    let settle = Settle { state_id: limit.state_id, algorithm: &limit.algorithm, subject: &limit.subject, settlement };
    Some((operation.now_us + later, [settle]))
}

fn operations(seed: u64) -> Vec<Operation> {
    let mut random = Rng::with_seed(seed);
    let mut now_us = START_US;
    let zone = Zone::find("Europe/Berlin").unwrap();
    (0..DECISIONS)
        .map(|number| {
            now_us = next_instant(&mut random, now_us);
            draw(&mut random, (now_us, number), &zone)
        })
        .collect()
}

/// Sends a batch in one turn of the event loop; they run in the order they were sent.
async fn decide_all(store: &Rc<RedisStore>, batch: &[Operation]) -> Vec<Reply> {
    let tasks: Vec<_> = batch
        .iter()
        .cloned()
        .map(|operation| {
            let store = Rc::clone(store);
            tokio::task::spawn_local(async move {
                // Both are sent before either is answered, so nothing comes between them.
                let asks = asks(&operation);
                let decide = store.decide_at(operation.now_us, &asks);
                let settle = async {
                    match &settles(&operation) {
                        Some((now_us, settles)) => store.settle_at(*now_us, settles).await,
                        None => Ok(()),
                    }
                };
                let (reply, settled) = tokio::join!(decide, settle);
                settled.unwrap_or_else(|kind| panic!("{kind:?} settling {operation:?}"));
                reply.unwrap_or_else(|kind| panic!("{kind:?} at {operation:?}"))
            })
        })
        .collect();
    let mut replies = Vec::with_capacity(tasks.len());
    for task in tasks {
        replies.push(task.await.unwrap());
    }
    replies
}

#[test]
fn redis_and_memory_give_the_same_answers() {
    let server = RedisServer::start();
    let memory = MemoryStore::new(100_000);
    let seed =
        std::env::var("TOLLGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("TOLLGATE_SEED={seed}");
    let operations = operations(seed);
    let began = Instant::now();
    let (mut granted, mut denied, mut waited) = (0, 0, 0);
    block_on(async {
        let mut settings = settings(&server);
        settings.timeout = Duration::from_secs(20);
        let store = RedisStore::start(&settings, Arc::new(LimitStats::new()));
        until_up(&store).await;
        for (number, batch) in operations.chunks(PIPELINED).enumerate() {
            let replies = decide_all(&store, batch).await;
            for (index, (operation, reply)) in batch.iter().zip(&replies).enumerate() {
                let expected = memory.decide_at(operation.now_us, &asks(operation));
                if let Some((now_us, settles)) = settles(operation) {
                    memory.settle_at(now_us, &settles);
                }
                assert_eq!(reply, &expected, "seed {seed}, decision {}: {operation:?}", number * PIPELINED + index);
                granted += usize::from(reply.granted);
                denied += usize::from(!reply.granted);
                waited += usize::from(reply.wait_us > 0);
            }
        }
    });
    println!("{DECISIONS} decisions agree in {:?}: {granted} granted, {denied} denied, {waited} held", began.elapsed());
    assert!(granted > DECISIONS / 10 && denied > DECISIONS / 10 && waited > DECISIONS / 200, "the mix is one-sided");
}

#[test]
fn the_script_for_one_token_bucket_writes_what_the_general_one_writes() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let mut random = Rng::with_seed(42);
    let mut now_us = START_US;
    let zone = Zone::find("Europe/Berlin").unwrap();
    block_on(async {
        let mut settings = [settings(&servers[0]), settings(&servers[1])];
        for settings in &mut settings {
            settings.timeout = Duration::from_secs(20);
        }
        let stats = || Arc::new(LimitStats::new());
        let (lean, general) = (RedisStore::start(&settings[0], stats()), RedisStore::start(&settings[1], stats()));
        until_up(&lean).await;
        until_up(&general).await;
        let subject = Subject::from_slice(b"other");
        let watched = Algorithm::TokenBucket(Bucket { capacity: 1, rate: 1, period: 1, tick: 1, debt: 0 });
        for _ in 0..2_000 {
            now_us = next_instant(&mut random, now_us);
            let mut one = draw(&mut random, (now_us, 0), &zone);
            one.limits.truncate(1);
            one.limits[0].shadow = 0;
            one.limits[0].algorithm = Algorithm::TokenBucket(bucket(&mut random));
            let mut two = asks(&one);
            two.push(Ask { shadow: 1, ..Ask::new("none", &watched, &subject, 0) });
            let lean = lean.decide_at(now_us, &asks(&one)).await.unwrap();
            let general = general.decide_at(now_us, &two).await.unwrap();
            assert_eq!(
                (lean.granted, lean.retry_us, lean.answers[0]),
                (general.granted, general.retry_us, general.answers[0])
            );
        }
    });
    assert!(!servers[0].keys().is_empty());
    assert_eq!(servers[0].dump(), servers[1].dump());
}

/// One decision about a fixed window as a proxy sends it whose clock says `near`.
fn decide_by_another_clock(server: &RedisServer, window: &FixedWindow, now_us: i64, near: i64) -> Vec<i64> {
    const SCRIPT: &str = concat!(
        include_str!("../../lua/prelude.lua"),
        include_str!("../../lua/fixed_window.lua"),
        include_str!("../../lua/decide.lua")
    );
    let [from, to, next] = window.windows_near(near).unwrap();
    let numbers = [now_us, 1].map(|number| number.to_string());
    let parameters = [0, 1, window.limit.cast_signed(), window.window_us.cast_signed(), from, to, next, 0];
    let parameters = parameters.map(|number| number.to_string());
    let mut words = vec!["EVAL", SCRIPT, "1", "state"];
    words.extend(numbers.iter().map(String::as_str));
    words.push("f");
    words.extend(parameters.iter().map(String::as_str));
    server.cli(&words).lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_proxy_whose_clock_is_minutes_off_counts_in_the_windows_of_the_servers_clock() {
    const HOUR: i64 = 3_600_000_000;
    let server = RedisServer::start();
    let zone = Zone::find("Europe/Berlin").unwrap();
    let subject = Subject::from_slice(b"global");
    let mut random = Rng::with_seed(3);
    // 2036-03-30 and 2036-10-26, 01:00 UTC: days of 23 and of 25 hours.
    for change in [2_090_451_600_000_000, 2_108_595_600_000_000] {
        for (rate, step) in [("3/1d", 2 * HOUR), ("2/6h", HOUR), ("2/40m", HOUR / 3), ("2/1s", 800_000)] {
            let memory = MemoryStore::new(1_000);
            // Minutes are many windows of a second, and those of UTC are all of one length.
            let align = if step < 1_000_000 { Align::Utc } else { Align::Zone(zone.clone()) };
            let window = FixedWindow::new(rate.parse().unwrap(), align, 0).unwrap();
            let algorithm = Algorithm::FixedWindow(window.clone());
            server.cli(&["DEL", "state"]);
            let mut now_us = change - (26 * HOUR).min(50 * step);
            while now_us < change + (26 * HOUR).min(50 * step) {
                // At times to just before or after a border, where the two clocks are in different windows.
                let border = window.window_at(now_us).unwrap().1;
                now_us = if random.bool() { border + random.i64(-5..5) } else { now_us + random.i64(0..step) };
                let off = [420_000_000, 2_000_000][random.usize(..2)];
                let near = now_us + random.i64(-off..off);
                let reply = memory.decide_at(now_us, &[Ask::new("state", &algorithm, &subject, 1)]);
                let answer = reply.answers[0];
                let told = decide_by_another_clock(&server, &window, now_us, near);
                let right = [i64::from(answer.allowed), answer.remaining.cast_signed(), answer.retry_us];
                assert_eq!(told[4..7], right, "{rate} at {now_us}, told by {near}");
                assert_eq!(told[7], answer.reset_us.cast_signed(), "{rate} at {now_us}, told by {near}");
            }
        }
    }
}
