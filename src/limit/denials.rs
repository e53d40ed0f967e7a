//! Denials remembered locally: a denied key is denied until its retry instant, without a call.
//!
//! A denial at cost n with retry r, in answer to a call sent at s, proves that cost >= n is denied until
//! s + r: only admissions could change the state, and those prolong it. From the instant on at which
//! another worker may have admitted a cheaper request, a client is told to wait as for an empty
//! bucket, so that it never comes back too soon. When s + r has
//! passed one request asks the store and the others of that key wait for its answer, within
//! their deadline. Entries live at most a minute, in a map of fixed size; all are dropped when
//! the store went away. Shadow limits are never remembered. A denial holds for the numbers it was made by:
//! where a schedule gives a state others, it is asked anew.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::fingerprint::Fingerprints;
use super::stats::StoreErrorKind;
use super::store::{Answer, Ask, Reply};

/// One worker's remembered denials.
#[derive(Debug)]
pub struct Denials {
    /// Small sets picked by fingerprint; none holds more than [`WAYS`].
    sets: RefCell<Box<[Vec<Denial>]>>,
    /// Entries over all sets: nothing is hashed while there are none.
    len: Cell<usize>,
    fingerprints: Fingerprints,
    /// The store's epoch that the entries belong to.
    epoch: Cell<u64>,
    /// The overrides set meanwhile that they were made under, by number, and the resets of states until then.
    changes: Cell<(u64, u64)>,
}

/// One denied state.
#[derive(Debug)]
struct Denial {
    name: u128,
    /// The least cost known to be denied.
    cost: u64,
    /// Denied until then (counted from the sending of the call).
    until: Instant,
    /// Until then not even the cheapest request is admitted anywhere: the answer stays true to the word.
    frozen: Instant,
    /// When the answer arrived: what clients are told counts from here, so that it is never too soon.
    answered: Instant,
    answer: Answer,
    /// After `until`: who asks, if somebody does.
    flight: Option<Rc<Flight>>,
    /// After `until`: how many more may ask without waiting.
    free: u64,
}

/// One request that asks the store on behalf of others.
#[derive(Debug, Default)]
struct Flight {
    waiting: Cell<u64>,
    failure: Cell<Option<StoreErrorKind>>,
    ended: Notify,
}

/// What is known before the store is asked.
#[derive(Debug)]
pub enum Recall<'d> {
    /// Denied for sure at this instant: positions in the asks, with what the client is told. Later than that the
    /// denial may have run out.
    Denied(SmallVec<[(usize, Answer); 1]>, Instant),
    /// Ask the store, and hand the result to the permit.
    Ask(Permit<'d>),
}

/// The duty to tell the waiting ones what the store said. Dropped without that, another one asks.
#[derive(Debug)]
pub struct Permit<'d> {
    denials: &'d Denials,
    flights: SmallVec<[(u128, Rc<Flight>); 1]>,
    sent: Instant,
    /// The store's epoch at the sending.
    epoch: u64,
    /// How long a denial is proof, at most.
    longest: Duration,
}

/// When a call was made, by this process' clock and the store's.
#[derive(Debug, Clone, Copy)]
struct Call {
    sent: Instant,
    answered: Instant,
    now_us: i64,
    /// How long what it says is proof, at most.
    longest: Duration,
}

/// Sets of the map; with [`WAYS`] the most denials a worker remembers (32,768).
const SETS: usize = 4096;

/// Denials per set.
const WAYS: usize = 8;

/// The longest a denial is remembered.
const LONGEST: Duration = Duration::from_mins(1);

/// What the map says of a decision at an instant.
enum Look {
    Denied(SmallVec<[(usize, Answer); 1]>),
    Wait(Rc<Flight>),
    /// To be asked; these states' denials have run out.
    Ask(SmallVec<[u128; 1]>),
}

impl Denials {
    /// Nothing remembered.
    #[must_use]
    pub fn new() -> Self {
        Self {
            sets: RefCell::new((0..SETS).map(|_| Vec::new()).collect()),
            len: Cell::new(0),
            fingerprints: Fingerprints::new(),
            epoch: Cell::new(0),
            changes: Cell::new((0, 0)),
        }
    }

    /// Forgets everything; whoever waits asks for itself.
    pub fn clear(&self) {
        for denial in self.sets.borrow_mut().iter_mut().flat_map(std::mem::take) {
            if let Some(flight) = denial.flight {
                flight.ended.notify_waiters();
            }
        }
        self.len.set(0);
    }

    /// Forgets everything when the store has been away since (its epoch is another).
    pub fn follow(&self, epoch: u64) {
        if self.epoch.replace(epoch) != epoch {
            self.clear();
        }
    }

    /// Forgets everything when overrides were set or ended (a state may have been read with other numbers), or
    /// when a state was reset.
    pub fn follow_changes(&self, overrides: u64, resets: u64) {
        let (known, reset) = self.changes.get();
        if overrides > known || resets > reset {
            self.changes.set((overrides.max(known), resets.max(reset)));
            self.clear();
        }
    }

    /// What is known of these asks; waits for an answer that another request is fetching.
    ///
    /// # Errors
    /// When that answer does not come before `deadline`, or the store failed to give it.
    pub async fn recall(&self, asks: &[Ask<'_>], deadline: Instant) -> Result<Recall<'_>, StoreErrorKind> {
        loop {
            let now = Instant::now();
            match self.look(asks, now) {
                Look::Denied(answers) => return Ok(Recall::Denied(answers, now)),
                Look::Ask(names) => return Ok(Recall::Ask(self.permit(&names, now))),
                Look::Wait(flight) => flight.wait(deadline).await?,
            }
        }
    }

    /// Whether a remembered denial answers these asks now.
    #[must_use]
    pub fn answers(&self, asks: &[Ask<'_>]) -> bool {
        matches!(self.look(asks, Instant::now()), Look::Denied(_))
    }

    /// Looks, changing nothing.
    fn look(&self, asks: &[Ask<'_>], now: Instant) -> Look {
        let mut denied = SmallVec::new();
        let mut expired = SmallVec::new();
        if self.len.get() == 0 {
            return Look::Ask(expired);
        }
        let mut awaited = None;
        let sets = self.sets.borrow();
        for (position, ask) in asks.iter().enumerate().filter(|(_, ask)| ask.is_remembered()) {
            let name = self.fingerprints.of_terms(ask.state_id, ask.algorithm, ask.subject);
            let Some(denial) = sets[set_of(name)].iter().find(|denial| denial.name == name) else { continue };
            if now < denial.until {
                if ask.cost >= denial.cost {
                    denied.push((position, denial.answer_at(ask, now)));
                }
            } else if let Some(flight) = &denial.flight {
                awaited = awaited.or_else(|| Some(Rc::clone(flight)));
            } else {
                expired.push(name);
            }
        }
        match awaited {
            _ if !denied.is_empty() => Look::Denied(denied),
            Some(flight) => Look::Wait(flight),
            None => Look::Ask(expired),
        }
    }

    /// Lets a request ask; it asks for all of those whose denial has run out.
    fn permit(&self, expired: &[u128], sent: Instant) -> Permit<'_> {
        let mut flights = SmallVec::new();
        let mut sets = self.sets.borrow_mut();
        for &name in expired {
            let Some(denial) = sets[set_of(name)].iter_mut().find(|denial| denial.name == name) else { continue };
            if denial.free > 0 {
                denial.free -= 1;
            } else {
                let flight = Rc::new(Flight::default());
                denial.flight = Some(Rc::clone(&flight));
                flights.push((name, flight));
            }
        }
        Permit { denials: self, flights, sent, epoch: self.epoch.get(), longest: LONGEST }
    }

    /// Remembers that the store denied this.
    fn remember(&self, ask: &Ask<'_>, answer: Answer, call: Call) {
        let Call { sent, answered, .. } = call;
        let until = sent + call.lasting(ask, answer.retry_us);
        let frozen = if ask.cost <= ask.least_cost {
            until
        } else {
            sent + call.lasting(ask, ask.algorithm.surely_denied_us(&answer, ask.least_cost))
        };
        let name = self.fingerprints.of_terms(ask.state_id, ask.algorithm, ask.subject);
        let denial = Denial { name, cost: ask.cost, until, frozen, answered, answer, flight: None, free: 0 };
        let set = &mut self.sets.borrow_mut()[set_of(name)];
        if let Some(old) = set.iter_mut().find(|old| old.name == name) {
            if old.until <= answered || old.cost >= ask.cost {
                let flight = old.flight.take();
                *old = Denial { flight, ..denial };
            }
        } else if set.len() < WAYS {
            set.push(denial);
            self.len.set(self.len.get() + 1);
        } else if let Some(soonest) = set.iter_mut().filter(|old| old.flight.is_none()).min_by_key(|old| old.until) {
            *soonest = denial;
        }
    }

    /// A state admitted a request and has this many more to give. Its denial is forgotten: it has run
    /// out, or was of a larger cost and now lasts longer than it says. But when more than that
    /// wait for the request, that many may ask and then the next one asks for the others.
    fn admitted(&self, name: u128, flight: Option<&Flight>, free: u64) {
        let mut sets = self.sets.borrow_mut();
        let set = &mut sets[set_of(name)];
        let Some(position) = set.iter().position(|denial| denial.name == name) else { return };
        if flight.is_some_and(|flight| flight.waiting.get() > free) {
            set[position].free = free;
        } else if flight.is_some() || set[position].flight.is_none() {
            set.swap_remove(position);
            self.len.set(self.len.get() - 1);
        }
    }
}

impl Default for Denials {
    fn default() -> Self {
        Self::new()
    }
}

impl Permit<'_> {
    /// The call was sent only now, after a wait for others.
    pub fn sent_at(&mut self, sent: Instant) {
        self.sent = sent;
    }

    /// Remembers denials for no longer than this: they may be taken back.
    #[must_use]
    pub fn at_most(mut self, longest: Duration) -> Self {
        self.longest = self.longest.min(longest);
        self
    }

    /// Tells what came of it: denials are remembered unless the store went away meanwhile, the waiting
    /// ones go on. A failure is theirs too, but not that this request ran out of time: they may have more.
    pub fn settle(self, asks: &[Ask<'_>], result: &Result<Reply, StoreErrorKind>) {
        self.settle_at(Instant::now(), asks, result);
    }

    fn settle_at(self, answered: Instant, asks: &[Ask<'_>], result: &Result<Reply, StoreErrorKind>) {
        let reply = match result {
            Ok(reply) => reply,
            Err(StoreErrorKind::Timeout) => return,
            Err(kind) => return self.flights.iter().for_each(|(_, flight)| flight.failure.set(Some(*kind))),
        };
        if self.epoch != self.denials.epoch.get() {
            return;
        }
        let call = Call { sent: self.sent, answered, now_us: reply.now_us, longest: self.longest };
        for (ask, answer) in asks.iter().zip(&reply.answers).filter(|(ask, _)| ask.is_remembered()) {
            if !answer.allowed {
                self.denials.remember(ask, *answer, call);
            } else if self.denials.len.get() > 0 {
                let name = self.denials.fingerprints.of_terms(ask.state_id, ask.algorithm, ask.subject);
                let flight = self.flights.iter().find(|(claimed, _)| *claimed == name);
                self.denials.admitted(name, flight.map(|(_, flight)| &**flight), answer.remaining / ask.cost);
            }
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut sets = self.denials.sets.borrow_mut();
        for (name, flight) in &self.flights {
            if let Some(denial) = sets[set_of(*name)].iter_mut().find(|denial| denial.name == *name)
                && denial.flight.as_ref().is_some_and(|current| Rc::ptr_eq(current, flight))
            {
                denial.flight = None;
            }
            flight.ended.notify_waiters();
        }
    }
}

impl Flight {
    /// Until the asking request is done.
    async fn wait(&self, deadline: Instant) -> Result<(), StoreErrorKind> {
        let _waiting = Waiting::on(self);
        let ended = tokio::time::timeout_at(deadline.into(), self.ended.notified()).await;
        ended.map_err(|_| StoreErrorKind::Timeout)?;
        self.failure.get().map_or(Ok(()), Err)
    }
}

/// Counts one who waits, until it stops for whatever reason.
struct Waiting<'f>(&'f Flight);

impl<'f> Waiting<'f> {
    fn on(flight: &'f Flight) -> Self {
        flight.waiting.set(flight.waiting.get() + 1);
        Self(flight)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

impl Call {
    /// How long after the sending a retry that was answered still denies.
    fn lasting(&self, ask: &Ask<'_>, retry_us: i64) -> Duration {
        if retry_us < 0 {
            return self.longest;
        }
        // What was said of a tick began with the tick.
        let begun = self.now_us.rem_euclid(ask.algorithm.tick_us().cast_signed());
        u64::try_from(retry_us - begun).map_or(Duration::ZERO, Duration::from_micros).min(self.longest)
    }
}

impl Denial {
    /// What is told to this ask at this instant.
    fn answer_at(&self, ask: &Ask<'_>, now: Instant) -> Answer {
        let known = self.counted_down(ask, now);
        if now < self.frozen || known.retry_us < 0 {
            return known;
        }
        Answer {
            allowed: false,
            remaining: 0,
            retry_us: known.retry_us.max(ask.algorithm.longest_retry_us(ask.cost)),
            reset_us: known.reset_us.max(ask.algorithm.longest_reset_us()),
        }
    }

    /// The remembered answer, counted down and for this ask's cost.
    fn counted_down(&self, ask: &Ask<'_>, now: Instant) -> Answer {
        let elapsed = u64::try_from(now.saturating_duration_since(self.answered).as_micros()).unwrap_or(u64::MAX);
        let retry_us = match ask.algorithm.bucket() {
            _ if ask.cost == self.cost => self.answer.retry_us,
            // The deficit at the answer, rounded up to a tick: a larger cost waits longer.
            Some(bucket) => bucket.retry_us((self.answer.reset_us / bucket.tick).saturating_mul(bucket.rate), ask.cost),
            None => ask.algorithm.longest_retry_us(ask.cost),
        };
        let left = |us: u64| us.saturating_sub(elapsed).max(1);
        Answer {
            allowed: false,
            remaining: self.answer.remaining,
            retry_us: u64::try_from(retry_us).map_or(-1, |us| left(us).cast_signed()),
            reset_us: left(self.answer.reset_us),
        }
    }
}

/// The set of a fingerprint.
fn set_of(name: u128) -> usize {
    name as usize % SETS
}

#[cfg(test)]
#[path = "denials/tests.rs"]
mod tests;
