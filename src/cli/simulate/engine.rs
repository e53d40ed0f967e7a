//! One configuration and the requests of the logs: each is routed and decided as the proxy would have,
//! on the log's clock, and counted.

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

use super::tally::Tally;
use super::timeline::Timeline;
use crate::cli::logs::{Logged, Placed};
use crate::config::Config;
use crate::limit::key::KeyPart;
use crate::limit::plan::Reading;
use crate::limit::replay::{Replay, Told};
use crate::limit::{Facts, Outcome, Policy, Verdict};

/// What has become of the requests so far.
pub(super) struct Simulation<'c> {
    pub(super) config: &'c Config,
    replay: Replay,
    pub(super) totals: Totals,
    /// By [`Policy::index`](crate::limit::Policy::index).
    pub(super) tallies: Vec<Tally>,
    pub(super) timeline: Timeline,
}

/// Sums over all limits.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Every request of the logs.
    pub(super) requests: u64,
    /// Denied by a limit.
    pub(super) limited: u64,
    /// Answered 400, 403 or 405 by the proxy itself, before or instead of a limit.
    pub(super) refused: u64,
    /// Admitted and held for their turn.
    pub(super) held: u64,
    pub(super) longest_wait_us: u64,
    /// Verdicts that are those of the log.
    pub(super) as_logged: u64,
    /// Verdicts that are not.
    pub(super) not_as_logged: u64,
    /// Of the first and the last request.
    pub(super) span_us: Option<(i64, i64)>,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its limits admit it.
    Passed,
    /// A limit denies it.
    Limited {
        /// Index of the policy that decides.
        policy: usize,
        /// Microseconds; `None`: never.
        retry_us: Option<u64>,
    },
    /// It is no request that the proxy accepts.
    Refused,
}

impl<'c> Simulation<'c> {
    /// Nothing has happened yet.
    pub(super) fn new(config: &'c Config) -> Self {
        Self {
            config,
            replay: Replay::new(&config.store),
            totals: Totals::default(),
            tallies: config.policies.iter().map(|_| Tally::default()).collect(),
            timeline: Timeline::default(),
        }
    }

    /// The fields of requests that this configuration reads.
    pub(super) fn wanted(&self) -> Vec<HeaderName> {
        let parts = self.config.policies.iter().flat_map(|policy| policy.key.parts.iter().flatten());
        let by_key = parts.filter_map(|part| match part {
            KeyPart::Header(name) => Some(name.clone()),
            KeyPart::Cookie(_) => Some(COOKIE),
            _ => None,
        });
        let matched = self.config.router.routes().flat_map(|route| &route.matches.headers);
        by_key.chain(matched.map(|(name, _)| name.clone())).collect()
    }

    /// Decides the next request. `host` stands for one that the log does not name.
    pub(super) fn take(&mut self, placed: &Placed, host: Option<&str>) -> Fate {
        let fate = self.decide(placed, host);
        let totals = &mut self.totals;
        totals.requests += 1;
        totals.span_us = Some((totals.span_us.map_or(placed.at_us, |(first, _)| first), placed.at_us));
        let limited = matches!(fate, Fate::Limited { .. });
        totals.limited += u64::from(limited);
        totals.refused += u64::from(fate == Fate::Refused);
        match placed.entry.logged {
            Logged::Unknown => {}
            logged if (logged == Logged::Denied) == limited => totals.as_logged += 1,
            _ => totals.not_as_logged += 1,
        }
        self.timeline.add(placed.at_us, limited);
        fate
    }

    fn decide(&mut self, placed: &Placed, host: Option<&str>) -> Fate {
        let asked = placed.entry.asked(host);
        let Ok(target) = asked.target() else { return Fate::Refused };
        let found = target.find(&self.config.router, &asked);
        if target.passes(self.config, &asked, &found).is_err() {
            return Fate::Refused;
        }
        let facts = target.facts(&asked, &found);
        let fields = HeaderMap::new();
        let told = placed.entry.answer.map(|(status, answered)| Told { status, headers: &fields, answered });
        let verdict = self.replay.decide(placed.at_us, &found.route.policies, &facts, told);
        for policy in &*found.route.policies {
            self.note(placed.at_us, policy, &facts, &verdict);
        }
        self.fate(&verdict)
    }

    /// Counts a request among those of a limit, when the limit asks about it.
    fn note(&mut self, at_us: i64, policy: &Policy, facts: &Facts<'_>, verdict: &Verdict<'_>) {
        let Some(tally) = self.tallies.get_mut(policy.index) else { return };
        match self.replay.reading(at_us, policy, facts) {
            Some(Reading::Skipped) => tally.reached += 1,
            Some(Reading::Keyed { subject, without_key, .. }) => {
                tally.reached += 1;
                // One for each of its rates and for its penalty.
                let decisions = verdict.decisions.iter().filter(|decision| decision.policy.index == policy.index);
                let allowed = decisions.map(|decision| decision.allowed).reduce(|one, other| one && other);
                if let Some(allowed) = allowed {
                    tally.count(at_us, &subject, allowed);
                    tally.without_key += u64::from(without_key);
                }
            }
            Some(Reading::Elsewhere) | None => {}
        }
    }

    fn fate(&mut self, verdict: &Verdict<'_>) -> Fate {
        match verdict.outcome {
            Outcome::Allowed { wait } => {
                let wait_us = micros(wait);
                self.totals.held += u64::from(wait_us > 0);
                self.totals.longest_wait_us = self.totals.longest_wait_us.max(wait_us);
                Fate::Passed
            }
            Outcome::AmbiguousKey => Fate::Refused,
            Outcome::Denied { retry_after } => match verdict.deciding() {
                Some(decision) => Fate::Limited { policy: decision.policy.index, retry_us: retry_after.map(micros) },
                None => Fate::Passed,
            },
            // A replay has neither a store that is away nor bounded room to wait in.
            Outcome::Unavailable | Outcome::Overflow => Fate::Passed,
        }
    }

    /// States dropped for want of room.
    pub(super) fn evictions(&self) -> u64 {
        self.replay.evictions()
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
