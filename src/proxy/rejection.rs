//! Answers of our own: what went wrong, whose fault it is, and what the client is told.
//!
//! Nothing internal leaks: bodies hold fixed sentences, limit names and the request's id only.
//! `Proxy-Status` (RFC 9209) tells our answers from the upstream's.

use std::cmp::Reverse;
use std::fmt::Write;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use smallvec::SmallVec;

use super::Body;
use crate::limit::policy::DeniedResponse;
use crate::limit::{Decision, Policy, Verdict};

static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The gRPC status of a call that took longer than its client gives it.
const DEADLINE_EXCEEDED: u16 = 4;

/// Why a request is answered by us.
#[derive(Debug, Clone)]
pub enum Rejection<'a> {
    /// The target is no valid path.
    BadTarget,
    /// More fields than a request may have.
    TooManyFields,
    /// A field name that is no token.
    BadFieldName,
    /// The path holds encoded separators, and the route refuses them.
    EncodedSeparator,
    /// Host or `:authority` is missing, malformed, or the two differ.
    BadHost,
    /// CONNECT or TRACE.
    Method,
    /// `Expect` with anything but `100-continue`.
    Expectation,
    /// A key part occurs twice.
    AmbiguousKey,
    /// The body broke off or was badly framed.
    BadBody,
    /// The body came too slowly.
    SlowBody,
    /// The body is larger than the route takes.
    TooLarge,
    /// What a variable stands for cannot be sent in a field.
    BadValue,
    /// The client's address is not let in.
    Forbidden,
    /// No route matches.
    NoRoute,
    /// Over a limit.
    Limited(Limited<'a>),
    /// The store is away and a limit does not admit without it.
    StoreUnavailable,
    /// Too many requests are waiting for their turn.
    Overflow,
    /// This process uses almost as much memory as it may.
    Memory,
    /// This process has forwarded the request before.
    Loop,
    /// The upstream's name has no address.
    Resolve,
    /// The upstream does not accept connections.
    Connect,
    /// The upstream did not accept in time.
    ConnectTimeout,
    /// The upstream's certificate cannot be believed.
    Certificate,
    /// The TLS handshake with the upstream failed otherwise.
    Tls,
    /// The upstream does not speak the protocol that the request needs.
    Protocol,
    /// The upstream has no server to ask.
    NoEndpoint,
    /// Every server has as many requests as it may have, and too many are waiting, or waited for too long.
    Busy,
    /// So many of the upstream's answers failed that it is left alone for so long.
    BreakerOpen(Duration),
    /// The upstream closed or reset the connection before its response.
    Reset,
    /// The upstream's response is no HTTP.
    Garbage,
    /// The upstream sent one informational head after the other, and no response.
    Informational,
    /// The upstream changed to another protocol than it was asked for.
    Upgrade,
    /// The upstream's response did not begin in time.
    ResponseTimeout,
    /// It did not begin within the time that the client of a gRPC call gives it.
    Deadline,
    /// The upstream took no more of the request's body.
    UploadStalled,
}

/// A denial and who denied.
#[derive(Debug, Clone)]
pub struct Limited<'a> {
    /// The limits that denied, the deciding one (the longest wait) first.
    pub policies: SmallVec<[&'a Policy; 2]>,
    /// Until the request would be admitted; `None`: never.
    pub retry_after: Option<Duration>,
    /// Whether a penalty denies longest.
    pub abnormal: bool,
}

/// Who caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The client.
    Downstream,
    /// The upstream.
    Upstream,
    /// This proxy, or what it depends on.
    Proxy,
}

/// What an answer has to know of its request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method: HEAD gets no body.
    pub method: &'a Method,
    /// Whether it is a gRPC call.
    pub grpc: bool,
    /// Its id.
    pub request_id: &'a HeaderValue,
}

/// Everything fixed about a rejection.
struct Facts {
    status: StatusCode,
    blame: Blame,
    /// Metric and access-log label.
    label: &'static str,
    /// Error type of RFC 9209 §2.3.
    error: &'static str,
    detail: &'static str,
}

impl<'a> Limited<'a> {
    /// The denial in a verdict.
    #[must_use]
    pub fn new(verdict: &Verdict<'a>, retry_after: Option<Duration>) -> Self {
        let mut denying: SmallVec<[&Decision<'a>; 2]> = verdict.denying().collect();
        // Never is longer than any wait.
        denying.sort_by_key(|decision| Reverse(decision.retry_after.unwrap_or(Duration::MAX)));
        let abnormal = denying.first().is_some_and(|decision| !decision.is_quota() && decision.limit.is_some());
        let mut policies: SmallVec<[&'a Policy; 2]> = denying.into_iter().map(|decision| decision.policy).collect();
        // Several rates of one limit may deny.
        policies.dedup_by(|a, b| std::ptr::eq(*a, *b));
        Self { policies, retry_after, abnormal }
    }
}

impl Rejection<'_> {
    /// The status the client gets (gRPC calls get 200 and a `grpc-status`).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Limited(limited) => limited.response().map_or(StatusCode::TOO_MANY_REQUESTS, |custom| custom.status),
            _ => self.facts().status,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.facts().blame
    }

    /// Its label in metrics and logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.facts().label
    }

    #[rustfmt::skip] // one line per rejection reads as the table it is
    fn facts(&self) -> Facts {
        use Blame::{Downstream, Proxy, Upstream};
        let (status, blame, label, error, detail) = match self {
            Self::BadTarget => (400, Downstream, "bad_target", "http_request_error", "The request target is not a valid path."),
            Self::TooManyFields => (431, Downstream, "too_many_fields", "http_request_error", "The request has more than 100 fields."),
            Self::BadFieldName => (400, Downstream, "bad_field_name", "http_request_error", "A field name holds a byte that no name may hold."),
            Self::EncodedSeparator => (400, Downstream, "encoded_separator", "http_request_error", "The path holds an encoded separator (%2F, %5C, %00 or %25), which is not accepted here."),
            Self::BadHost => (400, Downstream, "bad_host", "http_request_error", "The request does not name exactly one valid host."),
            Self::Method => (405, Downstream, "method", "http_request_denied", "This method is not accepted here."),
            Self::Expectation => (417, Downstream, "expectation", "http_request_error", "Only the expectation 100-continue is understood."),
            Self::AmbiguousKey => (400, Downstream, "ambiguous_key", "http_request_error", "A field or parameter that may occur once occurs several times."),
            Self::BadBody => (400, Downstream, "bad_body", "http_request_error", "The request body broke off or is badly framed."),
            Self::SlowBody => (408, Downstream, "slow_body", "http_request_error", "The request body came too slowly."),
            Self::TooLarge => (413, Downstream, "body_too_large", "http_request_error", "The request body is larger than is accepted here."),
            Self::BadValue => (400, Downstream, "bad_value", "http_request_error", "The request holds a value that cannot be passed on."),
            Self::Forbidden => (403, Downstream, "access_denied", "http_request_denied", "This address is not let in here."),
            Self::NoRoute => (404, Downstream, "no_route", "http_request_denied", "Nothing is served under this host and path."),
            Self::Limited(Limited { retry_after: None, .. }) => (429, Downstream, "limited", "http_request_denied", "Waiting does not help: the limit admits no such request, or a field that it counts by is missing."),
            Self::Limited(Limited { abnormal: true, .. }) => (429, Downstream, "blocked", "http_request_denied", "Requests went on over the limit: the key is blocked for a while."),
            Self::Limited(_) => (429, Downstream, "limited", "http_request_denied", "The request rate is over the limit."),
            Self::StoreUnavailable => (503, Proxy, "store_unavailable", "proxy_internal_response", "Requests cannot be counted at the moment."),
            Self::Overflow => (503, Proxy, "overflow", "proxy_internal_response", "Too many requests are waiting for their turn."),
            Self::Memory => (503, Proxy, "memory", "proxy_internal_response", "There is no room for another request at the moment."),
            Self::Loop => (508, Proxy, "loop", "proxy_loop_detected", "The request came back to a proxy that had forwarded it."),
            Self::Resolve => (502, Upstream, "dns", "dns_error", "The upstream server could not be found."),
            Self::Connect => (502, Upstream, "connect", "connection_refused", "The upstream server does not accept connections."),
            Self::ConnectTimeout => (504, Upstream, "connect_timeout", "connection_timeout", "The upstream server did not accept the connection in time."),
            Self::Certificate => (502, Upstream, "certificate", "tls_certificate_error", "The upstream server's certificate cannot be believed."),
            Self::Tls => (502, Upstream, "tls", "tls_protocol_error", "No secure connection to the upstream server could be made."),
            Self::Protocol => (502, Upstream, "protocol", "http_protocol_error", "The upstream server does not speak the protocol that the request needs."),
            Self::NoEndpoint => (503, Upstream, "no_endpoint", "destination_unavailable", "No upstream server is available."),
            Self::Busy => (503, Proxy, "upstream_busy", "connection_limit_reached", "The upstream servers have as many requests as they may have."),
            Self::BreakerOpen(_) => (503, Proxy, "breaker_open", "destination_unavailable", "The upstream servers failed too often and are left alone for a while."),
            Self::Reset => (502, Upstream, "reset", "connection_terminated", "The upstream server closed the connection before it answered."),
            Self::Garbage => (502, Upstream, "garbage", "http_protocol_error", "The upstream server's answer is not valid."),
            Self::Informational => (502, Upstream, "informational", "http_protocol_error", "The upstream server announced an answer again and again and gave none."),
            Self::Upgrade => (502, Upstream, "upgrade", "http_upgrade_failed", "The upstream server changed to a protocol that was not asked for."),
            Self::ResponseTimeout => (504, Upstream, "response_timeout", "http_response_timeout", "The upstream server did not answer in time."),
            Self::Deadline => (504, Downstream, "deadline", "http_response_timeout", "The call's deadline passed before the upstream server answered."),
            Self::UploadStalled => (504, Upstream, "upload_stalled", "connection_write_timeout", "The upstream server stopped taking the request's body."),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Facts { status, blame, label, error, detail }
    }

    /// The answer to the client.
    #[must_use]
    pub fn answer(&self, asked: &Asked<'_>) -> Response<Body> {
        let mut response = if asked.grpc { self.grpc() } else { self.http(asked) };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(status) = HeaderValue::try_from(format!("tollgate; error={}", self.facts().error)) {
            headers.append(PROXY_STATUS.clone(), status);
        }
        if let Some(retry_after) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)));
        }
        response
    }

    /// When another try makes sense, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited(limited) => limited.retry_after,
            Self::StoreUnavailable | Self::Overflow | Self::Memory | Self::Busy => Some(Duration::from_secs(1)),
            Self::BreakerOpen(left) => Some(*left),
            _ => None,
        }
    }

    fn http(&self, asked: &Asked<'_>) -> Response<Body> {
        let (content_type, body) = match self {
            Self::Limited(limited) if let Some(custom) = limited.response() => {
                (custom.content_type.clone(), fill(&custom.body, limited, asked.request_id))
            }
            _ => (HeaderValue::from_static("application/problem+json"), self.problem()),
        };
        let body = if asked.method == Method::HEAD { Body::empty() } else { Body::full(body) };
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        if matches!(self, Self::Method) {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"));
        }
        response
    }

    /// A problem document (RFC 9457).
    fn problem(&self) -> String {
        let Facts { status, detail, .. } = self.facts();
        let (kind, title) = match self {
            Self::Limited(Limited { abnormal: true, .. }) => {
                ("https://iana.org/assignments/http-problem-types#abnormal-usage-detected", "Abnormal usage detected")
            }
            Self::Limited(_) => ("https://iana.org/assignments/http-problem-types#quota-exceeded", "Quota exceeded"),
            Self::StoreUnavailable | Self::Overflow | Self::Memory | Self::Busy | Self::BreakerOpen(_) => (
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
                "Temporary reduced capacity",
            ),
            _ => ("about:blank", status.canonical_reason().unwrap_or("Error")),
        };
        let code = status.as_u16();
        let mut json = format!(r#"{{"type":"{kind}","title":"{title}","status":{code},"detail":"{detail}""#);
        if let Self::Limited(limited) = self {
            json.push_str(r#","violated-policies":["#);
            for (at, policy) in limited.policies.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let name = serde_json::Value::from(&*policy.name);
                let _ = write!(json, "{comma}{name}");
            }
            json.push(']');
        }
        json.push_str("}\n");
        json
    }

    /// Trailers only: HTTP 200 and the status in the head (gRPC over HTTP/2, "Responses").
    fn grpc(&self) -> Response<Body> {
        let Facts { status, detail, .. } = self.facts();
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let code = if matches!(self, Self::Deadline) { DEADLINE_EXCEEDED } else { grpc_status(status) };
        headers.insert(GRPC_STATUS.clone(), HeaderValue::from(code));
        headers.insert(GRPC_MESSAGE.clone(), grpc_message(detail));
        if let Self::Limited(limited) = self {
            // A negative number tells clients not to retry.
            let millis =
                limited.retry_after.map(|wait| i64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX));
            headers.insert(GRPC_RETRY_PUSHBACK.clone(), HeaderValue::from(millis.unwrap_or(-1)));
        }
        response
    }
}

impl Limited<'_> {
    /// The deciding policy's own answer, if it has one.
    fn response(&self) -> Option<&DeniedResponse> {
        self.policies.first()?.response.as_deref()
    }
}

/// Whole seconds, rounded up, at least 1 (RFC 9110 §10.2.3).
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Puts the placeholders of a custom answer in. What cannot be known (`retry_after` of "never") is 0.
fn fill(template: &str, limited: &Limited<'_>, request_id: &HeaderValue) -> String {
    let name = limited.policies.first().map_or("", |policy| &policy.name);
    let retry_after = limited.retry_after.map_or(0, whole_seconds).to_string();
    template
        .replace("{limit.retry_after}", &retry_after)
        .replace("{limit.name}", name)
        .replace("{request.id}", request_id.to_str().unwrap_or_default())
}

/// The gRPC status for one of our HTTP statuses.
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        429 | 413 => 8,
        403 => 7,
        404 | 405 => 12,
        502..=504 => 14,
        400 | 408 => 13,
        _ => 2,
    }
}

/// `grpc-message` is percent-encoded; our sentences need that for `%` only.
fn grpc_message(detail: &str) -> HeaderValue {
    HeaderValue::try_from(detail.replace('%', "%25")).unwrap_or(const { HeaderValue::from_static("rejected") })
}

/// Whether a request is a gRPC call.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests;
