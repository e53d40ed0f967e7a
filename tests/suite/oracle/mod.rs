//! The memory store against oracles, each written from the definition of its algorithm: exact fractions for
//! buckets and sliding windows, plain lists for logs and slots, a calendar by hand for windows of a time zone,
//! a history of events for penalties. Nothing is taken from the implementation but its interface.
//!
//! `differential.rs` compares Redis with the memory store on as many operations of the same kinds, so
//! what holds is oracle = memory = Redis.

mod berlin;
mod bucket;
mod entries;
mod penalty;
mod trace;
mod windows;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use num_rational::Ratio;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tollgate::limit::algorithm::Settlement;
use tollgate::limit::key::Subject;
use tollgate::limit::store::memory::MemoryStore;
use tollgate::limit::store::{Answer, Ask, Settle};

use trace::{Form, Move, Operation, POLICIES, Request, Trace};

/// Exact; what leaves 127 bits is a panic, never another number.
type Fraction = Ratio<i128>;

/// How far a clock may step back and be believed, microseconds.
const SECOND: i64 = 1_000_000;

/// One algorithm, by its definition.
trait Definition {
    /// What is remembered of one key; "never seen" is no state.
    type State: Clone;

    /// What of a state counts at an instant.
    fn read(&self, stored: Option<&Self::State>, now: i64) -> Read<Self::State>;

    /// Microseconds until a cost fits beside what counts now (0: it does, -1: never), and those to be held.
    /// Whoever has to search begins at what the store claims.
    fn judge(&self, counts: Option<&Self::State>, cost: u64, now: i64, claimed: i64) -> (i64, u64);

    /// What counts after a charge.
    fn charge(&self, counts: Option<Self::State>, charge: Charge<'_>) -> Self::State;

    /// What is left at once, and microseconds until nothing counts any more.
    fn left(&self, counts: Option<&Self::State>, now: i64, claimed: i64) -> (u64, i64);

    /// What a settlement makes of a state: nothing changes, or it becomes this, or as never seen.
    fn settle(&self, stored: Option<&Self::State>, settlement: &Settlement<'_>, now: i64) -> Settled<Self::State>;
}

/// A state as it counts at an instant.
struct Read<S> {
    counts: Option<S>,
    /// Whether it lay too far ahead, and has been moved.
    anchored: bool,
}

/// What becomes of a state; see [`Definition::settle`].
enum Settled<S> {
    Same,
    Becomes(S),
    Gone,
}

/// A charge.
#[derive(Clone, Copy)]
struct Charge<'a> {
    cost: u64,
    now: i64,
    slot: &'a str,
}

impl<S> Read<S> {
    fn as_it_is(counts: Option<S>) -> Self {
        Self { counts, anchored: false }
    }
}

/// The least number of ticks, in microseconds, after which `fits` holds; from then on it holds for good. The
/// search begins at a claim, so that a right one costs two looks.
fn earliest(tick: i64, claimed: i64, fits: impl Fn(i64) -> bool) -> i64 {
    if claimed > 0 && claimed % tick == 0 && fits(claimed) && !fits(claimed - tick) {
        return claimed;
    }
    if fits(0) {
        return 0;
    }
    let mut high = 1;
    while !fits(high * tick) {
        high *= 2;
        assert!(high < 1 << 50, "it never fits");
    }
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle * tick) { high = middle } else { low = middle }
    }
    high * tick
}

/// A limit's algorithm and numbers.
#[derive(Debug)]
enum Rule {
    Bucket(bucket::Rule),
    Fixed(windows::Fixed),
    Sliding(windows::Sliding),
    Log(entries::Log),
    Slots(entries::Slots),
    Penalty(penalty::Penalty),
}

/// What is remembered of one key by one limit.
#[derive(Debug, Clone)]
enum State {
    Bucket(bucket::Written),
    Fixed(windows::Opened),
    Sliding(windows::Counts),
    Log(Vec<i64>),
    Slots(BTreeMap<String, i64>),
    Penalty(penalty::History),
}

/// Calls a method of whichever definition a rule holds, with the state of that kind, if there is one.
macro_rules! of_kind {
    ($rule:expr, $state:expr, |$definition:ident, $own:ident, $wrap:ident| $body:expr) => {
        of_kind!(@each $rule, $state, $definition, $own, $wrap, $body, Bucket Fixed Sliding Log Slots Penalty)
    };
    (@each $rule:expr, $state:expr, $definition:ident, $own:ident, $wrap:ident, $body:expr, $($kind:ident)*) => {
        match $rule {
            $(Rule::$kind($definition) => {
                let $own = $state.and_then(|state| if let State::$kind(own) = state { Some(own) } else { None });
                let $wrap = State::$kind;
                let _ = $wrap;
                $body
            })*
        }
    };
}

impl Rule {
    fn read(&self, stored: Option<&State>, now: i64) -> Read<State> {
        of_kind!(self, stored, |definition, own, wrap| {
            let Read { counts, anchored } = definition.read(own, now);
            Read { counts: counts.map(wrap), anchored }
        })
    }

    fn judge(&self, counts: Option<&State>, cost: u64, now: i64, claimed: i64) -> (i64, u64) {
        of_kind!(self, counts, |definition, own, _wrap| definition.judge(own, cost, now, claimed))
    }

    /// What is counted when it denies.
    fn denies(&self) -> &'static str {
        match self {
            Self::Bucket(_) => "denied by a bucket",
            Self::Fixed(_) => "denied by a fixed window",
            Self::Sliding(_) => "denied by a sliding window",
            Self::Log(_) => "denied by a log",
            Self::Slots(_) => "denied for want of a slot",
            Self::Penalty(_) => "denied inside a block",
        }
    }

    fn is_window_of_another_length(&self, now: i64) -> bool {
        matches!(self, Self::Fixed(fixed) if fixed.length(now) != fixed.width)
    }

    fn charge(&self, counts: Option<State>, charge: Charge<'_>) -> State {
        of_kind!(self, counts, |definition, own, wrap| wrap(definition.charge(own, charge)))
    }

    fn left(&self, counts: Option<&State>, now: i64, claimed: i64) -> (u64, i64) {
        of_kind!(self, counts, |definition, own, _wrap| definition.left(own, now, claimed))
    }

    fn settle(&self, stored: Option<&State>, settlement: &Settlement<'_>, now: i64) -> Settled<State> {
        of_kind!(self, stored, |definition, own, wrap| match definition.settle(own, settlement, now) {
            Settled::Same => Settled::Same,
            Settled::Becomes(state) => Settled::Becomes(wrap(state)),
            Settled::Gone => Settled::Gone,
        })
    }
}

/// The identity of a state: the limit's name, its algorithm, its window, and whose it is.
type Name = (&'static str, char, u64, usize);

/// One limit of one request.
struct Asked {
    form: &'static Form,
    name: Name,
    cost: u64,
    /// 0 enforces; states of one number are charged together.
    shadow: u8,
}

/// All states, and under which rule each was written.
#[derive(Default)]
struct Oracle {
    states: HashMap<Name, (State, &'static Form)>,
    met: Met,
}

/// How often things happened, so that no test passes for want of them.
#[derive(Debug, Default)]
struct Met(BTreeMap<&'static str, usize>);

impl Met {
    fn count(&mut self, what: &'static str, happened: bool) {
        *self.0.entry(what).or_default() += usize::from(happened);
    }
}

/// What the oracle makes of one limit before anything is decided.
struct Seen {
    counts: Option<State>,
    /// To be written whatever is decided.
    moved: bool,
    retry: i64,
    wait: u64,
    /// A penalty that blocks from now on, and never did before.
    blocked_anew: bool,
}

/// What a penalty is told of what was seen before it, if anything: for how long a limit denies (-1: for ever).
fn told(watches: Option<usize>, before: &[Seen]) -> Option<i64> {
    let Some(limits) = watches else {
        return before.last().filter(|seen| seen.blocked_anew).map(|_| 0);
    };
    let retries = || before[before.len() - limits..].iter().map(|seen| seen.retry).filter(|retry| *retry != 0);
    let longest = retries().max()?;
    Some(if retries().any(|retry| retry == -1) { -1 } else { longest })
}

/// A decision: granted, held for, retry, and what each limit says.
type Decided = (bool, u64, i64, Vec<Answer>);

impl Oracle {
    /// All limits at once. `claims` are the store's answers, from which searches begin.
    fn decide(&mut self, asks: &[Asked], now: i64, slot: &str, claims: &[Answer]) -> Decided {
        let mut seen: Vec<Seen> =
            asks.iter().zip(claims).map(|(asked, claim)| self.see(asked, now, claim.retry_us)).collect();
        self.strike(asks, &mut seen, now);
        let allows = |index: usize| seen[index].retry == 0;
        let enforced = || (0..asks.len()).filter(|&index| asks[index].shadow == 0);
        let granted = enforced().all(allows);
        let never = enforced().any(|index| seen[index].retry < 0);
        let retry = if never { -1 } else { enforced().map(|index| seen[index].retry).max().unwrap_or(0) };
        let wait = enforced().map(|index| seen[index].wait).max().filter(|_| granted).unwrap_or(0);
        let together = |shadow: u8| (0..asks.len()).filter(|&index| asks[index].shadow == shadow).all(allows);
        let charged: Vec<bool> = asks.iter().map(|asked| granted && together(asked.shadow)).collect();
        for (index, asked) in asks.iter().enumerate().filter(|(_, asked)| asked.shadow > 0) {
            self.met.count("shadow charged", charged[index] && asked.cost > 0);
            self.met.count("shadow spared, for another rate of its own", granted && allows(index) && !charged[index]);
        }
        let answers = asks
            .iter()
            .zip(seen)
            .enumerate()
            .map(|(index, (asked, seen))| {
                let charge = charged[index].then_some(Charge { cost: asked.cost, now, slot });
                self.commit(asked, seen, charge, (now, claims[index].reset_us.cast_signed()))
            })
            .collect();
        (granted, wait, retry, answers)
    }

    fn see(&mut self, asked: &Asked, now: i64, claimed: i64) -> Seen {
        let stored = self.states.get(&asked.name).map(|(state, _)| state);
        let Read { counts, anchored } = asked.form.rule.read(stored, now);
        let (retry, wait) = asked.form.rule.judge(counts.as_ref(), asked.cost, now, claimed);
        self.met.count(asked.form.rule.denies(), retry > 0);
        self.met.count("in a window of another length", asked.form.rule.is_window_of_another_length(now));
        self.met.count("re-anchored", anchored && asked.cost > 0);
        self.met.count("held", wait > 0);
        Seen { counts, moved: anchored, retry, wait, blocked_anew: false }
    }

    /// A penalty is told of the denials among the limits that it watches, that of a network of the blocks inside.
    fn strike(&mut self, asks: &[Asked], seen: &mut [Seen], now: i64) {
        for index in 0..asks.len() {
            let Rule::Penalty(penalty) = &asks[index].form.rule else { continue };
            let Some(longest) = told(penalty.watches, &seen[..index]) else { continue };
            if asks[index].cost == 0 || seen[index].retry != 0 {
                continue;
            }
            let counts = match seen[index].counts.take() {
                Some(State::Penalty(history)) => Some(history),
                _ => None,
            };
            let (history, struck) = penalty.denied(counts.unwrap_or_default(), (longest >= 0).then_some(longest), now);
            seen[index].moved |= struck;
            seen[index].retry = history.blocked_for(now);
            self.met.count("struck", struck);
            self.met.count("not struck, in the same round", !struck);
            seen[index].blocked_anew = seen[index].retry > 0 && history.blocks() == 1;
            self.met.count("blocked", seen[index].retry > 0);
            self.met.count("a network blocked", seen[index].retry > 0 && penalty.watches.is_none());
            self.met.count("blocked for longer than before", seen[index].retry > 0 && history.blocks() > 1);
            seen[index].counts = Some(State::Penalty(history));
        }
    }

    fn commit(&mut self, asked: &Asked, seen: Seen, charge: Option<Charge<'_>>, (now, reset): (i64, i64)) -> Answer {
        let rule = &asked.form.rule;
        let charge = charge.filter(|charge| charge.cost > 0 && !matches!(rule, Rule::Penalty(_)));
        let after = match charge {
            Some(charge) => Some(rule.charge(seen.counts, charge)),
            None => seen.counts,
        };
        let (remaining, reset_us) = rule.left(after.as_ref(), now, reset);
        if let Some(state) = after.filter(|_| charge.is_some() || (seen.moved && asked.cost > 0)) {
            self.states.insert(asked.name, (state, asked.form));
        }
        Answer {
            allowed: seen.retry == 0,
            remaining,
            retry_us: seen.retry,
            reset_us: u64::try_from(reset_us).expect("no time runs backwards"),
        }
    }

    fn settle(&mut self, form: &'static Form, name: Name, settlement: &Settlement<'_>, now: i64) {
        let stored = self.states.get(&name);
        let settled = form.rule.settle(stored.map(|(state, _)| state), settlement, now);
        let changed = !matches!(settled, Settled::Same);
        self.met.count("given back", changed && settlement.amount < 0);
        self.met.count("charged on top", changed && settlement.amount > 0);
        match settled {
            Settled::Same => {}
            Settled::Gone => drop(self.states.remove(&name)),
            Settled::Becomes(state) => {
                // What is given back leaves a window where it is.
                let written = stored.filter(|_| settlement.amount < 0).map_or(form, |(_, written)| written);
                self.states.insert(name, (state, written));
            }
        }
    }

    /// The states that count at an instant.
    fn live(&self, now: i64) -> Vec<(&Name, &State)> {
        let states = self.states.iter().map(|(name, (state, form))| (name, state, form));
        let live = states.filter(|(_, state, form)| form.rule.read(Some(state), now).counts.is_some());
        live.map(|(name, state, _)| (name, state)).collect()
    }
}

/// A decision that charged, to be settled later.
struct Charged {
    form: &'static Form,
    name: Name,
    cost: u64,
    now: i64,
    slot: String,
}

/// One run of a trace through both.
struct Run {
    store: MemoryStore,
    oracle: Oracle,
    subjects: [Subject; 2],
    now: i64,
    retry: i64,
    reset: i64,
    charged: Vec<Charged>,
    step: usize,
}

/// How many of the last charges a settlement chooses from.
const SETTLED: usize = 12;

impl Run {
    fn new(now: i64) -> Self {
        Self {
            store: MemoryStore::new(10_000),
            oracle: Oracle::default(),
            subjects: [Subject::from_slice(b"ip=192.0.2.1"), Subject::from_slice(b"global")],
            now,
            retry: 0,
            reset: 0,
            charged: Vec::new(),
            step: 0,
        }
    }

    fn take(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        self.step += 1;
        let before = self.now;
        self.now = trace::moved(self.now, operation.advance, (self.retry, self.reset));
        self.oracle.met.count("the clock stepped back", self.now < before);
        match &operation.does {
            Move::Ask(requests) => self.ask(requests)?,
            Move::Settle { back, amount } => self.settle(*back, *amount),
        }
        if self.step.is_multiple_of(16) {
            let live = self.oracle.live(self.now);
            prop_assert_eq!(self.store.len_at(self.now), live.len(), "states at step {}: {:?}", self.step, live);
        }
        Ok(())
    }

    fn ask(&mut self, requests: &[Request]) -> Result<(), TestCaseError> {
        let asked = asked(requests);
        let slot = format!("slot {}", self.step);
        let asks: Vec<Ask<'_>> = asked
            .iter()
            .map(|one| Ask {
                shadow: one.shadow,
                slot: &slot,
                ..Ask::new(one.name.0, &one.form.algorithm, &self.subjects[one.name.3], one.cost)
            })
            .collect();
        let reply = self.store.decide_at(self.now, &asks);
        let told = (reply.granted, reply.wait_us, reply.retry_us, reply.answers.to_vec());
        let right = self.oracle.decide(&asked, self.now, &slot, &reply.answers);
        prop_assert_eq!(&told, &right, "step {} at {}: {:?}", self.step, self.now, requests);
        let met = &mut self.oracle.met;
        met.count("granted", reply.granted);
        met.count("denied", !reply.granted);
        met.count("never", reply.retry_us < 0);
        met.count("in debt", asked.iter().zip(&reply.answers).any(|(one, answer)| one.form.is_in_debt(answer)));
        self.retry = reply.retry_us.max(0);
        self.reset = reply.answers[self.step % asked.len()].reset_us.cast_signed();
        let charged = asked.into_iter().zip(&reply.answers);
        let charged =
            charged.filter(|(one, answer)| reply.granted && answer.allowed && one.shadow == 0 && one.cost > 0);
        for (Asked { form, name, cost, .. }, _) in charged {
            self.charged.push(Charged { form, name, cost, now: self.now, slot: slot.clone() });
        }
        Ok(())
    }

    /// Settles one of the last charges: gives back at most what was charged, or charges more.
    fn settle(&mut self, back: usize, amount: i64) {
        let last = self.charged.len().saturating_sub(SETTLED);
        let Some(Charged { form, name, cost, now: charged_at_us, slot }) =
            self.charged.drain(last..).rev().nth(back % SETTLED)
        else {
            return;
        };
        if matches!(form.rule, Rule::Penalty(_)) {
            return;
        }
        let settlement = Settlement { amount: amount.max(-cost.cast_signed()), charged_at_us, slot: &slot };
        let subject = &self.subjects[name.3];
        let settle = Settle { state_id: name.0, algorithm: &form.algorithm, subject, settlement };
        self.store.settle_at(self.now, &[settle]);
        self.oracle.settle(form, name, &settlement, self.now);
    }
}

/// The limits of the policies that a request falls under.
fn asked(requests: &[Request]) -> Vec<Asked> {
    let mut asked = Vec::new();
    let mut shadows = 0;
    for request in requests {
        let policy = &POLICIES[request.policy];
        shadows += u8::from(policy.shadow);
        for limit in &policy.limits {
            let form = &limit.forms[request.form % limit.forms.len()];
            let algorithm = &form.algorithm;
            let most = match form.rule {
                Rule::Penalty(_) | Rule::Slots(_) => 1,
                _ => u64::MAX,
            };
            asked.push(Asked {
                form,
                name: (limit.id, algorithm.letter(), algorithm.window_us(), request.subject),
                cost: request.cost.min(most),
                shadow: if policy.shadow { shadows } else { 0 },
            });
        }
    }
    asked
}

/// Operations at least, over all traces.
const OPERATIONS: usize = 250_000;

#[test]
fn the_memory_store_does_exactly_what_the_definitions_of_all_algorithms_say() {
    let (operations, met) = (RefCell::new(0), RefCell::new(Met::default()));
    let config = Config { cases: 720, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&trace::traces(), |trace: Trace| {
        let mut run = Run::new(trace.start);
        for operation in &trace.operations {
            run.take(operation)?;
        }
        *operations.borrow_mut() += trace.operations.len();
        for (what, count) in run.oracle.met.0 {
            *met.borrow_mut().0.entry(what).or_default() += count;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (operations, met) = (operations.into_inner(), met.into_inner().0);
    println!("{operations} operations agree: {met:#?}");
    assert!(operations >= OPERATIONS, "only {operations} operations were compared");
    for (what, count) in &met {
        assert!(*count >= 100, "hardly ever met: {what}, {count} times");
    }
}
