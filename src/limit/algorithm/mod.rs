//! The algorithms: pure functions of state, time and cost, in integers only.
//!
//! A decision goes in three steps. Every limit is [evaluated](Algorithm::evaluate) on its stored
//! [`State`], nothing is changed; from all evaluations follows whether the request is granted; then
//! each limit tells what to [write](Algorithm::written) and what to [answer](Algorithm::answer).
//! Whatever happens afterwards (a refund, a further charge, the end of a request in flight) is
//! [settled](Algorithm::settled). `lua/` states the same integers.

pub mod bucket;
pub mod fixed_window;
pub mod in_flight;
mod numbers;
pub mod penalty;
mod share;
pub mod sliding_log;
pub mod sliding_window;
pub mod zone;

use super::store::Answer;
pub use bucket::Bucket;
pub use fixed_window::FixedWindow;
pub use in_flight::InFlight;
pub use penalty::Penalty;
use penalty::Watches;
pub use sliding_log::SlidingLog;
pub use sliding_window::SlidingWindow;

/// How far a clock may step back before states are re-anchored, µs.
pub const TOLERANCE_US: u64 = 1_000_000;

/// How one limit counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Algorithm {
    /// Up to `capacity` at once, then at the rate.
    TokenBucket(Bucket),
    /// The same bucket, whose admitted requests are held until their turn.
    LeakyBucket {
        /// The bucket that admits.
        bucket: Bucket,
        /// How many requests from idle go through without delay, at least 1.
        delay_after: u64,
    },
    /// So much per window of the clock, or per window that a request opens.
    FixedWindow(FixedWindow),
    /// Two neighbouring windows, weighted.
    SlidingWindow(SlidingWindow),
    /// So much in every window, by the instants of all admissions.
    SlidingLog(SlidingLog),
    /// So many at once.
    InFlight(InFlight),
    /// Blocks a key that the limits beside it denied again and again.
    Penalty(Penalty),
}

/// What is stored for one limit and one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Of token and leaky buckets.
    Bucket(bucket::State),
    /// Of a fixed window.
    Fixed(fixed_window::State),
    /// Of a sliding window.
    Sliding(sliding_window::State),
    /// Of a sliding log.
    Log(sliding_log::State),
    /// Of requests in flight.
    InFlight(in_flight::State),
    /// Of a penalty.
    Penalty(penalty::State),
}

/// What one limit says of one cost at one instant; nothing has been changed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// Whether this limit by itself admits.
    pub allowed: bool,
    /// Microseconds until the cost fits: 0 when allowed, -1 for never.
    pub retry_us: i64,
    /// Microseconds the request is to be held if it is admitted (leaky buckets).
    pub wait_us: u64,
    /// What was asked.
    cost: u64,
    /// When, microseconds since 1970.
    now_us: i64,
    reading: Reading,
}

/// A state as one algorithm reads it at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reading {
    Bucket(bucket::Reading),
    Fixed(fixed_window::Reading),
    Sliding(sliding_window::Reading),
    Log(sliding_log::Reading),
    InFlight(in_flight::Reading),
    Penalty(penalty::Reading),
}

/// A change of one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It becomes this.
    Put(State),
    /// Entries of a log come and go.
    Log(sliding_log::Change),
    /// Slots come and go.
    InFlight(in_flight::Change),
}

/// What happens to a state after its decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement<'a> {
    /// Cost units charged on top (above 0) or given back (below 0). For requests in flight: above 0
    /// renews the slot, below 0 ends it.
    pub amount: i64,
    /// The store's clock at the decision that charged, microseconds since 1970.
    pub charged_at_us: i64,
    /// The slot, for requests in flight.
    pub slot: &'a str,
}

impl Algorithm {
    /// Reads a state and judges a cost, without changing anything; 0 only looks.
    #[must_use]
    pub fn evaluate(&self, stored: Option<&State>, cost: u64, now_us: i64) -> Evaluation {
        let mut evaluation = match (self, stored) {
            (Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. }, stored) => {
                let stored = if let Some(State::Bucket(state)) = stored { Some(*state) } else { None };
                let reading = bucket.read(stored, now_us);
                let retry_us = bucket.retry_us(reading.deficit, cost);
                Evaluation::new(retry_us, Reading::Bucket(reading))
            }
            (Self::FixedWindow(window), stored) => {
                let stored = if let Some(State::Fixed(state)) = stored { Some(*state) } else { None };
                let reading = window.read(stored, now_us);
                Evaluation::new(window.retry_us(&reading, cost, now_us), Reading::Fixed(reading))
            }
            (Self::SlidingWindow(window), stored) => {
                let stored = if let Some(State::Sliding(state)) = stored { Some(*state) } else { None };
                let reading = window.read(stored, now_us);
                Evaluation::new(window.retry_us(&reading, cost), Reading::Sliding(reading))
            }
            (Self::SlidingLog(log), stored) => {
                let stored = if let Some(State::Log(state)) = stored { Some(state) } else { None };
                let reading = log.read(stored, cost, now_us);
                Evaluation::new(reading.retry_us, Reading::Log(reading))
            }
            (Self::InFlight(slots), stored) => {
                let stored = if let Some(State::InFlight(state)) = stored { Some(state) } else { None };
                let reading = slots.read(stored, now_us);
                Evaluation::new(slots.retry_us(&reading, cost), Reading::InFlight(reading))
            }
            (Self::Penalty(penalty), stored) => {
                let stored = if let Some(State::Penalty(state)) = stored { Some(*state) } else { None };
                let reading = penalty.read(stored, now_us);
                let retry_us = if cost == 0 { 0 } else { reading.blocked_us };
                Evaluation::new(retry_us, Reading::Penalty(reading))
            }
        };
        if let (Self::LeakyBucket { bucket, delay_after }, Reading::Bucket(reading)) = (self, &evaluation.reading)
            && evaluation.allowed
            && cost > 0
        {
            evaluation.wait_us = bucket.wait_us(reading.deficit, *delay_after);
        }
        Evaluation { cost, now_us, ..evaluation }
    }

    /// What this limit answers once the whole decision is known; it was charged when that was
    /// granted and the limit itself allowed it.
    #[must_use]
    pub fn answer(&self, evaluation: &Evaluation, granted: bool) -> Answer {
        let cost = if granted && evaluation.allowed { evaluation.cost } else { 0 };
        let now_us = evaluation.now_us;
        let (remaining, reset_us) = match (self, &evaluation.reading) {
            (Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. }, Reading::Bucket(reading)) => {
                let deficit = bucket.charged(reading.deficit, cost);
                (bucket.remaining(deficit), bucket.reset_us(deficit))
            }
            (Self::FixedWindow(window), Reading::Fixed(reading)) => window.left(reading, cost, now_us),
            (Self::SlidingWindow(window), Reading::Sliding(reading)) => window.left(reading, cost),
            (Self::SlidingLog(log), Reading::Log(reading)) => log.left(reading, cost, now_us),
            (Self::InFlight(slots), Reading::InFlight(reading)) => slots.left(reading, cost, now_us),
            (Self::Penalty(penalty), Reading::Penalty(reading)) => penalty.left(reading, now_us),
            _ => (0, 0),
        };
        Answer { allowed: evaluation.allowed, remaining, retry_us: evaluation.retry_us, reset_us }
    }

    /// What is to be written once the whole decision is known, if anything; `slot` names the request
    /// among those in flight.
    #[must_use]
    pub fn written(&self, evaluation: &Evaluation, granted: bool, slot: &str) -> Option<Change> {
        let Evaluation { cost, now_us, .. } = *evaluation;
        let charged = granted && evaluation.allowed && cost > 0;
        let due = |reanchored: bool| cost > 0 && (charged || reanchored);
        let cost = if charged { cost } else { 0 };
        match (self, &evaluation.reading) {
            (Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. }, Reading::Bucket(reading)) => {
                let deficit = bucket.charged(reading.deficit, cost);
                due(reading.reanchored).then(|| Change::Put(State::Bucket(bucket.state(deficit, now_us))))
            }
            (Self::FixedWindow(_), Reading::Fixed(reading)) => {
                due(reading.reanchored).then(|| Change::Put(State::Fixed(reading.state(cost))))
            }
            (Self::SlidingWindow(window), Reading::Sliding(reading)) => {
                due(reading.reanchored).then(|| Change::Put(State::Sliding(window.state(reading, cost))))
            }
            (Self::SlidingLog(log), Reading::Log(reading)) => {
                due(reading.reanchored).then(|| Change::Log(log.change(reading, cost, now_us)))
            }
            (Self::InFlight(slots), Reading::InFlight(reading)) => {
                due(reading.reanchored).then(|| Change::InFlight(slots.change(reading, cost, now_us, slot)))
            }
            (Self::Penalty(_), Reading::Penalty(reading)) => {
                let state = reading.written.filter(|_| evaluation.cost > 0);
                state.map(|state| Change::Put(State::Penalty(state)))
            }
            _ => None,
        }
    }

    /// What becomes of a state when a decision is settled, if anything.
    #[must_use]
    pub fn settled(&self, stored: Option<&State>, settlement: &Settlement<'_>, now_us: i64) -> Option<Change> {
        match (self, stored) {
            (Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. }, stored) => {
                let stored = if let Some(State::Bucket(state)) = stored { Some(*state) } else { None };
                bucket.settled(stored, settlement.amount, now_us).map(|state| Change::Put(State::Bucket(state)))
            }
            (Self::FixedWindow(window), stored) => {
                let stored = if let Some(State::Fixed(state)) = stored { Some(*state) } else { None };
                window.settled(stored, settlement, now_us).map(|state| Change::Put(State::Fixed(state)))
            }
            (Self::SlidingWindow(window), stored) => {
                let stored = if let Some(State::Sliding(state)) = stored { Some(*state) } else { None };
                window.settled(stored, settlement, now_us).map(|state| Change::Put(State::Sliding(state)))
            }
            (Self::SlidingLog(log), stored) => {
                let stored = if let Some(State::Log(state)) = stored { Some(state) } else { None };
                log.settled(stored, settlement, now_us).map(Change::Log)
            }
            (Self::InFlight(slots), _) => Some(Change::InFlight(slots.settled(settlement, now_us))),
            (Self::Penalty(_), _) => None,
        }
    }
}

impl Evaluation {
    fn new(retry_us: i64, reading: Reading) -> Self {
        Self { allowed: retry_us == 0, retry_us, wait_us: 0, cost: 0, now_us: 0, reading }
    }

    /// Tells a penalty that a limit beside it denied, for `retry_us` (-1: for ever). A penalty that is
    /// not blocking already may count that as a strike, and block from now on.
    pub fn strike(&mut self, penalty: &Penalty, retry_us: i64) {
        if let Reading::Penalty(reading) = &mut self.reading
            && self.allowed
            && self.cost > 0
        {
            self.retry_us = match penalty.watches {
                Watches::Denials(_) => penalty.strike(reading, retry_us, self.now_us),
                Watches::Parts => penalty.part_blocked(reading, self.now_us),
            };
            self.allowed = self.retry_us == 0;
        }
    }

    /// Whether a penalty blocks from now on a key that no block was known of.
    pub(in crate::limit) fn blocks_anew(&self) -> bool {
        matches!(&self.reading, Reading::Penalty(reading) if reading.blocked_anew)
    }
}

impl State {
    /// The instant from which this state equals "never seen", microseconds since 1970.
    #[must_use]
    pub fn full_at_us(&self) -> i64 {
        match self {
            Self::Bucket(state) => state.full_at_us(),
            Self::Fixed(state) => state.full_at_us(),
            Self::Sliding(state) => state.full_at_us(),
            Self::Log(state) => state.full_at_us(),
            Self::InFlight(state) => state.full_at_us(),
            Self::Penalty(state) => state.full_at_us(),
        }
    }

    /// How much room it takes, in states of usual size.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Log(state) => 1 + state.entries.len() / 8,
            Self::InFlight(state) => 1 + state.slots.len() / 2,
            _ => 1,
        }
    }
}

impl Change {
    /// The state after the change.
    #[must_use]
    pub fn applied(self, stored: Option<State>) -> State {
        match (self, stored) {
            (Self::Put(state), _) => state,
            (Self::Log(change), Some(State::Log(state))) => State::Log(change.applied(state)),
            (Self::Log(change), _) => State::Log(change.applied(sliding_log::State::default())),
            (Self::InFlight(change), Some(State::InFlight(state))) => State::InFlight(change.applied(state)),
            (Self::InFlight(change), _) => State::InFlight(change.applied(in_flight::State::default())),
        }
    }
}
