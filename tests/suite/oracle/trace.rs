//! What is asked in the oracle's traces: policies of every kind, in several forms that follow each other as
//! after changes of the configuration, and clocks that step back, stand still, and leap to where something
//! is just about to happen.

use std::fmt;
use std::sync::LazyLock;

use fastrand::Rng;
use proptest::prelude::*;
use tollgate::limit::algorithm::fixed_window::Align;
use tollgate::limit::algorithm::penalty::Watches;
use tollgate::limit::algorithm::zone::Zone;
use tollgate::limit::algorithm::{Algorithm, FixedWindow, InFlight, Penalty, SlidingLog, SlidingWindow};
use tollgate::limit::store::Answer;
use tollgate::units::Rate;

use super::bucket::{self, Stated, leaky, tokens};
use super::windows::{Clock, Fixed, Sliding};
use super::{Rule, SECOND, berlin, entries, penalty};

/// A limit in one of its forms.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) rule: Rule,
    pub(super) algorithm: Algorithm,
}

/// One limit of a policy: a state id, and the forms its numbers take.
pub(super) struct Limit {
    pub(super) id: &'static str,
    pub(super) forms: Vec<Form>,
}

/// Limits that are asked together.
pub(super) struct Policy {
    pub(super) shadow: bool,
    pub(super) limits: Vec<Limit>,
    /// Costs worth asking for: mostly up to this.
    usual: u64,
}

/// One request under one policy.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) policy: usize,
    pub(super) form: usize,
    pub(super) subject: usize,
    pub(super) cost: u64,
}

#[derive(Clone)]
pub(super) struct Operation {
    pub(super) advance: Advance,
    pub(super) does: Move,
}

#[derive(Debug, Clone)]
pub(super) enum Move {
    Ask(Vec<Request>),
    /// Settles one of the last charges by this amount.
    Settle {
        back: usize,
        amount: i64,
    },
}

/// How the clock moves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Advance {
    By(i64),
    /// To the instant the last denial named, give or take a microsecond.
    ToRetry(i64),
    /// Likewise to the instant at which one limit of the last request is as never seen.
    ToReset(i64),
    /// Likewise to the next multiple of this width.
    ToMark(i64, i64),
    /// To somewhere near a change of Berlin's clock.
    ToChange(usize, i64),
}

/// Where a clock begins, and what happens.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    pub(super) start: i64,
    pub(super) operations: Vec<Operation>,
}

const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const MONTH_US: u64 = 30 * 86_400_000_000;

impl Form {
    /// Whether an answer shows that more is owed than the whole burst (buckets only).
    pub(super) fn is_in_debt(&self, answer: &Answer) -> bool {
        self.algorithm.bucket().is_some_and(|bucket| bucket.debt > 0 && answer.reset_us > self.algorithm.fill_us())
    }
}

fn rate(count: u64, width: i64) -> Rate {
    format!("{count}/{width}us").parse().unwrap()
}

fn bucket(stated: Stated) -> Form {
    Form { rule: Rule::Bucket(bucket::Rule::of(stated)), algorithm: bucket::algorithm(stated) }
}

fn owing(stated: Stated, debt: u64) -> Form {
    bucket(Stated { debt, ..stated })
}

fn fixed(clock: Clock, limit: u64, width: i64, debt: u64) -> Form {
    let align = match clock {
        Clock::Utc => Align::Utc,
        Clock::Berlin => Align::Zone(Zone::find("Europe/Berlin").unwrap()),
        Clock::FirstRequest => Align::FirstRequest,
    };
    let window = FixedWindow::new(rate(limit, width), align, debt).unwrap();
    Form { rule: Rule::Fixed(Fixed { limit, width, debt, clock }), algorithm: Algorithm::FixedWindow(window) }
}

fn sliding(limit: u64, width: i64, debt: u64) -> Form {
    let window = SlidingWindow::new(rate(limit, width), debt).unwrap();
    Form { rule: Rule::Sliding(Sliding::new(limit, width, debt)), algorithm: Algorithm::SlidingWindow(window) }
}

fn log(limit: u64, width: i64, debt: u64) -> Form {
    let window = SlidingLog::new(rate(limit, width), debt).unwrap();
    Form { rule: Rule::Log(entries::Log { limit, width, debt }), algorithm: Algorithm::SlidingLog(window) }
}

fn slots(limit: u64, lifetime: i64) -> Form {
    let slots = InFlight { limit, slot_us: lifetime.unsigned_abs() };
    Form { rule: Rule::Slots(entries::Slots { limit, lifetime }), algorithm: Algorithm::InFlight(slots) }
}

fn blocks(after: u64, (first, longest): (i64, i64), watches: usize) -> Form {
    penalty_of(after, (first, longest), Some(watches), longest * 3 / 2)
}

/// The penalty of a network around the one before it.
fn around(parts: u64, times: (i64, i64)) -> Form {
    penalty_of(parts, times, None, times.1)
}

fn penalty_of(after: u64, (first, longest): (i64, i64), watches: Option<usize>, round: i64) -> Form {
    let (block_us, max_us, round_us) = (first.unsigned_abs(), longest.unsigned_abs(), round.unsigned_abs());
    let told = watches.map_or(Watches::Parts, Watches::Denials);
    let algorithm = Algorithm::Penalty(Penalty { after, block_us, max_us, watches: told, round_us });
    Form { rule: Rule::Penalty(penalty::Penalty { after, first, longest, watches, round }), algorithm }
}

/// Shorthand for the list below.
fn limit<const N: usize>(id: &'static str, forms: [Form; N]) -> Limit {
    Limit { id, forms: forms.into() }
}

fn policy<const N: usize>(usual: u64, limits: [Limit; N]) -> Policy {
    Policy { shadow: false, limits: limits.into(), usual }
}

fn shadow<const N: usize>(usual: u64, limits: [Limit; N]) -> Policy {
    Policy { shadow: true, ..policy(usual, limits) }
}

/// The first form of each limit is the usual one.
pub(super) static POLICIES: LazyLock<Vec<Policy>> = LazyLock::new(|| {
    let mut policies = buckets();
    policies.extend(windows());
    policies.extend(entries_and_slots());
    policies.extend(several());
    policies
});

fn buckets() -> Vec<Policy> {
    vec![
        policy(3, [limit("tokens", [tokens(3, 1_000_000, 10), tokens(7, 13_000_000, 4)].map(bucket))]),
        policy(4, [limit("owed", [owing(tokens(10, 1_000_000, 10), 10), owing(tokens(4, 1_000_000, 5), 2)])]),
        policy(3, [limit("queue", [leaky(10, 1_000_000, 10, 1), leaky(3, 7_000_000, 20, 5)].map(bucket))]),
        policy(
            200_000,
            [limit("coarse", [tokens(1_000_003, MONTH_US, 1_000_003), tokens(5, 1_000_000, 5)].map(bucket))],
        ),
        shadow(2, [limit("watched", [owing(tokens(2, 1_000_000, 3), 1)])]),
    ]
}

fn windows() -> Vec<Policy> {
    use Clock::{Berlin, FirstRequest, Utc};
    vec![
        policy(2, [limit("clock", [fixed(Utc, 5, SECOND, 0), fixed(Utc, 2, SECOND, 0), fixed(Utc, 9, SECOND, 4)])]),
        policy(3, [limit("days", [fixed(Berlin, 10, DAY, 5), fixed(Utc, 10, DAY, 0), fixed(Berlin, 4, DAY, 0)])]),
        policy(
            2,
            [limit("weeks", [fixed(Berlin, 8, 7 * DAY, 0), fixed(Utc, 8, 7 * DAY, 3), fixed(Berlin, 8, 3 * DAY, 0)])],
        ),
        policy(
            2,
            [limit("parts", [40 * MINUTE, HOUR, 144 * MINUTE, 6 * HOUR].map(|width| fixed(Berlin, 6, width, 2)))],
        ),
        policy(2, [limit("quarters", [15 * MINUTE, 5 * MINUTE].map(|width| fixed(Berlin, 6, width, 0)))]),
        policy(2, [limit("first", [fixed(FirstRequest, 6, 2 * SECOND, 3), fixed(Utc, 6, 2 * SECOND, 0)])]),
        policy(3, [limit("first-day", [fixed(FirstRequest, 9, DAY, 0), fixed(Berlin, 9, DAY, 2)])]),
        policy(3, [limit("slide", [sliding(10, SECOND, 0), sliding(3, SECOND, 2), sliding(7, 3 * SECOND, 0)])]),
        policy(4, [limit("slide-owed", [sliding(12, 4 * SECOND, 12), sliding(12, 4 * SECOND, 0)])]),
        policy(300_000, [limit("slide-coarse", [sliding(1_000_003, 30 * DAY, 7), sliding(9, 30 * DAY, 0)])]),
    ]
}

fn entries_and_slots() -> Vec<Policy> {
    vec![
        policy(3, [limit("log", [log(10, SECOND, 0), log(3, SECOND, 3), log(30, 7 * SECOND, 10)])]),
        policy(1, [limit("slots", [slots(3, SECOND), slots(1, SECOND), slots(3, 30 * SECOND)])]),
    ]
}

/// Several rates of one policy, penalties among them.
fn several() -> Vec<Policy> {
    use Clock::Utc;
    let block = |first: i64, longest: i64| (first * SECOND / 10, longest * SECOND / 10);
    vec![
        policy(
            2,
            [
                limit("both~1s", [tokens(5, 1_000_000, 5)].map(bucket)),
                limit("both~10s", [tokens(14, 10_000_000, 14)].map(bucket)),
            ],
        ),
        policy(2, [limit("logs~1s", [log(4, SECOND, 2)]), limit("logs~5s", [log(9, 5 * SECOND, 0)])]),
        shadow(2, [limit("seen~500ms", [fixed(Utc, 3, SECOND / 2, 0)]), limit("seen~3s", [sliding(6, 3 * SECOND, 0)])]),
        policy(
            1,
            [
                limit("login", [bucket(tokens(2, 1_000_000, 2))]),
                limit("login~penalty", [blocks(2, block(5, 50), 1), blocks(3, block(4, 10), 1)]),
            ],
        ),
        policy(
            2,
            [
                limit("pin~1s", [fixed(Utc, 3, SECOND, 0)]),
                limit("pin~4s", [log(6, 4 * SECOND, 0)]),
                limit("pin~penalty", [blocks(1, block(3, 100), 2), blocks(1, block(10, 20), 2)]),
            ],
        ),
        policy(
            1,
            [
                limit("net", [bucket(tokens(1, 300_000, 1))]),
                limit("net~penalty", [blocks(1, block(2, 8), 1), blocks(2, block(1, 3), 1)]),
                limit("net~penalty/56", [around(2, block(6, 40)), around(3, block(4, 90))]),
                limit("net~penalty/48", [around(2, block(9, 70)), around(1, block(4, 50))]),
            ],
        ),
    ]
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.advance, self.does)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, form, subject, cost } = self;
        let limit = &POLICIES[*policy].limits[0];
        write!(f, "{cost} of {} (form {}) by {subject}", limit.id, form % limit.forms.len())
    }
}

impl Trace {
    /// A trace about a few of the policies, so that their states are under pressure.
    fn of((seed, steps): (u64, Vec<u64>)) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut policies: Vec<usize> = (0..POLICIES.len()).collect();
        random.shuffle(&mut policies);
        policies.truncate(random.usize(2..=7));
        let start = berlin::BEGIN + random.i64(DAY..berlin::END - berlin::BEGIN - 90 * DAY);
        let longest = if random.bool() { 5 * SECOND } else { i64::MAX };
        let operation = |step| Operation::of(&mut Rng::with_seed(step), &policies, longest);
        Self { start, operations: steps.into_iter().map(operation).collect() }
    }
}

impl Operation {
    /// The clock leaps no further than `longest` at once.
    fn of(random: &mut Rng, policies: &[usize], longest: i64) -> Self {
        let advance = Advance::of(random).within(longest);
        if random.u8(..) < 40 {
            let amount = if random.bool() { random.i64(1..=10) } else { -random.i64(1..=3_000_000) };
            let amount = if random.bool() { amount.max(-2) } else { amount };
            return Self { advance, does: Move::Settle { back: random.usize(..), amount } };
        }
        let mut chosen = policies.to_vec();
        random.shuffle(&mut chosen);
        let wanted = [1, 1, 1, 2, 2, 3, 4][random.usize(..7)];
        let mut limits = 0;
        chosen.retain(|policy| {
            let more = POLICIES[*policy].limits.len();
            let fits = limits == 0 || limits + more <= wanted;
            limits += if fits { more } else { 0 };
            fits
        });
        Self { advance, does: Move::Ask(chosen.into_iter().map(|policy| Request::of(random, policy)).collect()) }
    }
}

impl Request {
    fn of(random: &mut Rng, policy: usize) -> Self {
        let usual = POLICIES[policy].usual;
        let cost = match random.u8(..) {
            0..=15 => 0,
            16..=220 => random.u64(1..=usual),
            221..=245 => random.u64(1..=4 * usual),
            _ => random.u64(1..=40 * usual),
        };
        // A form lasts for a while.
        let form = if random.u8(..) < 20 { random.usize(..12) } else { 0 };
        Self { policy, form, subject: usize::from(random.u8(..) < 60), cost }
    }
}

impl Advance {
    fn within(self, longest: i64) -> Self {
        match self {
            Self::By(micros) => Self::By(micros.clamp(-longest, longest)),
            Self::ToMark(width, off) if width > longest => Self::By(off),
            Self::ToChange(..) if longest < DAY => Self::By(0),
            _ => self,
        }
    }

    fn of(random: &mut Rng) -> Self {
        match random.u8(..) {
            0..=29 => Self::By(0),
            30..=89 => Self::By(random.i64(0..2_000)),
            90..=179 => Self::By(random.i64(0..120_000)),
            180..=199 => Self::By(random.i64(0..1_500_000)),
            200..=203 => Self::By(random.i64(0..200 * SECOND)),
            204..=205 => Self::By(random.i64(0..2 * DAY)),
            206..=211 => Self::By(-random.i64(0..=SECOND)),
            212..=215 => Self::By(-random.i64(999_990..5 * SECOND)),
            216..=218 => Self::By(-random.i64(999_998..1_000_003)),
            219 => Self::By(-random.i64(0..2 * DAY)),
            220..=236 => Self::ToRetry(random.i64(-1..=1)),
            237..=241 => Self::ToReset(random.i64(-1..=1)),
            242..=250 => {
                let widths = [SECOND / 2, SECOND, 2 * SECOND, 4 * SECOND, 15 * MINUTE, HOUR, DAY];
                Self::ToMark(widths[random.usize(..widths.len())], random.i64(-500_000..=1))
            }
            _ => Self::ToChange(random.usize(..berlin::CHANGES.len()), random.i64(-26 * HOUR..26 * HOUR)),
        }
    }
}

/// Where a clock is after a move; before the end of Berlin's table it begins anew.
pub(super) fn moved(now: i64, advance: Advance, (retry, reset): (i64, i64)) -> i64 {
    let moved = match advance {
        Advance::By(micros) => now + micros,
        Advance::ToRetry(off) => now + (retry + off).max(0),
        Advance::ToReset(off) => now + (reset + off).max(0),
        Advance::ToMark(width, off) => (now / width + 1) * width + off,
        Advance::ToChange(change, off) => berlin::CHANGES[change].0 + off,
    };
    if (berlin::BEGIN + DAY..berlin::END - 60 * DAY).contains(&moved) { moved } else { berlin::BEGIN + 2 * DAY }
}

/// Operations are drawn from seeds: what fails is made smaller by leaving operations out.
pub(super) fn traces() -> impl Strategy<Value = Trace> {
    let seed = || any::<u64>().no_shrink();
    (seed(), proptest::collection::vec(seed(), 1..=840)).prop_map(Trace::of)
}
