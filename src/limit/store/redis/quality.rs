//! Whether a store that is there answers as it should. Too few failures to take it for away may be too many to
//! say nothing: calls and failures of all workers are added up and judged now and then.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::super::super::stats::StoreErrorKind;

/// How long calls are added up before they are judged, while they do well.
const WELL: Duration = Duration::from_secs(10);
/// The same once it was said that they do not: one line a minute is enough.
const POOR: Duration = Duration::from_mins(1);
/// Failures that are worth a line, and their least share: one in so many calls.
const NOTICEABLE: (u64, u64) = (5, 100);

/// Calls and failures.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    calls: u64,
    failures: [u64; StoreErrorKind::ALL.len()],
}

/// What one worker has seen since it told last.
#[derive(Debug, Default)]
pub(super) struct Tally {
    calls: Cell<u64>,
    failures: Cell<[u64; StoreErrorKind::ALL.len()]>,
}

/// What the process has seen since it judged last.
#[derive(Debug, Default)]
pub(super) struct Quality {
    since: Option<Instant>,
    counts: Counts,
    is_poor: bool,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// So many of so many calls failed within these seconds, most of them because of this.
    Poor { failed: u64, calls: u64, seconds: u64, cause: StoreErrorKind },
    /// They do not any more.
    Well,
}

impl Tally {
    /// A call ended while the store was there.
    pub(super) fn count(&self, error: Option<StoreErrorKind>) {
        self.calls.set(self.calls.get() + 1);
        if let Some(kind) = error {
            let mut failures = self.failures.get();
            failures[kind as usize] += 1;
            self.failures.set(failures);
        }
    }

    /// What was counted since the last time.
    pub(super) fn take(&self) -> Counts {
        Counts { calls: self.calls.take(), failures: self.failures.take() }
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        for (sum, more) in self.failures.iter_mut().zip(other.failures) {
            *sum += more;
        }
    }

    /// Why most calls failed, and how many in all; `None` where these are not worth a line.
    fn failing(&self) -> Option<(StoreErrorKind, u64)> {
        let failed: u64 = self.failures.iter().sum();
        let (least, share) = NOTICEABLE;
        let (cause, _) = StoreErrorKind::ALL.iter().zip(self.failures).max_by_key(|(_, count)| *count)?;
        (failed >= least && failed.saturating_mul(share) >= self.calls).then_some((cause.0, failed))
    }
}

impl Quality {
    /// Adds what a worker has counted; what there is to say by now.
    pub(super) fn hear(&mut self, now: Instant, counts: &Counts) -> Option<Judgement> {
        let since = *self.since.get_or_insert(now);
        self.counts.add(counts);
        let elapsed = now.saturating_duration_since(since);
        if elapsed < if self.is_poor { POOR } else { WELL } {
            return None;
        }
        let counts = std::mem::take(&mut self.counts);
        self.since = Some(now);
        let failing = counts.failing();
        let was_poor = std::mem::replace(&mut self.is_poor, failing.is_some());
        match failing {
            Some((cause, failed)) => {
                Some(Judgement::Poor { failed, calls: counts.calls, seconds: elapsed.as_secs(), cause })
            }
            None => was_poor.then_some(Judgement::Well),
        }
    }

    /// The store is away, which says more: what was counted before is void.
    pub(super) fn forget(&mut self) {
        (self.since, self.counts) = (None, Counts::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counts(calls: u64, timeouts: u64) -> Counts {
        let tally = Tally::default();
        for call in 0..calls {
            tally.count((call < timeouts).then_some(StoreErrorKind::Timeout));
        }
        tally.take()
    }

    /// The seconds at which something is said of a store that answers like this each second.
    fn said(seconds: u32, each: impl Fn(u32) -> Counts) -> Vec<(u32, bool)> {
        let (mut quality, began) = (Quality::default(), Instant::now());
        let heard = (0..seconds).map(|second| (second, quality.hear(began + SECOND * second, &each(second))));
        heard.filter_map(|(second, said)| Some((second, said? == Judgement::Well))).collect()
    }

    #[test]
    fn a_store_that_goes_on_failing_is_told_once_a_minute() {
        assert_eq!(said(200, |_| counts(10, 1)), [(10, false), (70, false), (130, false), (190, false)]);
    }

    #[test]
    fn few_failures_and_a_small_share_of_them_are_not_worth_a_line() {
        assert_eq!(said(200, |second| counts(10, u64::from(second % 20 < 4))), []);
        assert_eq!(said(200, |_| counts(101, 1)), []);
    }

    #[test]
    fn a_minute_without_failures_is_told_once() {
        assert_eq!(said(300, |second| counts(10, u64::from(second < 20))), [(10, false), (70, false), (130, true)]);
    }

    #[test]
    fn the_number_and_the_commonest_cause_are_told_and_an_outage_makes_them_void() {
        let (mut quality, now) = (Quality::default(), Instant::now());
        assert_eq!(quality.hear(now, &counts(100, 50)), None);
        quality.forget();
        assert_eq!(quality.hear(now + WELL, &counts(90, 7)), None);
        let told = Judgement::Poor { failed: 7, calls: 190, seconds: 10, cause: StoreErrorKind::Timeout };
        assert_eq!(quality.hear(now + WELL * 2, &counts(100, 0)), Some(told));
    }
}
