//! Whether an endpoint is to be asked: what its checks found, and what came of the requests it got.
//! All workers see the same.

use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;

/// When servers are not asked for a while.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HealthPolicy {
    /// By what comes of requests.
    pub passive: Option<Passive>,
    /// By checks of our own.
    pub active: Option<Active>,
    /// How long a server that is back gets less than its share, growing all the time; zero: not at all.
    pub slow_start: Duration,
}

/// Ejection of a server that fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Passive {
    /// So many failures …
    pub failures: u32,
    /// … within this time …
    pub within: Duration,
    /// … and it is not asked for so long.
    pub eject_for: Duration,
    /// Share of an upstream's endpoints that may be ejected at once, 0 to 1.
    pub max_ejected: f64,
    /// Answers that are failures, besides none at all.
    pub statuses: Vec<RangeInclusive<u16>>,
}

/// Checks of our own.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    /// What is checked.
    pub check: Check,
    /// Between two checks of an endpoint.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// So many good ones in a row and it is asked again.
    pub healthy_after: u32,
    /// So many bad ones in a row and it is not asked any more.
    pub unhealthy_after: u32,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// A connection can be opened, with TLS where the server has it.
    Tcp,
    /// A GET of this path is answered with one of these statuses.
    Http {
        /// Path and query.
        path: Box<str>,
        /// Host; `None`: the server's own.
        host: Option<Box<str>>,
        /// Statuses of a server that is well.
        statuses: Vec<RangeInclusive<u16>>,
    },
    /// The gRPC health service says SERVING for this service; empty: for the server.
    Grpc {
        /// Its name.
        service: Box<str>,
    },
}

/// Whether one endpoint is to be asked.
#[derive(Debug, Default)]
pub struct Health {
    /// The checks found it down.
    down: AtomicBool,
    /// Until when it is ejected, milliseconds of [`now`].
    ejected_until: AtomicU64,
    /// Since when it is back; 0: it never was away.
    back_since: AtomicU64,
    /// Its failures, touched only by failures.
    failures: Mutex<Failures>,
    /// Good or bad checks in a row.
    in_a_row: AtomicU32,
}

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    since: u64,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is not asked any more.
    Down,
    /// It is asked again.
    Up,
}

/// Milliseconds since the process began, never 0.
fn now() -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGUN.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl HealthPolicy {
    /// Whether an answer with this status counts against its endpoint.
    #[must_use]
    pub fn is_failure(&self, status: StatusCode) -> bool {
        let contains = |range: &RangeInclusive<u16>| range.contains(&status.as_u16());
        self.passive.as_ref().is_some_and(|passive| passive.statuses.iter().any(contains))
    }
}

impl Passive {
    /// Whether so many of an upstream's endpoints may be ejected at once.
    #[must_use]
    pub fn leaves_enough(&self, ejected: usize, of: usize) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "endpoints are few")]
        let (ejected, of) = (ejected as f64, of as f64);
        ejected <= self.max_ejected * of
    }
}

impl Health {
    /// Whether it is to be asked.
    #[must_use]
    pub fn is_well(&self) -> bool {
        !self.down.load(Ordering::Relaxed) && !self.is_ejected()
    }

    /// Whether its checks found it down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Whether it failed so often that it is left alone.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        // Nearly always 0, and then the clock is not read.
        let until = self.ejected_until.load(Ordering::Relaxed);
        until != 0 && until > now()
    }

    /// Its share of what it would get, in hundredths, at least 10: it grows while a server that was away
    /// warms up.
    #[must_use]
    pub fn share(&self, slow_start: Duration) -> u64 {
        if slow_start.is_zero() {
            return 100;
        }
        // Who was ejected is back when that has ended.
        let back = self.back_since.load(Ordering::Relaxed).max(self.ejected_until.load(Ordering::Relaxed));
        if back == 0 {
            return 100;
        }
        let passed = now().saturating_sub(back);
        (passed.saturating_mul(100) / millis(slow_start).max(1)).clamp(10, 100)
    }

    /// A request got no answer, or one that is a failure. Whether that was one too many; then it is ejected
    /// if `may_eject` says so.
    pub fn failed(&self, policy: &Passive, may_eject: impl FnOnce() -> bool) -> bool {
        let now = now();
        let mut failures = self.failures.lock();
        if failures.count == 0 || now.saturating_sub(failures.since) >= millis(policy.within) {
            *failures = Failures { count: 0, since: now };
        }
        failures.count += 1;
        if failures.count < policy.failures || self.is_ejected() || !may_eject() {
            return false;
        }
        failures.count = 0;
        self.ejected_until.store(now.saturating_add(millis(policy.eject_for)), Ordering::Relaxed);
        true
    }

    /// A check ended well or not; what that changes.
    pub fn checked(&self, well: bool, policy: &Active) -> Option<Change> {
        let down = self.is_down();
        if well != down {
            // As it was before.
            self.in_a_row.store(0, Ordering::Relaxed);
            return None;
        }
        let needed = if down { policy.healthy_after } else { policy.unhealthy_after };
        if self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 < needed {
            return None;
        }
        self.in_a_row.store(0, Ordering::Relaxed);
        self.down.store(!down, Ordering::Relaxed);
        if !down {
            return Some(Change::Down);
        }
        self.back_since.store(now(), Ordering::Relaxed);
        Some(Change::Up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passive(eject_for: Duration) -> Passive {
        Passive { failures: 3, within: Duration::from_mins(1), eject_for, max_ejected: 0.5, statuses: vec![] }
    }

    #[test]
    fn so_many_failures_eject_and_not_one_less() {
        let (health, policy) = (Health::default(), passive(Duration::from_mins(1)));
        assert!(!health.failed(&policy, || true) && !health.failed(&policy, || true));
        assert!(health.is_well());
        assert!(!health.failed(&policy, || false), "too many are ejected already");
        assert!(health.failed(&policy, || true));
        assert!(!health.is_well());
    }

    #[test]
    fn an_ejection_ends_by_itself() {
        let (health, policy) = (Health::default(), passive(Duration::ZERO));
        assert_eq!((0..3).filter(|_| health.failed(&policy, || true)).count(), 1);
        assert!(health.is_well());
    }

    #[test]
    fn checks_count_in_a_row() {
        let policy = Active {
            check: Check::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
        };
        let health = Health::default();
        let results = [false, false, true, false, false, false, true, false, true, true];
        let changes: Vec<_> = results.into_iter().map(|well| health.checked(well, &policy)).collect();
        let mut expected = vec![None; 10];
        expected[5] = Some(Change::Down);
        expected[9] = Some(Change::Up);
        assert_eq!(changes, expected);
        assert!(health.share(Duration::from_mins(10)) < 100 && health.share(Duration::ZERO) == 100);
    }
}
