//! What was counted a little while ago: the last seconds, which make rates and percentiles, and a quarter of an
//! hour in steps of five seconds, which the page draws. Both are bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::metrics::Sources;
use super::metrics::reading::Reading;
use crate::limit::stats::DecisionKind;
use crate::telemetry::histogram::Distribution;

/// Readings that are kept, one a second: rates are those of the last ten.
const READINGS: usize = 11;
/// Seconds of a point.
const STEP: u64 = 5;
/// Points that are kept: a quarter of an hour.
const POINTS: usize = 180;
/// Seconds after which top keys are counted anew; the period before is kept.
const TURN: u64 = 300;

/// Decisions that deny, and those that only would.
pub(super) const DENIED: [DecisionKind; 3] = [DecisionKind::Deny, DecisionKind::LocalDeny, DecisionKind::ErrorDeny];
pub(super) const SHADOWED: [DecisionKind; 1] = [DecisionKind::ShadowDeny];
/// Decisions that this process made in place of the store.
pub(super) const LOCAL: [DecisionKind; 4] =
    [DecisionKind::LocalAllow, DecisionKind::LocalDeny, DecisionKind::ErrorAllow, DecisionKind::ErrorDeny];

/// What was counted before.
#[derive(Debug)]
pub(super) struct History {
    started: Instant,
    readings: VecDeque<Reading>,
    points: VecDeque<Point>,
    /// Seconds so far.
    ticks: u64,
}

/// How much came in one step.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    requests: u64,
    limited: u64,
    shadow: u64,
    errors: u64,
}

/// Two readings, and what happened in between.
#[derive(Debug)]
pub(super) struct Span<'h> {
    pub(super) now: &'h Reading,
    pub(super) before: Option<&'h Reading>,
}

impl History {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), readings: VecDeque::new(), points: VecDeque::new(), ticks: 0 }
    }

    /// Since when the process has been watched.
    pub(super) fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// How long top keys have been counted, in seconds.
    pub(super) fn counted_seconds(&self) -> u64 {
        if self.ticks < TURN { self.ticks } else { TURN + self.ticks % TURN }
    }

    /// A second has passed.
    pub(super) fn tick(&mut self, sources: &Sources) {
        let reading = sources.reading();
        // Positions mean something else in another configuration.
        if self.readings.back().is_some_and(|last| !Arc::ptr_eq(&last.config, &reading.config)) {
            self.readings.clear();
        }
        if self.ticks.is_multiple_of(STEP) {
            self.points.push_back(Point::default());
        }
        if let (Some(point), Some(last)) = (self.points.back_mut(), self.readings.back()) {
            point.add(last, &reading);
        }
        if self.points.len() > POINTS {
            self.points.pop_front();
        }
        self.readings.push_back(reading);
        if self.readings.len() > READINGS {
            self.readings.pop_front();
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(TURN) {
            sources.turn_top_keys();
        }
    }

    /// From some seconds ago until this reading.
    pub(super) fn until<'h>(&'h self, now: &'h Reading) -> Span<'h> {
        let before = self.readings.front().filter(|before| Arc::ptr_eq(&before.config, &now.config));
        Span { now, before }
    }

    /// The last quarter of an hour, oldest first, as counts per step.
    pub(super) fn told(&self) -> Value {
        let all = |count: fn(&Point) -> u64| self.points.iter().map(count).collect::<Vec<_>>();
        json!({
            "step_seconds": STEP,
            "steps": POINTS,
            "requests": all(|point| point.requests),
            "limited": all(|point| point.limited),
            "shadow_denied": all(|point| point.shadow),
            "errors": all(|point| point.errors),
        })
    }
}

impl Point {
    fn add(&mut self, before: &Reading, now: &Reading) {
        let ((requests, errors), (requests_before, errors_before)) = (now.requests(), before.requests());
        self.requests += requests.saturating_sub(requests_before);
        self.errors += errors.saturating_sub(errors_before);
        self.limited += now.limited.saturating_sub(before.limited);
        self.shadow += now.decided_in_all(&SHADOWED).saturating_sub(before.decided_in_all(&SHADOWED));
    }
}

impl Span<'_> {
    /// Its length, in seconds; 0 without an earlier reading.
    pub(super) fn seconds(&self) -> f64 {
        self.before.map_or(0.0, |before| self.now.at.saturating_duration_since(before.at).as_secs_f64())
    }

    /// How often something happened per second, to two digits.
    pub(super) fn rate(&self, count: impl Fn(&Reading) -> u64) -> f64 {
        let Some(before) = self.before.filter(|_| self.seconds() > 0.0) else { return 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let happened = count(self.now).saturating_sub(count(before)) as f64;
        (happened / self.seconds() * 100.0).round() / 100.0
    }

    /// The median and the 99th percentile in milliseconds; null where nothing happened.
    pub(super) fn percentiles(&self, of: impl Fn(&Reading) -> Option<Distribution>) -> Value {
        let happened = match (of(self.now), self.before.and_then(of)) {
            (Some(now), Some(before)) => Some(now.since(&before)),
            (now, None) => now.filter(|_| self.before.is_some()),
            (None, Some(_)) => None,
        };
        let told = |share| {
            let seconds = happened.as_ref().and_then(|happened| happened.quantile(share));
            seconds.map(|seconds| (seconds * 1e6).round() / 1e3)
        };
        json!({ "p50": told(0.5), "p99": told(0.99) })
    }
}
