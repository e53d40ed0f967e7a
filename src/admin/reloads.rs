//! What the last reload of the configuration came to, for the page and the API. Whoever reloads tells it here.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The last reload of a process; none before the first.
#[derive(Debug, Default)]
pub struct Reloads(ArcSwapOption<Last>);

#[derive(Debug)]
struct Last {
    at: Timestamp,
    /// Why it was refused, as frames; `None`: what the file says runs.
    refused: Option<String>,
}

impl Reloads {
    /// The configuration was reloaded.
    pub fn succeeded(&self) {
        self.0.store(Some(Arc::new(Last { at: Timestamp::now(), refused: None })));
    }

    /// It was not, for what this report says; the one before goes on.
    pub fn refused(&self, report: String) {
        self.0.store(Some(Arc::new(Last { at: Timestamp::now(), refused: Some(report) })));
    }

    /// Whether the file says something else than what runs.
    pub(super) fn is_refused(&self) -> bool {
        self.0.load().as_ref().is_some_and(|last| last.refused.is_some())
    }

    /// As JSON; null before the first.
    pub(super) fn told(&self) -> Value {
        let last = self.0.load();
        let Some(last) = last.as_ref() else { return Value::Null };
        let message = match last.refused {
            Some(_) => "The last reload was refused: the configuration before it goes on.",
            None => "The last reload succeeded.",
        };
        json!({ "ok": last.refused.is_none(), "time": last.at.to_string(), "message": message, "report": last.refused })
    }
}
