//! From a prepared request to an upstream's response head: which endpoint, which connection, how
//! long, and whose fault it is when there is none.
//!
//! A request is sent a second time only when nothing of the first was written: no connection could
//! be had, or hyper gave the request back because a pooled connection had ended meanwhile. 1xx
//! answers of upstreams are read over by hyper and not passed on (RFC 9110 §15.2 allows a proxy
//! that it was not asked by the client: 100 is ours to give).

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::header::HOST;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::Proxy;
use super::handler::HostOfServer;
use super::headers;
use super::pool::{ConnectError, Lease};
use super::record::Record;
use super::rejection::{Blame, Rejection};
use super::request_body::{Progress, RequestBody, RequestBodyError, Upload};
use super::upgrade::Protocol;
use crate::upstream::{Endpoint, Upstream};

/// An upstream's answer and the connection its body comes from.
#[derive(Debug)]
pub struct Answer {
    /// Head, and the body still to be read.
    pub response: Response<Incoming>,
    /// The connection.
    pub lease: Lease,
}

/// A response head that did not come.
enum HeadError {
    /// Nothing was written; the request can go elsewhere.
    Unsent(Box<Request<RequestBody>>),
    /// It may have been seen: the end.
    Failed(Rejection<'static>),
}

type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

impl Proxy {
    /// Sends `request` to the first endpoint of `upstream` that takes it, and waits for the head of
    /// its response for `limit` after the request was sent.
    pub(super) async fn forward(
        &self,
        upstream: &Upstream,
        mut request: Request<RequestBody>,
        limit: Duration,
        record: &mut Record,
    ) -> Result<Answer, Rejection<'static>> {
        let upload = request.body().upload();
        let asked = request.extensions().get::<Protocol>().copied();
        let names_server = request.extensions().get::<HostOfServer>().is_some();
        let mut rejection = Rejection::NoEndpoint;
        for endpoint in upstream.in_turn() {
            record.sent_to(endpoint);
            if names_server {
                request.headers_mut().insert(HOST, endpoint.host.clone());
            }
            let mut lease = self.pool.checkout(upstream, endpoint).await;
            // At most twice: what is not reused cannot be stale.
            loop {
                let mut taken = match lease {
                    Ok(taken) => taken,
                    Err(error) => {
                        self.failed(upstream, endpoint, &error);
                        rejection = unreachable(&error);
                        break;
                    }
                };
                let sent = taken.sender().try_send_request(request);
                match head(sent, upload.as_deref(), limit).await {
                    Ok(response) => return self.accept(upstream, endpoint, Answer { response, lease: taken }, asked),
                    Err(HeadError::Failed(rejection)) => {
                        if rejection.blame() == Blame::Upstream {
                            self.failed(upstream, endpoint, rejection.label());
                        } else {
                            self.stats.upstream(endpoint.id.0, None);
                        }
                        return Err(rejection);
                    }
                    Err(HeadError::Unsent(returned)) => request = *returned,
                }
                record.retried();
                self.stats.retried(endpoint.id.0);
                rejection = Rejection::Reset;
                if !taken.reused() {
                    break;
                }
                lease = self.pool.connect(upstream, endpoint).await;
            }
        }
        Err(rejection)
    }

    fn failed(&self, upstream: &Upstream, endpoint: &Endpoint, error: impl Display) {
        self.stats.upstream(endpoint.id.0, None);
        endpoint.outage.failed(&upstream.name, &endpoint.label, error);
    }

    fn accept(
        &self,
        upstream: &Upstream,
        endpoint: &Endpoint,
        answer: Answer,
        asked: Option<Protocol>,
    ) -> Result<Answer, Rejection<'static>> {
        if let Err(rejection) = understand(&answer.response, asked) {
            self.failed(upstream, endpoint, rejection.label());
            return Err(rejection);
        }
        endpoint.outage.answered(&upstream.name, &endpoint.label);
        self.stats.upstream(endpoint.id.0, Some(answer.response.status()));
        Ok(answer)
    }
}

/// Whether a response's head means what the client will take it for.
fn understand(response: &Response<Incoming>, asked: Option<Protocol>) -> Result<(), Rejection<'static>> {
    let understood = match asked {
        _ if response.status() != StatusCode::SWITCHING_PROTOCOLS => headers::is_coded_as_asked(response.headers()),
        Some(protocol) if protocol.is_granted(response.headers()) => true,
        Some(_) => return Err(Rejection::Upgrade),
        // It answers nothing we said.
        None => false,
    };
    if understood { Ok(()) } else { Err(Rejection::Garbage) }
}

/// Waits for a response head. The clock starts when the request was sent; while its body is under
/// way, the upstream must go on taking it.
async fn head(
    sent: impl Future<Output = Sent>,
    upload: Option<&Upload>,
    limit: Duration,
) -> Result<Response<Incoming>, HeadError> {
    let mut sent = pin!(sent);
    let mut deadline = Instant::now() + limit;
    let mut seen = None;
    loop {
        if let Ok(sent) = timeout_at(deadline, sent.as_mut()).await {
            return sent.map_err(failed);
        }
        let progress = upload.map_or(Progress::Ended(None), Upload::progress);
        match progress {
            Progress::Ended(Some(at)) if at + limit > deadline => deadline = at + limit,
            Progress::Ended(_) => return Err(HeadError::Failed(Rejection::ResponseTimeout)),
            Progress::Taken(_) if seen == Some(progress) => return Err(HeadError::Failed(Rejection::UploadStalled)),
            Progress::Taken(_) | Progress::WaitsForClient => {
                seen = Some(progress);
                deadline = Instant::now() + limit;
            }
        }
    }
}

fn failed(mut error: TrySendError<Request<RequestBody>>) -> HeadError {
    match error.take_message() {
        Some(request) => HeadError::Unsent(Box::new(request)),
        None => HeadError::Failed(broken(error.error())),
    }
}

/// Why a request that was sent got no response.
fn broken(error: &hyper::Error) -> Rejection<'static> {
    match RequestBodyError::behind(error) {
        Some(RequestBodyError::Broken(_)) => Rejection::BadBody,
        Some(RequestBodyError::Stalled) => Rejection::SlowBody,
        Some(RequestBodyError::TooLarge) => Rejection::TooLarge,
        None if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() => Rejection::Garbage,
        None => Rejection::Reset,
    }
}

/// Why an endpoint could not be reached.
fn unreachable(error: &ConnectError) -> Rejection<'static> {
    match error {
        ConnectError::Resolve(_) => Rejection::Resolve,
        ConnectError::Connect(_) => Rejection::Connect,
        ConnectError::Timeout => Rejection::ConnectTimeout,
        ConnectError::NoEcho => Rejection::NoEndpoint,
    }
}
