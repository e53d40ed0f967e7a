//! Redis and the memory store are the same limiter: the same asks at the same instants get the same
//! replies, to the microsecond, whatever was asked before.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate::limit::algorithm::{Algorithm, Bucket};
use tollgate::limit::key::Subject;
use tollgate::limit::stats::LimitStats;
use tollgate::limit::store::memory::MemoryStore;
use tollgate::limit::store::redis::RedisStore;
use tollgate::limit::store::{Ask, Reply};

use super::redis_store::{block_on, settings, until_up};
use crate::support::redis_server::RedisServer;

/// Decisions compared.
const DECISIONS: usize = 120_000;
/// Decisions under way at once.
const PIPELINED: usize = 256;
/// Far in the future: no key may expire by the server's clock while the test runs (2036).
const START_US: i64 = 2_082_758_400_123_457;

/// One decision, as it was drawn.
#[derive(Debug, Clone)]
struct Operation {
    now_us: i64,
    limits: Vec<Drawn>,
}

#[derive(Debug, Clone)]
struct Drawn {
    state_id: &'static str,
    algorithm: Algorithm,
    subject: Subject,
    cost: u64,
    shadow: bool,
}

const STATE_IDS: [&str; 5] = ["api", "api@gold", "login", "day", "burst"];

fn bucket(random: &mut Rng) -> Bucket {
    let chosen = [
        Bucket { capacity: 10, rate: 1, period: 100_000, tick: 1 },
        Bucket { capacity: 10, rate: 3, period: 1_000_000, tick: 1 },
        Bucket { capacity: 1, rate: 1, period: 1_000_000, tick: 1 },
        Bucket { capacity: 100, rate: 7, period: 13_000_000, tick: 1 },
        Bucket { capacity: 1000, rate: 1_000_003, period: 1_000_000, tick: 1 },
        Bucket { capacity: 1_000_003, rate: 1_000_003, period: 2_592_000_000, tick: 1000 },
        Bucket { capacity: 5, rate: 3, period: 1000, tick: 1000 },
        Bucket { capacity: 7, rate: 2, period: 7, tick: 1_000_000 },
        Bucket { capacity: 5, rate: 1, period: 60, tick: 10_000 },
    ];
    if random.u8(..) < 200 {
        return chosen[random.usize(..chosen.len())];
    }
    let tick = 10_u64.pow(random.u32(0..=6));
    let capacity = random.u64(1..50);
    let rate = random.u64(1..20);
    Bucket { capacity, rate, period: random.u64(1..=3_000_000 / tick), tick }
}

fn draw(random: &mut Rng, now_us: i64) -> Operation {
    let count = [1, 1, 1, 2, 2, 3, 4][random.usize(..7)];
    let mut limits: Vec<Drawn> = Vec::new();
    for _ in 0..count {
        let bucket = bucket(random);
        let algorithm = if random.u8(..) < 120 {
            Algorithm::LeakyBucket { bucket, delay_after: random.u64(1..=bucket.capacity.min(4)) }
        } else {
            Algorithm::TokenBucket(bucket)
        };
        let cost = match random.u8(..) {
            0..=25 => 0,
            26..=200 => random.u64(1..=1 + bucket.capacity / 4),
            201..=240 => random.u64(1..=bucket.capacity),
            241..=250 => bucket.capacity + 1,
            _ => 1 << 31,
        };
        let subject = Subject::from_slice(format!("ip-{}", random.u8(..8)).as_bytes());
        let state_id = STATE_IDS[random.usize(..STATE_IDS.len())];
        limits.push(Drawn { state_id, algorithm, subject, cost, shadow: random.u8(..) < 50 });
        if random.u8(..) < 12 {
            let again = limits[random.usize(..limits.len())].clone();
            limits.push(Drawn { cost: random.u64(0..5), ..again });
        }
    }
    limits.truncate(4);
    Operation { now_us, limits }
}

/// Mostly forward by little, at times by minutes, at times back by less or more than a second.
fn next_instant(random: &mut Rng, now_us: i64) -> i64 {
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

fn asks(operation: &Operation) -> Vec<Ask<'_>> {
    operation
        .limits
        .iter()
        .map(|limit| Ask {
            state_id: limit.state_id,
            algorithm: &limit.algorithm,
            subject: &limit.subject,
            cost: limit.cost,
            least_cost: 1,
            shadow: limit.shadow,
        })
        .collect()
}

fn operations(seed: u64) -> Vec<Operation> {
    let mut random = Rng::with_seed(seed);
    let mut now_us = START_US;
    (0..DECISIONS)
        .map(|_| {
            now_us = next_instant(&mut random, now_us);
            draw(&mut random, now_us)
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
                let reply = store.decide_at(operation.now_us, &asks(&operation)).await;
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
        let store = RedisStore::start(&settings, Arc::new(LimitStats::new(0)));
        until_up(&store).await;
        for (number, batch) in operations.chunks(PIPELINED).enumerate() {
            let replies = decide_all(&store, batch).await;
            for (index, (operation, reply)) in batch.iter().zip(&replies).enumerate() {
                let expected = memory.decide_at(operation.now_us, &asks(operation));
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
    block_on(async {
        let mut settings = [settings(&servers[0]), settings(&servers[1])];
        for settings in &mut settings {
            settings.timeout = Duration::from_secs(20);
        }
        let stats = || Arc::new(LimitStats::new(0));
        let (lean, general) = (RedisStore::start(&settings[0], stats()), RedisStore::start(&settings[1], stats()));
        until_up(&lean).await;
        until_up(&general).await;
        let subject = Subject::from_slice(b"other");
        let watched = Algorithm::TokenBucket(Bucket { capacity: 1, rate: 1, period: 1, tick: 1 });
        for _ in 0..2_000 {
            now_us = next_instant(&mut random, now_us);
            let mut one = draw(&mut random, now_us);
            one.limits.truncate(1);
            one.limits[0].shadow = false;
            one.limits[0].algorithm = Algorithm::TokenBucket(*one.limits[0].algorithm.bucket());
            let mut two = asks(&one);
            two.push(Ask {
                state_id: "none",
                algorithm: &watched,
                subject: &subject,
                cost: 0,
                least_cost: 1,
                shadow: true,
            });
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
