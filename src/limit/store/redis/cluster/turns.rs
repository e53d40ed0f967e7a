//! A decision whose limits lie in several slots: one call after the other, narrow to wide.
//!
//! The first denial ends it: what was charged before is given back, and the limits that were not asked
//! yet are only looked at, so that the client is told when all of them will admit it. A call whose
//! fate is unknown is neither repeated nor given back. A slot that nobody answers for does not
//! excuse the others: they are asked all the same, and their denial counts.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use smallvec::SmallVec;

use super::super::keys::KeyForm;
use super::super::order::{Order, Told};
use super::super::redirect::Redirect;
use super::super::refund::Refund;
use super::Inner;
use super::groups::{self, Group, Groups, Merged};
use crate::limit::stats::StoreErrorKind;
use crate::limit::store::{Ask, Reply, Stray};

/// A decision under way.
pub(super) struct Turns<'a> {
    cluster: &'a Rc<Inner>,
    now_us: Option<i64>,
    deadline: Instant,
    /// To be asked.
    pending: VecDeque<Group<'a>>,
    merged: Merged,
    charged: Charged<'a>,
}

/// What was charged so far, given back when this is dropped.
struct Charged<'a> {
    cluster: &'a Rc<Inner>,
    taken: Vec<(Group<'a>, Refund<'a>)>,
}

impl<'a> Turns<'a> {
    pub(super) fn new(cluster: &'a Rc<Inner>, asks: usize, now_us: Option<i64>, deadline: Instant) -> Self {
        Self {
            cluster,
            now_us,
            deadline,
            pending: VecDeque::new(),
            merged: Merged::new(asks),
            charged: Charged { cluster, taken: Vec::new() },
        }
    }

    /// Asks group after group.
    ///
    /// # Errors
    /// Why a limit that enforces was not decided, unless another one denied. Nothing is given back then, but noted.
    pub(super) async fn take(mut self, groups: Groups<'a>, stray: &Stray) -> Result<Reply, StoreErrorKind> {
        self.pending = groups.into_iter().collect();
        let mut failure = None;
        while let Some(group) = self.pending.pop_front() {
            let kind = match self.ask(&group).await {
                Ok(Told::Decided(reply)) if reply.granted => {
                    self.granted(group, &reply);
                    continue;
                }
                Ok(Told::Decided(reply)) => {
                    self.merged.add(&group, &reply);
                    return Ok(self.denied().await);
                }
                Ok(Told::Elsewhere(Redirect::Split)) if self.split(&group) => continue,
                Ok(_) => StoreErrorKind::Moved,
                Err(kind) => kind,
            };
            if !group.only_watches() {
                failure = failure.or(Some(kind));
            }
            if Instant::now() >= self.deadline {
                break;
            }
        }
        let taken = std::mem::take(&mut self.charged.taken);
        let Some(kind) = failure else { return Ok(self.merged.into_reply()) };
        for (group, refund) in &taken {
            group.places.iter().for_each(|&place| stray.note(place, refund.charged_at_us));
        }
        Err(kind)
    }

    async fn ask(&self, group: &Group<'a>) -> Result<Told, StoreErrorKind> {
        let order = Order::Decide { now_us: self.now_us, asks: &group.asks };
        self.cluster.send(group.slot, &order, self.deadline).await
    }

    fn granted(&mut self, group: Group<'a>, reply: &Reply) {
        self.merged.add(&group, reply);
        let form = KeyForm::of(&self.cluster.shared.settings);
        if let Some(refund) = Refund::of(form, self.now_us, &group.asks, reply) {
            self.charged.taken.push((group, refund));
        }
    }

    /// Puts a group's states first, each for itself; false when there is only one.
    fn split(&mut self, group: &Group<'a>) -> bool {
        let states = group.by_state();
        if states.len() < 2 {
            return false;
        }
        states.into_iter().rev().for_each(|state| self.pending.push_front(state));
        true
    }

    /// Gives back what was charged and looks at what was not asked yet, all at once.
    async fn denied(mut self) -> Reply {
        let taken = std::mem::take(&mut self.charged.taken);
        let refunds = taken.iter().map(|(_, refund)| {
            let this = &self;
            boxed(async move {
                let _ = this.cluster.send(refund.slot(), &refund.order(), this.deadline).await;
                None
            })
        });
        let looks = self.pending.iter().map(|group| boxed(self.look(group)));
        let seen = all(refunds.chain(looks).collect()).await;
        for (group, _) in &taken {
            self.merged.give_back(group);
        }
        for (group, reply) in self.pending.iter().zip(&seen[taken.len()..]) {
            if let Some(reply) = reply {
                self.merged.add(group, reply);
            }
        }
        self.merged.into_reply()
    }

    /// What the limits of a group say now, without a charge; `None` when nobody answers.
    async fn look(&self, group: &Group<'a>) -> Option<Reply> {
        let first = group.asks.first()?;
        let id = groups::veto_id(first);
        let mut asks: SmallVec<[Ask<'_>; 4]> = group.asks.iter().copied().collect();
        asks.push(groups::veto(first, &id));
        let order = Order::Decide { now_us: self.now_us, asks: &asks };
        match self.cluster.send(group.slot, &order, self.deadline).await {
            Ok(Told::Decided(reply)) => Some(reply),
            _ => None,
        }
    }
}

/// A decision that is given up, because its client left, keeps nothing.
impl Drop for Charged<'_> {
    fn drop(&mut self) {
        for (_, refund) in &self.taken {
            self.cluster.post(refund);
        }
    }
}

type Running<'f> = Pin<Box<dyn Future<Output = Option<Reply>> + 'f>>;

fn boxed<'f>(future: impl Future<Output = Option<Reply>> + 'f) -> Running<'f> {
    Box::pin(future)
}

/// Drives all of them to their ends.
async fn all(mut running: Vec<Running<'_>>) -> Vec<Option<Reply>> {
    let mut ended: Vec<Option<Option<Reply>>> = running.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, ended) in running.iter_mut().zip(&mut ended).filter(|(_, ended)| ended.is_none()) {
            if let Poll::Ready(reply) = future.as_mut().poll(cx) {
                *ended = Some(reply);
            }
        }
        if ended.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ended.into_iter().map(Option::flatten).collect()
}
