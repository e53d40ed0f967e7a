//! The memory store against an oracle in exact fractions, written from the definitions: virtual
//! scheduling (each cost unit moves the theoretical arrival time by one emission interval), with
//! nothing taken from the implementation but its interface.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::LazyLock;

use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tollgate::limit::algorithm::{Algorithm, Bucket};
use tollgate::limit::key::Subject;
use tollgate::limit::store::memory::MemoryStore;
use tollgate::limit::store::{Answer, Ask};

/// One limit as a user states it.
#[derive(Debug, Clone, Copy)]
struct Stated {
    count: u64,
    period_us: u64,
    burst: u64,
    /// `None`: a token bucket.
    delay_after: Option<u64>,
}

/// Each state id with the forms its limit takes over time: rates, bursts and ticks change under it.
const LIMITS: [(&str, bool, &[Stated]); 6] = [
    ("odd", false, &[tokens(3, 1_000_000, 10), tokens(7, 13_000_000, 4), tokens(1, 1_000_000, 1)]),
    ("fast", false, &[tokens(300_000, 1_000_000, 50), tokens(1000, 1_000_000, 1000), tokens(999, 1_001, 5)]),
    ("coarse", false, &[tokens(1_000_003, 30 * DAY, 1_000_003), tokens(10, 10 * DAY, 100), tokens(5, 1_000_000, 5)]),
    ("shadow", true, &[tokens(2, 1_000_000, 3), tokens(1_000_003, 30 * DAY, 1_000_003)]),
    ("queue", false, &[leaky(10, 1_000_000, 10, 1), leaky(3, 7_000_000, 20, 5), leaky(1, 1_000, 6, 100)]),
    ("watched-queue", true, &[leaky(10, 1_000_000, 4, 2), tokens(10, 1_000_000, 4)]),
];

const DAY: u64 = 86_400_000_000;

const fn tokens(count: u64, period_us: u64, burst: u64) -> Stated {
    Stated { count, period_us, burst, delay_after: None }
}

const fn leaky(count: u64, period_us: u64, burst: u64, delay_after: u64) -> Stated {
    Stated { count, period_us, burst, delay_after: Some(delay_after) }
}

/// One request of a trace.
#[derive(Debug, Clone)]
struct Operation {
    advance: Advance,
    asks: Vec<Asked>,
}

/// How the clock moves before a request.
#[derive(Debug, Clone, Copy)]
enum Advance {
    By(i64),
    /// To the instant the last denial named, plus this many ticks of one microsecond.
    ToRetry(i64),
    /// Likewise to the instant the last state was to be full.
    ToReset(i64),
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    limit: usize,
    form: usize,
    subject: usize,
    cost: u64,
}

/// What a limit counts with, derived from the statement by the published rule.
struct Numbers {
    tick: BigInt,
    /// R of the reduced fraction R/P.
    rate: BigInt,
    burst: BigRational,
    /// T: ticks per cost unit.
    interval: BigRational,
}

/// Those of each form in [`LIMITS`].
static NUMBERS: LazyLock<Vec<Vec<Numbers>>> =
    LazyLock::new(|| LIMITS.iter().map(|(_, _, forms)| forms.iter().copied().map(Numbers::of).collect()).collect());

/// The whole ticks and the numerator of the rest, as they were written, and with which tick.
#[derive(Debug, Clone)]
struct Written {
    whole: BigInt,
    rest: BigInt,
    tick: BigInt,
}

#[derive(Default)]
struct Oracle {
    states: HashMap<(usize, bool, usize), Written>,
}

/// What the oracle makes of one ask before anything is decided.
struct Seen {
    numbers: &'static Numbers,
    now: BigRational,
    arrival: BigRational,
    anchored: bool,
    allowed: bool,
    retry_us: i64,
    wait_us: u64,
}

fn whole(number: impl Into<BigInt>) -> BigRational {
    BigRational::from_integer(number.into())
}

fn at_least_zero(value: BigRational) -> BigRational {
    value.max(whole(0))
}

impl Numbers {
    fn of(stated: Stated) -> Self {
        let exact = BigInt::from(1_u64 << 52);
        for exponent in 0..=6_u32 {
            let tick = 10_u64.pow(exponent);
            if !stated.period_us.is_multiple_of(tick) {
                break;
            }
            let rate_per_tick = BigRational::new(stated.count.into(), (stated.period_us / tick).into());
            let (rate, period) = (rate_per_tick.numer().clone(), rate_per_tick.denom().clone());
            let interval = rate_per_tick.recip();
            let fill_us = (whole(stated.burst) * &interval).ceil().to_integer() * tick;
            let second = &rate * (1_000_000 / tick + 2);
            if period * stated.burst < exact && fill_us < exact && second < exact {
                return Self { tick: tick.into(), rate, burst: whole(stated.burst), interval };
            }
        }
        panic!("{stated:?} has no exact tick");
    }

    fn micros(&self, ticks: &BigRational) -> BigInt {
        ticks.ceil().to_integer() * &self.tick
    }
}

impl Oracle {
    /// Reads the theoretical arrival time, in the limit's ticks, never before now.
    fn see(&self, asked: Asked, now_us: i64) -> Seen {
        let stated = LIMITS[asked.limit].2[asked.form];
        let numbers = &NUMBERS[asked.limit][asked.form];
        let now = (whole(now_us) / whole(numbers.tick.clone())).floor();
        let state = self.states.get(&(asked.limit, stated.delay_after.is_some(), asked.subject));
        let mut arrival = state.map_or_else(|| now.clone(), |written| read(written, numbers, now_us, &now));
        let tolerated = (&numbers.burst * &numbers.interval).ceil() + whole(1_000_000) / whole(numbers.tick.clone());
        let anchored = arrival.floor() - &now > tolerated;
        if anchored {
            arrival = &now + &numbers.burst * &numbers.interval;
        }
        arrival = arrival.max(now.clone());
        let cost = whole(asked.cost);
        let over = &arrival + &cost * &numbers.interval - &now - &numbers.burst * &numbers.interval;
        let allowed = asked.cost == 0 || (cost <= numbers.burst && over <= whole(0));
        let retry_us = match allowed {
            true => 0,
            false if cost > numbers.burst => -1,
            false => i64::try_from(numbers.micros(&over)).unwrap(),
        };
        let free = whole(stated.delay_after.unwrap_or(1).max(1) - 1) * &numbers.interval;
        let waits = allowed && asked.cost > 0 && stated.delay_after.is_some();
        let wait = numbers.micros(&at_least_zero(&arrival - &now - free));
        let wait_us = if waits { u64::try_from(wait).unwrap() } else { 0 };
        Seen { numbers, now, arrival, anchored, allowed, retry_us, wait_us }
    }

    /// All limits at once: (granted, wait, retry, answers).
    fn decide(&mut self, asks: &[Asked], now_us: i64) -> (bool, u64, i64, Vec<Answer>) {
        let seen: Vec<Seen> = asks.iter().map(|asked| self.see(*asked, now_us)).collect();
        let enforced: Vec<&Seen> =
            asks.iter().zip(&seen).filter(|(asked, _)| !LIMITS[asked.limit].1).map(|(_, seen)| seen).collect();
        let granted = enforced.iter().all(|seen| seen.allowed);
        let never = enforced.iter().any(|seen| seen.retry_us == -1);
        let retry = if never { -1 } else { enforced.iter().map(|seen| seen.retry_us).max().unwrap_or(0) };
        let wait = enforced.iter().map(|seen| seen.wait_us).max().filter(|_| granted).unwrap_or(0);
        let answers = asks.iter().zip(&seen).map(|(asked, seen)| self.commit(*asked, seen, granted)).collect();
        (granted, wait, retry, answers)
    }

    fn commit(&mut self, asked: Asked, seen: &Seen, granted: bool) -> Answer {
        let numbers = seen.numbers;
        let charged = granted && seen.allowed;
        let cost = whole(if charged { asked.cost } else { 0 });
        let after = &seen.arrival + cost * &numbers.interval;
        if asked.cost > 0 && (charged || seen.anchored) {
            let rest = (&after - after.floor()) * whole(numbers.rate.clone());
            assert!(rest.is_integer());
            let written =
                Written { whole: after.floor().to_integer(), rest: rest.to_integer(), tick: numbers.tick.clone() };
            let leaky = LIMITS[asked.limit].2[asked.form].delay_after.is_some();
            self.states.insert((asked.limit, leaky, asked.subject), written);
        }
        let left = (&numbers.burst - (&after - &seen.now) / &numbers.interval).floor();
        Answer {
            allowed: seen.allowed,
            remaining: u64::try_from(at_least_zero(left).to_integer()).unwrap(),
            retry_us: seen.retry_us,
            reset_us: u64::try_from(numbers.micros(&(after - &seen.now))).unwrap(),
        }
    }
}

/// A written state in a limit's ticks: rounded towards emptier when the tick is another, and the
/// numerator held below a smaller rate.
fn read(written: &Written, numbers: &Numbers, now_us: i64, now: &BigRational) -> BigRational {
    if written.tick == numbers.tick {
        let rest = written.rest.clone().min(&numbers.rate - 1_u8);
        return whole(written.whole.clone()) + BigRational::new(rest, numbers.rate.clone());
    }
    let up = u8::from(written.rest != BigInt::from(0_u8));
    let full_at_us = (&written.whole + up) * &written.tick;
    if full_at_us <= now_us.into() {
        return now.clone();
    }
    BigRational::new(full_at_us, numbers.tick.clone()).ceil()
}

fn algorithm(stated: Stated) -> Algorithm {
    let rate = format!("{}/{}us", stated.count, stated.period_us).parse().unwrap();
    let bucket = Bucket::new(rate, stated.burst).unwrap();
    match stated.delay_after {
        None => Algorithm::TokenBucket(bucket),
        Some(delay_after) => Algorithm::LeakyBucket { bucket, delay_after },
    }
}

fn advances() -> impl Strategy<Value = Advance> {
    prop_oneof![
        2 => Just(Advance::By(0)),
        4 => (0..2_000_i64).prop_map(Advance::By),
        4 => (0..1_500_000_i64).prop_map(Advance::By),
        1 => (0..200_000_000_i64).prop_map(Advance::By),
        1 => (0..3_000_000_000_000_i64).prop_map(Advance::By),
        1 => (-1_000_000..=0_i64).prop_map(Advance::By),
        1 => (-5_000_000..=-999_990_i64).prop_map(Advance::By),
        1 => (-1_000_003..=-999_998_i64).prop_map(Advance::By),
        3 => (-1..=1_i64).prop_map(Advance::ToRetry),
        1 => (-1..=1_i64).prop_map(Advance::ToReset),
    ]
}

fn asks() -> impl Strategy<Value = Vec<Asked>> {
    let all: Vec<usize> = (0..LIMITS.len()).collect();
    proptest::sample::subsequence(all, 1..=4)
        .prop_shuffle()
        .prop_flat_map(|limits| limits.into_iter().map(asked).collect::<Vec<_>>())
}

fn asked(limit: usize) -> impl Strategy<Value = Asked> {
    // Mostly the first form, so that a form lasts for a while.
    let form = prop_oneof![12 => Just(0), 1 => 0..LIMITS[limit].2.len()];
    let cost = prop_oneof![1 => Just(0_u64), 12 => 1..=3_u64, 2 => 1..=30_u64, 1 => 1..=2_000_000_u64];
    (form, 0..2_usize, cost).prop_map(move |(form, subject, cost)| Asked { limit, form, subject, cost })
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = (advances(), asks()).prop_map(|(advance, asks)| Operation { advance, asks });
    proptest::collection::vec(operation, 1..=800)
}

#[test]
fn the_memory_store_decides_exactly_as_the_definitions_say() {
    let forms: Vec<Vec<Algorithm>> =
        LIMITS.iter().map(|(_, _, forms)| forms.iter().copied().map(algorithm).collect()).collect();
    let subjects = [Subject::from_slice(b"ip=192.0.2.1"), Subject::from_slice(b"global")];
    let decided = Cell::new(0_usize);
    let seen = RefCell::new([0_usize; 4]);
    let config = Config { cases: 320, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&operations(), |trace| {
        let (store, mut oracle) = (MemoryStore::new(10_000), Oracle::default());
        let (mut now, mut retry, mut reset) = (1_763_000_000_000_000_i64, 0_i64, 0_i64);
        for (step, operation) in trace.iter().enumerate() {
            now += match operation.advance {
                Advance::By(micros) => micros,
                Advance::ToRetry(off) => (retry + off).max(0),
                Advance::ToReset(off) => (reset + off).max(0),
            };
            let asks: Vec<Ask<'_>> = operation
                .asks
                .iter()
                .enumerate()
                .map(|(position, asked)| Ask {
                    shadow: if LIMITS[asked.limit].1 { u8::try_from(position + 1).unwrap() } else { 0 },
                    ..Ask::new(
                        LIMITS[asked.limit].0,
                        &forms[asked.limit][asked.form],
                        &subjects[asked.subject],
                        asked.cost,
                    )
                })
                .collect();
            let reply = store.decide_at(now, &asks);
            let told = (reply.granted, reply.wait_us, reply.retry_us, reply.answers.to_vec());
            let right = oracle.decide(&operation.asks, now);
            prop_assert_eq!(&told, &right, "step {} at {}: {:?}", step, now, operation);
            retry = reply.retry_us.max(0);
            reset = reply.answers[0].reset_us.cast_signed();
            decided.set(decided.get() + 1);
            let mut seen = seen.borrow_mut();
            for (kind, met) in [reply.granted, !reply.granted, reply.wait_us > 0, reply.retry_us < 0].iter().enumerate()
            {
                seen[kind] += usize::from(*met);
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (decided, seen) = (decided.get(), seen.into_inner());
    println!("{decided} decisions: {} granted, {} denied, {} held, {} never", seen[0], seen[1], seen[2], seen[3]);
    assert!(decided >= 100_000, "only {decided} decisions were compared");
    assert!(seen.iter().all(|&count| count > decided / 100), "a kind of decision is hardly met: {seen:?}");
}
