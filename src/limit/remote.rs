//! The shared store as a worker asks it: through the memory of denials, then together with whoever asks
//! the same.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::coalesce::{Place, Question, Queues, Shared, Waiting, Word, told};
use super::denials::{Denials, Permit};
use super::stats::StoreErrorKind;
use super::store::redis::RedisStore;
use super::store::{Ask, Reply};

/// One worker's way to the store.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) store: Rc<RedisStore>,
    pub(super) denials: Denials,
    pub(super) timeout: Duration,
    queues: Queues,
    /// When the latest answer came, and the store's clock in it.
    answered: Cell<Option<(Instant, i64)>>,
}

/// What came of asking.
pub(super) enum Asked {
    /// The store's answer to a call for this request, or why there is none.
    Alone(Result<Reply, StoreErrorKind>),
    /// The answer of a call that another request has made.
    Shared(Reply),
    /// Nothing was asked: a denial of this is remembered by now.
    Remembered,
}

impl Remote {
    /// A store and nothing known of it.
    pub(super) fn new(store: Rc<RedisStore>, timeout: Duration) -> Rc<Self> {
        Rc::new(Self { store, denials: Denials::new(), timeout, queues: Queues::new(), answered: Cell::default() })
    }

    /// Forgets what was remembered of a store that has been away.
    pub(super) fn follow(&self) {
        self.denials.follow(self.store.epoch());
    }

    /// Asks the store, and tells the permit what came of it.
    pub(super) async fn ask(self: &Rc<Self>, asks: &[Ask<'_>], deadline: Instant, mut permit: Permit<'_>) -> Asked {
        let together = self.store.decides_at_once(asks);
        let place = if together { self.queues.join(asks, deadline) } else { Place::Alone };
        let result = match place {
            Place::Alone => self.store.decide_before(deadline, asks).await,
            Place::First(name) => {
                let _first = First { remote: self, name, asks };
                self.store.decide_before(deadline, asks).await
            }
            Place::Behind(answer) => match told(answer, deadline).await {
                Word::LookAgain => return Asked::Remembered,
                Word::Failed(kind) => Err(kind),
                Word::Decided(Shared { reply, sent, is_anothers }) => {
                    permit.sent_at(sent);
                    let result = Ok(reply);
                    self.settle(permit, asks, &result);
                    return match result {
                        Ok(reply) if is_anothers => Asked::Shared(reply),
                        result => Asked::Alone(result),
                    };
                }
            },
        };
        self.settle(permit, asks, &result);
        Asked::Alone(result)
    }

    /// The store's clock, as far behind as its latest answer was on its way. So a denial that is still
    /// remembered is one at this instant, too: it came before that answer or with it.
    pub(super) fn clock_us(&self) -> Option<i64> {
        let (answered, now_us) = self.answered.get()?;
        Some(now_us.saturating_add(i64::try_from(answered.elapsed().as_micros()).unwrap_or(i64::MAX)))
    }

    fn settle(&self, permit: Permit<'_>, asks: &[Ask<'_>], result: &Result<Reply, StoreErrorKind>) {
        if let Ok(reply) = result {
            self.answered.set(Some((Instant::now(), reply.now_us)));
        }
        self.follow();
        permit.at_most(self.store.proof_lasts(asks)).settle(asks, result);
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
            let queue = Queue { remote: Rc::clone(self.remote), name: self.name };
            tokio::task::spawn_local(queue.answer(Question::of(self.asks)));
        }
    }
}

/// A queue that is being answered. Nobody is left in it when that ends.
struct Queue {
    remote: Rc<Remote>,
    name: u128,
}

impl Queue {
    async fn answer(self, question: Question) {
        let asks = question.asks();
        while let Some(waiting) = self.remote.queues.take(self.name) {
            if self.remote.denials.answers(&asks) {
                for waiting in waiting {
                    waiting.tell(Word::LookAgain);
                }
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
