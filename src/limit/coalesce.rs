//! Requests that ask the same of the store while a call that asks it is under way: they queue, and one
//! call is made for all of them when it returns, first come first served.
//!
//! The first request makes its call by itself. When that ends, however it ends, a task of its own goes
//! on with those that have queued, until nobody is left: nobody's leaving takes an answer away
//! from the others, and who has left before the call is not counted in it. The call's instant lies between
//! each request's arrival and its answer, so the answers are those of the same decisions one by one.
//! Nothing is sent twice: a call that fails is the failure of all it was made for.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::algorithm::Algorithm;
use super::fingerprint::Fingerprints;
use super::key::Subject;
use super::stats::StoreErrorKind;
use super::store::{Ask, Reply};

/// One worker's queues, one per question that is under way.
#[derive(Debug)]
pub(super) struct Queues {
    by_question: RefCell<HashMap<u128, VecDeque<Waiting>, ahash::RandomState>>,
    fingerprints: Fingerprints,
    /// Over all queues.
    len: Cell<usize>,
}

/// Where a request stands.
#[derive(Debug)]
pub(super) enum Place {
    /// It asks for itself, and nobody waits for that.
    Alone,
    /// It asks first; others may queue behind it under this name.
    First(u128),
    /// Its answer will be told here.
    Behind(Turn),
}

/// Where a request that queued hears of its answer.
#[derive(Debug)]
pub(super) struct Turn {
    answer: oneshot::Receiver<Word>,
    is_asked: Rc<Cell<bool>>,
}

/// What a request that queued is told.
#[derive(Debug)]
pub(super) enum Word {
    /// The store's answer.
    Decided(Shared),
    /// The call that was made for it failed.
    Failed(StoreErrorKind),
    /// No call was made for it, and why.
    Unasked(StoreErrorKind),
    /// Nothing was asked: a denial of this is remembered by now.
    LookAgain,
}

/// An answer out of a call for several.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) reply: Reply,
    /// When the call was sent.
    pub(super) sent: Instant,
    /// Whether the call would have been made without this request.
    pub(super) is_anothers: bool,
}

/// One request in a queue.
#[derive(Debug)]
pub(super) struct Waiting {
    answer: oneshot::Sender<Word>,
    /// Whether a call is made for it.
    is_asked: Rc<Cell<bool>>,
    pub(super) deadline: Instant,
}

/// Requests that may queue on a worker; one more asks for itself.
const MOST_QUEUED: usize = 4096;
/// Requests that one call decides at most.
const MOST_AT_ONCE: usize = 1024;

impl Queues {
    /// Nobody waits.
    pub(super) fn new() -> Self {
        Self { by_question: RefCell::default(), fingerprints: Fingerprints::new(), len: Cell::new(0) }
    }

    /// Where a request with these asks stands.
    pub(super) fn join(&self, asks: &[Ask<'_>], deadline: Instant) -> Place {
        if !asks.iter().all(Ask::is_coalesced) {
            return Place::Alone;
        }
        let name = self.fingerprints.of_question(asks);
        match self.by_question.borrow_mut().entry(name) {
            Entry::Vacant(place) => {
                place.insert(VecDeque::new());
                Place::First(name)
            }
            Entry::Occupied(_) if self.len.get() >= MOST_QUEUED => Place::Alone,
            Entry::Occupied(mut queue) => {
                let (waiting, turn) = Waiting::until(deadline);
                queue.get_mut().push_back(waiting);
                self.len.set(self.len.get() + 1);
                Place::Behind(turn)
            }
        }
    }

    /// Queues a request whatever is under way: the question's name, where the answer will be told, and whether
    /// nobody is asking it yet.
    pub(super) fn queue(&self, asks: &[Ask<'_>], deadline: Instant) -> (u128, Turn, bool) {
        let name = self.fingerprints.of_question(asks);
        let (waiting, turn) = Waiting::until(deadline);
        let mut queues = self.by_question.borrow_mut();
        let is_first = !queues.contains_key(&name);
        if self.len.get() < MOST_QUEUED {
            queues.entry(name).or_default().push_back(waiting);
            self.len.set(self.len.get() + 1);
        } else {
            waiting.tell(Word::Unasked(StoreErrorKind::Timeout));
        }
        (name, turn, is_first)
    }

    /// The next ones to be asked for together; `None` when nobody waits: then the question is over.
    pub(super) fn take(&self, name: u128) -> Option<Vec<Waiting>> {
        let mut queues = self.by_question.borrow_mut();
        let queue = queues.get_mut(&name)?;
        let mut taken = Vec::new();
        while taken.len() < MOST_AT_ONCE
            && let Some(waiting) = queue.pop_front()
        {
            self.len.set(self.len.get() - 1);
            if !waiting.answer.is_closed() {
                waiting.is_asked.set(true);
                taken.push(waiting);
            }
        }
        if taken.is_empty() {
            queues.remove(&name);
            return None;
        }
        Some(taken)
    }

    /// Whether nobody waits behind the first; then the question is over.
    pub(super) fn ends(&self, name: u128) -> bool {
        let mut queues = self.by_question.borrow_mut();
        let nobody = queues.get(&name).is_none_or(|queue| queue.iter().all(|waiting| waiting.answer.is_closed()));
        if nobody {
            self.close(queues.remove(&name));
        }
        nobody
    }

    /// Whoever waits is not asked for.
    pub(super) fn abandon(&self, name: u128) {
        let queue = self.by_question.borrow_mut().remove(&name);
        self.close(queue);
    }

    fn close(&self, queue: Option<VecDeque<Waiting>>) {
        self.len.set(self.len.get() - queue.map_or(0, |queue| queue.len()));
    }
}

impl Waiting {
    fn until(deadline: Instant) -> (Self, Turn) {
        let ((answer, receiver), is_asked) = (oneshot::channel(), Rc::new(Cell::new(false)));
        let turn = Turn { answer: receiver, is_asked: Rc::clone(&is_asked) };
        (Self { answer, is_asked, deadline }, turn)
    }

    /// Tells a request what became of it. One that has left needs no answer.
    pub(super) fn tell(self, word: Word) {
        let _ = self.answer.send(word);
    }
}

/// What a request is told, when it comes before its deadline.
pub(super) async fn told(turn: Turn, deadline: Instant) -> Word {
    let kind = match tokio::time::timeout_at(deadline.into(), turn.answer).await {
        Ok(Ok(word)) => return word,
        Ok(Err(_)) => StoreErrorKind::Reset,
        Err(_) => StoreErrorKind::Timeout,
    };
    if turn.is_asked.get() { Word::Failed(kind) } else { Word::Unasked(kind) }
}

/// The asks of a question that outlives the requests that asked it.
#[derive(Debug)]
pub(super) struct Question(Vec<Asked>);

#[derive(Debug)]
struct Asked {
    state_id: Box<str>,
    algorithm: Algorithm,
    subject: Subject,
    cost: u64,
    least_cost: u64,
    shadow: u8,
}

impl Question {
    /// The same asks.
    pub(super) fn of(asks: &[Ask<'_>]) -> Self {
        let asked = |ask: &Ask<'_>| Asked {
            state_id: ask.state_id.into(),
            algorithm: ask.algorithm.clone(),
            subject: ask.subject.clone(),
            cost: ask.cost,
            least_cost: ask.least_cost,
            shadow: ask.shadow,
        };
        Self(asks.iter().map(asked).collect())
    }

    /// As a store is asked.
    pub(super) fn asks(&self) -> SmallVec<[Ask<'_>; 2]> {
        self.0.iter().map(Asked::ask).collect()
    }
}

impl Asked {
    fn ask(&self) -> Ask<'_> {
        Ask {
            least_cost: self.least_cost,
            shadow: self.shadow,
            ..Ask::new(&self.state_id, &self.algorithm, &self.subject, self.cost)
        }
    }
}
