//! The access log: one line per request, written off the worker's thread.

mod escape;
mod format;

use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode, Version};

use super::lines::{Lines, Output};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// The combined log format of Apache and nginx.
    Combined,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How lines look.
    pub format: Format,
    /// Every request that a limit denied.
    pub limited: bool,
    /// Every status of 500 and above, and every 4xx of our own making but denials.
    pub errors: bool,
    /// The share of all other requests, 0 to 1.
    pub sample: f64,
}

/// A handle to the access log; cheap to clone, one per worker.
#[derive(Debug, Clone)]
pub struct AccessLog {
    settings: Settings,
    lines: Lines,
}

/// Everything a line can say of a request. Built only when a line will be written.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// When the head was complete.
    pub at: SystemTime,
    /// The request's id.
    pub request_id: &'a str,
    /// Of the trace that its spans belong to, when they are exported.
    pub trace_id: Option<&'a str>,
    /// The client's address; none of one behind a Unix socket.
    pub client: Option<IpAddr>,
    /// The method as sent.
    pub method: &'a Method,
    /// HTTP version of the client's request.
    pub version: Version,
    /// Canonical host.
    pub host: &'a str,
    /// Canonical path, without the query.
    pub path: &'a str,
    /// Whether there was a query (its values are not logged).
    pub query: bool,
    /// User-Agent, as sent.
    pub user_agent: Option<&'a [u8]>,
    /// Referer without its query.
    pub referer: Option<&'a [u8]>,
    /// The matched route's name.
    pub route: &'a str,
    /// The response's status; 499 when the client left before it, 503 when the process ended before it.
    pub status: StatusCode,
    /// Body bytes received from the client.
    pub bytes_in: u64,
    /// Body bytes sent to the client.
    pub bytes_out: u64,
    /// From the head to the end of the response.
    pub total: Duration,
    /// Until the upstream's head, when there was one.
    pub upstream_time: Option<Duration>,
    /// Spent on the limit decision.
    pub limit_time: Duration,
    /// The endpoint that answered.
    pub server: Option<&'a str>,
    /// Sends beyond the first.
    pub retries: u32,
    /// The deciding limit, if any.
    pub limit: Option<&'a str>,
    /// `allowed`, `denied`, `delayed`, `unavailable`; absent without limits.
    pub decision: Option<&'static str>,
    /// What the deciding limit has left.
    pub remaining: Option<u64>,
    /// When the store decided, by its own clock: microseconds since 1970. `tollgate simulate` replays a
    /// log by these instants.
    pub decided_at_us: Option<i64>,
    /// The store was away and a policy stood in.
    pub degraded: bool,
    /// Why the answer is ours, or why it did not come to its end.
    pub error: Option<&'a str>,
}

impl AccessLog {
    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(settings: Settings, output: impl Output) -> io::Result<Self> {
        Ok(Self { settings, lines: Lines::start("access-log", output)? })
    }

    /// Whether a request with this outcome is to be logged (classes and sampling).
    #[must_use]
    pub fn wants(&self, status: StatusCode, limited: bool, own_error: bool) -> bool {
        let Settings { limited: log_limited, errors: log_errors, sample, .. } = self.settings;
        let error = status.is_server_error() || (own_error && status.is_client_error() && !limited);
        (limited && log_limited) || (error && log_errors) || sample >= 1.0 || (sample > 0.0 && fastrand::f64() < sample)
    }

    /// Writes a line. Never blocks: what does not fit is dropped and counted.
    pub fn write(&self, line: &Line<'_>) {
        let mut text = Vec::with_capacity(512);
        match self.settings.format {
            Format::Json => format::json(line, &mut text),
            Format::Combined => format::combined(line, &mut text),
        }
        self.lines.send(text);
    }

    /// Has its file opened anew, which may have been moved away.
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// Waits (at most a second) until every line is written.
    pub fn flush(&self) {
        self.lines.flush();
    }

    /// Lines lost so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(limited: bool, errors: bool, sample: f64) -> AccessLog {
        AccessLog::start(Settings { format: Format::Json, limited, errors, sample }, io::sink()).unwrap()
    }

    #[test]
    fn classes_choose_what_is_logged() {
        let log = log(true, true, 0.0);
        assert!(!log.wants(StatusCode::OK, false, false));
        assert!(log.wants(StatusCode::TOO_MANY_REQUESTS, true, false));
        assert!(log.wants(StatusCode::BAD_GATEWAY, false, true));
        assert!(log.wants(StatusCode::INTERNAL_SERVER_ERROR, false, false), "the upstream's own error is one too");
        assert!(log.wants(StatusCode::BAD_REQUEST, false, true));
        assert!(!log.wants(StatusCode::NOT_FOUND, false, false), "a 404 of the upstream is its business");
    }

    #[test]
    fn a_denial_is_no_error() {
        assert!(!log(false, true, 0.0).wants(StatusCode::TOO_MANY_REQUESTS, true, true));
    }

    #[test]
    fn the_sampled_share_is_about_what_was_asked_for() {
        let log = log(false, false, 0.25);
        let logged = (0..20_000).filter(|_| log.wants(StatusCode::OK, false, false)).count();
        assert!((4_000..6_000).contains(&logged), "{logged}");
    }
}
