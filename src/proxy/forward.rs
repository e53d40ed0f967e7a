//! From a prepared request to an upstream's response head: which endpoint, how often, how long, and whose
//! fault it is when there is none.
//!
//! A request goes to another endpoint when nothing of it was written: no connection could be had, or hyper
//! gave it back because a kept connection had ended meanwhile. Whatever may have been seen is sent again
//! only where the route says so, and only if that is safe: an idempotent method (RFC 9110 §9.2.2), no body,
//! and the budget not spent. 1xx answers of upstreams are read over by hyper and not passed on (RFC 9110
//! §15.2 allows a proxy that it was not asked by the client: 100 is ours to give); a server that sends
//! nothing else is given up.

use http::Request;
use tokio::time::Instant;

use super::Proxy;
use super::attempt::{Answer, Miss, copy};
use super::patience::Patience;
use super::record::Record;
use super::rejection::{Blame, Rejection};
use super::request_body::RequestBody;
use super::upgrade::Protocol;
use crate::upstream::announce::Origin;
use crate::upstream::breaker::{Passed, Switched};
use crate::upstream::connect::{Call, Wanted};
use crate::upstream::retry::{Retries, RetryOn};
use crate::upstream::selection::{Nobody, Selection, Wish};
use crate::upstream::{Endpoint, Upstream};

/// Where a request goes, and how much is done for an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journey<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) wish: Wish,
    pub(super) patience: Patience,
    pub(super) retries: Option<&'a Retries>,
    /// Whose request it is, where the server is to be told by the PROXY protocol.
    pub(super) origin: Option<Origin>,
}

/// What may be sent again of one request.
struct Again<'a> {
    retries: Option<&'a Retries>,
    spare: Option<Request<RequestBody>>,
    attempts: u32,
    begun: Instant,
    patience: Patience,
}

impl Proxy {
    /// Sends `request` to an endpoint of its upstream that takes it, and waits for the head of the response.
    pub(super) async fn forward(
        &self,
        journey: &Journey<'_>,
        request: Request<RequestBody>,
        record: &mut Record,
    ) -> Result<Answer, Rejection<'static>> {
        let Some(breaker) = &journey.upstream.settings.breaker else {
            return self.travel(journey, request, record).await;
        };
        let passed = breaker.pass().map_err(Rejection::BreakerOpen)?;
        let answer = self.travel(journey, request, record).await;
        judge(journey.upstream, passed, &answer);
        answer
    }

    async fn travel(
        &self,
        journey: &Journey<'_>,
        mut request: Request<RequestBody>,
        record: &mut Record,
    ) -> Result<Answer, Rejection<'static>> {
        let upstream = journey.upstream;
        let changes = request.extensions().get::<Protocol>().is_some();
        let wanted = if changes { Wanted::Http1 } else { Wanted::Any };
        let mut selection = Selection::new(upstream, journey.wish);
        let mut again = Again::new(journey, &request);
        let (mut last, mut sent) = (None, false);
        loop {
            let slot = match selection.next().await {
                Ok(slot) => slot,
                Err(Nobody::Left) if last.is_some() && again.may(&RetryOn::ConnectError) => {
                    again.pause().await;
                    selection.start_over();
                    continue;
                }
                Err(nobody) => return Err(last.unwrap_or_else(|| alone(nobody))),
            };
            if std::mem::replace(&mut sent, true) {
                record.retried(&slot.endpoint.server);
            }
            record.sent_to(upstream, &slot.endpoint, &mut request);
            let call = Call { upstream, endpoint: &slot.endpoint, wanted, origin: journey.origin };
            let attempted = self.pool.attempt(&call, request, again.patience(), record).await;
            self.note(upstream, &slot.endpoint, &attempted);
            record.attempted(&attempted);
            let copy = match attempted {
                Ok(answer) => match again.after_answer(&answer) {
                    None => return Ok(answer.holding(slot)),
                    Some(copy) => copy,
                },
                Err(Miss::Lost(rejection)) => match again.after_loss(&rejection) {
                    None => return Err(rejection),
                    Some(copy) => copy,
                },
                Err(Miss::Unsent(unsent, returned)) => {
                    (request, last) = (*returned, Some(unsent.rejection()));
                    continue;
                }
            };
            request = copy;
            drop(slot);
            again.pause().await;
            selection.start_over();
        }
    }

    /// Remembers how an endpoint did.
    fn note(&self, upstream: &Upstream, endpoint: &Endpoint, attempted: &Result<Answer, Miss>) {
        let server = &endpoint.server;
        match attempted {
            Ok(answer) => {
                let status = answer.response.status();
                endpoint.outage.answered(&upstream.name, &server.label);
                self.stats.upstream(server.ordinal, Some(status));
                if upstream.settings.health.is_failure(status) {
                    upstream.suspect(endpoint);
                }
            }
            Err(miss) => {
                self.stats.upstream(server.ordinal, None);
                if miss.rejection().blame() == Blame::Upstream {
                    endpoint.outage.failed(&upstream.name, &server.label, miss.why());
                    upstream.suspect(endpoint);
                }
            }
        }
    }
}

impl<'a> Again<'a> {
    fn new(journey: &Journey<'a>, request: &Request<RequestBody>) -> Self {
        if let Some(retries) = journey.retries {
            retries.budget.earn();
        }
        // Nothing is copied where nothing can be sent again.
        let repeatable = journey.retries.is_some() && request.method().is_idempotent();
        let spare = if repeatable { copy(request) } else { None };
        Self { retries: journey.retries, spare, attempts: 0, begun: Instant::now(), patience: journey.patience }
    }

    /// Whether there is another attempt after this; then it is counted.
    fn may(&mut self, what: &RetryOn) -> bool {
        self.retries.is_some_and(|retries| retries.covers(what)) && self.begin()
    }

    fn begin(&mut self) -> bool {
        let begins = self.retries.is_some_and(|retries| {
            self.attempts < retries.attempts && self.begun.elapsed() < self.patience.limit && retries.budget.spend()
        });
        self.attempts += u32::from(begins);
        begins
    }

    /// The request once more, if this answer is not the one to give.
    fn after_answer(&mut self, answer: &Answer) -> Option<Request<RequestBody>> {
        let status = answer.response.status().as_u16();
        let covered = self.spare.is_some() && self.retries.is_some_and(|retries| retries.covers_status(status));
        if covered && self.begin() { self.spare.as_ref().and_then(copy) } else { None }
    }

    /// The request once more, if what happened to it allows that.
    fn after_loss(&mut self, rejection: &Rejection<'_>) -> Option<Request<RequestBody>> {
        let what = match rejection {
            Rejection::Reset | Rejection::Garbage | Rejection::Informational => RetryOn::Reset,
            Rejection::ResponseTimeout => RetryOn::Timeout,
            _ => return None,
        };
        if self.spare.is_some() && self.may(&what) { self.spare.as_ref().and_then(copy) } else { None }
    }

    /// How long the head of the next response is waited for.
    fn patience(&self) -> Patience {
        let Some(retries) = self.retries else { return self.patience };
        let left = self.patience.limit.saturating_sub(self.begun.elapsed());
        self.patience.at_most(retries.per_try_timeout.unwrap_or(left).min(left))
    }

    async fn pause(&self) {
        tokio::time::sleep(Retries::pause(self.attempts)).await;
    }
}

/// Why there is no endpoint to ask.
fn alone(nobody: Nobody) -> Rejection<'static> {
    match nobody {
        Nobody::Left => Rejection::NoEndpoint,
        Nobody::Busy => Rejection::Busy,
    }
}

/// Tells the breaker how it went; what the client is to blame for says nothing.
fn judge(upstream: &Upstream, passed: Passed<'_>, answer: &Result<Answer, Rejection<'_>>) {
    let failed = match answer {
        Ok(answer) => answer.response.status().is_server_error(),
        Err(rejection) if rejection.blame() == Blame::Upstream => true,
        Err(_) => return,
    };
    match if failed { passed.failed() } else { passed.succeeded() } {
        Some(Switched::Opened) => tracing::warn!(upstream = &*upstream.name, "circuit breaker opened"),
        Some(Switched::Closed) => tracing::info!(upstream = &*upstream.name, "circuit breaker closed"),
        None => {}
    }
}
