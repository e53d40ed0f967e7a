//! Tests of the limits as the configuration states them (`tests:`), ready to be run.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Map, Value};

/// Requests that are imagined, and what is expected of them.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Unique in the configuration.
    pub name: Box<str>,
    /// What is sent, in file order.
    pub sends: Vec<Sending>,
    /// What must come of it.
    pub expect: Expectation,
}

/// Requests that are alike.
#[derive(Debug, Clone)]
pub struct Sending {
    /// How many, at least 1.
    pub count: u64,
    /// Their method.
    pub method: Method,
    /// Their target; its host, when there is one, is their Host unless a field says otherwise.
    pub uri: Uri,
    /// The client's address, canonical.
    pub client: IpAddr,
    /// Their fields.
    pub headers: HeaderMap,
    /// What their verified token says, a JSON object; empty for those without one.
    pub claims: Map<String, Value>,
    /// The subject of the client's verified certificate (RFC 4514), if it showed one.
    pub tls_subject: Option<Box<str>>,
    /// When the first is sent, from the beginning of the test.
    pub at: Duration,
    /// Time between one and the next.
    pub every: Duration,
    /// How the upstream answers those that are admitted; `None`: nobody knows.
    pub answer: Option<Answer>,
}

/// An answer of the upstream.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
}

/// What must come of the requests; what is `None` (or empty) is not asked for.
#[derive(Debug, Clone, Default)]
pub struct Expectation {
    /// Requests that all limits admit.
    pub allowed: Option<u64>,
    /// Requests that a limit denies.
    pub denied: Option<u64>,
    /// The Retry-After of the first denial.
    pub retry_after: Option<RetryAfter>,
    /// Each denial is decided by one of these limits.
    pub denied_by: Vec<Arc<str>>,
    /// What the tightest limit has left after the last request.
    pub remaining: Option<u64>,
    /// The longest that an admitted request is held.
    pub longest_wait: Option<Duration>,
}

/// What the field Retry-After says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// Whole seconds.
    Seconds(u64),
    /// Nothing: waiting does not help.
    Never,
}
