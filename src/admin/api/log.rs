//! `log`: what the process log holds, for as long as the process runs.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Outcome;
use crate::admin::Service;
use crate::admin::answer::Answer;
use crate::admin::body;
use crate::telemetry::logging::{self, LoggingError};

/// The body of a change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: String,
}

impl Service {
    pub(super) fn log(&self) -> Result<Value, Answer> {
        let level = logging::level().ok_or_else(|| conflict(&LoggingError::NoLog))?;
        let configured = self.admin.sources.config().log.level.as_str().to_ascii_lowercase();
        Ok(json!({ "level": level, "file_level": configured }))
    }

    pub(super) fn set_log(&self, body: &[u8], detail: &mut String) -> Outcome {
        let Wanted { level } = body::parse(body, r#"{"level": "debug"}"#)?;
        logging::set_level(&level).map_err(|error| match error {
            LoggingError::Filter(_) => Answer::problem(422, "Unprocessable content", &format!("{error}.")),
            LoggingError::NoLog | LoggingError::Thread(_) => conflict(&error),
        })?;
        *detail = level;
        self.log().map(|log| Answer::json(&log))
    }
}

fn conflict(error: &LoggingError) -> Answer {
    Answer::problem(409, "Conflict", &format!("{error}."))
}
