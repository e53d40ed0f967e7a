//! The account of one request: its canonical target, the route and those passed over, the limits.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::effects::Effects;
use super::request::{Asked, Refused, Target};
use super::token::Token;
use crate::config::{Config, sentences};
use crate::limit::Facts;
use crate::limit::control::Control;
use crate::limit::dynamic::Snapshot;
use crate::limit::key::{self, KeyPart, Subject};
use crate::limit::plan::{Because, Reading, Situation};
use crate::limit::policy::{Limit, Mode, Policy, Terms};
use crate::route::{Alternative, Considered, Route};

/// Everything there is to say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) method: String,
    /// Canonical.
    pub(crate) host: String,
    /// Canonical.
    pub(crate) path: String,
    pub(crate) client: String,
    /// Status and reason, when it goes no further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Refused>,
    /// The route it takes; `None` when none matches.
    pub(crate) route: Option<Chosen>,
    /// Routes passed over on the way, and those that would have matched as well.
    pub(crate) others: Vec<Other>,
    pub(crate) limits: Vec<LimitAccount>,
}

/// The route that is taken.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Chosen {
    pub(crate) name: String,
    pub(crate) conditions: String,
    /// `None` when it answers by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<String>,
    pub(crate) servers: Vec<String>,
    pub(crate) params: Vec<(String, String)>,
    /// What it does with the request beside that.
    #[serde(flatten)]
    pub(crate) effects: Effects,
}

/// A route that is not taken.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Other {
    pub(crate) name: String,
    pub(crate) conditions: String,
    pub(crate) reason: String,
}

/// One limit of the route.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LimitAccount {
    pub(crate) name: String,
    /// What it means in general.
    pub(crate) meaning: String,
    /// Whether this request is counted, denied at once, or passed by.
    pub(crate) effect: Cow<'static, str>,
    /// Whose state, with client-chosen values hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<u64>,
    /// Why it is not simply what the meaning says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) because: Option<String>,
    /// What is not known here and may change the effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<Cow<'static, str>>,
    /// What is left now, where a store was asked; one per rate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) now: Vec<Left>,
    /// What a store can be asked.
    #[serde(skip)]
    pub(crate) counted: Option<Counted>,
}

/// What is left of one rate of a limit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) rate: Option<String>,
    pub(crate) burst: u64,
    pub(crate) remaining: u64,
    /// Until the key has its full burst again, milliseconds.
    pub(crate) reset_ms: u64,
}

/// Whose state a request is counted by, and how.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) subject: Subject,
    pub(crate) limits: Vec<Limit>,
}

/// What was changed while the proxy runs; nothing where none runs.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub(crate) overrides: Option<Arc<Snapshot>>,
    pub(crate) control: Option<Arc<Control>>,
}

impl Account {
    /// What happens to a request under a configuration.
    pub(crate) fn of(config: &Config, request: &Asked<'_>, changed: &Changed) -> Self {
        let mut account = Self {
            method: request.method.to_string(),
            host: String::new(),
            path: request.path.to_owned(),
            client: request.client.to_string(),
            refused: None,
            route: None,
            others: Vec::new(),
            limits: Vec::new(),
        };
        if let Err(refused) = account.follow(config, request, changed) {
            account.refused = Some(refused);
        }
        account
    }

    /// Goes the way of the request.
    fn follow(&mut self, config: &Config, request: &Asked<'_>, changed: &Changed) -> Result<(), Refused> {
        let target = request.target()?;
        self.path = target.path.text.to_string();
        self.host = target.host.to_string();
        if let Some(route) = config.router.preflight(&target.head(request)) {
            let effects = Effects::preflight(route, request);
            self.route = Some(Chosen { effects, ..Chosen::of(route, &[]) });
            return Ok(());
        }
        let found = target.find(&config.router, request);
        self.others = others(config, request, &target);
        self.route = (!found.route.is_unmatched()).then(|| Chosen::of(found.route, &found.params));
        target.passes(config, request, &found)?;
        let token = Token::new(config, request);
        let facts = Facts { claims: &token, ..target.facts(request, &found) };
        for policy in &found.route.policies {
            let hashing = &config.store.hashing();
            let (overrides, control) = (changed.overrides.as_deref(), changed.control.as_deref());
            let situation = Situation { hashing, overrides, clock: request.clock, control };
            let account = LimitAccount::of(policy, &facts, situation)?;
            self.limits.push(LimitAccount { notes: notes(policy, &token, changed), ..account });
        }
        match &mut self.route {
            None => Err(Refused::new(404, "no route matches; global limits hold all the same")),
            Some(chosen) => {
                chosen.effects = Effects::of(config, found.route, request, (&target, &facts))?;
                Ok(())
            }
        }
    }
}

impl Chosen {
    /// A route, without what it does.
    fn of(route: &Route, params: &[(&str, &str)]) -> Self {
        let servers = route.upstream.iter().flat_map(|upstream| &upstream.servers);
        Self {
            name: route.name.to_string(),
            conditions: conditions_of(route),
            upstream: route.upstream.as_ref().map(|upstream| upstream.name.to_string()),
            servers: servers.map(|server| server.label.to_string()).collect(),
            params: params.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            effects: Effects::default(),
        }
    }
}

impl LimitAccount {
    /// What one limit makes of the request.
    fn of(policy: &Policy, facts: &Facts<'_>, situation: Situation<'_, '_>) -> Result<Self, Refused> {
        let mut account = Self {
            name: policy.name.to_string(),
            meaning: sentences::sentence(policy),
            effect: Cow::Borrowed("passed by"),
            key: None,
            cost: None,
            because: None,
            notes: Vec::new(),
            now: Vec::new(),
            counted: None,
        };
        match Reading::of(policy, facts, situation) {
            Ok(Reading::Elsewhere) => account.because = Some("its match leaves this path out".to_owned()),
            Ok(Reading::Skipped) => {
                account.because = Some("the request does not carry its key (missing: skip)".to_owned());
            }
            Ok(Reading::Keyed { subject, terms, because, without_key, .. }) => {
                account.effect = Cow::Borrowed(effect(terms, situation.mode_for(policy, facts)));
                account.key = (!subject.is_empty()).then(|| key::shown(&subject, situation.hashing));
                account.cost = matches!(terms, Terms::Limited(_)).then(|| policy.cost.of(facts));
                account.because = reasons(policy, because, terms, without_key);
                account.counted = counted(terms, subject);
            }
            Err(error) if situation.mode_of(policy) == Mode::Enforce => {
                return Err(Refused::new(400, format!("limit {}: {error}", policy.name)));
            }
            Err(error) => account.because = Some(error.to_string()),
        }
        Ok(account)
    }
}

/// What explanations leave out, as they ask nobody and verify nothing.
fn notes(policy: &Policy, token: &Token<'_>, changed: &Changed) -> Vec<Cow<'static, str>> {
    let mut notes = Vec::new();
    if token.is_unverified() && policy.asked_parts().any(|part| matches!(part, KeyPart::Jwt(_))) {
        notes.push(Cow::Borrowed("tokens in fields are not verified here: say what it tells with --jwt-claims"));
    }
    if policy.dynamic.is_some() && changed.overrides.is_none() {
        notes.push(Cow::Borrowed("an override that was set for the key through the admin API would come first"));
    }
    notes
}

/// Which states a store could be asked for.
fn counted(terms: &Terms, subject: Subject) -> Option<Counted> {
    let Terms::Limited(limits) = terms else { return None };
    Some(Counted { subject, limits: limits.iter().filter(|limit| limit.network.is_none()).cloned().collect() })
}

/// What terms do to a request.
fn effect(terms: &Terms, mode: Mode) -> &'static str {
    match (terms, mode) {
        (Terms::Unlimited, _) => "unlimited",
        (Terms::Limited(_), Mode::Enforce) => "counted",
        (Terms::Limited(_), Mode::Shadow) => "watched",
        (Terms::Deny, Mode::Enforce) => "denied",
        (Terms::Deny, Mode::Shadow) => "would be denied",
    }
}

/// Why other terms than the limit's own hold, or another key.
fn reasons(policy: &Policy, because: Because, terms: &Terms, without_key: bool) -> Option<String> {
    let missing = if because == Because::Missing { "deny" } else { "client_ip" };
    let key = without_key.then(|| format!("the request does not carry its key (missing: {missing})"));
    let why = match because {
        Because::Own | Because::Missing => None,
        Because::Dynamic => Some("an override set through the admin API".to_owned()),
        Because::Override(position) => Some(format!("override {}", position + 1)),
        Because::Tier(position) => {
            policy.tiers.as_ref().and_then(|tiers| tiers.values.get(position)).map(|tier| format!("tier {}", tier.name))
        }
        Because::Schedule(position) => {
            let schedule = policy.schedules.as_ref().and_then(|schedules| schedules.list.get(position));
            schedule.map(|schedule| format!("schedule {} ({})", schedule.name, schedule.hours))
        }
    };
    let why = why.map(|why| format!("{why}: {}", sentences::terms(terms)));
    (key.is_some() || why.is_some()).then(|| key.into_iter().chain(why).collect::<Vec<_>>().join("; "))
}

/// What is passed over before the first match, and what matches behind it.
fn others(config: &Config, request: &Asked<'_>, target: &Target<'_>) -> Vec<Other> {
    let mut taken = false;
    let mut others = Vec::new();
    for step in config.router.explain(&target.head(request)) {
        let reason = match step.outcome {
            Considered::Matched if !taken => {
                taken = true;
                continue;
            }
            Considered::Matched => "matches too, but is less specific".to_owned(),
            _ if taken => continue,
            Considered::Host => "is for another host".to_owned(),
            Considered::Path => "is for another path".to_owned(),
            Considered::Method => "is for another method".to_owned(),
            Considered::Header(name) => format!("its condition on {name} does not hold"),
            Considered::Query(name) => format!("its condition on the query parameter {name} does not hold"),
        };
        let Alternative { route, host, path } = step.alternative;
        let hosts: Vec<_> = host.iter().map(ToString::to_string).collect();
        let paths: Vec<_> = path.iter().map(ToString::to_string).collect();
        others.push(Other { name: route.name.to_string(), conditions: conditions(route, &hosts, &paths), reason });
    }
    others
}

/// Everything that a route asks of requests, in words.
pub(crate) fn conditions_of(route: &Route) -> String {
    let hosts = route.matches.hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let paths = route.matches.paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    conditions(route, &hosts, &paths)
}

/// `host a, b · path /x · method POST · x-version: 2`.
fn conditions(route: &Route, hosts: &[String], paths: &[String]) -> String {
    let methods: Vec<_> = route.matches.methods.iter().map(ToString::to_string).collect();
    let lists = [("host", hosts), ("path", paths), ("method", &methods)];
    let mut conditions: Vec<_> = lists
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(word, list)| format!("{word} {}", list.join(", ")))
        .collect();
    conditions.extend(route.matches.headers.iter().map(|(name, wanted)| format!("{name}{wanted}")));
    conditions.extend(route.matches.query.iter().map(|(name, wanted)| format!("query {name}{wanted}")));
    if conditions.is_empty() { "every request".to_owned() } else { conditions.join(" · ") }
}
