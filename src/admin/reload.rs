//! `POST /api/v1/reload`.

use http::Method;
use serde_json::json;

use super::answer::Answer;
use crate::reload::{Failure, Handle, Outcome};

/// Reloads, and says what came of it.
pub(super) async fn answer(reloads: &Handle, method: &Method) -> Answer {
    if method != Method::POST {
        return Answer::only("POST");
    }
    match reloads.reload().await {
        Some(Ok(Outcome::Reloaded)) => Answer::json(&json!({ "result": "reloaded" })),
        Some(Ok(Outcome::Unchanged)) => Answer::json(&json!({ "result": "unchanged" })),
        Some(Err(failure)) => refused(&failure),
        None => Answer::problem(503, "Ending", "The process is ending."),
    }
}

/// The running configuration goes on.
fn refused(failure: &Failure) -> Answer {
    let (detail, report) = match failure {
        Failure::Wrong(report) => ("The configuration has errors; the one before goes on.", Some(report.json())),
        Failure::Refused(why) => (&**why, None),
    };
    Answer::unprocessable(detail, &failure.to_string(), report)
}
