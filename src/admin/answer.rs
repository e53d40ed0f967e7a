//! What the admin listener answers with: text, JSON, metrics, files of the page, a stream of events, or
//! problem+json (RFC 9457).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::Full;
use serde_json::Value;

use super::stream::Events;
use crate::telemetry::exposition::Format;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    content_type: &'static str,
    /// Further fields.
    fields: Vec<(HeaderName, &'static str)>,
    body: Body,
}

/// What an answer carries.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it is there.
    Whole(Full<Bytes>),
    /// It goes on until the client leaves.
    Events(Events),
}

impl Answer {
    fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, fields: Vec::new(), body: Body::Whole(Full::new(body.into())) }
    }

    /// 200 with text for people.
    pub(super) fn text(body: String) -> Self {
        Self::new(200, "text/plain; charset=utf-8", body)
    }

    /// 200 with a file of the page.
    pub(super) fn file(content_type: &'static str, body: &'static str) -> Self {
        let policy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
        let fields = vec![(header::CONTENT_SECURITY_POLICY, policy), (header::REFERRER_POLICY, "no-referrer")];
        Self { fields, ..Self::new(200, content_type, body) }
    }

    /// 200 with a scrape.
    pub(super) fn metrics(format: Format, body: String) -> Self {
        Self::new(200, format.content_type(), body)
    }

    /// 200 with JSON.
    pub(super) fn json(body: &Value) -> Self {
        Self::new(200, "application/json", format!("{body}\n"))
    }

    /// 200 with events.
    pub(super) fn events(events: Events) -> Self {
        Self { body: Body::Events(events), ..Self::new(200, "text/event-stream", "") }
    }

    /// Whether it goes on until the client leaves.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.body, Body::Events(_))
    }

    /// An error.
    pub(super) fn problem(status: u16, title: &str, detail: &str) -> Self {
        let body = serde_json::json!({ "title": title, "status": status, "detail": detail });
        Self::new(status, "application/problem+json", format!("{body}\n"))
    }

    /// 400.
    pub(super) fn bad_request(detail: &str) -> Self {
        Self::problem(400, "Bad request", detail)
    }

    /// 404.
    pub(super) fn not_found(detail: &str) -> Self {
        Self::problem(404, "Not found", detail)
    }

    /// 422 for a configuration: what is wrong, as frames for people and as data.
    pub(super) fn unprocessable(title: &str, detail: &str, frames: &str, report: Option<&serde_json::Value>) -> Self {
        let body = serde_json::json!({
            "title": title, "status": 422, "detail": detail, "frames": frames, "report": report,
        });
        Self::new(422, "application/problem+json", format!("{body}\n"))
    }

    /// 401.
    pub(super) fn unauthorized() -> Self {
        let answer = Self::problem(401, "Unauthorized", "Send the admin token as Authorization: Bearer.");
        Self { fields: vec![(header::WWW_AUTHENTICATE, "Bearer")], ..answer }
    }

    /// 405.
    pub(super) fn method_not_allowed() -> Self {
        Self::only("GET, HEAD")
    }

    /// 405 where other methods are understood.
    pub(super) fn only(methods: &'static str) -> Self {
        let answer = Self::problem(405, "Method not allowed", &format!("Only {methods} are understood here."));
        Self { fields: vec![(header::ALLOW, methods)], ..answer }
    }

    /// 404 where no limit allows overrides.
    pub(super) fn no_overrides() -> Self {
        Self::not_found("No limit of the configuration has `dynamic_overrides`.")
    }

    /// Whether what was asked is done.
    pub(super) fn is_done(&self) -> bool {
        self.status < 400
    }

    /// Its status.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// As hyper sends it.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for (name, value) in self.fields {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Events(events) => events.poll(cx).map(|event| Some(Ok(Frame::data(event)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Events(_) => http_body::SizeHint::default(),
        }
    }
}
