//! `POST /api/v1/reload` and `/upgrade`, and what the last reload came to.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Service;
use super::answer::Answer;
use crate::reload::{Failure, Outcome};

impl Service {
    /// Reloads, and says what came of it.
    pub(super) async fn reload(&self, detail: &mut String) -> Result<Answer, Answer> {
        let reloads = self.admin.reloads.as_ref().ok_or_else(ending)?;
        let result = match reloads.reload().await.ok_or_else(ending)? {
            Ok(Outcome::Reloaded) => "reloaded",
            Ok(Outcome::Unchanged) => "unchanged",
            Err(failure) => return Err(refused(&failure)),
        };
        result.clone_into(detail);
        Ok(Answer::json(&json!({ "result": result })))
    }

    /// Has another process take the place of this one, and says which.
    pub(super) async fn upgrade(&self, detail: &mut String) -> Result<Answer, Answer> {
        let reloads = self.admin.reloads.as_ref().ok_or_else(ending)?;
        match reloads.upgrade().await.ok_or_else(ending)? {
            Ok(pid) => {
                *detail = format!("process {pid}");
                Ok(Answer::json(&json!({ "result": "upgraded", "pid": pid })))
            }
            Err(why) => {
                let detail = "No other process has taken over; this one goes on.";
                Err(Answer::unprocessable("Not upgraded", detail, &why, None))
            }
        }
    }

    /// Why the file says something else than what runs, if it does.
    pub(super) fn reload_refused(&self) -> Option<String> {
        let last = self.admin.sources.last_reload()?;
        let why = match &**last.failure.as_ref()? {
            Failure::Wrong(report) => match report.errors() {
                1 => "it has an error",
                _ => "it has errors",
            },
            Failure::Refused(why) => why,
        };
        Some(why.to_owned())
    }

    /// The last reload as JSON; null before the first.
    pub(super) fn last_reload(&self) -> Value {
        let last = self.admin.sources.last_reload();
        let Some((last, at)) = last.and_then(|last| Some((last.clone(), last.at?))) else { return Value::Null };
        let message = match last.failure {
            Some(_) => "The last reload was refused: the configuration before it goes on.",
            None => "The last reload succeeded.",
        };
        let report = last.failure.as_ref().map(ToString::to_string);
        json!({ "ok": report.is_none(), "time": time(at), "message": message, "report": report })
    }
}

fn ending() -> Answer {
    Answer::problem(503, "Service unavailable", "The process is ending, or has no file to read.")
}

fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).unwrap_or_default().to_string()
}

/// The running configuration goes on.
fn refused(failure: &Failure) -> Answer {
    let (detail, report) = match failure {
        Failure::Wrong(report) => ("The configuration has errors; the one before goes on.", Some(report.json())),
        Failure::Refused(why) => (&**why, None),
    };
    Answer::unprocessable("Configuration not reloaded", detail, &failure.to_string(), report.as_ref())
}
