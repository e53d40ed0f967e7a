//! Counters of one worker. Written by that worker only, read by the admin listener, which sums them.

use std::time::Duration;

use http::{Method, StatusCode};

/// What one worker counts about requests, upstream answers and connections.
#[derive(Debug)]
pub struct WorkerStats {}

/// The state a connection is counted under in `tollgate_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// A request is being answered.
    Active,
    /// Open and between requests.
    Idle,
}

impl WorkerStats {
    /// Statistics for this many listeners, routes (the implicit one included) and endpoints.
    #[must_use]
    pub fn new(listeners: usize, routes: usize, endpoints: usize) -> Self {
        let _ = (listeners, routes, endpoints);
        Self {}
    }

    /// A request was answered: `total` from its head to the end of the response, `overhead` the part
    /// of it that was not spent waiting for the upstream or the client.
    pub fn request(&self, route: usize, method: &Method, status: StatusCode, total: Duration, overhead: Duration) {
        let _ = (route, method, status, total, overhead);
    }

    /// An endpoint answered with this status, or failed (`None`).
    pub fn upstream(&self, endpoint: usize, status: Option<StatusCode>) {
        let _ = (endpoint, status);
    }

    /// A request was sent again because its pooled connection had gone stale.
    pub fn retried(&self, endpoint: usize) {
        let _ = endpoint;
    }

    /// A malformed request was refused before it became one; `kind` is one of a fixed set of words.
    pub fn refused(&self, kind: &'static str) {
        let _ = kind;
    }

    /// A connection was opened on a listener.
    pub fn opened(&self, listener: usize) {
        let _ = listener;
    }

    /// A connection was closed on a listener.
    pub fn closed(&self, listener: usize) {
        let _ = listener;
    }

    /// A connection was closed as soon as it was accepted, for lack of room.
    pub fn turned_away(&self, listener: usize, reason: &'static str) {
        let _ = (listener, reason);
    }

    /// A connection task panicked.
    pub fn panicked(&self) {}
}

#[derive(Debug)]
/// What is read at a scrape.
pub struct Sources {}
impl Sources {
    /// Nothing yet.
    #[must_use]
    pub fn new(
        _: std::sync::Arc<crate::config::Config>,
        _: std::sync::Arc<crate::limit::store::memory::MemoryStore>,
        _: Option<super::AccessLog>,
    ) -> Self {
        Self {}
    }
    /// One worker more.
    pub fn add(&mut self, _: std::sync::Arc<WorkerStats>, _: std::sync::Arc<crate::limit::stats::LimitStats>) {}
}
