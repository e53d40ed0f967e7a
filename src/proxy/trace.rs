//! The spans of one request: the request itself, the limit check, each attempt at an upstream, named as
//! OpenTelemetry's semantic conventions for HTTP have it. They are made as the request goes, and exported when its record ends.
//!
//! Who is in `trusted_proxies` may say which trace a request belongs to, and whether it is sampled. Others may not: their
//! requests begin a trace of their own, which is linked to the one that they named (Trace Context §4.2, "restart").

mod attributes;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use smallvec::SmallVec;

use super::attempt::{Answer, Miss};
use super::client::Client;
use super::request_body::RequestBody;
use super::{Downstream, Proxy};
use crate::limit::Verdict;
use crate::route::Route;
use crate::telemetry::traces::context::{SpanId, TRACEPARENT, TRACESTATE, TraceId, state};
use crate::telemetry::traces::span::{Entry, Kind, Value, nanos};
use crate::telemetry::traces::{Context, Span};
use crate::upstream::{Endpoint, Upstream};

/// Most attempts of one request that become spans.
const ATTEMPTS: usize = 16;

/// What is said of a request's trace.
#[derive(Debug)]
pub(super) enum Trace {
    /// The request is not recorded, and upstreams are told that.
    Silent(Context),
    /// It is.
    Recorded(Box<Recording>),
}

/// The spans of a request so far.
#[derive(Debug)]
pub(super) struct Recording {
    /// The request's own, as far as it is known.
    request: Span,
    /// When that began.
    started: Instant,
    /// The method, and the word for it.
    method: Value,
    route: Option<Arc<str>>,
    check: Option<Span>,
    /// The last one may not have ended yet.
    attempts: SmallVec<[Span; 1]>,
    /// Attempts beyond the first, the ones that are no spans too.
    resent: u32,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    /// Of the answer, unless the client left before there was one.
    pub(super) status: Option<StatusCode>,
    /// Why the answer is ours, or broke off.
    pub(super) error: Option<&'static str>,
    /// A limit denied it.
    pub(super) limited: bool,
}

impl Trace {
    /// Begins with the head of a request. There is nothing to say without tracing, nor where a trusted client's own
    /// word goes on as it is: that it records nothing.
    pub(super) fn begin(
        proxy: &Proxy,
        head: &Parts,
        client: &Client,
        downstream: &Downstream,
        started: Instant,
    ) -> Option<Box<Self>> {
        let tracer = proxy.tracer.as_ref()?;
        let told = Context::read(&head.headers);
        let (parent, link) = if downstream.trusted { (told, None) } else { (None, told) };
        let own = match parent {
            Some(parent) if !parent.sampled => return None,
            Some(parent) => Context { span: SpanId::random(), ..parent },
            None => tracer.root(),
        };
        if !own.sampled {
            return Some(Box::new(Self::Silent(own)));
        }
        let request = Span {
            trace: own.trace,
            id: own.span,
            parent: parent.map(|parent| parent.span),
            entry: if parent.is_some() { Entry::Remote } else { Entry::Local },
            state: parent.and_then(|_| state(&head.headers)),
            name: String::new(),
            kind: Kind::Server,
            begun: nanos(SystemTime::now()),
            ended: 0,
            attributes: attributes::of_request(head, client, downstream),
            failed: false,
            link,
        };
        Some(Box::new(Self::Recorded(Box::new(Recording {
            request,
            started,
            method: attributes::method(&head.method),
            route: None,
            check: None,
            attempts: SmallVec::new(),
            resent: 0,
        }))))
    }

    /// The spans, if there are any.
    pub(super) fn recording(&mut self) -> Option<&mut Recording> {
        match self {
            Self::Recorded(recording) => Some(recording),
            Self::Silent(_) => None,
        }
    }

    /// The trace's id, if the request is recorded.
    pub(super) fn id(&self) -> Option<TraceId> {
        match self {
            Self::Recorded(recording) => Some(recording.request.trace),
            Self::Silent(_) => None,
        }
    }

    /// Tells upstreams of it, in the sanitised fields of a client. Each attempt puts itself in the place of the
    /// request, unless the route has removed the field by then.
    pub(super) fn announce(&self, headers: &mut HeaderMap) {
        let (context, continued) = match self {
            Self::Silent(context) => (*context, false),
            Self::Recorded(recording) => (recording.context(recording.request.id), recording.request.parent.is_some()),
        };
        headers.insert(TRACEPARENT.clone(), context.field());
        if !continued {
            headers.remove(&TRACESTATE);
        }
    }
}

impl Recording {
    fn context(&self, span: SpanId) -> Context {
        Context { trace: self.request.trace, span, sampled: true }
    }

    /// Nanoseconds since 1970 of an instant after the request's beginning.
    fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.started);
        self.request.begun.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// A part of the request that begins at an instant.
    fn part(&self, name: String, kind: Kind, begun: u64) -> Span {
        Span {
            trace: self.request.trace,
            id: SpanId::random(),
            parent: Some(self.request.id),
            entry: Entry::Local,
            state: self.request.state.clone(),
            name,
            kind,
            begun,
            ended: 0,
            attributes: Vec::new(),
            failed: false,
            link: None,
        }
    }

    /// The canonical host and path are known.
    pub(super) fn canonical(&mut self, host: &str, path: &str) {
        attributes::canonical(&mut self.request.attributes, host, path);
    }

    /// The route is known.
    pub(super) fn matched(&mut self, route: &Route) {
        attributes::of_route(&mut self.request.attributes, route);
        let place = attributes::template(route).unwrap_or(&route.name);
        self.request.name = attributes::name(&self.method, place);
        self.route = Some(Arc::clone(&route.name)).filter(|name| !name.is_empty());
    }

    /// The limits were asked, beginning at `since`; where there are none, there is nothing to tell.
    pub(super) fn decided(&mut self, verdict: &Verdict<'_>, since: Instant) {
        if verdict.decisions.is_empty() {
            return;
        }
        let mut span = self.part("limit check".to_owned(), Kind::Internal, self.at(since));
        span.ended = self.now();
        span.attributes = attributes::of_verdict(verdict);
        self.check = Some(span);
    }

    /// The request is about to be sent to an endpoint, once more if it was before.
    pub(super) fn attempt(&mut self, upstream: &Upstream, endpoint: &Endpoint, request: &mut Request<RequestBody>) {
        let begun = self.now();
        let is_first = self.attempts.is_empty();
        self.resent += u32::from(!is_first);
        self.end_attempt(begun);
        if self.attempts.len() >= ATTEMPTS {
            return;
        }
        let mut span = self.part(attributes::name(&self.method, ""), Kind::Client, begun);
        span.attributes = attributes::of_attempt(upstream, endpoint, request);
        span.attributes.push(("http.request.method", self.method.clone()));
        if !is_first {
            span.attributes.push(("http.request.resend_count", Value::Integer(self.resent.into())));
        }
        let field = self.context(span.id).field();
        if let Some(place) = request.headers_mut().get_mut(&TRACEPARENT) {
            *place = field;
        }
        self.attempts.push(span);
    }

    /// What came of the last attempt. One that was answered lasts as long as its body, or until the next one.
    pub(super) fn attempted(&mut self, attempted: &Result<Answer, Miss>) {
        match attempted {
            Ok(answer) => {
                let Some(span) = self.open_attempt() else { return };
                attributes::of_answer(span, &answer.response);
            }
            Err(miss) => self.lost(miss.rejection().label()),
        }
    }

    /// The last attempt ended without an answer.
    pub(super) fn lost(&mut self, error: &'static str) {
        let now = self.now();
        let Some(span) = self.open_attempt() else { return };
        span.attributes.push(("error.type", Value::Word(error)));
        span.failed = true;
        span.ended = now;
    }

    fn open_attempt(&mut self) -> Option<&mut Span> {
        self.attempts.last_mut().filter(|span| span.ended == 0)
    }

    fn end_attempt(&mut self, at: u64) {
        if let Some(span) = self.open_attempt() {
            span.ended = at;
        }
    }

    /// The request is over, so long after its beginning: its spans.
    pub(super) fn finish(mut self, ending: Ending, total: Duration) -> Vec<Span> {
        let end = self.at(self.started + total);
        if let Some(span) = self.open_attempt() {
            attributes::cut_short(span, ending);
        }
        self.end_attempt(end);
        let mut request = self.request;
        if request.name.is_empty() {
            request.name = attributes::name(&self.method, "");
        }
        request.ended = end;
        request.attributes.push(("http.request.method", self.method));
        request.attributes.extend(self.route.map(|route| ("tollgate.route", Value::Name(route))));
        attributes::of_ending(&mut request, ending);
        let mut spans = Vec::with_capacity(2 + self.attempts.len());
        spans.push(request);
        spans.extend(self.check);
        spans.extend(self.attempts);
        spans
    }
}
