//! The access log: one line per request, written off the worker's thread.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode, Version};

use crate::config::AccessLogSettings;

/// One worker's handle to the access log.
#[derive(Debug, Clone)]
pub struct AccessLog {}

/// Everything a line can say of a request. Built only when a line will be written.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// When the head was complete.
    pub at: SystemTime,
    /// The request's id.
    pub request_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
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
    /// User-Agent and Referer for the combined format.
    pub user_agent: Option<&'a str>,
    /// Referer without its query.
    pub referer: Option<&'a str>,
    /// The matched route's name.
    pub route: &'a str,
    /// The response's status; 499 when the client left before it.
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
    /// The store was away and a policy stood in.
    pub degraded: bool,
    /// What went wrong, for answers of our own.
    pub error: Option<&'a str>,
}

impl AccessLog {
    /// Starts the thread that writes to standard output.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(settings: &AccessLogSettings) -> io::Result<Self> {
        let _ = settings;
        Ok(Self {})
    }

    /// Waits (at most a second) until every line is written.
    pub fn flush(&self) {}

    /// Whether a request with this outcome is to be logged (classes and sampling).
    #[must_use]
    pub fn wants(&self, status: StatusCode, limited: bool, own_error: bool) -> bool {
        let _ = (status, limited, own_error);
        false
    }

    /// Writes a line. Never blocks: what does not fit is dropped and counted.
    pub fn write(&self, line: &Line<'_>) {
        let _ = line;
    }
}
