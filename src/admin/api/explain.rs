//! `explain`: what would happen to a request, in the running configuration, with what was changed since; with
//! `live` also what is left of each limit now.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Deserialize;
use serde_json::Value;

use super::Outcome;
use super::keys::unanswered;
use crate::admin::Service;
use crate::admin::answer::Answer;
use crate::admin::body;
use crate::explain::request::Imagined;
use crate::explain::{Account, Changed, Left};
use crate::jwt::ClaimSet;
use crate::limit::plan::Clock;

const EXAMPLE: &str =
    r#"{"method": "GET", "url": "http://localhost/", "headers": ["x-api-key: abc"], "ip": "192.0.2.7"}"#;

/// The request that is imagined.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<String>,
    ip: Option<IpAddr>,
    tls_subject: Option<String>,
    jwt_claims: Option<Value>,
    at: Option<String>,
    #[serde(default)]
    live: bool,
}

impl Question {
    fn imagined(&self) -> Result<Imagined, String> {
        let method: Method = self.method.parse().map_err(|_| format!("`{}` is no method", self.method))?;
        let url: Uri = self.url.parse().map_err(|_| format!("`{}` is no URL", self.url))?;
        let mut headers = HeaderMap::new();
        for line in &self.headers {
            let (name, value) =
                line.split_once(':').ok_or_else(|| format!("`{line}` is no field: write `name: value`"))?;
            let name: HeaderName = name.trim().parse().map_err(|_| format!("`{name}` is not a field name"))?;
            let value: HeaderValue = value.trim().parse().map_err(|_| format!("the value of {name} is none"))?;
            headers.append(name, value);
        }
        let claims = match &self.jwt_claims {
            Some(claims) => claims.to_string().parse::<ClaimSet>().map_err(str::to_owned)?,
            None => ClaimSet::default(),
        };
        let clock = match &self.at {
            Some(at) => {
                let at: jiff::Timestamp = at.parse().map_err(|_| "`at` is an instant such as 2026-11-27T22:30:00Z")?;
                Clock::At(at.as_microsecond())
            }
            None => Clock::Wall,
        };
        let client = self.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Imagined::new(method, url, headers, client).verified(self.tls_subject.clone(), claims).at(clock))
    }
}

impl Service {
    pub(super) async fn explain(&self, body: &[u8]) -> Outcome {
        let question: Question = body::parse(body, EXAMPLE)?;
        let imagined = question.imagined().map_err(|error| Answer::bad_request(&format!("{error}.")))?;
        let config = self.admin.sources.config();
        let overrides = self.admin.overrides.as_ref().map(|overrides| overrides.snapshot()).unwrap_or_default();
        let changed = Changed { overrides: Some(overrides), control: Some(Arc::clone(&self.admin.control)) };
        let mut account = Account::of(&config, &imagined.asked(), &changed);
        for limit in account.limits.iter_mut().filter(|_| question.live) {
            let Some(counted) = &limit.counted else { continue };
            let held =
                self.inspector.look(&config.store, &counted.limits, &counted.subject).await.map_err(unanswered)?;
            limit.now = held
                .iter()
                .map(|held| Left {
                    rate: held.limit.rate.map(|rate| rate.to_string()),
                    burst: held.limit.burst(),
                    remaining: held.answer.remaining,
                    reset_ms: held.answer.reset_us.div_ceil(1000),
                })
                .collect();
        }
        let account = serde_json::to_value(&account);
        Ok(Answer::json(&account.map_err(|_| Answer::problem(500, "Internal error", "This cannot be told as JSON."))?))
    }
}
