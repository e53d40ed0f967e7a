//! `config`: what runs, with every default written out and without secrets.

use serde_json::{Value, json};

use crate::admin::Service;
use crate::config;

impl Service {
    pub(super) fn configuration(&self) -> Value {
        let config = self.admin.sources.config();
        json!({ "yaml": config::expanded(&config), "reload": self.last_reload() })
    }
}
