//! The JSON that a request carries: bounded, in bounded time.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::answer::Answer;

/// For a body to arrive.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the body is said to be JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// All of it.
pub(super) async fn read(body: Incoming, longest: usize) -> Result<Bytes, Answer> {
    match tokio::time::timeout(TIMEOUT, Limited::new(body, longest).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Answer::problem(413, "Content too large", "A few lines of JSON say all there is to say."))
        }
        Ok(Err(_)) => Err(Answer::bad_request("The body broke off.")),
        Err(_) => Err(Answer::problem(408, "Request timeout", "The body came too slowly.")),
    }
}

/// What it says; `example` is shown to whoever wrote something else.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, Answer> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Answer::problem(422, "Unprocessable content", &format!("Send {example}: {error}."))
        }
        _ => Answer::bad_request(&format!("This is not JSON: {error}. Send {example}.")),
    })
}
