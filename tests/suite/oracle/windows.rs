//! Windows: fixed ones by the clock of UTC, of Berlin, or from the first request on; sliding ones by an
//! estimate in exact fractions.

use std::collections::BTreeMap;

use tollgate::limit::algorithm::Settlement;

use super::berlin;
use super::{Charge, Definition, Fraction, Read, SECOND, Settled, earliest};

/// So much per window.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) limit: u64,
    pub(super) width: i64,
    pub(super) debt: u64,
    pub(super) clock: Clock,
}

/// Where windows begin.
#[derive(Debug, Clone, Copy)]
pub(super) enum Clock {
    Utc,
    Berlin,
    FirstRequest,
}

/// A window and what was admitted in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    start: i64,
    count: u64,
}

/// The four days from 1970-01-01 to the first Monday.
const TO_MONDAY: i64 = 4 * 86_400 * SECOND;
const WEEK: i64 = 7 * 86_400 * SECOND;
const QUARTER: i64 = 900 * SECOND;

impl Fixed {
    /// When the window of the clock that holds an instant begins.
    fn begin(&self, at: i64) -> Option<i64> {
        match self.clock {
            Clock::FirstRequest => None,
            // All zones differ from UTC by whole quarters of an hour.
            Clock::Berlin if QUARTER % self.width != 0 => {
                let windows = berlin::windows(self.width);
                Some(windows[windows.partition_point(|begin| *begin <= at) - 1])
            }
            _ => {
                let origin = if self.width % WEEK == 0 { TO_MONDAY } else { 0 };
                Some(at - (at - origin).rem_euclid(self.width))
            }
        }
    }

    /// How long the window of an instant is: not all are as wide by Berlin's clock.
    pub(super) fn length(&self, at: i64) -> i64 {
        if !matches!(self.clock, Clock::Berlin) || QUARTER % self.width == 0 {
            return self.width;
        }
        let windows = berlin::windows(self.width);
        let after = windows.partition_point(|begin| *begin <= at);
        windows[after] - windows[after - 1]
    }

    fn fits(&self, counts: Option<&Opened>, cost: u64) -> bool {
        cost == 0 || counts.map_or(0, |opened| opened.count) + cost <= self.limit
    }
}

impl Definition for Fixed {
    type State = Opened;

    /// A window counts while it is the one of now. One that begins up to a second ahead is believed, as is one that
    /// began within the window of now; one further ahead is carried into that.
    fn read(&self, stored: Option<&Opened>, now: i64) -> Read<Opened> {
        let Some(opened) = stored.filter(|opened| opened.count > 0) else { return Read::as_it_is(None) };
        let lasts = (opened.start..opened.start + self.width).contains(&now);
        let begin = self.begin(now).unwrap_or(if lasts { opened.start } else { now });
        if opened.start < begin {
            return Read::as_it_is(None);
        }
        if opened.start - now <= SECOND {
            return Read::as_it_is(Some(*opened));
        }
        Read { counts: Some(Opened { start: begin, ..*opened }), anchored: true }
    }

    fn judge(&self, counts: Option<&Opened>, cost: u64, now: i64, claimed: i64) -> (i64, u64) {
        if cost > self.limit {
            return (-1, 0);
        }
        let fits = |later: i64| self.fits(self.read(counts, now + later).counts.as_ref(), cost);
        (if fits(0) { 0 } else { earliest(1, claimed, fits) }, 0)
    }

    fn charge(&self, counts: Option<Opened>, charge: Charge<'_>) -> Opened {
        let begin = self.begin(charge.now).unwrap_or(charge.now);
        let opened = counts.unwrap_or(Opened { start: begin, count: 0 });
        Opened { count: opened.count + charge.cost, ..opened }
    }

    fn left(&self, counts: Option<&Opened>, now: i64, claimed: i64) -> (u64, i64) {
        let count = counts.map_or(0, |opened| opened.count);
        let over = |later: i64| self.read(counts, now + later).counts.is_none();
        (self.limit.saturating_sub(count), earliest(1, claimed, over))
    }

    /// A refund goes to the stored window if it had begun by the charge, a further charge to the window of now.
    fn settle(&self, stored: Option<&Opened>, settlement: &Settlement<'_>, now: i64) -> Settled<Opened> {
        let amount = settlement.amount.unsigned_abs();
        if settlement.amount < 0 {
            let Some(opened) = stored.filter(|opened| opened.start <= settlement.charged_at_us) else {
                return Settled::Same;
            };
            let count = opened.count.saturating_sub(amount);
            return if count == 0 { Settled::Gone } else { Settled::Becomes(Opened { count, ..*opened }) };
        }
        let counts = self.read(stored, now).counts;
        let count = counts.map_or(0, |opened| opened.count);
        let cost = amount.min((self.limit + self.debt).saturating_sub(count));
        Settled::Becomes(self.charge(counts, Charge { cost, now, slot: "" }))
    }
}

/// Two neighbouring windows of the clock, the earlier one by how much of it lies within the last width.
#[derive(Debug)]
pub(super) struct Sliding {
    limit: u64,
    /// In ticks.
    width: i64,
    tick: i64,
    debt: u64,
}

/// What was admitted, by the number of the window since 1970.
pub(super) type Counts = BTreeMap<i64, u64>;

impl Sliding {
    /// The tick is the smallest power of ten microseconds, up to a second, that divides the width and keeps
    /// what can count, times the ticks of the width, below 2^52.
    pub(super) fn new(limit: u64, width: i64, debt: u64) -> Self {
        let mut ticks = (0..=6).map(|power| 10_i64.pow(power)).filter(|tick| width % tick == 0);
        let exact = |tick: &i64| i128::from(limit + debt) * i128::from(width / tick) < 1 << 52;
        let tick = ticks.find(exact).expect("a tick");
        Self { limit, width: width / tick, tick, debt }
    }

    fn ticks(&self, at: i64) -> i64 {
        at.div_euclid(self.tick)
    }

    /// What the last width is taken to hold, at an instant that is not earlier than the newest window.
    fn estimate(&self, counts: Option<&Counts>, now: i64) -> Fraction {
        let Some((&newest, _)) = counts.and_then(|counts| counts.last_key_value()) else { return Fraction::from(0) };
        let now = self.ticks(now).max(newest * self.width);
        let (window, elapsed) = (now.div_euclid(self.width), now.rem_euclid(self.width));
        let count = |window: i64| counts.and_then(|counts| counts.get(&window)).copied().unwrap_or(0);
        let within = Fraction::new((self.width - elapsed).into(), self.width.into());
        Fraction::from(i128::from(count(window))) + within * i128::from(count(window - 1))
    }

    fn fits(&self, counts: Option<&Counts>, cost: u64, now: i64) -> bool {
        cost == 0 || self.estimate(counts, now) + i128::from(cost) <= Fraction::from(i128::from(self.limit))
    }
}

impl Definition for Sliding {
    type State = Counts;

    /// The newest window of now or before it counts, and the one before that. One up to a second ahead is believed;
    /// one further ahead becomes that of now. None counts for more than the limit and what may be owed.
    fn read(&self, stored: Option<&Counts>, now: i64) -> Read<Counts> {
        let some = |counts: &Counts| counts.values().any(|count| *count > 0);
        let Some(counts) = stored.filter(|counts| some(counts)) else { return Read::as_it_is(None) };
        let (now, newest) = (self.ticks(now), *counts.last_key_value().unwrap().0);
        let window = now.div_euclid(self.width);
        let anchored = newest > window && newest * self.width - now > SECOND / self.tick;
        let moved = if anchored { newest - window } else { 0 };
        let last = if anchored { window } else { newest.max(window) };
        let counts: Counts = counts
            .iter()
            .map(|(window, count)| (window - moved, (*count).min(self.limit + self.debt)))
            .filter(|(window, _)| (last - 1..=last).contains(window))
            .collect();
        Read { counts: Some(counts).filter(some), anchored }
    }

    fn judge(&self, counts: Option<&Counts>, cost: u64, now: i64, claimed: i64) -> (i64, u64) {
        if cost > self.limit {
            return (-1, 0);
        }
        let fits = |later: i64| self.fits(counts, cost, now + later);
        (if fits(0) { 0 } else { earliest(self.tick, claimed, fits) }, 0)
    }

    fn charge(&self, counts: Option<Counts>, charge: Charge<'_>) -> Counts {
        let mut counts = counts.unwrap_or_default();
        let window = self.ticks(charge.now).div_euclid(self.width);
        let newest = counts.last_key_value().map_or(window, |(newest, _)| window.max(*newest));
        *counts.entry(newest).or_default() += charge.cost;
        counts
    }

    fn left(&self, counts: Option<&Counts>, now: i64, claimed: i64) -> (u64, i64) {
        let left = (Fraction::from(i128::from(self.limit)) - self.estimate(counts, now)).floor().to_integer();
        let over = |later: i64| self.estimate(counts, now + later) == Fraction::from(0);
        (u64::try_from(left.max(0)).unwrap(), earliest(self.tick, claimed, over))
    }

    /// A refund goes to the window that was charged while it is one of the stored two; a further charge to that
    /// of now.
    fn settle(&self, stored: Option<&Counts>, settlement: &Settlement<'_>, now: i64) -> Settled<Counts> {
        let amount = settlement.amount.unsigned_abs();
        if settlement.amount < 0 {
            let mut counts = stored.cloned().unwrap_or_default();
            let charged = self.ticks(settlement.charged_at_us).div_euclid(self.width);
            let Some(count) = counts.get_mut(&charged) else { return Settled::Same };
            *count = count.saturating_sub(amount);
            return if counts.values().all(|count| *count == 0) { Settled::Gone } else { Settled::Becomes(counts) };
        }
        let counts = self.read(stored, now).counts;
        let window = self.ticks(now).div_euclid(self.width);
        let newest = counts.as_ref().and_then(|counts| counts.last_key_value());
        let count = newest.filter(|(newest, _)| **newest >= window).map_or(0, |(_, count)| *count);
        let cost = amount.min((self.limit + self.debt).saturating_sub(count));
        Settled::Becomes(self.charge(counts, Charge { cost, now, slot: "" }))
    }
}
