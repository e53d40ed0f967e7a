//! One test from its first request to its last, and how that differs from what was expected.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::text;
use crate::config::Config;
use crate::config::trial::{Answer, Expectation, RetryAfter, Sending, Trial};
use crate::explain::request::{Imagined, Refused};
use crate::explain::token::Token;
use crate::jwt::ClaimSet;
use crate::limit::replay::{Answered, Replay, Told};
use crate::limit::{Facts, Outcome};
use crate::units::DurationText;

/// When every test begins: 1 January 2026, 00:00:00 UTC, microseconds since 1970.
const BEGIN_US: i64 = 1_767_225_600_000_000;

/// What came of a test's requests.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Requests that all limits admitted.
    pub(super) allowed: u64,
    /// Requests that a limit denied.
    pub(super) denied: u64,
    /// Requests that the proxy answers before a limit is asked.
    pub(super) refused: u64,
    /// In the order of their instants.
    steps: Vec<Step>,
}

/// One request.
#[derive(Debug)]
struct Step {
    at: Duration,
    /// `GET /path from 192.0.2.7`.
    what: Rc<str>,
    fate: Fate,
    /// What the tightest limit has left.
    remaining: Option<u64>,
}

/// What became of it.
#[derive(Debug)]
enum Fate {
    Allowed { wait: Duration },
    Denied { by: Arc<str>, retry_after: RetryAfter },
    Refused(Refused),
}

/// Something that was expected and did not happen.
#[derive(Debug)]
pub(super) struct Deviation {
    /// The key of `expect`.
    pub(super) what: &'static str,
    pub(super) expected: String,
    pub(super) actual: String,
    /// Where it first showed.
    pub(super) place: Option<String>,
}

impl Course {
    /// Sends nothing, waits for nothing, and decides everything.
    pub(super) fn run(config: &Config, trial: &Trial) -> Self {
        let requests: Vec<(Imagined, Rc<str>)> = trial.sends.iter().map(imagined).collect();
        let mut instants: Vec<(Duration, usize)> = Vec::new();
        for (index, send) in trial.sends.iter().enumerate() {
            let steps = (0..send.count).map(|nth| send.every.saturating_mul(u32::try_from(nth).unwrap_or(u32::MAX)));
            instants.extend(steps.map(|since| (send.at.saturating_add(since), index)));
        }
        instants.sort_by_key(|(at, _)| *at);
        let replay = Replay::new(&config.store);
        let mut course = Self::default();
        for (at, index) in instants {
            let told = trial.sends[index].answer.as_ref().map(told);
            let step = Step::of(config, &replay, &requests[index], at, told);
            match step.fate {
                Fate::Allowed { .. } => course.allowed += 1,
                Fate::Denied { .. } => course.denied += 1,
                Fate::Refused(_) => course.refused += 1,
            }
            course.steps.push(step);
        }
        course
    }

    /// Everything that is not as expected.
    pub(super) fn deviations(&self, expect: &Expectation) -> Vec<Deviation> {
        let mut deviations = Vec::new();
        deviations.extend(self.refusals());
        let is_allowed = |step: &Step| matches!(step.fate, Fate::Allowed { .. });
        let is_denied = |step: &Step| matches!(step.fate, Fate::Denied { .. });
        deviations.extend(expect.allowed.and_then(|expected| self.count("allowed", expected, is_allowed)));
        deviations.extend(expect.denied.and_then(|expected| self.count("denied", expected, is_denied)));
        deviations.extend(expect.retry_after.and_then(|expected| self.retry_after(expected)));
        deviations.extend(self.denied_by(expect));
        deviations.extend(expect.remaining.and_then(|expected| self.remaining(expected)));
        deviations.extend(expect.longest_wait.and_then(|expected| self.longest_wait(expected)));
        deviations
    }

    /// Requests that never reached the limits are a mistake of the test.
    fn refusals(&self) -> Option<Deviation> {
        let (step, refused) = self.steps.iter().find_map(|step| match &step.fate {
            Fate::Refused(refused) => Some((step, refused)),
            _ => None,
        })?;
        Some(Deviation {
            what: "requests",
            expected: "that all reach the limits".to_owned(),
            actual: format!("{} for {}: {}", refused.status, self.refused, refused.reason),
            place: Some(step.to_string()),
        })
    }

    /// The first request that is one too many, of those that are or of those that are not.
    fn count(&self, what: &'static str, expected: u64, is: impl Fn(&Step) -> bool) -> Option<Deviation> {
        let total = self.steps.len() as u64;
        let actual = self.steps.iter().filter(|step| is(step)).count() as u64;
        let nth = |matching: bool, before: u64| {
            let mut matching = self.steps.iter().filter(|step| is(step) == matching);
            matching.nth(usize::try_from(before).unwrap_or(usize::MAX))
        };
        let place = match actual.cmp(&expected) {
            std::cmp::Ordering::Equal => return None,
            std::cmp::Ordering::Greater => nth(true, expected),
            std::cmp::Ordering::Less => nth(false, total.saturating_sub(expected)),
        };
        let (expected, actual) = (text::number(expected), text::number(actual));
        Some(Deviation { what, expected, actual, place: place.map(ToString::to_string) })
    }

    fn retry_after(&self, expected: RetryAfter) -> Option<Deviation> {
        let denial = self.steps.iter().find_map(|step| match &step.fate {
            Fate::Denied { retry_after, .. } => Some((step, *retry_after)),
            _ => None,
        });
        let spoken = |retry: RetryAfter| match retry {
            RetryAfter::Seconds(seconds) => DurationText(Duration::from_secs(seconds)).to_string(),
            RetryAfter::Never => "never".to_owned(),
        };
        let (actual, place) = match denial {
            Some((_, actual)) if actual == expected => return None,
            Some((step, actual)) => (spoken(actual), Some(step.to_string())),
            None => ("no denial".to_owned(), None),
        };
        Some(Deviation { what: "retry_after", expected: spoken(expected), actual, place })
    }

    fn denied_by(&self, expect: &Expectation) -> Option<Deviation> {
        let names = &expect.denied_by;
        if names.is_empty() {
            return None;
        }
        let other = self.steps.iter().find_map(|step| match &step.fate {
            Fate::Denied { by, .. } if names.iter().all(|name| **name != **by) => Some((step, by)),
            _ => None,
        });
        let (actual, place) = match other {
            Some((step, by)) => (by.to_string(), Some(step.to_string())),
            None if self.denied == 0 => ("no denial".to_owned(), None),
            None => return None,
        };
        Some(Deviation { what: "denied_by", expected: names.join(" or "), actual, place })
    }

    fn remaining(&self, expected: u64) -> Option<Deviation> {
        let last = self.steps.last()?;
        if last.remaining == Some(expected) {
            return None;
        }
        let actual = last.remaining.map_or_else(|| "no limit that counts".to_owned(), text::number);
        Some(Deviation { what: "remaining", expected: text::number(expected), actual, place: Some(last.to_string()) })
    }

    fn longest_wait(&self, expected: Duration) -> Option<Deviation> {
        let waits = self.steps.iter().filter_map(|step| match step.fate {
            Fate::Allowed { wait } => Some((step, wait)),
            _ => None,
        });
        let longest = waits.max_by_key(|(_, wait)| *wait);
        let actual = longest.map_or(Duration::ZERO, |(_, wait)| wait);
        let place = longest.map(|(step, _)| step.to_string());
        let spoken = |duration| DurationText(duration).to_string();
        (actual != expected).then(|| Deviation {
            what: "longest_wait",
            expected: spoken(expected),
            actual: spoken(actual),
            place,
        })
    }
}

/// A request, and what it is called.
fn imagined(send: &Sending) -> (Imagined, Rc<str>) {
    let tls_subject = send.tls_subject.as_deref().map(str::to_owned);
    let request = Imagined::new(send.method.clone(), send.uri.clone(), send.headers.clone(), send.client)
        .verified(tls_subject, ClaimSet::of(&send.claims));
    (request, format!("{} {} from {}", send.method, send.uri, send.client).into())
}

/// The answer that an upstream is imagined to give.
fn told(answer: &Answer) -> Told<'_> {
    Told { status: answer.status, headers: &answer.headers, answered: Answered::Upstream }
}

impl Step {
    /// One request, decided at its instant.
    fn of(
        config: &Config,
        replay: &Replay,
        (request, what): &(Imagined, Rc<str>),
        at: Duration,
        told: Option<Told<'_>>,
    ) -> Self {
        let (fate, remaining) =
            decide(config, replay, request, at, told).unwrap_or_else(|refused| (Fate::Refused(refused), None));
        Self { at, what: Rc::clone(what), fate, remaining }
    }
}

/// What the limits make of a request, and what the tightest has left.
fn decide(
    config: &Config,
    replay: &Replay,
    request: &Imagined,
    at: Duration,
    told: Option<Told<'_>>,
) -> Result<(Fate, Option<u64>), Refused> {
    let asked = request.asked();
    let target = asked.target()?;
    if config.router.preflight(&target.head(&asked)).is_some() {
        return Ok((Fate::Allowed { wait: Duration::ZERO }, None));
    }
    let found = target.find(&config.router, &asked);
    target.passes(config, &asked, &found)?;
    let token = Token::new(config, &asked);
    let facts = Facts { claims: &token, ..target.facts(&asked, &found) };
    let now_us = BEGIN_US.saturating_add(i64::try_from(at.as_micros()).unwrap_or(i64::MAX));
    let verdict = replay.decide(now_us, &found.route.policies, &facts, told);
    let remaining = verdict.tightest().map(|decision| decision.remaining);
    let fate = match verdict.outcome {
        Outcome::Allowed { wait } => Fate::Allowed { wait },
        Outcome::Denied { retry_after } => Fate::Denied {
            by: verdict.deciding().map_or_else(|| Arc::from(""), |decision| Arc::clone(&decision.policy.name)),
            retry_after: retry_after.map_or(RetryAfter::Never, header),
        },
        Outcome::AmbiguousKey => return Err(Refused::new(400, "a part of a key occurs twice")),
        Outcome::Unavailable | Outcome::Overflow => return Err(Refused::new(503, "the store is away")),
    };
    Ok((fate, remaining))
}

/// As the field says it: whole seconds, rounded up, at least 1.
fn header(retry: Duration) -> RetryAfter {
    RetryAfter::Seconds((retry.as_secs() + u64::from(retry.subsec_nanos() > 0)).max(1))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}: {}", DurationText(self.at), self.what)
    }
}
