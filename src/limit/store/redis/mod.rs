//! The Redis store: one decision is one call of one atomic script (`lua/`).

pub mod connection;
pub mod script;

use std::rc::Rc;
use std::sync::Arc;

use super::settings::RedisSettings;
use super::{Ask, Reply};
use crate::limit::stats::{LimitStats, StoreErrorKind};

/// One worker's way to the Redis store.
#[derive(Debug)]
pub struct RedisStore {}

impl RedisStore {
    /// Starts connecting.
    #[must_use]
    pub fn start(settings: &RedisSettings, stats: Arc<LimitStats>) -> Rc<Self> {
        let _ = (settings, stats);
        Rc::new(Self {})
    }

    /// Decides.
    pub async fn decide(&self, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
        let _ = asks;
        std::future::ready(Err(StoreErrorKind::Refused)).await
    }

    /// Whether it answers.
    #[must_use]
    pub fn up(&self) -> bool {
        false
    }

    /// Changes when it goes away.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        0
    }
}
