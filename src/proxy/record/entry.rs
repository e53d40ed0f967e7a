//! What the access log is told of a request, gathered while it is under way.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::request::Parts;
use http::{HeaderValue, Version, header};

use super::Record;
use crate::limit::{Decision, Outcome, Source, Verdict};
use crate::proxy::client::Client;
use crate::proxy::request_body::Upload;
use crate::telemetry::access_log::Line;

/// What only the access log wants to know.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: SystemTime,
    pub(super) request_id: HeaderValue,
    pub(super) client: Option<IpAddr>,
    pub(super) version: Version,
    pub(super) host: Box<str>,
    pub(super) path: Box<str>,
    pub(super) query: bool,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) referer: Option<HeaderValue>,
    pub(super) route: Option<Arc<str>>,
    pub(super) upload: Option<Rc<Upload>>,
    pub(super) forwarded: Option<Instant>,
    pub(super) upstream_time: Option<Duration>,
    pub(super) limit_time: Duration,
    pub(super) server: Option<Arc<str>>,
    pub(super) retries: u32,
    pub(super) limit: Option<Arc<str>>,
    pub(super) decision: Option<&'static str>,
    pub(super) remaining: Option<u64>,
    pub(super) decided_at_us: Option<i64>,
    pub(super) degraded: bool,
}

impl Entry {
    pub(super) fn begin(head: &Parts, client: &Client) -> Self {
        Self {
            at: SystemTime::now(),
            request_id: client.request_id.clone(),
            client: client.address,
            version: head.version,
            host: Box::default(),
            path: head.uri.path().into(),
            query: head.uri.query().is_some(),
            user_agent: head.headers.get(header::USER_AGENT).cloned(),
            referer: head.headers.get(header::REFERER).cloned(),
            route: None,
            upload: None,
            forwarded: None,
            upstream_time: None,
            limit_time: Duration::ZERO,
            server: None,
            retries: 0,
            limit: None,
            decision: None,
            remaining: None,
            decided_at_us: None,
            degraded: false,
        }
    }

    pub(super) fn decided(&mut self, verdict: &Verdict<'_>) {
        let deciding = verdict.deciding().or_else(|| verdict.tightest());
        self.decision = decision_word(verdict);
        self.limit = deciding.map(|decision| Arc::clone(&decision.policy.name));
        self.remaining = deciding.map(|decision| decision.remaining);
        self.decided_at_us = verdict.decided_at_us;
        self.degraded = is_degraded(verdict);
    }

    pub(super) fn line<'a>(&'a self, record: &'a Record, total: Duration) -> Line<'a> {
        Line {
            at: self.at,
            request_id: self.request_id.to_str().unwrap_or_default(),
            trace_id: None,
            client: self.client,
            method: &record.method,
            version: self.version,
            host: &self.host,
            path: &self.path,
            query: self.query,
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            referer: self
                .referer
                .as_ref()
                .and_then(|referer| referer.as_bytes().split(|byte| matches!(byte, b'?' | b'#')).next()),
            route: self.route.as_deref().unwrap_or_default(),
            status: record.status,
            bytes_in: record.tunnel_in + self.upload.as_ref().map_or(0, |upload| upload.bytes()),
            bytes_out: record.bytes_out,
            total,
            upstream_time: self.upstream_time,
            limit_time: self.limit_time,
            server: self.server.as_deref(),
            retries: self.retries,
            limit: self.limit.as_deref(),
            decision: self.decision,
            remaining: self.remaining,
            decided_at_us: self.decided_at_us,
            degraded: self.degraded,
            error: record.own_error,
        }
    }
}

/// What the limits made of a request, in a word.
pub(in crate::proxy) fn decision_word(verdict: &Verdict<'_>) -> Option<&'static str> {
    match verdict.outcome {
        _ if verdict.decisions.is_empty() => None,
        Outcome::Allowed { wait } if wait.is_zero() => Some("allowed"),
        Outcome::Allowed { .. } => Some("delayed"),
        Outcome::Denied { .. } => Some("denied"),
        Outcome::Unavailable | Outcome::Overflow => Some("unavailable"),
        Outcome::AmbiguousKey => None,
    }
}

pub(in crate::proxy) fn is_degraded(verdict: &Verdict<'_>) -> bool {
    let by_store = |decision: &Decision<'_>| matches!(decision.source, Source::Store | Source::Remembered);
    !verdict.decisions.iter().all(by_store)
}
