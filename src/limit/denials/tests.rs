use std::future::Future;

use super::*;
use crate::limit::algorithm::{Algorithm, Bucket};
use crate::limit::key::Subject;
use crate::limit::store::memory::MemoryStore;

fn tokens(rate: &str, capacity: u64) -> Algorithm {
    Algorithm::TokenBucket(Bucket::new(rate.parse().unwrap(), capacity).unwrap())
}

fn ask<'a>(algorithm: &'a Algorithm, subject: &'a Subject, cost: u64) -> Ask<'a> {
    Ask::new("limit", algorithm, subject, cost)
}

fn subject(text: &str) -> Subject {
    Subject::from_slice(text.as_bytes())
}

fn answer(retry_us: i64, remaining: u64) -> Answer {
    Answer { allowed: retry_us == 0, remaining, retry_us, reset_us: 5_000_000 }
}

fn reply(answer: Answer) -> Reply {
    Reply {
        granted: answer.allowed,
        now_us: 0,
        wait_us: 0,
        retry_us: answer.retry_us,
        answers: SmallVec::from_slice(&[answer]),
        instants: SmallVec::new(),
    }
}

/// Denials that remember one of a second's length for `ask`, answered so long ago.
fn with_denial(ask: &Ask<'_>, ago: Duration) -> Rc<Denials> {
    let denials = Denials::new();
    let then = Instant::now().checked_sub(ago).unwrap();
    denials.permit(&[], then).settle_at(then, std::slice::from_ref(ask), &Ok(reply(answer(1_000_000, 0))));
    Rc::new(denials)
}

const LONG_AGO: Duration = Duration::from_secs(2);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Lets every other task run until it waits.
async fn others() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn no_remembered_denial_differs_from_asking_the_store() {
    let (slow, coarse) = (tokens("3/s", 5), tokens("1000003/30d", 1_000_003));
    let queue = Algorithm::LeakyBucket { bucket: *tokens("7/13s", 4).bucket().unwrap(), delay_after: 2 };
    assert!(coarse.bucket().unwrap().tick > 1);
    let limits = [("slow", &slow), ("coarse", &coarse), ("queue", &queue), ("watched", &slow)];
    let mut random = fastrand::Rng::with_seed(1);
    let (store, denials, subject) = (MemoryStore::new(1000), Denials::new(), subject("global"));
    let (base, mut now_us) = (Instant::now(), 0_i64);
    let (mut remembered, mut asked) = (0, 0);
    for _ in 0..60_000 {
        now_us += [0, random.i64(0..1000), random.i64(0..400_000), random.i64(0..9_000_000)][random.usize(0..4)];
        let now = base + Duration::from_micros(now_us.unsigned_abs());
        let asks: Vec<Ask<'_>> = limits
            .iter()
            .filter_map(|&(state_id, algorithm)| {
                if random.bool() {
                    return None;
                }
                let cost = [1, 1, random.u64(0..7), random.u64(0..1_200_000)][random.usize(0..4)];
                // This worker sees all that is admitted: that others are may be left out.
                let shadow = state_id == "watched";
                Some(Ask {
                    least_cost: cost,
                    shadow: u8::from(shadow),
                    ..Ask::new(state_id, algorithm, &subject, cost)
                })
            })
            .collect();
        match denials.look(&asks, now) {
            Look::Denied(answers) => {
                let truth = store.decide_at(1_000_000_000_000_000 + now_us, &asks);
                assert!(!truth.granted);
                for (position, told) in answers {
                    let right = truth.answers[position];
                    let tick = asks[position].algorithm.bucket().unwrap().tick.cast_signed();
                    assert!(!right.allowed);
                    assert_eq!(told.retry_us < 0, right.retry_us < 0);
                    // The store counts from the beginning of its tick.
                    let over = told.retry_us - (right.retry_us - truth.now_us.rem_euclid(tick));
                    assert!(right.retry_us < 0 || (0..=2 * tick).contains(&over), "{over} µs over");
                }
                remembered += 1;
            }
            Look::Ask(expired) => {
                let permit = denials.permit(&expired, now);
                let truth = store.decide_at(1_000_000_000_000_000 + now_us, &asks);
                permit.settle_at(now, &asks, &Ok(truth));
                asked += 1;
            }
            Look::Wait(_) => panic!("nobody asks at the same time here"),
        }
    }
    assert!(remembered > 1_000 && asked > 1_000, "{remembered} remembered, {asked} asked");
}

/// What is under way between a worker and the store: sent, then decided, then answered.
struct UnderWay<'a> {
    asks: Vec<Ask<'a>>,
    permit: Permit<'a>,
    decided: Option<Reply>,
}

/// When a store that counts in ticks admits what it told to come back after `retry_us`.
fn admitted_at(now_us: i64, retry_us: i64, ask: &Ask<'_>) -> i64 {
    now_us - now_us.rem_euclid(ask.algorithm.bucket().unwrap().tick.cast_signed()) + retry_us
}

/// Two workers, one store, calls that take their time, overtake nothing but are given up at times: every
/// denial from memory is one the store would give too, and who waits as told is admitted (T2).
#[test]
fn whatever_two_workers_do_a_remembered_denial_is_the_stores_and_its_retry_is_true() {
    let (slow, coarse) = (tokens("3/s", 5), tokens("1000003/30d", 1_000_003));
    let queue = Algorithm::LeakyBucket { bucket: *tokens("7/13s", 4).bucket().unwrap(), delay_after: 2 };
    // With the costs that requests have.
    let limits: [(&str, &Algorithm, &[u64]); 5] = [
        ("mixed", &slow, &[0, 1, 2, 5]),
        ("dear", &slow, &[2]),
        ("coarse", &coarse, &[1, 300_000, 1_000_003]),
        ("queue", &queue, &[1, 3, 9]),
        ("watched", &slow, &[1]),
    ];
    let mut random = fastrand::Rng::with_seed(3);
    let (store, subject) = (MemoryStore::new(1000), subject("global"));
    let workers = [Denials::new(), Denials::new()];
    let mut under_way: [Vec<UnderWay<'_>>; 2] = [Vec::new(), Vec::new()];
    let (base, mut now_us) = (Instant::now(), 1_000_000_000_000_000_i64);
    let (mut remembered, mut exact, mut asked, mut waited) = (0, 0, 0, 0);
    for _ in 0..200_000 {
        now_us += [0, random.i64(0..1000), random.i64(0..20_000), random.i64(0..200_000)][random.usize(0..4)];
        let now = base + Duration::from_micros(now_us.abs_diff(1_000_000_000_000_000));
        let worker = random.usize(0..2);
        let (denials, calls) = (&workers[worker], &mut under_way[worker]);
        match random.u8(0..9) {
            0..=2 => {
                if let Some(call) = calls.iter_mut().find(|call| call.decided.is_none()) {
                    call.decided = Some(store.decide_at(now_us, &call.asks));
                }
                continue;
            }
            3..=5 => {
                if calls.first().is_some_and(|call| call.decided.is_some()) {
                    let call = calls.remove(0);
                    call.permit.settle_at(now, &call.asks, &Ok(call.decided.unwrap()));
                }
                continue;
            }
            6 if !calls.is_empty() && random.u8(0..8) == 0 => {
                drop(calls.remove(random.usize(0..calls.len())));
                continue;
            }
            _ if calls.len() > 4 => continue,
            _ => {}
        }
        let mut asks: Vec<Ask<'_>> = Vec::new();
        for &(state_id, algorithm, costs) in &limits {
            if random.u8(0..3) == 0 {
                let cost = costs[random.usize(0..costs.len())];
                let least_cost = costs.iter().copied().find(|&cost| cost > 0).unwrap();
                let shadow = state_id == "watched";
                asks.push(Ask {
                    least_cost,
                    shadow: u8::from(shadow),
                    ..Ask::new(state_id, algorithm, &subject, cost)
                });
            }
        }
        match denials.look(&asks, now) {
            Look::Denied(answers) => {
                let truth = store.decide_at(now_us, &asks);
                assert!(!truth.granted, "denied, but the store admits: {asks:?}");
                for (position, told) in answers {
                    let (ask, right) = (&asks[position], truth.answers[position]);
                    assert!(!right.allowed);
                    assert_eq!(told.retry_us < 0, right.retry_us < 0, "{ask:?}");
                    if right.retry_us >= 0 {
                        let early = admitted_at(now_us, right.retry_us, ask) - (now_us + told.retry_us);
                        assert!(early <= 0, "told to come back {early} µs too early: {ask:?}");
                        assert!(told.remaining <= right.remaining, "{} of {} left", told.remaining, right.remaining);
                        exact += usize::from(told.remaining == right.remaining);
                    }
                }
                remembered += 1;
            }
            Look::Ask(expired) => {
                under_way[worker].push(UnderWay { asks, permit: denials.permit(&expired, now), decided: None });
                asked += 1;
            }
            Look::Wait(_) => waited += 1,
        }
    }
    println!("{remembered} remembered ({exact} exact), {asked} asked, {waited} waited");
    assert!(remembered > 1_000 && asked > 1_000 && waited > 1_000);
}

#[test]
fn when_a_denial_has_run_out_one_asks_and_its_denial_answers_the_others() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let denials = with_denial(&ask(&limit, &subject, 1), LONG_AGO);
    let (asked, denied) = run(counted_flood(denials, 100, |_| answer(1_000_000, 0)));
    assert_eq!((asked, denied), (1, 99));
}

#[test]
fn after_an_admission_as_many_ask_as_can_be_admitted_and_one_more() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let denials = with_denial(&ask(&limit, &subject, 1), LONG_AGO);
    let verdicts = [answer(0, 2), answer(0, 1), answer(0, 0), answer(1_000_000, 0)];
    let (asked, denied) = run(counted_flood(denials, 100, move |n| verdicts[n.min(3)]));
    assert_eq!((asked, denied), (4, 96));
}

/// `n` requests at once for one key; each that asks is answered, in order, as told. Returns how
/// many asked and how many were denied from memory.
async fn counted_flood(denials: Rc<Denials>, n: usize, say: impl Fn(usize) -> Answer + 'static) -> (usize, usize) {
    let (asked, denied, say) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(say));
    let tasks: Vec<_> = (0..n)
        .map(|_| {
            let (denials, asked, denied, say) =
                (Rc::clone(&denials), Rc::clone(&asked), Rc::clone(&denied), Rc::clone(&say));
            tokio::task::spawn_local(async move {
                let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
                let asks = [ask(&limit, &subject, 1)];
                match denials.recall(&asks, soon()).await.unwrap() {
                    Recall::Denied(..) => denied.set(denied.get() + 1),
                    Recall::Ask(permit) => {
                        let turn = asked.replace(asked.get() + 1);
                        others().await;
                        permit.settle(&asks, &Ok(reply(say(turn))));
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    (asked.get(), denied.get())
}

#[test]
fn when_the_asking_request_fails_the_others_fail_with_it() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let asks = [ask(&limit, &subject, 1)];
    let denials = with_denial(&asks[0], LONG_AGO);
    run(async {
        let Ok(Recall::Ask(permit)) = denials.recall(&asks, soon()).await else { panic!("not asked") };
        let (failed, ()) = tokio::join!(denials.recall(&asks, soon()), async {
            others().await;
            permit.settle(&asks, &Err(StoreErrorKind::Oom));
        });
        assert_eq!(failed.err(), Some(StoreErrorKind::Oom));
        assert!(matches!(denials.recall(&asks, soon()).await, Ok(Recall::Ask(_))), "the next one asks again");
    });
}

#[test]
fn when_the_asking_request_runs_out_of_time_another_asks() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let asks = [ask(&limit, &subject, 1)];
    let denials = with_denial(&asks[0], LONG_AGO);
    run(async {
        let Ok(Recall::Ask(permit)) = denials.recall(&asks, soon()).await else { panic!("not asked") };
        let (next, ()) = tokio::join!(denials.recall(&asks, soon()), async {
            others().await;
            permit.settle(&asks, &Err(StoreErrorKind::Timeout));
        });
        assert!(matches!(next, Ok(Recall::Ask(_))), "a miss is that request's only");
    });
}

#[test]
fn what_the_store_said_before_it_went_away_is_not_remembered() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let asks = [ask(&limit, &subject, 1)];
    let denials = Denials::new();
    let permit = denials.permit(&[], Instant::now());
    denials.follow(1);
    permit.settle(&asks, &Ok(reply(answer(1_000_000, 0))));
    assert!(matches!(denials.look(&asks, Instant::now()), Look::Ask(_)));
}

#[test]
fn when_the_asking_request_goes_away_another_asks() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let asks = [ask(&limit, &subject, 1)];
    let denials = with_denial(&asks[0], LONG_AGO);
    run(async {
        let Ok(Recall::Ask(permit)) = denials.recall(&asks, soon()).await else { panic!("not asked") };
        let (next, ()) = tokio::join!(denials.recall(&asks, soon()), async {
            others().await;
            drop(permit);
        });
        assert!(matches!(next, Ok(Recall::Ask(_))));
    });
}

#[test]
fn waiting_for_another_ends_at_the_deadline() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let asks = [ask(&limit, &subject, 1)];
    let denials = with_denial(&asks[0], LONG_AGO);
    run(async {
        let _permit = denials.recall(&asks, soon()).await;
        let late = denials.recall(&asks, Instant::now() + Duration::from_millis(10)).await;
        assert_eq!(late.err(), Some(StoreErrorKind::Timeout));
    });
}

#[test]
fn a_cheaper_request_asks_and_a_dearer_one_is_told_to_wait_longer() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let denials = with_denial(&ask(&limit, &subject, 2), Duration::ZERO);
    let told = |cost| match denials.look(&[ask(&limit, &subject, cost)], Instant::now()) {
        Look::Denied(answers) => Some(answers[0].1.retry_us),
        _ => None,
    };
    assert_eq!(told(0), None);
    assert_eq!(told(1), None);
    assert!((1..=1_000_000).contains(&told(2).unwrap()));
    assert!((3_000_000..=4_000_000).contains(&told(4).unwrap()));
    assert_eq!(told(6), Some(-1));
}

#[test]
fn a_dearer_denial_does_not_displace_a_cheaper_one_that_still_lasts() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let denials = with_denial(&ask(&limit, &subject, 1), Duration::ZERO);
    // Sent before the cheaper one was answered.
    denials.permit(&[], Instant::now()).settle(&[ask(&limit, &subject, 4)], &Ok(reply(answer(4_000_000, 0))));
    assert!(matches!(denials.look(&[ask(&limit, &subject, 1)], Instant::now()), Look::Denied(_)));
}

#[test]
fn what_others_wait_for_is_not_forgotten_by_an_admission_or_for_want_of_room() {
    let limit = tokens("1/s", 5);
    let denials = Denials::new();
    let set = |subject: &Subject| set_of(denials.fingerprints.of("limit", &limit, subject));
    let first = subject("first");
    let crowd = (0..).map(|n| subject(&format!("ip={n}"))).filter(|other| set(other) == set(&first));
    let crowd: Vec<_> = std::iter::once(first.clone()).chain(crowd.take(WAYS)).collect();
    let long_ago = Instant::now().checked_sub(LONG_AGO).unwrap();
    let mut permits = Vec::new();
    for subject in &crowd[..WAYS] {
        let asks = [ask(&limit, subject, 1)];
        denials.permit(&[], long_ago).settle_at(long_ago, &asks, &Ok(reply(answer(1_000_000, 0))));
        let Look::Ask(expired) = denials.look(&asks, Instant::now()) else { panic!("it has run out") };
        permits.push(denials.permit(&expired, Instant::now()));
    }
    let waits = |subject| matches!(denials.look(&[ask(&limit, subject, 1)], Instant::now()), Look::Wait(_));
    assert!(crowd[..WAYS].iter().all(waits));
    denials.permit(&[], Instant::now()).settle(&[ask(&limit, &first, 1)], &Ok(reply(answer(0, 3))));
    denials.permit(&[], Instant::now()).settle(&[ask(&limit, &crowd[WAYS], 1)], &Ok(reply(answer(1_000_000, 0))));
    assert!(crowd[..WAYS].iter().all(waits), "each is still being asked for");
}

#[test]
fn when_everything_is_forgotten_those_who_wait_ask_for_themselves() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let asks = [ask(&limit, &subject, 1)];
    let denials = with_denial(&asks[0], LONG_AGO);
    run(async {
        let _permit = denials.recall(&asks, soon()).await;
        let (next, ()) = tokio::join!(denials.recall(&asks, soon()), async {
            others().await;
            denials.follow(1);
        });
        assert!(matches!(next, Ok(Recall::Ask(_))));
    });
}

#[test]
fn a_store_that_was_away_makes_everything_forgotten() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let asks = [ask(&limit, &subject, 1)];
    let denials = with_denial(&asks[0], Duration::ZERO);
    denials.follow(0);
    assert!(matches!(denials.look(&asks, Instant::now()), Look::Denied(_)));
    denials.follow(1);
    assert!(matches!(denials.look(&asks, Instant::now()), Look::Ask(_)));
    assert_eq!(denials.len.get(), 0);
}

#[test]
fn shadow_limits_are_not_remembered() {
    let (limit, subject) = (tokens("1/s", 5), subject("ip=1"));
    let denials = with_denial(&Ask { shadow: 1, ..ask(&limit, &subject, 1) }, Duration::ZERO);
    assert!(matches!(denials.look(&[ask(&limit, &subject, 1)], Instant::now()), Look::Ask(_)));
}

#[test]
fn the_map_keeps_to_its_bound() {
    let limit = tokens("1/s", 5);
    let denials = Denials::new();
    for n in 0..100_000 {
        let key = subject(&n.to_string());
        let asks = [ask(&limit, &key, 1)];
        denials.permit(&[], Instant::now()).settle(&asks, &Ok(reply(answer(1_000_000, 0))));
    }
    let len: usize = denials.sets.borrow().iter().map(Vec::len).sum();
    assert_eq!(len, denials.len.get());
    assert!(len <= SETS * WAYS && len > SETS * WAYS * 9 / 10, "{len}");
}

#[test]
fn a_denial_holds_for_the_numbers_it_was_made_by() {
    let (day, night, subject) = (tokens("1/s", 5), tokens("10/s", 50), subject("a"));
    let denials = with_denial(&ask(&day, &subject, 1), Duration::ZERO);
    assert!(matches!(denials.look(&[ask(&day, &subject, 1)], Instant::now()), Look::Denied(_)));
    assert!(matches!(denials.look(&[ask(&night, &subject, 1)], Instant::now()), Look::Ask(_)));
}

#[test]
fn a_denial_that_may_be_taken_back_is_no_proof_for_long() {
    let (limit, subject) = (tokens("1/h", 1), subject("s"));
    let ask = ask(&limit, &subject, 1);
    let denied = Ok(reply(answer(3_600_000_000, 0)));
    let denials = Denials::new();
    let now = Instant::now();
    let look = |after: u64| denials.look(std::slice::from_ref(&ask), now + Duration::from_millis(after));
    denials.permit(&[], now).at_most(Duration::from_millis(25)).settle_at(now, std::slice::from_ref(&ask), &denied);
    let Look::Denied(answers) = look(24) else { panic!("it is proof until then") };
    assert!(answers[0].1.retry_us > 3_599_000_000, "what is told is as true as before");
    assert!(matches!(look(25), Look::Ask(_)));
    denials.permit(&[], now).at_most(Duration::MAX).settle_at(now, std::slice::from_ref(&ask), &denied);
    assert!(matches!(look(59_000), Look::Denied(_)));
    assert!(matches!(look(60_000), Look::Ask(_)), "nothing is remembered for longer than a minute");
}
