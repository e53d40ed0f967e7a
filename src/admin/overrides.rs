//! `/api/v1/limits/{name}/overrides[/{key}]`: overrides that are set, listed and ended while the proxy runs.
//!
//! Changes are PUT and DELETE with a JSON content type, which no page of another site can send; each is logged,
//! never with its key.

use std::time::Duration;

use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use super::answer::Answer;
use crate::limit::dynamic::{DynamicOverrides, Listed, Refusal, Wanted, Wrong};
use crate::units::{DurationText, parse_duration};

/// Longest body, bytes.
const MAX_BODY: usize = 4096;
/// For a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What of the overrides is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    limit: String,
    /// One key, or all of them.
    key: Option<Vec<u8>>,
}

/// The body of a PUT.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    rate: String,
    burst: Option<u64>,
    ttl: String,
}

impl Target {
    /// Reads a path; its two names are percent-encoded.
    pub(super) fn of(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix("/api/v1/limits/")?.split('/');
        let (limit, word, key) = (segments.next()?, segments.next()?, segments.next());
        if word != "overrides" || segments.next().is_some() {
            return None;
        }
        let limit = percent_decode_str(limit).decode_utf8().ok()?.into_owned();
        let key = key.filter(|key| !key.is_empty()).map(|key| percent_decode_str(key).collect());
        Some(Self { limit, key })
    }

    /// Carries out a request for it.
    pub(super) async fn answer(
        &self,
        overrides: &DynamicOverrides,
        method: &Method,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Answer {
        let result = match (method, &self.key) {
            (&Method::GET | &Method::HEAD, None) => self.list(overrides),
            (&Method::PUT | &Method::DELETE, Some(_)) if !is_json(headers) => {
                Err(Answer::problem(415, "Unsupported media type", "Send Content-Type: application/json."))
            }
            (&Method::PUT, Some(key)) => self.set(overrides, key, body).await,
            (&Method::DELETE, Some(key)) => self.remove(overrides, key).await,
            (_, None) => Err(Answer::only("GET, HEAD")),
            (_, Some(_)) => Err(Answer::only("PUT, DELETE")),
        };
        result.unwrap_or_else(|answer| answer)
    }

    fn list(&self, overrides: &DynamicOverrides) -> Result<Answer, Answer> {
        let (rules, listed) = overrides.list(&self.limit).map_err(|refusal| refused(&refusal))?;
        let max_rate = rules.max_rate.map_or_else(|| "unlimited".to_owned(), |rate| rate.to_string());
        let max_ttl = DurationText(rules.max_ttl).to_string();
        Ok(Answer::json(&json!({
            "limit": self.limit,
            "max_rate": max_rate,
            "max_burst": rules.max_burst,
            "max_ttl": max_ttl,
            "overrides": listed.iter().map(shown).collect::<Vec<_>>(),
        })))
    }

    async fn set(&self, overrides: &DynamicOverrides, key: &[u8], body: Incoming) -> Result<Answer, Answer> {
        let setting = read(body).await?;
        let unfit = |wrong: Wrong| refused(&Refusal::Wrong(wrong));
        let wanted = Wanted::parse(&setting.rate, setting.burst).map_err(unfit)?;
        let ttl = parse_duration(&setting.ttl).map_err(|error| unfit(error.into()))?;
        let listed = overrides.set(&self.limit, key, wanted, ttl).await.map_err(|refusal| refused(&refusal))?;
        let (rate, burst) = (wanted.rate(), wanted.burst());
        tracing::info!(limit = self.limit, rate, burst, ttl = setting.ttl, "override set");
        let mut object = shown(&listed);
        object["limit"] = json!(self.limit);
        Ok(Answer::json(&object))
    }

    async fn remove(&self, overrides: &DynamicOverrides, key: &[u8]) -> Result<Answer, Answer> {
        overrides.remove(&self.limit, key).await.map_err(|refusal| refused(&refusal))?;
        tracing::info!(limit = self.limit, "override removed");
        Ok(Answer::json(&json!({ "limit": self.limit, "removed": true })))
    }
}

/// One override as JSON.
fn shown(listed: &Listed) -> serde_json::Value {
    let left = Duration::from_secs(listed.left.as_secs() + u64::from(listed.left.subsec_nanos() > 0));
    json!({
        "key": listed.key,
        "rate": listed.wanted.rate(),
        "burst": listed.wanted.burst(),
        "expires_in": DurationText(left).to_string(),
    })
}

/// Whether the body is said to be JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads a bounded body in bounded time.
async fn read(body: Incoming) -> Result<Setting, Answer> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect());
    let bytes = match collected.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Answer::problem(413, "Content too large", "An override is a few bytes of JSON."));
        }
        Ok(Err(_)) => return Err(Answer::problem(400, "Bad request", "The body broke off.")),
        Err(_) => return Err(Answer::problem(408, "Request timeout", "The body came too slowly.")),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let detail = format!(r#"Send {{"rate": "5000/m", "burst": 1000, "ttl": "1h"}}: {error}."#);
        Answer::problem(422, "Unprocessable content", &detail)
    })
}

/// The answer to an order that is not carried out.
fn refused(refusal: &Refusal) -> Answer {
    let (status, title) = match refusal {
        Refusal::NoLimit(_) | Refusal::NoOverride => (404, "Not found"),
        Refusal::Wrong(_) => (422, "Unprocessable content"),
        Refusal::Full => (409, "Conflict"),
        Refusal::Store(_) => (503, "Service unavailable"),
    };
    Answer::problem(status, title, &refusal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_a_path_are_decoded() {
        let target =
            |limit: &str, key: Option<&[u8]>| Some(Target { limit: limit.into(), key: key.map(<[u8]>::to_vec) });
        assert_eq!(Target::of("/api/v1/limits/per-key/overrides"), target("per-key", None));
        assert_eq!(Target::of("/api/v1/limits/per-key/overrides/"), target("per-key", None));
        assert_eq!(Target::of("/api/v1/limits/a%2Fb/overrides/x%2Fy%20z"), target("a/b", Some(b"x/y z")));
        assert_eq!(Target::of("/api/v1/limits/a/overrides/%FF"), target("a", Some(b"\xff")));
        for path in [
            "/api/v1/limits/a",
            "/api/v1/limits/a/states/x",
            "/api/v1/limits/a/overrides/x/y",
            "/api/v2/limits/a/overrides",
        ] {
            assert_eq!(Target::of(path), None, "{path}");
        }
    }
}
