//! The `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-11), their legacy cousins and Retry-After.
//! The draft may still change: only this module writes these fields.

use std::fmt::Write;
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};

use super::decision::{Decision, Outcome, Verdict};

/// Which rate-limit fields responses carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderStyle {
    /// `RateLimit-Policy` and `RateLimit`.
    Draft,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`.
    Legacy,
    /// Both.
    Both,
    /// Neither.
    None,
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LEGACY_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const LEGACY_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const LEGACY_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

impl Verdict<'_> {
    /// Adds the rate-limit fields to a response, after upstream's own; Retry-After on denials
    /// (RFC 9110 §10.2.3) and on 503 of the limiter's own making.
    pub fn write_headers(&self, style: HeaderStyle, headers: &mut HeaderMap) {
        if matches!(style, HeaderStyle::Draft | HeaderStyle::Both) {
            self.write_draft(headers);
        }
        if matches!(style, HeaderStyle::Legacy | HeaderStyle::Both) {
            self.write_legacy(headers);
        }
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }

    /// What Retry-After says: whole seconds, rounded up, at least 1; `None` when the request
    /// was not refused or never will be admitted.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Denied { retry_after } => retry_after.map(whole_seconds),
            Outcome::Unavailable | Outcome::Overflow => Some(1),
            Outcome::Allowed { .. } | Outcome::AmbiguousKey => None,
        }
    }

    /// One list item per limit, on a line of its own behind those of upstream (RFC 9110 §5.3).
    fn write_draft(&self, headers: &mut HeaderMap) {
        let mut policies = String::with_capacity(64 * self.decisions.len());
        let mut limits = String::with_capacity(64 * self.decisions.len());
        for decision in self.decisions.iter().filter(|decision| is_shown(decision)) {
            let Some(limit) = decision.limit else { continue };
            let separator = if policies.is_empty() { "" } else { ", " };
            let bucket = limit.algorithm.bucket();
            let name = Quoted(&decision.policy.name);
            let full = whole_seconds(Duration::from_micros(bucket.reset_us(bucket.empty())));
            let _ = write!(policies, "{separator}{name};q={};w={full}", bucket.capacity);
            let _ = write!(limits, "{separator}{name};r={}", decision.remaining);
            if let Some(seconds) = time_of(decision) {
                let _ = write!(limits, ";t={seconds}");
            }
        }
        append(headers, POLICY, policies);
        append(headers, RATELIMIT, limits);
    }

    /// The tightest limit; upstream's own fields stay unless they clearly leave as much.
    fn write_legacy(&self, headers: &mut HeaderMap) {
        let Some(tightest) = self.tightest() else { return };
        let upstreams = |value: &HeaderValue| value.to_str().ok()?.trim().parse::<u64>().ok();
        let leaves_as_much = |value| upstreams(value).is_some_and(|remaining| remaining >= tightest.remaining);
        if !headers.get_all(LEGACY_REMAINING).iter().all(leaves_as_much) {
            return;
        }
        headers.insert(LEGACY_LIMIT, HeaderValue::from(tightest.capacity()));
        headers.insert(LEGACY_REMAINING, HeaderValue::from(tightest.remaining));
        headers.insert(LEGACY_RESET, HeaderValue::from(rounded_up(tightest.reset_after)));
    }
}

/// Whether a decision has an item in the fields.
fn is_shown(decision: &Decision<'_>) -> bool {
    decision.is_counted() && (decision.is_enforced() || decision.policy.shadow_headers)
}

/// `t`: seconds over which what remains may be spent without exceeding the rate; on a denial the
/// time to wait, and nothing when waiting is of no use.
fn time_of(decision: &Decision<'_>) -> Option<u64> {
    if !decision.allowed {
        return decision.retry_after.map(whole_seconds);
    }
    let bucket = decision.limit?.algorithm.bucket();
    let ticks = (u128::from(decision.remaining) * u128::from(bucket.period)).div_ceil(u128::from(bucket.rate));
    let seconds = (ticks * u128::from(bucket.tick)).div_ceil(1_000_000);
    Some(u64::try_from(seconds).unwrap_or(u64::MAX).max(1))
}

/// Whole seconds, rounded up, at least 1.
fn whole_seconds(duration: Duration) -> u64 {
    rounded_up(duration).max(1)
}

/// Whole seconds, rounded up.
fn rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A name as a structured field's string (RFC 9651 §3.3.3).
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_char('"')?;
        for letter in self.0.chars().filter(|letter| matches!(letter, ' '..='~')) {
            if matches!(letter, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(letter)?;
        }
        f.write_char('"')
    }
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value)
        && !value.is_empty()
    {
        headers.append(name, value);
    }
}

#[cfg(test)]
#[path = "headers/tests.rs"]
mod tests;
