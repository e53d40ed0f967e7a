//! What is told about a request once it is over: counted always, logged where the access log is on.
//! A record completes itself when dropped, which is when the response body or the tunnel ends, the
//! client leaves, or the process cuts it. What must last as long as the request does belongs in here.

mod entry;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::sync::watch;

use super::attempt::{Answer, Miss};
use super::body::BodyError;
use super::client::Client;
use super::connection::Phase;
use super::cut::Cut;
use super::rejection::Rejection;
use super::request_body::{RequestBody, Upload};
use super::trace::{Ending, Recording, Trace};
use super::{Body, Downstream, Proxy};
use crate::config::Config;
use crate::limit::bill::Answered;
use crate::limit::{Bill, Outcome, Verdict};
use crate::route::Route;
use crate::telemetry::access_log::Line;
use crate::upstream::{Endpoint, Server, Upstream};
use entry::Entry;
pub(super) use entry::{decision_word, is_degraded};

/// The client left before there was an answer (nginx's number).
const CLIENT_LEFT: u16 = 499;

/// The record of one request.
#[derive(Debug)]
pub(super) struct Record {
    proxy: Rc<Proxy>,
    /// How far the listener is from its end.
    phase: Rc<watch::Receiver<Phase>>,
    started: Instant,
    method: Method,
    route: usize,
    status: StatusCode,
    stage: Stage,
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
    /// Only with tracing.
    trace: Option<Box<Trace>>,
}

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is none yet.
    Asked,
    /// Its head is complete; a body or a tunnel is under way.
    Answered,
    /// There is nothing more to come.
    Complete,
}

impl Record {
    /// Begins with the head of a request.
    #[must_use]
    pub(super) fn begin(
        proxy: &Rc<Proxy>,
        head: &Parts,
        client: &Client,
        downstream: &Downstream,
        config: &Config,
    ) -> Self {
        let started = Instant::now();
        Self {
            proxy: Rc::clone(proxy),
            phase: Rc::clone(&downstream.phase),
            started,
            method: head.method.clone(),
            // Until a route is found it counts as one that matched nothing.
            route: config.router.routes().last().map_or(0, |unmatched| unmatched.ordinal),
            status: StatusCode::from_u16(CLIENT_LEFT).unwrap_or(StatusCode::BAD_REQUEST),
            stage: Stage::Asked,
            overhead: None,
            tunnel_in: 0,
            bytes_out: 0,
            limited: false,
            shadowed: false,
            own_error: None,
            bill: None,
            upload: None,
            entry: proxy.access_log.is_some().then(|| Box::new(Entry::begin(head, client))),
            trace: Trace::begin(proxy, head, client, downstream, started),
        }
    }

    /// The canonical host and path are known.
    pub(super) fn canonical(&mut self, host: &str, path: &str) {
        if let Some(entry) = &mut self.entry {
            entry.host = host.into();
            entry.path = path.into();
        }
        if let Some(recording) = self.recording() {
            recording.canonical(host, path);
        }
    }

    /// The route is known.
    pub(super) fn matched(&mut self, route: &Route) {
        self.route = route.ordinal;
        if let Some(entry) = &mut self.entry {
            entry.route = Some(Arc::clone(&route.name));
        }
        if let Some(recording) = self.recording() {
            recording.matched(route);
        }
    }

    /// When a measured step begins; only the access log and spans tell its length.
    #[must_use]
    pub(super) fn clock(&self) -> Option<Instant> {
        let told = self.entry.is_some() || self.trace.as_deref().is_some_and(|trace| trace.id().is_some());
        told.then(Instant::now)
    }

    /// The limits were asked, beginning at `since`.
    pub(super) fn decided(&mut self, verdict: &Verdict<'_>, since: Option<Instant>) {
        self.limited = matches!(verdict.outcome, Outcome::Denied { .. });
        self.shadowed = verdict.decisions.iter().any(|decision| !decision.allowed && !decision.is_enforced());
        if let Some(entry) = &mut self.entry {
            entry.limit_time = since.map(|since| since.elapsed()).unwrap_or_default();
            entry.decided(verdict);
        }
        if let (Some(recording), Some(since)) = (self.recording(), since) {
            recording.decided(verdict, since);
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

    /// Tells upstreams which trace the request belongs to, in the sanitised fields of its client.
    pub(super) fn announce(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.announce(headers);
        }
    }

    /// A server was chosen.
    pub(super) fn sent_to(&mut self, upstream: &Upstream, endpoint: &Endpoint, request: &mut Request<RequestBody>) {
        if let Some(entry) = &mut self.entry {
            entry.server = Some(Arc::clone(&endpoint.server.label));
        }
        if let Some(recording) = self.recording() {
            recording.attempt(upstream, endpoint, request);
        }
    }

    /// What came of it.
    pub(super) fn attempted(&mut self, attempted: &Result<Answer, Miss>) {
        if let Some(recording) = self.recording() {
            recording.attempted(attempted);
        }
    }

    /// The kept connection had ended: the request is sent to the same endpoint once more.
    pub(super) fn resent(&mut self, upstream: &Upstream, endpoint: &Endpoint, request: &mut Request<RequestBody>) {
        self.retried(&endpoint.server);
        if let Some(recording) = self.recording() {
            recording.lost("connection_ended");
            recording.attempt(upstream, endpoint, request);
        }
    }

    /// The request is sent once more, to this server.
    pub(super) fn retried(&mut self, server: &Server) {
        self.proxy.stats.retried(server.ordinal);
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
        self.head(response.status());
        if response.body().is_end_stream() {
            self.completed();
        }
        response.body_mut().record(self);
    }

    /// The response's head is complete, and the connection changes protocols behind it: the record
    /// goes along.
    pub(super) fn switched(mut self, response: &Response<Body>) -> Self {
        self.head(response.status());
        self
    }

    fn head(&mut self, status: StatusCode) {
        (self.status, self.stage) = (status, Stage::Answered);
    }

    /// The answer has come to its end, or the tunnel to the end that its sides gave it.
    pub(super) fn completed(&mut self) {
        self.stage = Stage::Complete;
    }

    /// How much has gone through the tunnel: from the client, and to it.
    pub(super) fn carried(&mut self, received: u64, sent: u64) {
        self.tunnel_in = received;
        self.bytes_out = sent;
    }

    /// The tunnel ended otherwise than by its two sides.
    pub(super) fn failed(&mut self, cut: Cut) {
        self.own_error = Some(cut.label());
        tracing::debug!(error = cut.label(), route = self.route_name(), "tunnel ended");
    }

    /// Body bytes were sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The response broke off after its head.
    pub(super) fn broke_off(&mut self, error: &BodyError) {
        let cut = match error {
            BodyError::Upstream(_) | BodyError::CutShort => Cut::BrokeOff,
            BodyError::Stalled => Cut::Stalled,
        };
        self.own_error = Some(cut.label());
        tracing::debug!(%error, "upstream response cut");
    }

    /// Whoever was still served when the process stopped did not leave: it was cut.
    fn note_shutdown(&mut self) {
        let open = self.stage != Stage::Complete && self.own_error.is_none();
        if !open || *self.phase.borrow() < Phase::Stopped {
            return;
        }
        self.own_error = Some(Cut::Shutdown.label());
        if self.stage == Stage::Asked {
            self.status = StatusCode::SERVICE_UNAVAILABLE;
        }
    }

    /// Its spans, where it is traced.
    fn recording(&mut self) -> Option<&mut Recording> {
        self.trace.as_deref_mut().and_then(Trace::recording)
    }

    /// How it ended, for its span.
    fn ending(&self) -> Ending {
        let left = self.status.as_u16() == CLIENT_LEFT && self.own_error.is_none();
        Ending { status: (!left).then_some(self.status), error: self.own_error, limited: self.limited }
    }

    fn route_name(&self) -> Option<&str> {
        self.entry.as_ref().and_then(|entry| entry.route.as_deref())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.note_shutdown();
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
            let trace_id = self.trace.as_deref().and_then(Trace::id).map(|id| id.to_string());
            log.write(&Line { trace_id: trace_id.as_deref(), ..entry.line(self, total) });
        }
        if let Some(Trace::Recorded(recording)) = self.trace.take().map(|trace| *trace) {
            let spans = recording.finish(self.ending(), total);
            if let Some(tracer) = &self.proxy.tracer {
                tracer.send(spans);
            }
        }
    }
}
