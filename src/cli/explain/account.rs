//! The account of one request: its canonical target, the route and those passed over, the limits.

use serde::Serialize;

use super::effects::Effects;
use crate::cli::request::{Asked, Refused, Target};
use crate::cli::token::Token;
use crate::config::{Config, sentences};
use crate::limit::Facts;
use crate::limit::key::{self, KeyPart};
use crate::limit::plan::{Because, Reading, Situation};
use crate::limit::policy::{Mode, Policy, Terms};
use crate::route::{Alternative, Considered, Route};

/// Everything there is to say.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    pub(super) method: String,
    /// Canonical.
    pub(super) host: String,
    /// Canonical.
    pub(super) path: String,
    pub(super) client: String,
    /// Status and reason, when it goes no further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<Refused>,
    /// The route it takes; `None` when none matches.
    pub(super) route: Option<Chosen>,
    /// Routes passed over on the way, and those that would have matched as well.
    pub(super) others: Vec<Other>,
    pub(super) limits: Vec<LimitAccount>,
}

/// The route that is taken.
#[derive(Debug, Serialize)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) conditions: String,
    /// `None` when it answers by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<String>,
    pub(super) servers: Vec<String>,
    pub(super) params: Vec<(String, String)>,
    /// What it does with the request beside that.
    #[serde(flatten)]
    pub(super) effects: Effects,
}

/// A route that is not taken.
#[derive(Debug, Serialize)]
pub(super) struct Other {
    pub(super) name: String,
    pub(super) conditions: String,
    pub(super) reason: String,
}

/// One limit of the route.
#[derive(Debug, Serialize)]
pub(super) struct LimitAccount {
    pub(super) name: String,
    /// What it means in general.
    pub(super) meaning: String,
    /// Whether this request is counted, denied at once, or passed by.
    pub(super) effect: &'static str,
    /// Whose state, with client-chosen values hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cost: Option<u64>,
    /// Why it is not simply what the meaning says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) because: Option<String>,
    /// What is not known here and may change the effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<&'static str>,
}

impl Account {
    /// What happens to a request under a configuration.
    pub(super) fn of(config: &Config, request: &Asked<'_>) -> Self {
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
        if let Err(refused) = account.follow(config, request) {
            account.refused = Some(refused);
        }
        account
    }

    /// Goes the way of the request.
    fn follow(&mut self, config: &Config, request: &Asked<'_>) -> Result<(), Refused> {
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
            let hashing = &config.store.shown_hashing();
            let situation = Situation { hashing, overrides: None, clock: request.clock };
            let account = LimitAccount::of(policy, &facts, situation)?;
            self.limits.push(LimitAccount { notes: notes(policy, &token), ..account });
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
        let matches = &route.matches;
        let hosts = matches.hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let paths = matches.paths.iter().map(ToString::to_string).collect::<Vec<_>>();
        Self {
            name: route.name.to_string(),
            conditions: conditions(route, &hosts, &paths),
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
            effect: "passed by",
            key: None,
            cost: None,
            because: None,
            notes: Vec::new(),
        };
        match Reading::of(policy, facts, situation) {
            Ok(Reading::Elsewhere) => account.because = Some("its match leaves this path out".to_owned()),
            Ok(Reading::Skipped) => {
                account.because = Some("the request does not carry its key (missing: skip)".to_owned());
            }
            Ok(Reading::Keyed { subject, terms, because, without_key, .. }) => {
                account.effect = effect(terms, policy.mode_for(facts));
                account.key = (!subject.is_empty()).then(|| String::from_utf8_lossy(key::own(&subject)).into_owned());
                account.cost = matches!(terms, Terms::Limited(_)).then(|| policy.cost.of(facts));
                account.because = reasons(policy, because, terms, without_key);
            }
            Err(error) if policy.mode == Mode::Enforce => {
                return Err(Refused::new(400, format!("limit {}: {error}", policy.name)));
            }
            Err(error) => account.because = Some(error.to_string()),
        }
        Ok(account)
    }
}

/// What explanations leave out, as they ask nobody and verify nothing.
fn notes(policy: &Policy, token: &Token<'_>) -> Vec<&'static str> {
    let mut notes = Vec::new();
    if token.is_unverified() && policy.asked_parts().any(|part| matches!(part, KeyPart::Jwt(_))) {
        notes.push("tokens in fields are not verified here: say what it tells with --jwt-claims");
    }
    if policy.dynamic.is_some() {
        notes.push("an override that was set for the key through the admin API would come first");
    }
    notes
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
