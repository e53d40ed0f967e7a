//! Requests that ask the same share a store call, and are told what they would have been told one by one.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate::limit::algorithm::zone::Zone;
use tollgate::limit::stats::LimitStats;
use tollgate::limit::store::memory::MemoryStore;
use tollgate::limit::store::redis::RedisStore;

use super::differential::{Operation, START_US, asks, draw, next_instant, settles};
use super::redis_store::{block_on, settings, until_up};
use crate::support::client::{Answer, Client, Request};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;

/// Calls compared with single decisions.
const CALLS: usize = 20_000;
const PIPELINED: usize = 128;
const CONNECTIONS: usize = 64;

/// A decision that may be shared: no turn, slot or strike in it, no state twice.
fn shared(random: &mut Rng, now_us: i64, zone: &Zone) -> Option<Operation> {
    let mut operation = draw(random, (now_us, 0), zone);
    let mut seen = Vec::new();
    operation.limits.retain(|limit| {
        let place = (limit.state_id, limit.algorithm.letter(), limit.algorithm.window_us(), limit.subject.clone());
        let first = !seen.contains(&place);
        seen.push(place);
        first && limit.algorithm.has_room()
    });
    (!operation.limits.is_empty()).then_some(operation)
}

#[test]
fn one_call_for_many_says_and_writes_what_the_decisions_one_by_one_do() {
    let seed = std::env::var("TOLLGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("TOLLGATE_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let zone = Zone::find("Europe/Berlin").unwrap();
    let mut now_us = START_US;
    let calls: Vec<(Operation, u64)> = std::iter::from_fn(|| {
        now_us = next_instant(&mut random, now_us);
        Some(shared(&mut random, now_us, &zone).map(|operation| (operation, draw_count(&mut random))))
    })
    .flatten()
    .take(CALLS)
    .collect();
    let (server, memory) = (RedisServer::start(), MemoryStore::new(100_000));
    let (mut parted, mut whole, mut none) = (0, 0, 0);
    block_on(async {
        let mut settings = settings(&server);
        settings.timeout = Duration::from_secs(20);
        let store = RedisStore::start(&settings, Arc::new(LimitStats::new()));
        until_up(&store).await;
        for batch in calls.chunks(PIPELINED) {
            for (granted, (operation, count)) in ask_all(&store, batch).await.into_iter().zip(batch) {
                let asks = asks(operation);
                let replies: Vec<_> = (0..*count).map(|_| memory.decide_at(operation.now_us, &asks)).collect();
                if let Some((now_us, settles)) = settles(operation) {
                    memory.settle_at(now_us, &settles);
                }
                for (place, expected) in (0..).zip(&replies) {
                    assert_eq!(
                        &granted.reply(&asks, place),
                        expected,
                        "seed {seed}, {place} of {count}: {operation:?}"
                    );
                }
                match granted.count {
                    0 => none += 1,
                    all if all == *count => whole += 1,
                    _ => parted += 1,
                }
            }
        }
    });
    println!("{CALLS} calls agree: {whole} granted whole, {parted} in part, {none} denied");
    assert!(whole > CALLS / 20 && parted > CALLS / 20 && none > CALLS / 20, "the mix is one-sided");
}

fn draw_count(random: &mut Rng) -> u64 {
    [1, random.u64(1..4), random.u64(1..30), random.u64(1..300)][random.usize(..4)]
}

/// Sends all of these, and what settles them, before any is answered.
async fn ask_all(store: &Rc<RedisStore>, batch: &[(Operation, u64)]) -> Vec<tollgate::limit::store::grant::Granted> {
    let ask = |(operation, count): (Operation, u64)| {
        let store = Rc::clone(store);
        tokio::task::spawn_local(async move {
            let asks = asks(&operation);
            let settle = async {
                match &settles(&operation) {
                    Some((now_us, settles)) => store.settle_at(*now_us, settles).await,
                    None => Ok(()),
                }
            };
            let (granted, settled) = tokio::join!(store.grant_at(operation.now_us, count, &asks), settle);
            settled.unwrap_or_else(|kind| panic!("{kind:?} settling {operation:?}"));
            granted.unwrap_or_else(|kind| panic!("{kind:?} at {count} times {operation:?}"))
        })
    };
    let tasks: Vec<_> = batch.iter().cloned().map(ask).collect();
    let mut granted = Vec::new();
    for task in tasks {
        granted.push(task.await.unwrap());
    }
    granted
}

fn proxy(redis: &RedisServer, limit: &str, timeout: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\nlimits: [{{ name: hot, key: global, {limit} }}]\n\
         store:\n  redis: {{ url: '{}', timeout: {timeout} }}\n  on_store_error: deny\n",
        redis.url()
    ))
}

/// So many requests on each of so many connections, round robin over the proxies; all answers.
fn load(proxies: &[&Tollgate], connections: usize, requests: usize, ask: impl Fn(usize) -> Request) -> Vec<Answer> {
    let clients: Vec<Client> = (0..connections).map(|n| proxies[n % proxies.len()].client()).collect();
    let threads = clients.into_iter().enumerate().map(|(number, mut client)| {
        let request = ask(number);
        std::thread::spawn(move || (0..requests).map(|_| client.send(&request)).collect::<Vec<_>>())
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().flat_map(|thread| thread.join().expect("no client panics")).collect()
}

#[test]
fn on_a_hot_key_a_call_decides_for_several_requests() {
    let redis = RedisServer::start();
    let proxy = proxy(&redis, "rate: 1000000/s", "2s");
    assert_eq!(proxy.get("/").status, 200);
    let sent = || proxy.metrics().count("tollgate_store_calls_total", &[]);
    let (before, sent_before) = (redis.script_calls(), sent());
    let answers = load(&[&proxy], CONNECTIONS, 200, |_| Request::get("/"));
    assert!(answers.iter().all(|answer| answer.status == 200), "it never denies");
    let (calls, admitted) = (redis.script_calls() - before, answers.len() as u64);
    let metrics = proxy.metrics();
    let coalesced = metrics.count("tollgate_limit_coalesced_total", &[("limit", "hot")]);
    println!("{calls} calls for {admitted} admitted requests, {coalesced} of them by another's call");
    assert!(calls * 100 <= admitted * 35, "{calls} calls for {admitted} requests");
    assert_eq!(coalesced + calls, admitted, "every request has a call of its own or another's");
    assert_eq!(sent() - sent_before, calls);
    assert_eq!(metrics.count("tollgate_store_errors_total", &[]), 0);
}

#[test]
fn what_is_left_is_told_to_each_as_if_they_had_come_one_by_one() {
    let redis = RedisServer::start();
    let proxies = [proxy(&redis, "rate: 500/h", "5s"), proxy(&redis, "rate: 500/h", "5s")];
    let answers = load(&[&proxies[0], &proxies[1]], CONNECTIONS, 20, |_| Request::get("/"));
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 429)));
    let told = |status: u16| answers.iter().filter(move |answer| answer.status == status);
    let mut left: Vec<u64> = told(200).map(|answer| answer.remaining("hot")).collect();
    left.sort_unstable();
    assert_eq!(left, (0..500).collect::<Vec<_>>(), "each token is spent once, by whom it was told to");
    assert!(told(429).all(|answer| answer.remaining("hot") == 0 && (1..=8).contains(&answer.retry_after())));
    for proxy in &proxies {
        assert!(proxy.metrics().count("tollgate_limit_coalesced_total", &[]) > 0, "calls were shared");
    }
}

#[test]
fn requests_of_other_costs_are_asked_apart() {
    let redis = RedisServer::start();
    let proxy = proxy(&redis, "rate: 1000/h, cost: { default: 1, POST: 7 }", "5s");
    let ask = |number: usize| if number.is_multiple_of(2) { Request::get("/") } else { Request::post("/", b"x") };
    let mut spent: u64 = 0;
    for answers in [load(&[&proxy], 32, 10, ask), load(&[&proxy], 32, 10, |_| ask(1))] {
        for answer in answers.iter().filter(|answer| answer.status == 200) {
            let echoed = answer.json();
            let cost = if echoed["method"] == "POST" { 7 } else { 1 };
            spent += cost;
        }
    }
    assert!(spent <= 1000 && 1000 - spent < 7, "{spent} of 1000 spent, and 7 more do not fit");
    if spent < 1000 {
        assert_eq!(proxy.get("/").remaining("hot"), 1000 - spent - 1, "nothing was lost");
    }
}

/// Requests that queue while Redis stands still; the first and some of the others go away.
#[test]
fn who_leaves_takes_no_answer_and_no_token_from_the_others() {
    let redis = RedisServer::start();
    let proxy = proxy(&redis, "rate: 100/h", "10s");
    assert_eq!(proxy.get("/").remaining("hot"), 99);
    let sent = || proxy.metrics().count("tollgate_store_calls_total", &[]);
    let before = sent();
    let calls = || sent() - before;
    let busy = || proxy.metrics().count("tollgate_connections", &[("state", "active")]);
    redis.stop();
    let send = || {
        let mut client = proxy.client();
        client.write(&Request::get("/").bytes()).expect("sent");
        client
    };
    let first = send();
    eventually("the first one asks", || (calls() == 1).then_some(()));
    let mut others: Vec<_> = (0..10).map(|_| send()).collect();
    eventually("all wait", || (busy() == 11).then_some(()));
    drop(first);
    eventually("the call for the others is sent", || (calls() == 2).then_some(()));
    let late: Vec<_> = (0..6).map(|_| send()).collect();
    eventually("all wait", || (busy() == 16).then_some(()));
    let leaving = others.split_off(8);
    drop(leaving);
    let mut late = late;
    let gone = late.split_off(3);
    drop(gone);
    eventually("five have left", || (busy() == 11).then_some(()));
    redis.resume();
    let mut answer = |client: &mut Client| client.answer_to("GET").expect("an answer").remaining("hot");
    let mut left: Vec<_> = others.iter_mut().chain(&mut late).map(&mut answer).collect();
    left.sort_unstable();
    // The first one's call and that for ten were under way when three of those left; of six, three had left before.
    assert_eq!(left.len(), 11);
    assert_eq!(proxy.get("/").remaining("hot"), 99 - 1 - 10 - 3 - 1, "charged: what was sent for those who were there");
    left.dedup();
    assert_eq!(left.len(), 11, "no token was told twice");
}

/// A call that fails is the failure of those it was made for: each by its own deadline, and nothing is sent again.
#[test]
fn when_the_store_is_silent_each_ends_at_its_own_deadline() {
    let redis = RedisServer::start();
    let proxy = proxy(&redis, "rate: 1000/h", "400ms");
    assert_eq!(proxy.get("/").status, 200);
    redis.stop();
    let began = Instant::now();
    let threads: Vec<_> = (0..20)
        .map(|number| {
            let mut client = proxy.client();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(number * 15));
                let sent = Instant::now();
                (client.get("/").status, sent.elapsed())
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for thread in threads {
        let (status, took) = thread.join().expect("an answer");
        assert_eq!(status, 503);
        longest = longest.max(took);
    }
    redis.resume();
    println!("20 requests failed within {:?}, the slowest after {longest:?} of 400 ms", began.elapsed());
    assert!(longest < Duration::from_secs(4), "nobody waits for a second deadline: {longest:?}");
    eventually("it decides again", || (proxy.get("/").status == 200).then_some(()));
    let left = proxy.get("/").remaining("hot");
    assert!(left >= 1000 - 1 - 20 - 200, "what was charged is at most what was sent: {left} left");
}

/// Those that queued behind a request that is denied are denied by the memory of that.
#[test]
fn a_denial_answers_those_who_wait_behind_it_without_another_call() {
    let redis = RedisServer::start();
    let proxy = proxy(&redis, "rate: 1/h", "10s");
    assert_eq!(proxy.get("/").status, 200);
    let busy = || proxy.metrics().count("tollgate_connections", &[("state", "active")]);
    redis.stop();
    let mut clients: Vec<_> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.write(&Request::get("/").bytes()).expect("sent");
    }
    eventually("all wait", || (busy() == 20).then_some(()));
    let before = proxy.metrics().count("tollgate_store_calls_total", &[]);
    redis.resume();
    for client in &mut clients {
        let answer = client.answer_to("GET").expect("an answer");
        assert_eq!(answer.status, 429);
        assert!((3590..=3600).contains(&answer.retry_after()));
    }
    assert_eq!(proxy.metrics().count("tollgate_store_calls_total", &[]), before, "one call, which was sent before");
    assert_eq!(proxy.metrics().count("tollgate_limit_remembered_denials_total", &[]), 19);
}
