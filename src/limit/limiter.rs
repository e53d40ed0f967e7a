//! One worker's limiter: from the policies of a route and the facts of a request to a verdict.

use std::rc::Rc;
use std::sync::Arc;

use super::decision::Verdict;
use super::key::Facts;
use super::policy::Policy;
use super::stats::LimitStats;
use super::store::memory::MemoryStore;
use super::store::settings::StoreSettings;

/// One worker's limiter. Not `Send`: it owns the worker's connection to the store.
#[derive(Debug)]
pub struct Limiter {
    /// Shared by all workers: the store itself with `store: memory`, the fallback otherwise.
    memory: Arc<MemoryStore>,
    /// Read by the admin listener.
    stats: Arc<LimitStats>,
}

impl Limiter {
    /// Starts a worker's limiter on the current runtime; with Redis this spawns the task that
    /// connects (at once, in the background: a Redis that is away is not an error).
    #[must_use]
    pub fn start(settings: &StoreSettings, memory: Arc<MemoryStore>, stats: Arc<LimitStats>) -> Rc<Self> {
        let _ = settings;
        Rc::new(Self { memory, stats })
    }

    /// Decides all `policies` for one request, at once.
    pub async fn check<'a>(&self, policies: &'a [Arc<Policy>], facts: &Facts<'_>) -> Verdict<'a> {
        let _ = (policies, facts, &self.memory, &self.stats);
        todo!()
    }
}
