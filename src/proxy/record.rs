//! What is told about a request once it is over: counted always, logged where the access log is on.
//! A record completes itself when dropped, which is when the response body or the tunnel ends, or the
//! client leaves. What must last as long as the request does belongs in here.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};

use super::body::BodyError;
use super::client::Client;
use super::rejection::Rejection;
use super::request_body::Upload;
use super::{Body, Proxy};
use crate::config::Config;
use crate::limit::bill::Answered;
use crate::limit::{Bill, Decision, Outcome, Source, Verdict};
use crate::route::Route;
use crate::telemetry::access_log::Line;
use crate::upstream::Server;

/// The client left before there was an answer (nginx's number).
const CLIENT_LEFT: u16 = 499;

/// The record of one request.
#[derive(Debug)]
pub(super) struct Record {
    proxy: Rc<Proxy>,
    started: Instant,
    method: Method,
    route: usize,
    status: StatusCode,
    /// Time before the request was forwarded that was ours.
    overhead: Option<Duration>,
    /// Bytes received through a tunnel.
    tunnel_in: u64,
    bytes_out: u64,
    limited: bool,
    /// Whether a shadow limit would have denied it.
    shadowed: bool,
    own_error: Option<&'static str>,
    /// What the request has open with its limits; settled when it ends.
    bill: Option<Bill>,
    /// How much of the request's body came.
    upload: Option<Rc<Upload>>,
    /// Only with an access log.
    entry: Option<Box<Entry>>,
}

/// What only the access log wants to know.
#[derive(Debug)]
struct Entry {
    at: SystemTime,
    request_id: HeaderValue,
    client: Option<IpAddr>,
    version: Version,
    host: Box<str>,
    path: Box<str>,
    query: bool,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    route: Option<Arc<str>>,
    upload: Option<Rc<Upload>>,
    forwarded: Option<Instant>,
    upstream_time: Option<Duration>,
    limit_time: Duration,
    server: Option<Arc<str>>,
    retries: u32,
    limit: Option<Arc<str>>,
    decision: Option<&'static str>,
    remaining: Option<u64>,
    decided_at_us: Option<i64>,
    degraded: bool,
}

impl Record {
    /// Begins with the head of a request.
    #[must_use]
    pub(super) fn begin(proxy: &Rc<Proxy>, head: &Parts, client: &Client, config: &Config) -> Self {
        Self {
            proxy: Rc::clone(proxy),
            started: Instant::now(),
            method: head.method.clone(),
            // Until a route is found it counts as one that matched nothing.
            route: config.router.routes().last().map_or(0, |unmatched| unmatched.index),
            status: StatusCode::from_u16(CLIENT_LEFT).unwrap_or(StatusCode::BAD_REQUEST),
            overhead: None,
            tunnel_in: 0,
            bytes_out: 0,
            limited: false,
            shadowed: false,
            own_error: None,
            bill: None,
            upload: None,
            entry: proxy.access_log.is_some().then(|| Box::new(Entry::begin(head, client))),
        }
    }

    /// The canonical host and path are known.
    pub(super) fn canonical(&mut self, host: &str, path: &str) {
        if let Some(entry) = &mut self.entry {
            entry.host = host.into();
            entry.path = path.into();
        }
    }

    /// The route is known.
    pub(super) fn matched(&mut self, route: &Route) {
        self.route = route.index;
        if let Some(entry) = &mut self.entry {
            entry.route = Some(Arc::clone(&route.name));
        }
    }

    /// When a measured step begins; only the access log tells its length.
    #[must_use]
    pub(super) fn clock(&self) -> Option<Instant> {
        self.entry.as_ref().map(|_| Instant::now())
    }

    /// The limits were asked, beginning at `since`.
    pub(super) fn decided(&mut self, verdict: &Verdict<'_>, since: Option<Instant>) {
        self.limited = matches!(verdict.outcome, Outcome::Denied { .. });
        self.shadowed = verdict.decisions.iter().any(|decision| !decision.allowed && !decision.is_enforced());
        if let Some(entry) = &mut self.entry {
            entry.limit_time = since.map(|since| since.elapsed()).unwrap_or_default();
            entry.decided(verdict);
        }
    }

    /// What the request has open with its limits until it ends.
    pub(super) fn owes(&mut self, bill: Option<Bill>) {
        self.bill = bill;
    }

    /// The answer is known: what it changes is settled.
    pub(super) fn settle(&mut self, status: StatusCode, headers: &HeaderMap, answered: Answered) {
        if let Some(bill) = &mut self.bill {
            bill.answered(status, headers, answered);
        }
    }

    /// The request is about to be forwarded, after having been held for `held`.
    pub(super) fn forwarding(&mut self, held: Duration, upload: Option<Rc<Upload>>) {
        let now = Instant::now();
        self.overhead = Some((now - self.started).saturating_sub(held));
        if let Some(entry) = &mut self.entry {
            entry.forwarded = Some(now);
            entry.upload.clone_from(&upload);
        }
        self.upload = upload;
    }

    /// A server was chosen.
    pub(super) fn sent_to(&mut self, server: &Server) {
        if let Some(entry) = &mut self.entry {
            entry.server = Some(Arc::clone(&server.label));
        }
    }

    /// The request is sent once more, to this server.
    pub(super) fn retried(&mut self, server: &Server) {
        self.proxy.stats.retried(server.index);
        if let Some(entry) = &mut self.entry {
            entry.retries += 1;
        }
    }

    /// The upstream's head is there.
    pub(super) fn upstream_answered(&mut self) {
        if let Some(entry) = &mut self.entry {
            entry.upstream_time = entry.forwarded.map(|forwarded| forwarded.elapsed());
        }
    }

    /// We answer ourselves.
    pub(super) fn rejected(&mut self, rejection: &Rejection<'_>) {
        self.own_error = Some(rejection.label());
        self.proxy.stats.rejected(rejection.label());
        let status = rejection.status().as_u16();
        tracing::debug!(status, error = rejection.label(), route = self.route_name(), "request rejected");
    }

    /// The response's head is complete.
    pub(super) fn answered(mut self, response: &mut Response<Body>) {
        self.status = response.status();
        response.body_mut().record(self);
    }

    /// The response's head is complete, and the connection changes protocols behind it: the record
    /// goes along.
    pub(super) fn switched(mut self, response: &Response<Body>) -> Self {
        self.status = response.status();
        self
    }

    /// How much has gone through the tunnel: from the client, and to it.
    pub(super) fn carried(&mut self, received: u64, sent: u64) {
        self.tunnel_in = received;
        self.bytes_out = sent;
    }

    /// The tunnel ended otherwise than by its two sides.
    pub(super) fn failed(&mut self, error: &'static str) {
        self.own_error = Some(error);
        tracing::debug!(error, route = self.route_name(), "tunnel ended");
    }

    /// Body bytes were sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The response broke off after its head.
    pub(super) fn broke_off(&mut self, error: &BodyError) {
        self.own_error = Some(match error {
            BodyError::Upstream(_) | BodyError::CutShort => "response_broke_off",
            BodyError::Stalled => "response_stalled",
        });
        tracing::debug!(%error, "upstream response cut");
    }

    fn route_name(&self) -> Option<&str> {
        self.entry.as_ref().and_then(|entry| entry.route.as_deref())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let (Some(bill), Some(upload)) = (&mut self.bill, &self.upload) {
            bill.received(upload.bytes());
        }
        let total = self.started.elapsed();
        let overhead = self.overhead.unwrap_or(total);
        self.proxy.stats.request(self.route, &self.method, self.status, total);
        self.proxy.stats.own_time(overhead);
        if self.limited {
            self.proxy.stats.limited(self.route);
        }
        if self.shadowed {
            self.proxy.stats.shadowed(self.route);
        }
        if let (Some(entry), Some(log)) = (&self.entry, &self.proxy.access_log)
            && log.wants(self.status, self.limited, self.own_error.is_some())
        {
            log.write(&entry.line(self, total));
        }
    }
}

impl Entry {
    fn begin(head: &Parts, client: &Client) -> Self {
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

    fn decided(&mut self, verdict: &Verdict<'_>) {
        let deciding = verdict.deciding().or_else(|| verdict.tightest());
        self.decision = match verdict.outcome {
            _ if verdict.decisions.is_empty() => None,
            Outcome::Allowed { wait } if wait.is_zero() => Some("allowed"),
            Outcome::Allowed { .. } => Some("delayed"),
            Outcome::Denied { .. } => Some("denied"),
            Outcome::Unavailable | Outcome::Overflow => Some("unavailable"),
            Outcome::AmbiguousKey => None,
        };
        self.limit = deciding.map(|decision| Arc::clone(&decision.policy.name));
        self.remaining = deciding.map(|decision| decision.remaining);
        self.decided_at_us = verdict.decided_at_us;
        let by_store = |decision: &Decision<'_>| matches!(decision.source, Source::Store | Source::Remembered);
        self.degraded = !verdict.decisions.iter().all(by_store);
    }

    fn line<'a>(&'a self, record: &'a Record, total: Duration) -> Line<'a> {
        Line {
            at: self.at,
            request_id: self.request_id.to_str().unwrap_or_default(),
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
