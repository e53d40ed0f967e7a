//! `limits/{limit}/overrides[/{key}]`: overrides that are set, listed and ended while the proxy runs.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Outcome;
use crate::admin::Service;
use crate::admin::answer::Answer;
use crate::admin::body;
use crate::limit::dynamic::{DynamicOverrides, Listed, Refusal, Wanted, Wrong};
use crate::units::{DurationText, parse_duration};

/// The body of a PUT.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    rate: String,
    burst: Option<u64>,
    ttl: String,
}

impl Service {
    pub(super) fn list_overrides(&self, limit: &str) -> Result<Value, Answer> {
        let (rules, listed) = self.overrides()?.list(limit).map_err(|refusal| refused(&refusal))?;
        let max_rate = rules.max_rate.map_or_else(|| "unlimited".to_owned(), |rate| rate.to_string());
        let max_ttl = DurationText(rules.max_ttl).to_string();
        Ok(json!({
            "limit": limit,
            "max_rate": max_rate,
            "max_burst": rules.max_burst,
            "max_ttl": max_ttl,
            "overrides": listed.iter().map(shown).collect::<Vec<_>>(),
        }))
    }

    pub(super) async fn set_override(&self, limit: &str, key: &[u8], body: &[u8], detail: &mut String) -> Outcome {
        let overrides = self.overrides()?;
        let setting: Setting = body::parse(body, r#"{"rate": "5000/m", "burst": 1000, "ttl": "1h"}"#)?;
        let unfit = |wrong: Wrong| refused(&Refusal::Wrong(wrong));
        let wanted = Wanted::parse(&setting.rate, setting.burst).map_err(unfit)?;
        let ttl = parse_duration(&setting.ttl).map_err(|error| unfit(error.into()))?;
        let listed = overrides.set(limit, key, wanted, ttl).await.map_err(|refusal| refused(&refusal))?;
        let burst = wanted.burst().map(|burst| format!(" burst {burst}")).unwrap_or_default();
        *detail = format!("{}{burst} for {}", wanted.rate(), DurationText(ttl));
        let mut object = shown(&listed);
        object["limit"] = json!(limit);
        Ok(Answer::json(&object))
    }

    pub(super) async fn remove_override(&self, limit: &str, key: &[u8]) -> Outcome {
        self.overrides()?.remove(limit, key).await.map_err(|refusal| refused(&refusal))?;
        Ok(Answer::json(&json!({ "limit": limit, "removed": true })))
    }

    fn overrides(&self) -> Result<&DynamicOverrides, Answer> {
        self.admin.overrides.as_deref().ok_or_else(Answer::no_overrides)
    }
}

/// One override as JSON.
fn shown(listed: &Listed) -> Value {
    let left = Duration::from_secs(listed.left.as_secs() + u64::from(listed.left.subsec_nanos() > 0));
    json!({
        "key": listed.key,
        "rate": listed.wanted.rate(),
        "burst": listed.wanted.burst(),
        "expires_in": DurationText(left).to_string(),
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
