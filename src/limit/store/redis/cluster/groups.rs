//! A decision of a Cluster, taken apart: the limits of one slot are asked together, and the narrowest first.

use std::cmp::Reverse;

use smallvec::SmallVec;

use super::super::keys::KeyForm;
use crate::limit::algorithm::{Algorithm, Bucket};
use crate::limit::key;
use crate::limit::store::{Answer, Ask, Reply};

/// Asks that go to one server in one call.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) slot: u16,
    pub(super) asks: SmallVec<[Ask<'a>; 2]>,
    /// Their places among the decision's asks.
    pub(super) places: SmallVec<[usize; 2]>,
}

/// Groups, in the order in which they are asked.
pub(super) type Groups<'a> = SmallVec<[Group<'a>; 2]>;

/// The asks grouped by slot, narrow to wide: the limit of one client comes before that of everybody, so
/// that a client's denial takes nothing from everybody even for a moment. Groups that only watch come last.
pub(super) fn by_slot<'a>(asks: &[Ask<'a>], form: KeyForm<'_>) -> Groups<'a> {
    let mut groups = Groups::new();
    for (place, ask) in asks.iter().enumerate() {
        let slot = form.slot(ask);
        match groups.iter_mut().find(|group| group.slot == slot) {
            Some(group) => group.add(place, *ask),
            None => groups.push(Group::of(slot, place, *ask)),
        }
    }
    groups.sort_by_key(|group| (group.only_watches(), group.breadth()));
    groups
}

impl<'a> Group<'a> {
    fn of(slot: u16, place: usize, ask: Ask<'a>) -> Self {
        let mut group = Self { slot, asks: SmallVec::new(), places: SmallVec::new() };
        group.add(place, ask);
        group
    }

    fn add(&mut self, place: usize, ask: Ask<'a>) {
        self.asks.push(ask);
        self.places.push(place);
    }

    /// One group per state, for a slot whose keys are not all on one server.
    pub(super) fn by_state(&self) -> Groups<'a> {
        let mut groups = Groups::new();
        for (&place, ask) in self.places.iter().zip(&self.asks) {
            match groups.iter_mut().find(|group| is_same_state(&group.asks[0], ask)) {
                Some(group) => group.add(place, *ask),
                None => groups.push(Group::of(self.slot, place, *ask)),
            }
        }
        groups.sort_by_key(Self::only_watches);
        groups
    }

    /// Whether nothing it says decides.
    pub(super) fn only_watches(&self) -> bool {
        self.asks.iter().all(Ask::is_shadow)
    }

    fn breadth(&self) -> (u8, Reverse<usize>) {
        let of = |ask: &Ask<'a>| breadth(ask.subject);
        self.asks.iter().map(of).min().unwrap_or((0, Reverse(0)))
    }
}

fn is_same_state(a: &Ask<'_>, b: &Ask<'_>) -> bool {
    a.subject == b.subject && a.state_id == b.state_id && a.algorithm.letter() == b.algorithm.letter()
}

/// How wide a subject is: the narrowest of its parts counts, then how many there are (see
/// [`crate::limit::key`] for the form of subjects).
fn breadth(subject: &[u8]) -> (u8, Reverse<usize>) {
    let (_, subject) = key::network_of(subject);
    let Some(parts) = parts(subject) else { return (breadth_of_part(subject), Reverse(1)) };
    let narrowest = parts.iter().map(|part| breadth_of_part(part)).min().unwrap_or(0);
    (narrowest, Reverse(parts.len()))
}

fn breadth_of_part(part: &[u8]) -> u8 {
    let wide: [&[u8]; 4] = [b"route=", b"host=", b"method=", b"global"];
    let position = wide.iter().position(|kind| part.starts_with(kind));
    position.and_then(|position| u8::try_from(position + 1).ok()).unwrap_or(0)
}

/// The parts of a combined subject, each of which stands behind its length.
fn parts(subject: &[u8]) -> Option<SmallVec<[&[u8]; 4]>> {
    let mut parts = SmallVec::new();
    let mut rest = subject;
    while !rest.is_empty() {
        let colon = rest.iter().position(|&byte| byte == b':')?;
        let len: usize = std::str::from_utf8(&rest[..colon]).ok()?.parse().ok()?;
        let part = rest.get(colon + 1..)?.get(..len)?;
        parts.push(part);
        rest = &rest[colon + 1 + len..];
    }
    (!parts.is_empty()).then_some(parts)
}

/// Replies of groups, put together.
#[derive(Debug)]
pub(super) struct Merged {
    reply: Reply,
    /// How many replies it was made of.
    replies: usize,
}

/// Costs more than there ever is.
const NEVER: Algorithm = Algorithm::TokenBucket(Bucket { capacity: 1, rate: 1, period: 1, tick: 1, debt: 0 });

impl Merged {
    /// Before any reply. What stays unanswered (its server is away) admits, with nothing left.
    pub(super) fn new(asks: usize) -> Self {
        let unknown = Answer { allowed: true, remaining: 0, retry_us: 0, reset_us: 0 };
        let answers = std::iter::repeat_n(unknown, asks).collect();
        let instants = SmallVec::from_elem(0, asks);
        Self { reply: Reply { granted: true, now_us: 0, wait_us: 0, retry_us: 0, answers, instants }, replies: 0 }
    }

    /// Adds what a group was answered; further answers at the end of the reply are left out.
    pub(super) fn add(&mut self, group: &Group<'_>, reply: &Reply) {
        self.replies += 1;
        self.reply.now_us = self.reply.now_us.max(reply.now_us);
        self.reply.wait_us = self.reply.wait_us.max(reply.wait_us);
        for ((&place, ask), answer) in group.places.iter().zip(&group.asks).zip(&reply.answers) {
            if let (Some(known), Some(instant)) =
                (self.reply.answers.get_mut(place), self.reply.instants.get_mut(place))
            {
                (*known, *instant) = (*answer, reply.now_us);
            }
            if !ask.is_shadow() && !answer.allowed {
                self.reply.granted = false;
                let longest = self.reply.retry_us.max(answer.retry_us);
                self.reply.retry_us = if answer.retry_us < 0 || self.reply.retry_us < 0 { -1 } else { longest };
            }
        }
    }

    /// A group's charge is given back.
    pub(super) fn give_back(&mut self, group: &Group<'_>) {
        for (&place, ask) in group.places.iter().zip(&group.asks) {
            if let Some(answer) = self.reply.answers.get_mut(place).filter(|answer| answer.allowed) {
                answer.remaining += ask.cost;
            }
        }
    }

    /// The whole reply. Where several clocks had a part in it, its own is the end of the latest's second:
    /// a denial whose limit counts in ticks is then never remembered for too long.
    pub(super) fn into_reply(self) -> Reply {
        const SECOND: i64 = 1_000_000;
        let mut reply = self.reply;
        if self.replies > 1 {
            reply.now_us = reply.now_us - reply.now_us.rem_euclid(SECOND) + SECOND - 1;
        }
        if !reply.granted {
            reply.wait_us = 0;
        }
        reply
    }
}

/// The name of a state that vetoes in the slot of this ask.
pub(super) fn veto_id(ask: &Ask<'_>) -> String {
    format!("{}~peek", ask.state_id)
}

/// An ask that is never granted: whatever is asked beside it is answered in full and not charged.
pub(super) fn veto<'a>(beside: &Ask<'a>, state_id: &'a str) -> Ask<'a> {
    Ask { state_id, algorithm: &NEVER, cost: 2, least_cost: 2, shadow: 0, refundable: false, ..*beside }
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
