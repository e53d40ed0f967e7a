//! Which requests are sent again, and how many of them.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Retries that need no requests to earn them: else nothing could be repeated at low traffic.
const RESERVE: f64 = 10.0;
/// How many of those come back per second.
const REGAINED: f64 = 1.0;
/// What requests have earned is forgotten: after so many seconds all but 37 %.
const MEMORY: f64 = 10.0;
/// The first pause before a request is sent again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Which requests of a route are sent again, and how often.
#[derive(Debug)]
pub struct Retries {
    /// Further attempts after the first.
    pub attempts: u32,
    /// After what.
    pub on: Vec<RetryOn>,
    /// How long one attempt may take to the head of its response; `None`: as long as all together.
    pub per_try_timeout: Option<Duration>,
    /// Retries in proportion to requests.
    pub budget: Budget,
}

/// After what a request is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection could be had. Nothing was written, so this is safe for every method.
    ConnectError,
    /// The connection ended before the response.
    Reset,
    /// The response did not begin in time.
    Timeout,
    /// It was answered with one of these statuses.
    Status(RangeInclusive<u16>),
}

/// How much of the traffic may be retries, so that they do not bury an upstream that is in trouble.
#[derive(Debug)]
pub struct Budget {
    /// Retries per request, 0 to 1.
    pub share: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    earned: f64,
    reserve: f64,
    at: Instant,
}

impl Retries {
    /// Whether one follows after this.
    #[must_use]
    pub fn covers(&self, what: &RetryOn) -> bool {
        self.on.contains(what)
    }

    /// Whether one follows after this status.
    #[must_use]
    pub fn covers_status(&self, status: u16) -> bool {
        self.on.iter().any(|on| matches!(on, RetryOn::Status(range) if range.contains(&status)))
    }

    /// How long to wait before the attempt with this number (1 is the first repetition), differently each time.
    #[must_use]
    pub fn pause(attempt: u32) -> Duration {
        let longest = FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(LONGEST_PAUSE);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

impl Budget {
    /// A full one.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self { share, state: Mutex::new(State { earned: 0.0, reserve: RESERVE, at: Instant::now() }) }
    }

    /// A request was sent for the first time.
    pub fn earn(&self) {
        let mut state = self.state.lock();
        state.pass(Instant::now());
        state.earned += self.share;
    }

    /// Whether one may be sent again; then it is counted.
    pub fn spend(&self) -> bool {
        let mut state = self.state.lock();
        state.pass(Instant::now());
        let source = if state.earned >= 1.0 { &mut state.earned } else { &mut state.reserve };
        let enough = *source >= 1.0;
        if enough {
            *source -= 1.0;
        }
        enough
    }
}

impl State {
    fn pass(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.earned *= (-seconds / MEMORY).exp();
        self.reserve = (self.reserve + seconds * REGAINED).min(RESERVE);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_up_is_spent_and_earned_again() {
        let budget = Budget::new(0.25);
        assert_eq!((0..20).filter(|_| budget.spend()).count(), 10, "the reserve");
        (0..1_007).for_each(|_| budget.earn());
        let spent = (0..1_000).filter(|_| budget.spend()).count();
        assert!((245..=251).contains(&spent), "a quarter of the requests: {spent}");
    }

    #[test]
    fn pauses_grow_and_end_growing() {
        for (attempt, most) in [(1, 25), (2, 50), (4, 200), (5, 250), (40, 250)] {
            let pause = Retries::pause(attempt);
            assert!(Duration::from_millis(most / 2) <= pause && pause <= Duration::from_millis(most), "{pause:?}");
        }
    }
}
