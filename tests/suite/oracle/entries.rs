//! What is kept one by one: the instants of a sliding log, the slots of requests in flight. Plain lists.

use std::collections::BTreeMap;

use tollgate::limit::algorithm::Settlement;

use super::{Charge, Definition, Read, SECOND, Settled};

/// At most so many within every window of this width.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) limit: u64,
    pub(super) width: i64,
    pub(super) debt: u64,
}

/// At most so many at once.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) limit: u64,
    pub(super) lifetime: i64,
}

fn number(entries: usize) -> u64 {
    entries.try_into().unwrap()
}

/// The entry after which all later ones stand: never before the newest.
fn next(entries: &[i64], now: i64) -> i64 {
    entries.iter().copied().max().unwrap_or(now).max(now)
}

impl Definition for Log {
    type State = Vec<i64>;

    /// An entry counts for one width. When the newest lies more than a second ahead, all ahead become entries of now.
    fn read(&self, stored: Option<&Vec<i64>>, now: i64) -> Read<Vec<i64>> {
        let mut live: Vec<i64> = stored.into_iter().flatten().copied().filter(|at| at + self.width > now).collect();
        let anchored = live.iter().any(|at| at - now > SECOND);
        if anchored {
            for at in &mut live {
                *at = now.min(*at);
            }
        }
        Read { counts: Some(live).filter(|live| !live.is_empty()), anchored }
    }

    /// It fits once so many of the oldest have run out that what is left and the cost are within the limit.
    fn judge(&self, counts: Option<&Vec<i64>>, cost: u64, now: i64, _: i64) -> (i64, u64) {
        let mut ends: Vec<i64> = counts.into_iter().flatten().map(|at| at + self.width).collect();
        ends.sort_unstable();
        let surplus = (number(ends.len()) + cost).saturating_sub(self.limit);
        let retry = match surplus {
            _ if cost == 0 => 0,
            _ if cost > self.limit => -1,
            0 => 0,
            surplus => ends[usize::try_from(surplus).unwrap() - 1] - now,
        };
        (retry, 0)
    }

    fn charge(&self, counts: Option<Vec<i64>>, charge: Charge<'_>) -> Vec<i64> {
        let mut entries = counts.unwrap_or_default();
        let at = next(&entries, charge.now);
        entries.extend((0..charge.cost).map(|_| at));
        entries
    }

    fn left(&self, counts: Option<&Vec<i64>>, now: i64, _: i64) -> (u64, i64) {
        let entries = counts.map(Vec::as_slice).unwrap_or_default();
        let last = entries.iter().map(|at| at + self.width - now).max();
        (self.limit.saturating_sub(number(entries.len())), last.unwrap_or(0))
    }

    /// What is given back are entries of the instant that was charged.
    fn settle(&self, stored: Option<&Vec<i64>>, settlement: &Settlement<'_>, now: i64) -> Settled<Vec<i64>> {
        if settlement.amount < 0 {
            let Some(mut entries) = stored.cloned() else { return Settled::Same };
            for _ in 0..settlement.amount.unsigned_abs() {
                let found = entries.iter().position(|at| *at == settlement.charged_at_us);
                found.map(|position| entries.remove(position));
            }
            return if entries.is_empty() { Settled::Gone } else { Settled::Becomes(entries) };
        }
        let Read { counts, anchored } = self.read(stored, now);
        let live = counts.as_ref().map_or(0, |entries| number(entries.len()));
        let cost = settlement.amount.unsigned_abs().min((self.limit + self.debt).saturating_sub(live));
        if cost == 0 && !anchored {
            return Settled::Same;
        }
        Settled::Becomes(self.charge(counts, Charge { cost, now, slot: "" }))
    }
}

impl Definition for Slots {
    type State = BTreeMap<String, i64>;

    /// A slot counts until it ends. When the latest ends more than a lifetime and a second from now, all that do
    /// end one lifetime from now.
    fn read(&self, stored: Option<&Self::State>, now: i64) -> Read<Self::State> {
        let mut live: Self::State = stored.cloned().unwrap_or_default();
        live.retain(|_, end| *end > now);
        let anchored = live.values().any(|end| end - now > self.lifetime + SECOND);
        if anchored {
            for end in live.values_mut() {
                *end = (*end).min(now + self.lifetime);
            }
        }
        Read { counts: Some(live).filter(|live| !live.is_empty()), anchored }
    }

    fn judge(&self, counts: Option<&Self::State>, cost: u64, _: i64, _: i64) -> (i64, u64) {
        let retry = match counts.map_or(0, |slots| number(slots.len())) + cost {
            _ if cost == 0 => 0,
            _ if cost > self.limit => -1,
            taken if taken <= self.limit => 0,
            _ => SECOND,
        };
        (retry, 0)
    }

    fn charge(&self, counts: Option<Self::State>, charge: Charge<'_>) -> Self::State {
        let mut slots = counts.unwrap_or_default();
        slots.insert(charge.slot.to_owned(), charge.now + self.lifetime);
        slots
    }

    fn left(&self, counts: Option<&Self::State>, now: i64, _: i64) -> (u64, i64) {
        let taken = counts.map_or(0, |slots| number(slots.len()));
        let last = counts.into_iter().flat_map(BTreeMap::values).map(|end| end - now).max();
        (self.limit.saturating_sub(taken), last.unwrap_or(0))
    }

    /// A slot is renewed (taken again if it was gone), or ends.
    fn settle(&self, stored: Option<&Self::State>, settlement: &Settlement<'_>, now: i64) -> Settled<Self::State> {
        let mut slots = stored.cloned().unwrap_or_default();
        slots.retain(|_, end| *end > now);
        if settlement.amount < 0 {
            slots.remove(settlement.slot);
        } else {
            slots.insert(settlement.slot.to_owned(), now + self.lifetime);
        }
        if slots.is_empty() { Settled::Gone } else { Settled::Becomes(slots) }
    }
}
