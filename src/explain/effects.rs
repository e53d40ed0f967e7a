//! What a route does with a request beside forwarding it.

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::request::{Asked, Refused, Target};
use crate::config::Config;
use crate::limit::Facts;
use crate::route::cors::origin_of;
use crate::route::fields::{Edit, Edits, is_secret};
use crate::route::rewrite::{HostRewrite, RewriteError};
use crate::route::template::{FillError, Values};
use crate::route::{Cors, FixedAnswer, Route};
use crate::units::Size;

/// What is done, in words; empty where a request only passes through.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Effects {
    /// The answer that no upstream gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    /// The target that the upstream sees, when it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded_as: Option<String>,
    /// The Host that the upstream sees, when it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded_host: Option<String>,
    /// Changes of the request's fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    request_headers: Vec<String>,
    /// Changes of the answer's fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    response_headers: Vec<String>,
    /// The largest body.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_body_size: Option<String>,
    /// What pages of the request's origin may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    cors: Option<String>,
}

impl Effects {
    /// What a route does with a request.
    pub(crate) fn of(
        config: &Config,
        route: &Route,
        asked: &Asked<'_>,
        (target, facts): (&Target<'_>, &Facts<'_>),
    ) -> Result<Self, Refused> {
        let Some(extras) = route.extras.as_deref() else { return Ok(Self::default()) };
        let values = Values {
            facts,
            path: &target.path.text,
            scheme: asked.scheme,
            request_id: "(the request's id)",
            listener: config.listeners.first().map_or("", |listener| &*listener.name),
        };
        let mut effects = Self {
            answer: extras.answer.as_ref().map(|answer| answered(answer, &values)).transpose().map_err(unfilled)?,
            request_headers: told(extras.request_headers.fill(&values).map_err(unfilled)?),
            response_headers: told(extras.response_headers.fill(&values).map_err(unfilled)?),
            max_body_size: extras.max_body_size.map(|most| format!("at most {}", Size(most))),
            cors: extras.cors.as_ref().map(|cors| origin(cors, asked)),
            forwarded_host: match &extras.rewrite.host {
                HostRewrite::Keep => None,
                HostRewrite::Upstream => Some("that of the server".to_owned()),
                HostRewrite::Name(host) => Some(shown(host)),
            },
            forwarded_as: None,
        };
        if !extras.rewrite.keeps_target() {
            let rewritten = extras.rewrite.target(&values, route.encoded_path).map_err(unrewritten)?;
            let query = rewritten.query.map(|query| format!("?{query}")).unwrap_or_default();
            effects.forwarded_as = Some(format!("{}{query}", rewritten.path));
        }
        Ok(effects)
    }

    /// What a route does with a browser's question.
    pub(crate) fn preflight(route: &Route, asked: &Asked<'_>) -> Self {
        let cors = route.cors().map(|cors| origin(cors, asked));
        Self { answer: Some("204, before any limit counts".to_owned()), cors, ..Self::default() }
    }

    /// Each effect with its title.
    pub(crate) fn lines(&self) -> Vec<(&'static str, &str)> {
        let single = [
            ("answers", &self.answer),
            ("target", &self.forwarded_as),
            ("host", &self.forwarded_host),
            ("body", &self.max_body_size),
            ("cors", &self.cors),
        ];
        let mut lines: Vec<_> =
            single.into_iter().filter_map(|(title, text)| Some((title, text.as_deref()?))).collect();
        for (title, list) in [("request", &self.request_headers), ("answer", &self.response_headers)] {
            let titles = std::iter::once(title).chain(std::iter::repeat(""));
            lines.extend(titles.zip(list.iter().map(String::as_str)));
        }
        lines
    }
}

fn answered(answer: &FixedAnswer, values: &Values<'_>) -> Result<String, FillError> {
    Ok(match answer {
        FixedAnswer::Redirect(redirect) => {
            format!("{} to {}", redirect.status.as_u16(), shown(&redirect.location(values)?))
        }
        FixedAnswer::Respond(respond) => format!("{} with {} bytes", respond.status.as_u16(), respond.body.len()),
    })
}

/// Changes of fields, one a line.
fn told(edits: Edits<'_>) -> Vec<String> {
    let value = |name: &HeaderName, value: &HeaderValue| if is_secret(name) { "***".to_owned() } else { shown(value) };
    let line = |(name, edit): (&HeaderName, Edit)| match edit {
        Edit::Remove => format!("without {name}"),
        Edit::Set(text) => format!("{name}: {}", value(name, &text)),
        Edit::Add(text) => format!("also {name}: {}", value(name, &text)),
        Edit::Default(text) => format!("{name}: {}, unless it has one", value(name, &text)),
    };
    edits.into_iter().map(line).collect()
}

/// What pages may do.
fn origin(cors: &Cors, asked: &Asked<'_>) -> String {
    match origin_of(asked.headers) {
        None => "pages of other origins are answered by the rules of this route".to_owned(),
        Some(origin) if !cors.admits(origin) => format!("pages of {} may not read the answer", shown(origin)),
        Some(origin) => format!("pages of {} may read the answer", shown(origin)),
    }
}

fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn unfilled(error: FillError) -> Refused {
    Refused::new(400, error.to_string())
}

fn unrewritten(error: RewriteError) -> Refused {
    Refused::new(400, error.to_string())
}
