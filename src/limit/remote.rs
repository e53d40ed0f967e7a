//! The shared store as a worker asks it: through the memory of denials, then together with whoever asks
//! the same.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::coalesce::{Place, Question, Queues, Shared, Turn, Waiting, Word, told};
use super::decision::Source;
use super::denials::{Denials, Permit, Recall};
use super::fallback::IsOwed;
use super::lease::{Brought, Leases, Token};
use super::stats::StoreErrorKind;
use super::store::redis::RedisStore;
use super::store::{Answer, Ask, Reply, Stray};
use super::store_clock::StoreClock;

/// One worker's way to the store.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) store: Rc<RedisStore>,
    pub(super) denials: Denials,
    pub(super) timeout: Duration,
    queues: Queues,
    clock: StoreClock,
    leases: Leases,
}

/// What was known of the store when a decision began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outset {
    epoch: u64,
}

/// What came of taking tokens of a leased limit.
pub(super) enum Taken<'l> {
    /// They are the request's, once all of its limits admit it.
    Tokens(Token<'l>, Answer),
    /// The limit denies.
    Denied(Answer, Source),
}

/// What came of asking.
pub(super) enum Asked {
    /// The store's answer to a call for this request, or why there is none.
    Alone(Result<Reply, Unanswered>),
    /// The answer of a call that another request has made.
    Shared(Reply),
    /// Nothing was asked: a denial of this is remembered by now.
    Remembered,
}

/// The store did not decide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unanswered {
    /// Whether it surely has charged nothing, because it was not asked.
    pub(super) is_unasked: bool,
}

impl Remote {
    /// A store and nothing known of it.
    pub(super) fn new(store: Rc<RedisStore>, timeout: Duration) -> Rc<Self> {
        Rc::new(Self {
            store,
            denials: Denials::new(),
            timeout,
            queues: Queues::new(),
            leases: Leases::new(),
            clock: StoreClock::default(),
        })
    }

    /// The store as a decision finds it that begins now.
    pub(super) fn outset(&self) -> Outset {
        Outset { epoch: self.store.epoch() }
    }

    /// Whether the store is to be told of an admission that it did not decide. Only where its server was
    /// away all the time since the outset was surely nothing sent: a breaker that closed in between
    /// is closed still, or has begun another epoch.
    pub(super) fn is_owed(&self, ask: &Ask<'_>, outset: Outset) -> IsOwed {
        let was_away = self.store.is_away_for(ask) && self.store.epoch() == outset.epoch;
        if was_away { IsOwed::Yes } else { IsOwed::No }
    }

    /// Forgets what was remembered of a store that has been away.
    pub(super) fn follow(&self) {
        self.denials.follow(self.store.epoch());
    }

    /// Asks the store, and tells the permit what came of it. What stays charged where that fails is noted.
    pub(super) async fn ask(
        self: &Rc<Self>,
        (asks, stray): (&[Ask<'_>], &Stray),
        deadline: Instant,
        mut permit: Permit<'_>,
    ) -> Asked {
        let together = self.store.decides_at_once(asks);
        let place = if together { self.queues.join(asks, deadline) } else { Place::Alone };
        let result = match place {
            Place::Alone => self.store.decide_noting(deadline, asks, stray).await,
            Place::First(name) => {
                let _first = First { remote: self, name, asks };
                self.store.decide_before(deadline, asks).await
            }
            Place::Behind(answer) => match told(answer, deadline).await {
                Word::LookAgain => return Asked::Remembered,
                Word::Failed(kind) => Err(kind),
                Word::Unasked(kind) => return Asked::Alone(Err(self.unasked(kind))),
                Word::Decided(Shared { reply, sent, is_anothers }) => {
                    permit.sent_at(sent);
                    let reply = self.settle(permit, asks, Ok(reply));
                    return match reply {
                        Ok(reply) if is_anothers => Asked::Shared(reply),
                        reply => Asked::Alone(reply),
                    };
                }
            },
        };
        Asked::Alone(self.settle(permit, asks, result))
    }

    /// What is known of these asks; waits for an answer that another request is fetching.
    ///
    /// # Errors
    /// When that does not come in time.
    pub(super) async fn recall(&self, asks: &[Ask<'_>], deadline: Instant) -> Result<Recall<'_>, Unanswered> {
        self.denials.recall(asks, deadline).await.map_err(|kind| self.unasked(kind))
    }

    /// A request whose turn did not come. That it was too late for it is the store's failure like any other.
    fn unasked(&self, kind: StoreErrorKind) -> Unanswered {
        if kind == StoreErrorKind::Timeout {
            self.store.count_unasked();
        }
        Unanswered { is_unasked: true }
    }

    /// Takes tokens of a leased limit: out of the lease, or of the next call.
    ///
    /// # Errors
    /// Why the store did not decide.
    pub(super) async fn take(
        self: &Rc<Self>,
        ask: &Ask<'_>,
        length: Duration,
        deadline: Instant,
    ) -> Result<Taken<'_>, Unanswered> {
        self.follow();
        let (asks, name) = (std::slice::from_ref(ask), self.leases.name_of(ask));
        loop {
            if let Some((token, answer)) = self.leases.spend(name, ask.cost, Instant::now()) {
                return Ok(Taken::Tokens(token, answer));
            }
            let mut permit = match self.recall(asks, deadline).await? {
                Recall::Denied(answers, _) => {
                    let (_, answer) = answers.first().ok_or(Unanswered { is_unasked: true })?;
                    return Ok(Taken::Denied(*answer, Source::Remembered));
                }
                Recall::Ask(permit) => permit,
            };
            let (reply, sent) = match told(self.queue_for_lease(asks, length, deadline), deadline).await {
                Word::LookAgain => continue,
                Word::Unasked(kind) => return Err(self.unasked(kind)),
                Word::Failed(kind) => {
                    let unanswered = Unanswered { is_unasked: false };
                    return Err(self.settle(permit, asks, Err(kind)).err().unwrap_or(unanswered));
                }
                Word::Decided(Shared { reply, sent, .. }) => (reply, sent),
            };
            permit.sent_at(sent);
            let reply = self.settle(permit, asks, Ok(reply))?;
            let answer = *reply.answers.first().ok_or(Unanswered { is_unasked: false })?;
            return Ok(if answer.allowed {
                Taken::Tokens(self.leases.token(name, ask.cost, sent + length), answer)
            } else {
                Taken::Denied(answer, Source::Store)
            });
        }
    }

    /// Queues for the next call of a leased limit, and starts that when none is under way.
    fn queue_for_lease(self: &Rc<Self>, asks: &[Ask<'_>], length: Duration, deadline: Instant) -> Turn {
        let (name, answer, is_first) = self.queues.queue(asks, deadline);
        if is_first {
            let queue = Queue { remote: Rc::clone(self), name, lease: Some(length) };
            tokio::task::spawn_local(queue.answer(Question::of(asks)));
        }
        answer
    }

    /// One call for all of these and for the lease.
    async fn lease_for(&self, waiting: Vec<Waiting>, asks: &[Ask<'_>], length: Duration) {
        let Some(ask) = asks.first() else { return };
        let (sent, name, count) = (Instant::now(), self.leases.name_of(ask), waiting.len() as u64);
        let spare = self.leases.worth(name, count.saturating_mul(ask.cost), sent, length) / ask.cost.max(1);
        let deadline = waiting.iter().map(|waiting| waiting.deadline).max().unwrap_or(sent);
        match self.store.grant_before(deadline, count.saturating_add(spare), asks).await {
            Ok(granted) => {
                if let Some(left) = granted.limits.first() {
                    let tokens = |requests: u64| requests.saturating_mul(ask.cost);
                    let spare = tokens(granted.count.saturating_sub(count));
                    let brought = Brought { spare, taken: tokens(granted.count), next: left.next, sent };
                    self.leases.keep(name, &brought, length);
                    self.store.stats().lease_calls.increment();
                    self.store.stats().lease_tokens.add(spare);
                }
                for (place, waiting) in (0..).zip(waiting) {
                    let reply = granted.reply(asks, place);
                    waiting.tell(Word::Decided(Shared { reply, sent, is_anothers: place > 0 }));
                }
            }
            Err(kind) => {
                for waiting in waiting {
                    waiting.tell(Word::Failed(kind));
                }
            }
        }
    }

    /// The store's clock at an instant at which a remembered denial was looked up.
    pub(super) fn clock_us(&self, looked: Instant) -> Option<i64> {
        self.clock.us_at(looked)
    }

    /// Keeps what the store said.
    fn settle(
        &self,
        permit: Permit<'_>,
        asks: &[Ask<'_>],
        result: Result<Reply, StoreErrorKind>,
    ) -> Result<Reply, Unanswered> {
        if let Ok(reply) = &result {
            self.clock.hear(reply.now_us);
        }
        self.follow();
        permit.at_most(self.store.proof_lasts(asks)).settle(asks, &result);
        result.map_err(|_| Unanswered { is_unasked: false })
    }

    /// One call for all of these, each of which is told its own answer.
    async fn ask_for(&self, waiting: Vec<Waiting>, asks: &[Ask<'_>]) {
        let sent = Instant::now();
        let deadline = waiting.iter().map(|waiting| waiting.deadline).max().unwrap_or(sent);
        let decided = |reply, is_anothers| Word::Decided(Shared { reply, sent, is_anothers });
        let waiting = match <[Waiting; 1]>::try_from(waiting) {
            Ok([only]) => {
                let reply = self.store.decide_before(deadline, asks).await;
                return only.tell(reply.map_or_else(Word::Failed, |reply| decided(reply, false)));
            }
            Err(several) => several,
        };
        match self.store.grant_before(deadline, waiting.len() as u64, asks).await {
            Ok(granted) => {
                for (place, waiting) in (0..).zip(waiting) {
                    waiting.tell(decided(granted.reply(asks, place), place > 0));
                }
            }
            Err(kind) => {
                for waiting in waiting {
                    waiting.tell(Word::Failed(kind));
                }
            }
        }
    }
}

/// The first one's call. When it ends, those that have queued behind it are asked for.
struct First<'a> {
    remote: &'a Rc<Remote>,
    name: u128,
    asks: &'a [Ask<'a>],
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        if !self.remote.queues.ends(self.name) {
            let queue = Queue { remote: Rc::clone(self.remote), name: self.name, lease: None };
            tokio::task::spawn_local(queue.answer(Question::of(self.asks)));
        }
    }
}

/// A queue that is being answered. Nobody is left in it when that ends.
struct Queue {
    remote: Rc<Remote>,
    name: u128,
    /// How long a lease lasts, where tokens are taken in advance.
    lease: Option<Duration>,
}

impl Queue {
    async fn answer(self, question: Question) {
        let asks = question.asks();
        while let Some(waiting) = self.remote.queues.take(self.name) {
            if self.remote.denials.answers(&asks) {
                for waiting in waiting {
                    waiting.tell(Word::LookAgain);
                }
            } else if let Some(length) = self.lease {
                self.remote.lease_for(waiting, &asks, length).await;
            } else {
                self.remote.ask_for(waiting, &asks).await;
            }
            // Those who were answered go on first: what they were told is remembered then.
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.remote.queues.abandon(self.name);
    }
}
