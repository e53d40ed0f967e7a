//! Routes whose every limit clients leave behind: by inventing values, by inventing hosts, or without a token.

use std::sync::Arc;

use super::super::Check;
use super::super::routes::Places;
use crate::config::Config;
use crate::limit::key::KeyPart;
use crate::limit::policy::{Missing, Mode, Policy};
use crate::route::{HostPattern, Route};

/// How a client leaves a limit behind.
#[derive(Clone, Copy)]
enum Evasion {
    /// Another value of a part that it writes as it likes.
    Value,
    /// Another host, where the route takes more than it names.
    Host,
    /// No token, or one that is not believed and that the upstream may believe.
    Token,
}

impl Check<'_> {
    /// Warns once about the first limit of each such route.
    pub(super) fn warn_about_unverified(&mut self, config: &Config, places: &Places) {
        let mut said = Vec::new();
        for route in config.router.routes() {
            let enforced = route.policies.iter().filter(|policy| policy.mode == Mode::Enforce);
            let evasions: Option<Vec<_>> =
                enforced.map(|policy| Some((policy, Evasion::of(policy, route, config)?))).collect();
            let Some(&(policy, evasion)) = evasions.as_deref().and_then(<[_]>::first) else { continue };
            if said.contains(&policy.index) {
                continue;
            }
            said.push(policy.index);
            if let Some(span) = places.policy(&policy.name) {
                self.warn(span, evasion.message(), evasion.cure());
            }
        }
    }
}

impl Evasion {
    fn of(policy: &Policy, route: &Route, config: &Config) -> Option<Self> {
        let parts = || policy.key.parts.iter().flatten();
        if parts().any(KeyPart::is_client_chosen) {
            return Some(Self::Value);
        }
        if parts().any(|part| *part == KeyPart::Host) && takes_any_host(route, config) {
            return Some(Self::Host);
        }
        (policy.missing == Missing::Skip && asks_for_token(policy)).then_some(Self::Token)
    }

    fn message(self) -> &'static str {
        match self {
            Self::Value => "a client leaves this limit behind by sending another value, which nothing verifies",
            Self::Host => "a client leaves this limit behind by inventing another host, which this route takes too",
            Self::Token => "whoever sends no token, or one that is not believed, passes this limit uncounted",
        }
    }

    fn cure(self) -> &'static str {
        match self {
            Self::Value => "add a limit with `key: client_ip` beside it",
            Self::Host => "name `host:` in the route's match, or add a limit with `key: client_ip` beside it",
            Self::Token => "leave `missing: skip` out, or add a limit with `key: client_ip` beside it",
        }
    }
}

/// Whether a route names no host, or names one by its end only. What matches no route reaches no upstream,
/// whatever host it invents.
fn takes_any_host(route: &Route, config: &Config) -> bool {
    let is_unmatched = config.router.routes().last().is_some_and(|last| std::ptr::eq(Arc::as_ptr(last), route));
    let hosts = &route.matches.hosts;
    let exact = !hosts.is_empty() && hosts.iter().all(|host| matches!(host, HostPattern::Exact(_)));
    !(exact || is_unmatched)
}

/// Whether a request without a believed token lacks the key.
fn asks_for_token(policy: &Policy) -> bool {
    policy.key.parts.iter().any(|alternatives| {
        alternatives.iter().all(KeyPart::may_be_missing)
            && alternatives.iter().any(|part| matches!(part, KeyPart::Jwt(_)))
    })
}
