//! The `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-11), their legacy cousins and Retry-After.
//! The draft may still change: only this module writes these fields.

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use smallvec::SmallVec;

use super::algorithm::Algorithm;
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
/// Of our own: no standard has a field for this. `"<limit>";used=<per cent of the burst>`.
const WARNING: HeaderName = HeaderName::from_static("x-ratelimit-warning");
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
        self.write_warning(headers);
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
        for decision in self.decisions.iter().filter(|decision| decision.is_told()) {
            let Some(limit) = decision.limit else { continue };
            let name = [&*decision.policy.name, &*limit.suffix];
            begin_item(&mut policies, name);
            push_number(&mut policies, b";q=", limit.algorithm.capacity());
            if matches!(limit.algorithm, Algorithm::InFlight(_)) {
                policies.extend_from_slice(b";qu=\"concurrent-requests\"");
            } else {
                let full = Duration::from_micros(limit.algorithm.fill_us());
                push_number(&mut policies, b";w=", whole_seconds(full));
            }
            begin_item(&mut limits, name);
            push_number(&mut limits, b";r=", decision.remaining);
            if let Some(seconds) = time_of(decision) {
                push_number(&mut limits, b";t=", seconds);
            }
        }
        append(headers, POLICY, &policies);
        append(headers, RATELIMIT, &limits);
    }

    /// One list item per limit that an admitted request has nearly used up, in every style: it was asked for.
    fn write_warning(&self, headers: &mut HeaderMap) {
        if !matches!(self.outcome, Outcome::Allowed { .. }) {
            return;
        }
        let mut line = Line::new();
        for decision in &self.decisions {
            let (Some(used), Some(limit)) = (decision.warning(), decision.limit) else { continue };
            begin_item(&mut line, [&*decision.policy.name, &*limit.suffix]);
            push_number(&mut line, b";used=", used);
        }
        append(headers, WARNING, &line);
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

/// `t`: seconds over which what remains may be spent without exceeding the rate; where nothing remains, the time
/// after which something does (at the latest); on a denial the time to wait, and nothing when waiting is of no use.
fn time_of(decision: &Decision<'_>) -> Option<u64> {
    if !decision.allowed {
        return decision.retry_after.map(whole_seconds);
    }
    let algorithm = &decision.limit?.algorithm;
    let micros = match algorithm {
        Algorithm::InFlight(_) => return None,
        // What is left may be spent until the window ends.
        Algorithm::FixedWindow(_) => micros(decision.reset_after),
        _ if decision.remaining == 0 => algorithm.next_unit_us(micros(decision.reset_after)),
        _ => algorithm.spend_us(decision.remaining),
    };
    Some(micros.div_ceil(1_000_000).max(1))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
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
fn begin_item(line: &mut Line, name: [&str; 2]) {
    if !line.is_empty() {
        line.extend_from_slice(b", ");
    }
    line.push(b'"');
    for byte in name.into_iter().flat_map(str::bytes).filter(|byte| matches!(byte, b' '..=b'~')) {
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
