//! When to stop asking a store that does not answer, and when to ask again.
//!
//! A pure state machine: time is an argument, and whoever owns it sends the probes. Closed, every
//! decision is asked. Open, none is; only the probes are, and three good ones in a row close it.

use std::time::{Duration, Instant};

use super::super::stats::StoreErrorKind;

/// Failures of the last second from which on it may open.
const FAILURES_TO_OPEN: u32 = 5;
/// Good probes in a row that close it.
const PROBES_TO_CLOSE: u8 = 3;
/// The wait before a probe lies between these, at random, so that proxies do not probe in step.
const PROBE_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(250));
/// The wait before the second and third good probe.
const CONFIRM_WAIT: Duration = Duration::from_millis(50);
/// Length of one slot of the window of the last second.
const SLOT: Duration = Duration::from_millis(100);
const SLOTS: usize = 10;

/// One breaker: one store, one worker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is known of the store yet; the first good probe closes.
    Untried,
    Closed,
    Open {
        cause: StoreErrorKind,
        good_probes: u8,
    },
}

impl StoreErrorKind {
    /// Whether one such error says that all further calls would fail too.
    #[must_use]
    pub fn opens_at_once(self) -> bool {
        match self {
            Self::Refused
            | Self::Reset
            | Self::Loading
            | Self::Readonly
            | Self::Oom
            | Self::Clusterdown
            | Self::Noauth
            | Self::Noperm
            | Self::Misconf
            | Self::Tls => true,
            Self::Timeout | Self::Noscript | Self::Moved | Self::Busy | Self::Protocol => false,
        }
    }
}

impl Breaker {
    /// The breaker of a store that was not asked yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { state: State::Untried, window: Window::new(now) }
    }

    /// Whether decisions may be asked.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether nothing is known of the store yet.
    #[must_use]
    pub fn is_untried(&self) -> bool {
        self.state == State::Untried
    }

    /// Why decisions are not asked; `None` when they are, or when nothing is known yet.
    #[must_use]
    pub fn cause(&self) -> Option<StoreErrorKind> {
        match self.state {
            State::Open { cause, .. } => Some(cause),
            State::Untried | State::Closed => None,
        }
    }

    /// A decision was answered.
    pub fn succeeded(&mut self, now: Instant) {
        self.window.count(now, 0);
    }

    /// A decision failed. Returns whether this opened the breaker.
    pub fn failed(&mut self, now: Instant, kind: StoreErrorKind) -> bool {
        self.window.count(now, 1);
        if !self.is_closed() {
            return false;
        }
        if kind.opens_at_once() || self.window.is_bad() {
            return self.open(kind);
        }
        false
    }

    /// The connection is gone, or was never made. Returns whether this opened the breaker.
    pub fn open(&mut self, cause: StoreErrorKind) -> bool {
        let opened = !matches!(self.state, State::Open { .. });
        self.state = State::Open { cause, good_probes: 0 };
        opened
    }

    /// A probe was answered. Returns whether this closed the breaker.
    pub fn probe_succeeded(&mut self, now: Instant) -> bool {
        let closes = match &mut self.state {
            State::Untried => true,
            State::Closed => false,
            State::Open { good_probes, .. } => {
                *good_probes += 1;
                *good_probes >= PROBES_TO_CLOSE
            }
        };
        if closes {
            *self = Self { state: State::Closed, window: Window::new(now) };
        }
        closes
    }

    /// How long to wait before the next probe; `dice` is a random number from 0 to 1.
    #[must_use]
    pub fn probe_wait(&self, dice: f64) -> Duration {
        match self.state {
            State::Open { good_probes: 0, .. } => {
                PROBE_WAIT.0 + (PROBE_WAIT.1.saturating_sub(PROBE_WAIT.0)).mul_f64(dice.clamp(0.0, 1.0))
            }
            State::Open { .. } => CONFIRM_WAIT,
            State::Untried | State::Closed => Duration::ZERO,
        }
    }
}

/// Calls and failures of the last second, in slots of a tenth.
#[derive(Debug)]
struct Window {
    slots: [Slot; SLOTS],
    current: usize,
    current_began: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    calls: u32,
    failures: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { slots: [Slot::default(); SLOTS], current: 0, current_began: now }
    }

    fn count(&mut self, now: Instant, failures: u32) {
        self.advance(now);
        let slot = &mut self.slots[self.current];
        slot.calls = slot.calls.saturating_add(1);
        slot.failures = slot.failures.saturating_add(failures);
    }

    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.current_began);
        if elapsed >= SLOT * 10 {
            *self = Self::new(now);
            return;
        }
        for _ in 0..elapsed.as_millis() / SLOT.as_millis() {
            self.current = (self.current + 1) % SLOTS;
            self.slots[self.current] = Slot::default();
            self.current_began += SLOT;
        }
    }

    /// Whether at least [`FAILURES_TO_OPEN`] calls, and at least half of all, failed.
    fn is_bad(&self) -> bool {
        let (calls, failures) = self
            .slots
            .iter()
            .fold((0_u64, 0_u64), |sum, slot| (sum.0 + u64::from(slot.calls), sum.1 + u64::from(slot.failures)));
        failures >= u64::from(FAILURES_TO_OPEN) && failures * 2 >= calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed() -> (Breaker, Instant) {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        assert!(breaker.probe_succeeded(now), "the first good probe of an untried store closes");
        (breaker, now)
    }

    #[test]
    fn an_untried_store_is_not_asked_and_has_no_cause() {
        let breaker = Breaker::new(Instant::now());
        assert!(!breaker.is_closed());
        assert_eq!(breaker.cause(), None);
    }

    #[test]
    fn each_hopeless_error_opens_at_once() {
        for (kind, _) in StoreErrorKind::ALL {
            let (mut breaker, now) = closed();
            assert_eq!(breaker.failed(now, kind), kind.opens_at_once(), "{kind:?}");
            assert_eq!(breaker.is_closed(), !kind.opens_at_once());
        }
    }

    #[test]
    fn the_fifth_timeout_within_a_second_opens() {
        let (mut breaker, now) = closed();
        for i in 0..4 {
            assert!(!breaker.failed(now + SLOT * i, StoreErrorKind::Timeout));
        }
        assert!(breaker.failed(now + SLOT * 5, StoreErrorKind::Timeout));
        assert_eq!(breaker.cause(), Some(StoreErrorKind::Timeout));
        assert!(!breaker.failed(now + SLOT * 5, StoreErrorKind::Timeout), "it opens once");
    }

    #[test]
    fn failures_below_half_of_the_last_second_do_not_open() {
        let (mut breaker, now) = closed();
        for i in 0..100 {
            let at = now + Duration::from_millis(i * 9);
            breaker.succeeded(at);
            breaker.succeeded(at);
            assert!(!breaker.failed(at, StoreErrorKind::Timeout));
        }
    }

    #[test]
    fn failures_older_than_a_second_are_forgotten() {
        let (mut breaker, now) = closed();
        for i in 0..50 {
            assert!(!breaker.failed(now + Duration::from_millis(260) * i, StoreErrorKind::Timeout), "{i}");
        }
    }

    #[test]
    fn three_good_probes_in_a_row_close_and_a_bad_one_starts_afresh() {
        let (mut breaker, now) = closed();
        assert!(breaker.open(StoreErrorKind::Reset));
        assert!(!breaker.probe_succeeded(now));
        assert!(!breaker.probe_succeeded(now));
        assert!(!breaker.open(StoreErrorKind::Timeout));
        assert!(!breaker.probe_succeeded(now));
        assert!(!breaker.probe_succeeded(now));
        assert!(breaker.probe_succeeded(now));
        assert!(breaker.is_closed());
    }

    #[test]
    fn probes_are_jittered_and_confirmations_quick() {
        let (mut breaker, now) = closed();
        breaker.open(StoreErrorKind::Reset);
        assert_eq!(breaker.probe_wait(0.0), Duration::from_millis(100));
        assert_eq!(breaker.probe_wait(1.0), Duration::from_millis(250));
        breaker.probe_succeeded(now);
        assert_eq!(breaker.probe_wait(0.7), Duration::from_millis(50));
    }

    #[test]
    fn a_closed_breaker_has_forgotten_why_it_was_open() {
        let (mut breaker, now) = closed();
        for _ in 0..5 {
            breaker.failed(now, StoreErrorKind::Timeout);
        }
        for _ in 0..3 {
            breaker.probe_succeeded(now);
        }
        assert!(breaker.is_closed());
        assert!(!breaker.failed(now, StoreErrorKind::Timeout));
    }
}
