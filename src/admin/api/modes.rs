//! `limits/{limit}/mode`: whether a limit denies, for as long as the process runs.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Outcome;
use crate::admin::Service;
use crate::admin::answer::Answer;
use crate::admin::body;
use crate::limit::inspect::limits_of;
use crate::limit::policy::{Mode, Policy};

/// The body of a change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    mode: Wanted,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Enforce,
    Shadow,
}

impl Service {
    /// A limit of the running configuration.
    pub(super) fn limit(&self, name: &str) -> Result<Arc<Policy>, Answer> {
        let config = self.admin.sources.config();
        let policy = config.policies.iter().find(|policy| &*policy.name == name);
        policy.map(Arc::clone).ok_or_else(|| Answer::not_found(&format!("There is no limit `{name}`.")))
    }

    pub(super) fn mode(&self, name: &str) -> Result<Value, Answer> {
        Ok(self.mode_of(&*self.limit(name)?))
    }

    pub(super) fn switch(&self, name: &str, body: &[u8], detail: &mut String) -> Outcome {
        let policy = self.limit(name)?;
        let Switch { mode } = body::parse(body, r#"{"mode": "shadow"} or {"mode": "enforce"}"#)?;
        let mode = match mode {
            Wanted::Enforce => Mode::Enforce,
            Wanted::Shadow => Mode::Shadow,
        };
        if mode == Mode::Shadow && limits_of(&policy, None).iter().any(|limit| limit.lease.is_some()) {
            let detail = "The tokens of this limit are leased: it cannot be a shadow. Take its `lease` away first.";
            return Err(Answer::problem(409, "Conflict", detail));
        }
        self.admin.control.switch(&policy.name, Some(mode).filter(|mode| *mode != policy.mode));
        word(mode).clone_into(detail);
        Ok(Answer::json(&self.mode_of(&policy)))
    }

    fn mode_of(&self, policy: &Policy) -> Value {
        let switched = self.admin.control.switched(&policy.name);
        let note = match switched {
            Some(_) => "This holds until it is switched back or the process ends; the file is not changed.",
            None => "This is what the file says.",
        };
        json!({
            "limit": &*policy.name,
            "mode": word(switched.unwrap_or(policy.mode)),
            "file_mode": word(policy.mode),
            "switched": switched.is_some(),
            "note": note,
        })
    }
}

/// A mode as the file says it.
pub(in crate::admin) fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
    }
}
