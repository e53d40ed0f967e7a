//! Buckets in exact fractions, by virtual scheduling: each cost unit moves the theoretical arrival time by
//! one emission interval. Here they are also compared by themselves, with rates, bursts and ticks that change.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::LazyLock;

use fastrand::Rng;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tollgate::limit::algorithm::{Algorithm, Bucket, Settlement};
use tollgate::limit::key::Subject;
use tollgate::limit::store::memory::MemoryStore;
use tollgate::limit::store::{Answer, Ask};

use super::{Charge, Definition, Fraction, Read, SECOND, Settled};

/// One limit as a user states it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stated {
    pub(super) count: u64,
    pub(super) period_us: u64,
    pub(super) burst: u64,
    /// How far settlements may go below empty.
    pub(super) debt: u64,
    /// `None`: a token bucket.
    pub(super) delay_after: Option<u64>,
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

pub(super) const fn tokens(count: u64, period_us: u64, burst: u64) -> Stated {
    Stated { count, period_us, burst, debt: 0, delay_after: None }
}

pub(super) const fn leaky(count: u64, period_us: u64, burst: u64, delay_after: u64) -> Stated {
    Stated { count, period_us, burst, debt: 0, delay_after: Some(delay_after) }
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
#[derive(Debug)]
pub(super) struct Rule {
    tick: i64,
    /// R of the reduced fraction R/P.
    rate: i128,
    burst: Fraction,
    /// T: ticks per cost unit.
    interval: Fraction,
    /// Ticks from empty, and from the lowest state, to full.
    empty: Fraction,
    lowest: Fraction,
    delay_after: Option<u64>,
}

/// Those of each form in [`LIMITS`].
static RULES: LazyLock<Vec<Vec<Rule>>> =
    LazyLock::new(|| LIMITS.iter().map(|(_, _, forms)| forms.iter().copied().map(Rule::of).collect()).collect());

/// The whole ticks and the numerator of the rest, as they were written, and with which tick.
#[derive(Debug, Clone)]
pub(super) struct Written {
    whole: i64,
    rest: i128,
    tick: i64,
}

fn whole(number: impl Into<i128>) -> Fraction {
    Fraction::from_integer(number.into())
}

impl Rule {
    pub(super) fn of(stated: Stated) -> Self {
        let exact = whole(1_i64 << 52);
        for exponent in 0..=6_u32 {
            let tick = 10_u64.pow(exponent);
            if !stated.period_us.is_multiple_of(tick) {
                break;
            }
            let per_tick = Fraction::new(stated.count.into(), (stated.period_us / tick).into());
            let (rate, period) = (*per_tick.numer(), *per_tick.denom());
            let most = whole(stated.burst + stated.debt);
            let (empty, lowest) = (whole(stated.burst) / per_tick, most / per_tick);
            let second = whole(rate) * whole(1_000_000 / tick + 2);
            if [whole(period) * most, lowest.ceil() * whole(tick), second].iter().all(|product| *product < exact) {
                let (interval, burst) = (per_tick.recip(), whole(stated.burst));
                let tick = tick.cast_signed();
                return Self { tick, rate, burst, interval, empty, lowest, delay_after: stated.delay_after };
            }
        }
        panic!("{stated:?} has no exact tick");
    }

    fn ticks(&self, now: i64) -> Fraction {
        whole(now.div_euclid(self.tick))
    }

    fn micros(&self, ticks: Fraction) -> i64 {
        i64::try_from(ticks.ceil().to_integer()).unwrap() * self.tick
    }

    /// How far ahead of now the theoretical arrival time of a state lies.
    fn ahead(&self, counts: Option<&Written>, now: i64) -> Fraction {
        counts.map_or(whole(0), |written| self.arrival(written) - self.ticks(now))
    }

    fn arrival(&self, written: &Written) -> Fraction {
        whole(written.whole) + Fraction::new(written.rest, self.rate)
    }

    fn written(&self, arrival: Fraction) -> Written {
        let rest = (arrival - arrival.floor()) * whole(self.rate);
        assert!(rest.is_integer());
        let whole = i64::try_from(arrival.floor().to_integer()).unwrap();
        Written { whole, rest: rest.to_integer(), tick: self.tick }
    }

    /// A written state in this rule's ticks: rounded towards emptier when it was written in others, and the
    /// numerator held below a smaller rate.
    fn rescaled(&self, written: &Written, now: i64) -> Option<Written> {
        if written.tick == self.tick {
            return Some(Written { rest: written.rest.min(self.rate - 1), ..*written });
        }
        let full_at_us = (written.whole + i64::from(written.rest > 0)) * written.tick;
        (full_at_us > now).then(|| self.written(Fraction::new(full_at_us.into(), self.tick.into()).ceil()))
    }
}

impl Definition for Rule {
    type State = Written;

    /// Further ahead than from the lowest state to full, and a second, is empty.
    fn read(&self, stored: Option<&Written>, now: i64) -> Read<Written> {
        let Some(written) = stored.and_then(|written| self.rescaled(written, now)) else { return Read::as_it_is(None) };
        let now = self.ticks(now);
        if whole(written.whole) - now > self.lowest.ceil() + whole(SECOND / self.tick) {
            return Read { counts: Some(self.written(now + self.empty)), anchored: true };
        }
        Read::as_it_is(Some(written).filter(|written| self.arrival(written) > now))
    }

    fn judge(&self, counts: Option<&Written>, cost: u64, now: i64, _: i64) -> (i64, u64) {
        let ahead = self.ahead(counts, now);
        let over = ahead + whole(cost) * self.interval - self.empty;
        if cost == 0 {
            return (0, 0);
        }
        if whole(cost) > self.burst {
            return (-1, 0);
        }
        if over > whole(0) {
            return (self.micros(over), 0);
        }
        let wait = self.delay_after.map(|free| (ahead - whole(free - 1) * self.interval).max(whole(0)));
        (0, wait.map_or(0, |wait| self.micros(wait).unsigned_abs()))
    }

    fn charge(&self, counts: Option<Written>, charge: Charge<'_>) -> Written {
        let ahead = self.ahead(counts.as_ref(), charge.now);
        self.written(self.ticks(charge.now) + ahead + whole(charge.cost) * self.interval)
    }

    fn left(&self, counts: Option<&Written>, now: i64, _: i64) -> (u64, i64) {
        let ahead = self.ahead(counts, now);
        let left = (self.burst - ahead / self.interval).floor().max(whole(0));
        (u64::try_from(left.to_integer()).unwrap(), self.micros(ahead))
    }

    /// A refund never leaves more than full, a further charge never owes more than the debt (unless it did).
    fn settle(&self, stored: Option<&Written>, settlement: &Settlement<'_>, now: i64) -> Settled<Written> {
        let ahead = self.ahead(self.read(stored, now).counts.as_ref(), now);
        let settled = ahead + whole(settlement.amount) * self.interval;
        match settled.max(whole(0)).min(self.lowest.max(ahead)) {
            settled if settled == ahead => Settled::Same,
            settled if settled == whole(0) => Settled::Gone,
            settled => Settled::Becomes(self.written(self.ticks(now) + settled)),
        }
    }
}

#[derive(Default)]
struct Oracle {
    states: HashMap<(usize, bool, usize), Written>,
}

impl Oracle {
    /// All limits at once: (granted, wait, retry, answers).
    fn decide(&mut self, asks: &[Asked], now: i64) -> (bool, u64, i64, Vec<Answer>) {
        let seen: Vec<_> = asks
            .iter()
            .map(|asked| {
                let rule = &RULES[asked.limit][asked.form];
                let read = rule.read(self.states.get(&asked.state()), now);
                let verdict = rule.judge(read.counts.as_ref(), asked.cost, now, 0);
                (asked, rule, read, verdict)
            })
            .collect();
        let enforced = || seen.iter().filter(|(asked, ..)| !LIMITS[asked.limit].1).map(|(.., verdict)| *verdict);
        let granted = enforced().all(|(retry, _)| retry == 0);
        let never = enforced().any(|(retry, _)| retry < 0);
        let retry = if never { -1 } else { enforced().map(|(retry, _)| retry).max().unwrap_or(0) };
        let wait = enforced().map(|(_, wait)| wait).max().filter(|_| granted).unwrap_or(0);
        let mut answers = Vec::new();
        for (asked, rule, read, (retry_us, _)) in seen {
            let allowed = retry_us == 0;
            let charged = granted && allowed && asked.cost > 0;
            let after = if charged {
                Some(rule.charge(read.counts, Charge { cost: asked.cost, now, slot: "" }))
            } else {
                read.counts
            };
            let (remaining, reset) = rule.left(after.as_ref(), now, 0);
            answers.push(Answer { allowed, remaining, retry_us, reset_us: reset.unsigned_abs() });
            if let Some(written) = after.filter(|_| charged || (read.anchored && asked.cost > 0)) {
                self.states.insert(asked.state(), written);
            }
        }
        (granted, wait, retry, answers)
    }
}

impl Asked {
    fn state(self) -> (usize, bool, usize) {
        (self.limit, LIMITS[self.limit].2[self.form].delay_after.is_some(), self.subject)
    }
}

pub(super) fn algorithm(stated: Stated) -> Algorithm {
    let rate = format!("{}/{}us", stated.count, stated.period_us).parse().unwrap();
    let bucket = Bucket::with_debt(rate, stated.burst, stated.debt).unwrap();
    match stated.delay_after {
        None => Algorithm::TokenBucket(bucket),
        Some(delay_after) => Algorithm::LeakyBucket { bucket, delay_after },
    }
}

impl Operation {
    fn of(seed: u64) -> Self {
        let random = &mut Rng::with_seed(seed);
        let advance = match random.u8(..19) {
            0..=1 => Advance::By(0),
            2..=5 => Advance::By(random.i64(0..2_000)),
            6..=9 => Advance::By(random.i64(0..1_500_000)),
            10 => Advance::By(random.i64(0..200_000_000)),
            11 => Advance::By(random.i64(0..3_000_000_000_000)),
            12 => Advance::By(-random.i64(0..=1_000_000)),
            13 => Advance::By(-random.i64(999_990..=5_000_000)),
            14 => Advance::By(-random.i64(999_998..=1_000_003)),
            15..=17 => Advance::ToRetry(random.i64(-1..=1)),
            _ => Advance::ToReset(random.i64(-1..=1)),
        };
        let mut limits: Vec<usize> = (0..LIMITS.len()).collect();
        random.shuffle(&mut limits);
        limits.truncate(random.usize(1..=4));
        Self { advance, asks: limits.into_iter().map(|limit| Asked::of(random, limit)).collect() }
    }
}

impl Asked {
    fn of(random: &mut Rng, limit: usize) -> Self {
        let cost = match random.u8(..16) {
            0 => 0,
            1..=12 => random.u64(1..=3),
            13..=14 => random.u64(1..=30),
            _ => random.u64(1..=2_000_000),
        };
        // Mostly the first form, so that a form lasts for a while.
        let form = if random.u8(..13) == 0 { random.usize(..LIMITS[limit].2.len()) } else { 0 };
        Self { limit, form, subject: random.usize(..2), cost }
    }
}

/// Operations are drawn from seeds: what fails is made smaller by leaving operations out.
fn operations() -> impl Strategy<Value = Vec<Operation>> {
    proptest::collection::vec(any::<u64>().no_shrink().prop_map(Operation::of), 1..=800)
}

#[test]
fn the_memory_store_decides_about_buckets_exactly_as_the_definitions_say() {
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
