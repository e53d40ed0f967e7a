//! One attempt: a request goes to one endpoint, over a connection that is there or a new one, and the
//! head of its response is waited for.

use std::error::Error as _;
use std::future::Future;
use std::pin::pin;

use http::header::HOST;
use http::uri::Scheme;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::handler::HostOfServer;
use super::patience::Patience;
use super::pool::{Lease, Pool, Sent};
use super::record::Record;
use super::rejection::Rejection;
use super::request_body::{Fault, Progress, RequestBody, Upload};
use super::upgrade::Protocol;
use super::{dialect, headers};
use crate::upstream::Endpoint;
use crate::upstream::connect::{Call, ConnectError};
use crate::upstream::load::Slot;

/// An upstream's answer and the connection its body comes from.
#[derive(Debug)]
pub(super) struct Answer {
    /// Head, and the body still to be read.
    pub(super) response: Response<Incoming>,
    /// The connection.
    pub(super) lease: Lease,
}

/// Why an attempt brought no answer.
#[derive(Debug)]
pub(super) enum Miss {
    /// Nothing was written; the request can go elsewhere.
    Unsent(Unsent, Box<Request<RequestBody>>),
    /// It may have been seen.
    Lost(Rejection<'static>),
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    /// There was no connection.
    #[error(transparent)]
    Unreachable(ConnectError),
    /// A new connection ended before it took the request.
    #[error("the connection ended before it was used")]
    GivenBack,
}

/// A response head that did not come.
enum HeadError {
    /// Nothing was written.
    Unsent(Box<Request<RequestBody>>),
    /// The server says that it has not looked at it.
    Unprocessed,
    /// It may have been seen.
    Failed(Rejection<'static>),
}

impl Pool {
    /// Sends `request` to the endpoint that is called, and waits for the head of its response for as long as `patience` lasts
    /// after the request was sent.
    pub(super) async fn attempt(
        &self,
        call: &Call<'_>,
        mut request: Request<RequestBody>,
        patience: Patience,
        record: &mut Record,
    ) -> Result<Answer, Miss> {
        let upload = request.body().upload();
        let asked = request.extensions().get::<Protocol>().copied();
        let checkout = patience.bound(self.checkout(call)).await;
        let mut lease = checkout.ok_or(Miss::Lost(Rejection::Deadline))?;
        // At most twice: what is not reused cannot be stale.
        loop {
            let mut taken = match lease {
                Ok(taken) => taken,
                Err(error) => return Err(Miss::Unsent(Unsent::Unreachable(error), Box::new(request))),
            };
            speak(&mut request, &taken, call.endpoint).map_err(Miss::Lost)?;
            let spare = if taken.is_http2() { copy(&request) } else { None };
            match head(taken.send(request), upload.as_deref(), patience).await {
                Ok(response) => {
                    understand(&response, asked).map_err(Miss::Lost)?;
                    return Ok(Answer { response, lease: taken });
                }
                Err(HeadError::Unsent(returned)) => request = *returned,
                Err(HeadError::Unprocessed) => match spare {
                    Some(spare) => request = spare,
                    None => return Err(Miss::Lost(Rejection::Reset)),
                },
                Err(HeadError::Failed(rejection)) => {
                    // Whatever the connection says: it broke off because of the client.
                    let fault = upload.as_ref().and_then(|upload| upload.fault()).map(spoilt);
                    let talk = taken.talks_only().then_some(Rejection::Informational);
                    return Err(Miss::Lost(fault.or(talk).unwrap_or(rejection)));
                }
            }
            if !taken.reused() {
                return Err(Miss::Unsent(Unsent::GivenBack, Box::new(request)));
            }
            record.resent(call.upstream, call.endpoint, &mut request);
            lease = self.connect(call).await;
        }
    }
}

/// The same request once more, when it has no body: nothing else can be sent a second time.
pub(super) fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(RequestBody::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    if let Some(protocol) = request.extensions().get::<Protocol>() {
        copy.extensions_mut().insert(*protocol);
    }
    if let Some(marked) = request.extensions().get::<HostOfServer>() {
        copy.extensions_mut().insert(*marked);
    }
    Some(copy)
}

impl Answer {
    /// The same, keeping its place at the endpoint as long as its connection is used.
    pub(super) fn holding(mut self, slot: Slot) -> Self {
        self.lease.hold(slot);
        self
    }

    /// Who answered.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.lease.endpoint()
    }
}

impl Miss {
    /// What the client is told.
    pub(super) fn rejection(&self) -> Rejection<'static> {
        match self {
            Self::Unsent(unsent, _) => unsent.rejection(),
            Self::Lost(rejection) => rejection.clone(),
        }
    }

    /// What the log is told.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Unsent(unsent, _) => unsent.to_string(),
            Self::Lost(rejection) => rejection.label().to_owned(),
        }
    }
}

impl Unsent {
    /// What the client is told.
    pub(super) fn rejection(&self) -> Rejection<'static> {
        let Self::Unreachable(error) = self else { return Rejection::Reset };
        match error {
            ConnectError::Resolve(_) => Rejection::Resolve,
            ConnectError::Connect(_) => Rejection::Connect,
            ConnectError::Timeout => Rejection::ConnectTimeout,
            ConnectError::Certificate(_) => Rejection::Certificate,
            ConnectError::Tls(_) => Rejection::Tls,
            ConnectError::Protocol => Rejection::Protocol,
            ConnectError::Full => Rejection::Busy,
            ConnectError::NoEcho => Rejection::NoEndpoint,
        }
    }
}

/// Puts the request into the form that its connection speaks.
fn speak(request: &mut Request<RequestBody>, lease: &Lease, endpoint: &Endpoint) -> Result<(), Rejection<'static>> {
    if request.extensions().get::<HostOfServer>().is_some() {
        dialect::to_http1(request);
        request.headers_mut().insert(HOST, endpoint.server.host.clone());
    }
    if lease.is_http2() {
        let scheme = if endpoint.server.security.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        return dialect::to_http2(request, scheme);
    }
    dialect::to_http1(request);
    Ok(())
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
    patience: Patience,
) -> Result<Response<Incoming>, HeadError> {
    let limit = patience.limit;
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
            Progress::Ended(_) => return Err(HeadError::Failed(patience.lost())),
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
        None if is_unprocessed(error.error()) => HeadError::Unprocessed,
        None => HeadError::Failed(broken(error.error())),
    }
}

/// Why a request that was sent got no response.
fn broken(error: &hyper::Error) -> Rejection<'static> {
    let is_garbage = error.is_parse() || error.is_parse_too_large() || error.is_parse_status();
    if is_garbage || is_malformed_http2(error) { Rejection::Garbage } else { Rejection::Reset }
}

/// What is said of an upload that the client spoilt.
fn spoilt(fault: Fault) -> Rejection<'static> {
    match fault {
        Fault::Broken => Rejection::BadBody,
        Fault::Stalled => Rejection::SlowBody,
        Fault::TooLarge => Rejection::TooLarge,
    }
}

/// A refused stream, or one opened after the last that a server in farewell looks at (RFC 9113 §8.7, §6.8).
fn is_unprocessed(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|cause| {
        let reason = cause.reason();
        let refused = cause.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
        let after_the_last = cause.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
        cause.is_remote() && (refused || after_the_last)
    })
}

/// Whether what the upstream sent was no HTTP/2.
fn is_malformed_http2(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|cause| cause.is_library() || cause.reason() == Some(h2::Reason::PROTOCOL_ERROR))
}

/// What went wrong in HTTP/2.
fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}
