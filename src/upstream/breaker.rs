//! The circuit breaker of an upstream: when too many of its answers fail, it is not asked at all for a
//! while, and then by one request at a time until one succeeds (Nygard, "Release It!").

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerSettings {
    /// Share of failures, above 0 and up to 1 …
    pub failures: f64,
    /// … of at least so many requests …
    pub min_requests: u32,
    /// … within this time …
    pub within: Duration,
    /// … and nothing is sent for so long.
    pub open_for: Duration,
}

/// The breaker of one upstream, over all workers.
#[derive(Debug)]
pub struct Breaker {
    /// Its settings.
    pub settings: BreakerSettings,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        since: Instant,
        requests: u32,
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One request is under way to see, since then.
    Probing {
        since: Instant,
    },
}

/// A request that the breaker let pass. Dropped without a word, it says nothing about the upstream.
#[derive(Debug)]
pub struct Passed<'a> {
    breaker: &'a Breaker,
    probes: Probes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probes {
    Yes,
    No,
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switched {
    /// It is open now.
    Opened,
    /// It is closed again.
    Closed,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        let state = Mutex::new(State::begin());
        Self { settings, state }
    }

    /// Lets a request pass; else after how long another one may.
    ///
    /// # Errors
    /// While it is open.
    pub fn pass(&self) -> Result<Passed<'_>, Duration> {
        let mut state = self.state.lock();
        match *state {
            State::Closed { .. } => Ok(Passed { breaker: self, probes: Probes::No }),
            State::Open { until } => self.probe(&mut state, until),
            // One that takes its time must not keep all others waiting.
            State::Probing { since } => self.probe(&mut state, since + self.settings.open_for),
        }
    }

    /// Lets one pass to see, from this instant on.
    fn probe(&self, state: &mut State, from: Instant) -> Result<Passed<'_>, Duration> {
        let now = Instant::now();
        let left = from.saturating_duration_since(now);
        if !left.is_zero() {
            return Err(left);
        }
        *state = State::Probing { since: now };
        Ok(Passed { breaker: self, probes: Probes::Yes })
    }

    /// Whether requests are turned away.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(*self.state.lock(), State::Closed { .. })
    }

    fn count(&self, failed: u32) -> Option<Switched> {
        let mut state = self.state.lock();
        let State::Closed { since, requests, failures } = &mut *state else { return None };
        if since.elapsed() >= self.settings.within {
            (*since, *requests, *failures) = (Instant::now(), 0, 0);
        }
        *requests += 1;
        *failures += failed;
        let (requests, failures) = (*requests, *failures);
        let is_bad = f64::from(failures) >= self.settings.failures * f64::from(requests);
        if failed == 0 || requests < self.settings.min_requests || !is_bad {
            return None;
        }
        *state = State::Open { until: Instant::now() + self.settings.open_for };
        Some(Switched::Opened)
    }
}

impl State {
    fn begin() -> Self {
        Self::Closed { since: Instant::now(), requests: 0, failures: 0 }
    }
}

impl Passed<'_> {
    /// It was answered. What that changes.
    #[must_use]
    pub fn succeeded(mut self) -> Option<Switched> {
        if self.probes == Probes::No {
            return self.breaker.count(0);
        }
        self.probes = Probes::No;
        *self.breaker.state.lock() = State::begin();
        Some(Switched::Closed)
    }

    /// It was not, or with a failure. What that changes.
    #[must_use]
    pub fn failed(mut self) -> Option<Switched> {
        if self.probes == Probes::No {
            return self.breaker.count(1);
        }
        self.probes = Probes::No;
        *self.breaker.state.lock() = State::Open { until: Instant::now() + self.breaker.settings.open_for };
        None
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        if self.probes == Probes::Yes {
            // The next one may see.
            *self.breaker.state.lock() = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(open_for: Duration) -> Breaker {
        let within = Duration::from_mins(1);
        Breaker::new(BreakerSettings { failures: 0.5, min_requests: 4, within, open_for })
    }

    #[test]
    fn it_opens_when_the_share_is_reached_and_not_before_there_are_enough() {
        let breaker = breaker(Duration::from_mins(1));
        let pass = || breaker.pass().unwrap();
        assert_eq!(pass().failed(), None);
        assert_eq!(pass().failed(), None);
        assert_eq!(pass().succeeded(), None);
        assert_eq!(pass().succeeded(), None);
        assert_eq!(pass().succeeded(), None);
        assert_eq!(pass().failed(), Some(Switched::Opened));
        assert!(breaker.pass().unwrap_err() > Duration::from_secs(50));
    }

    #[test]
    fn one_request_at_a_time_sees_whether_it_may_close() {
        let breaker = breaker(Duration::from_mins(1));
        let opened = (0..4).filter_map(|_| breaker.pass().unwrap().failed()).count();
        assert_eq!(opened, 1);
        *breaker.state.lock() = State::Open { until: Instant::now() };
        let probe = breaker.pass().unwrap();
        assert!(breaker.pass().is_err(), "one is under way");
        drop(probe);
        let probe = breaker.pass().expect("that one said nothing");
        assert_eq!(probe.failed(), None);
        assert!(breaker.pass().is_err(), "it is open again");
        let long_ago = Instant::now().checked_sub(Duration::from_mins(2)).unwrap();
        *breaker.state.lock() = State::Probing { since: long_ago };
        assert_eq!(breaker.pass().unwrap().succeeded(), Some(Switched::Closed));
        assert!(!breaker.is_open());
    }
}
