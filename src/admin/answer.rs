//! What the admin listener answers with: plain text, metrics, or problem+json (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::telemetry::exposition::Format;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    content_type: &'static str,
    /// A further field.
    field: Option<(header::HeaderName, &'static str)>,
    body: String,
}

impl Answer {
    /// 200 with text for people.
    pub(super) fn text(body: String) -> Self {
        Self { status: 200, content_type: "text/plain; charset=utf-8", field: None, body }
    }

    /// 200 with a scrape.
    pub(super) fn metrics(format: Format, body: String) -> Self {
        Self { status: 200, content_type: format.content_type(), field: None, body }
    }

    /// 200 with JSON.
    pub(super) fn json(body: &serde_json::Value) -> Self {
        Self { status: 200, content_type: "application/json", field: None, body: format!("{body}\n") }
    }

    /// An error.
    pub(super) fn problem(status: u16, title: &str, detail: &str) -> Self {
        let body = serde_json::json!({ "title": title, "status": status, "detail": detail });
        Self { status, content_type: "application/problem+json", field: None, body: format!("{body}\n") }
    }

    /// 422 for a configuration: what is wrong, as frames for people and as data.
    pub(super) fn unprocessable(detail: &str, frames: &str, report: Option<serde_json::Value>) -> Self {
        let title = "Configuration not reloaded";
        let body = serde_json::json!({
            "title": title, "status": 422, "detail": detail, "frames": frames, "report": report,
        });
        Self { status: 422, content_type: "application/problem+json", field: None, body: format!("{body}\n") }
    }

    /// 401.
    pub(super) fn unauthorized() -> Self {
        let answer = Self::problem(401, "Unauthorized", "Send the admin token as Authorization: Bearer.");
        Self { field: Some((header::WWW_AUTHENTICATE, "Bearer")), ..answer }
    }

    /// 405.
    pub(super) fn method_not_allowed() -> Self {
        Self::only("GET, HEAD")
    }

    /// 405 where other methods are understood.
    pub(super) fn only(methods: &'static str) -> Self {
        let answer = Self::problem(405, "Method not allowed", &format!("Only {methods} are understood here."));
        Self { field: Some((header::ALLOW, methods)), ..answer }
    }

    /// 404 where no limit allows overrides.
    pub(super) fn no_overrides() -> Self {
        Self::problem(404, "Not found", "No limit of the configuration has `dynamic_overrides`.")
    }

    /// As hyper sends it.
    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some((name, value)) = self.field {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
