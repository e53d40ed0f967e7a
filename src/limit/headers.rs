//! The `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-11), their legacy cousins and Retry-After.
//! The draft may still change: only this module writes these fields.

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use smallvec::SmallVec;

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
        let (mut policies, mut limits) = (Line::new(), Line::new());
        for decision in self.decisions.iter().filter(|decision| is_shown(decision)) {
            let Some(limit) = decision.limit else { continue };
            let bucket = limit.algorithm.bucket();
            let full = whole_seconds(Duration::from_micros(bucket.reset_us(bucket.empty())));
            begin_item(&mut policies, &decision.policy.name);
            push_number(&mut policies, b";q=", bucket.capacity);
            push_number(&mut policies, b";w=", full);
            begin_item(&mut limits, &decision.policy.name);
            push_number(&mut limits, b";r=", decision.remaining);
            if let Some(seconds) = time_of(decision) {
                push_number(&mut limits, b";t=", seconds);
            }
        }
        append(headers, POLICY, &policies);
        append(headers, RATELIMIT, &limits);
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

/// A field's value while it is written; the usual one needs no allocation of its own.
type Line = SmallVec<[u8; 128]>;

/// Begins a list item with a name as a structured field's string (RFC 9651 §3.3.3).
fn begin_item(line: &mut Line, name: &str) {
    if !line.is_empty() {
        line.extend_from_slice(b", ");
    }
    line.push(b'"');
    for byte in name.bytes().filter(|byte| matches!(byte, b' '..=b'~')) {
        if matches!(byte, b'"' | b'\\') {
            line.push(b'\\');
        }
        line.push(byte);
    }
    line.push(b'"');
}

/// Adds a parameter and its value.
fn push_number(line: &mut Line, parameter: &[u8], value: u64) {
    line.extend_from_slice(parameter);
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn append(headers: &mut HeaderMap, name: HeaderName, line: &[u8]) {
    if !line.is_empty()
        && let Ok(value) = HeaderValue::from_bytes(line)
    {
        headers.append(name, value);
    }
}

#[cfg(test)]
#[path = "headers/tests.rs"]
mod tests;
