//! Penalties, as the history of what happened to a key.

use tollgate::limit::algorithm::Settlement;

use super::{Charge, Definition, Read, SECOND, Settled};

/// So many strikes block.
#[derive(Debug)]
pub(super) struct Penalty {
    pub(super) after: u64,
    pub(super) first: i64,
    pub(super) longest: i64,
    /// How many of the limits before it it watches; `None`: the penalty before it, of a part of its network.
    pub(super) watches: Option<usize>,
    /// A strike's round that ends later than so long from now is none of ours.
    pub(super) round: i64,
}

/// What happened, since all was last forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct History(Vec<Event>);

#[derive(Debug, Clone, Copy)]
enum Event {
    /// Denied; what is denied until its Retry-After has run out belongs to it.
    Strike { until: i64 },
    /// Blocked.
    Block { length: i64, until: i64 },
}

impl History {
    fn last_round(&self) -> Option<i64> {
        let until = |event: &Event| if let Event::Strike { until } = event { Some(*until) } else { None };
        self.0.iter().rev().find_map(until)
    }

    fn last_block(&self) -> Option<(i64, i64)> {
        let block = |event: &Event| {
            if let Event::Block { length, until } = event { Some((*length, *until)) } else { None }
        };
        self.0.iter().rev().find_map(block)
    }

    /// When the last of all ends.
    fn quiet_since(&self) -> Option<i64> {
        self.last_round().max(self.last_block().map(|(_, until)| until))
    }

    fn strikes(&self) -> u64 {
        let since = self.0.iter().rev().take_while(|event| matches!(event, Event::Strike { .. }));
        since.count().try_into().unwrap()
    }

    pub(super) fn blocks(&self) -> usize {
        self.0.iter().filter(|event| matches!(event, Event::Block { .. })).count()
    }

    /// Microseconds for which it is blocked.
    pub(super) fn blocked_for(&self, now: i64) -> i64 {
        self.last_block().map_or(0, |(_, until)| (until - now).max(0))
    }
}

impl Penalty {
    /// A limit that it watches denied, for so long (`None`: for ever). Whether that changed anything.
    pub(super) fn denied(&self, mut history: History, retry: Option<i64>, now: i64) -> (History, bool) {
        if self.watches.is_none() {
            return (self.part_blocked(history, now), true);
        }
        let ends = now + retry.unwrap_or(self.longest);
        let last = history.0.iter_mut().rev().find_map(|event| match event {
            Event::Strike { until } => Some(until),
            Event::Block { .. } => None,
        });
        match last {
            // It is of the last strike's round, which is over when the first of it may come again.
            Some(until) if *until > now => {
                let is_sooner = ends < *until;
                *until = ends.min(*until);
                return (history, is_sooner);
            }
            _ => history.0.push(Event::Strike { until: ends }),
        }
        self.block_if_due(&mut history, now);
        (history, true)
    }

    /// Strikes of a network all end with the first of them, and only those count that are not older than the
    /// longest block.
    fn part_blocked(&self, mut history: History, now: i64) -> History {
        let first = match history.0.last() {
            Some(Event::Strike { until }) if until + self.longest > now => Some(*until),
            _ => None,
        };
        if first.is_none() {
            while matches!(history.0.last(), Some(Event::Strike { .. })) {
                history.0.pop();
            }
        }
        history.0.push(Event::Strike { until: first.unwrap_or(now) });
        self.block_if_due(&mut history, now);
        history
    }

    fn block_if_due(&self, history: &mut History, now: i64) {
        if history.strikes() >= self.after {
            let length = history.last_block().map_or(self.first, |(length, _)| 2 * length).min(self.longest);
            history.0.push(Event::Block { length, until: now + length });
        }
    }
}

impl Definition for Penalty {
    type State = History;

    /// All is forgotten once it was quiet for the longest block. When a block or a round ends too far ahead,
    /// nothing lasts for longer than the longest block from now.
    fn read(&self, stored: Option<&History>, now: i64) -> Read<History> {
        let Some(mut history) = stored.cloned() else { return Read::as_it_is(None) };
        if history.quiet_since().is_none_or(|since| since + self.longest <= now) {
            return Read::as_it_is(None);
        }
        let round = history.last_round().map_or(0, |until| until - now);
        let anchored = history.blocked_for(now) > self.longest + SECOND || round > self.round + SECOND;
        if anchored {
            for event in &mut history.0 {
                let (Event::Strike { until } | Event::Block { until, .. }) = event;
                *until = (*until).min(now + self.longest);
            }
        }
        Read { counts: Some(history), anchored }
    }

    fn judge(&self, counts: Option<&History>, cost: u64, now: i64, _: i64) -> (i64, u64) {
        (if cost == 0 { 0 } else { counts.map_or(0, |history| history.blocked_for(now)) }, 0)
    }

    fn charge(&self, counts: Option<History>, _: Charge<'_>) -> History {
        counts.unwrap_or_default()
    }

    fn left(&self, counts: Option<&History>, now: i64, _: i64) -> (u64, i64) {
        let Some(history) = counts else { return (self.after, 0) };
        let left = if history.blocked_for(now) > 0 { 0 } else { self.after.saturating_sub(history.strikes()) };
        (left, history.quiet_since().map_or(0, |since| since + self.longest - now))
    }

    fn settle(&self, _: Option<&History>, _: &Settlement<'_>, _: i64) -> Settled<History> {
        Settled::Same
    }
}
