//! Limits: from the file's words to policies.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::Check;
use super::routes::Places;
use super::terms::Place;
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{List, OneOrMany, Setting, Spanned};
use crate::config::values::{KeyChoice, LimitName};
use crate::limit::key::{Key, KeyPart};
use crate::limit::policy::{Applies, DEFAULT_MAX_WAIT, DeniedResponse, Missing, Mode, PathPattern, Policy, Share};
use crate::route::PathMatch;

/// Where limits stand: at the top (no paths) or in a route.
pub(super) struct Scope<'a> {
    /// First part of default names.
    pub(super) name: &'a str,
    pub(super) paths: Option<&'a [PathMatch]>,
    /// The longest a request may be held.
    pub(super) timeout: Duration,
}

/// What all limits of the file share.
pub(super) struct Known<'a> {
    pub(super) policies: &'a mut Vec<Arc<Policy>>,
    pub(super) max_waits: &'a mut Vec<Option<Duration>>,
    pub(super) places: &'a mut Places,
    pub(super) ipv6_prefix: u8,
    pub(super) store_error: file::OnStoreError,
}

impl Check<'_> {
    pub(super) fn limits(
        &mut self,
        setting: &Setting<List<file::Limit>>,
        scope: &Scope<'_>,
        known: &mut Known<'_>,
    ) -> Vec<Arc<Policy>> {
        let mut policies = Vec::new();
        for limit in setting.get().iter().flat_map(|list| &list.0) {
            if let Some(policy) = self.limit(limit, scope, known) {
                let policy = Arc::new(policy);
                known.policies.push(Arc::clone(&policy));
                known.max_waits.push(max_wait(limit, scope));
                policies.push(policy);
            }
        }
        policies
    }

    fn limit(&mut self, limit: &Spanned<file::Limit>, scope: &Scope<'_>, known: &mut Known<'_>) -> Option<Policy> {
        let (name, is_first) = self.limit_name(limit, scope, known.places);
        let key = self.key(limit, scope, known.ipv6_prefix);
        let cost = self.cost(limit);
        let missing = match limit.missing.or(file::Missing::ClientIp) {
            file::Missing::ClientIp => Missing::ClientIp { ipv6_prefix: known.ipv6_prefix },
            file::Missing::Deny => Missing::Deny,
            file::Missing::Skip => Missing::Skip,
        };
        let networks = self.networks(limit, key.as_ref(), missing);
        let place = Place { limit, state_id: &name, cost: &cost, scope, networks: &networks };
        let terms = self.terms(place);
        let overrides = self.overrides(place, key.as_ref(), missing);
        let tiers = self.tiers(place, known.ipv6_prefix);
        if let Some(by) = limit.tiers.get().and_then(|tiers| tiers.by.spanned()) {
            known.places.add_tiers(&name, by.span);
        }
        let schedules = self.schedules(place, terms.as_ref());
        let dynamic = self.dynamic(place, key.as_ref(), missing, terms.as_ref());
        let mode = match limit.mode.or(file::Mode::Enforce) {
            file::Mode::Enforce => Mode::Enforce,
            file::Mode::Shadow => Mode::Shadow,
        };
        if let Some(span) = limit.shadow.key()
            && mode == Mode::Enforce
        {
            self.warn(span, "`shadow` has no effect on a limit that denies", "add `mode: shadow`, or leave it out");
        }
        // What else is said of limits is found by their names.
        is_first.then_some(())?;
        Some(Policy {
            index: known.policies.len(),
            ordinal: self.ordinals.limits.of(&name),
            key: key?,
            missing,
            terms: terms?,
            overrides: overrides?,
            settling: self.settling(limit, &cost),
            dynamic: dynamic.ok()?,
            tiers: tiers.ok()?,
            schedules: schedules.ok()?,
            cost,
            mode,
            applies: applies(limit),
            on_store_error: limit.on_store_error.or(known.store_error).into(),
            response: self.response(&limit.response).map(Arc::new),
            shadow_headers: limit.shadow.get().is_some_and(|shadow| shadow.headers.or(false)),
            enforced_share: limit.shadow.get().map_or(Share::default(), |shadow| share(&shadow.enforce)),
            warn_at: self.warn_at(limit),
            spread_retry: self.spread_retry(limit),
            networks,
            name: name.into(),
        })
    }

    /// The limit's name, and whether no limit above has it.
    fn limit_name(&mut self, limit: &Spanned<file::Limit>, scope: &Scope<'_>, places: &mut Places) -> (String, bool) {
        let (name, span) = match (limit.name.spanned(), limit.key.spanned()) {
            (Some(name), _) => (name.value.0.clone(), name.span),
            (None, Some(key)) => (default_name(scope.name, &key.value.0), key.span),
            (None, None) => (format!("{}/limit at {}", scope.name, limit.span.start), limit.span),
        };
        let is_first = places.add_policy(&name, span);
        if !is_first {
            self.error(
                span,
                format!("there is a limit `{name}` already"),
                "give this one a `name` of its own; a limit's name is its identity in the store",
            );
        }
        (name, is_first)
    }

    fn key(&mut self, limit: &Spanned<file::Limit>, scope: &Scope<'_>, ipv6_prefix: u8) -> Option<Key> {
        if limit.key.is_absent() {
            self.error(limit.span, "this limit has no key", "write `key: client_ip`, for example");
        }
        let given = limit.key.get()?;
        if given.0.is_empty()
            && let Some(span) = limit.key.key()
        {
            self.error(span, "this key has no part", "write `key: client_ip`, for example");
            return None;
        }
        for choice in &given.0 {
            for part in &choice.value.0 {
                self.key_part(part, choice.span, scope);
            }
        }
        Some(Key { parts: given.0.iter().map(|choice| choice.value.live(ipv6_prefix)).collect() })
    }

    /// What a request can be told apart by here: for keys and for tiers.
    pub(super) fn key_part(&mut self, part: &KeyPart, span: Span, scope: &Scope<'_>) {
        self.path_parameter(part, span, scope);
        self.claim(part, span);
        self.certificate_key(part, span);
    }

    /// A path parameter must be there on every path of the route.
    fn path_parameter(&mut self, part: &KeyPart, span: Span, scope: &Scope<'_>) {
        let KeyPart::Path(name) = part else { return };
        let Some(paths) = scope.paths else {
            self.error(
                span,
                format!("a limit for every request cannot be keyed by `path:{name}`"),
                "path parameters belong to a route: move this limit into it",
            );
            return;
        };
        let lacking = paths.iter().find(|path| !path.has_param(name));
        let message = match lacking {
            Some(path) => format!("the path `{}` of this route has no parameter `{name}`", path.text()),
            None if paths.is_empty() => format!("this route has no path with a parameter `{name}`"),
            None => return,
        };
        let params: Vec<_> = paths.iter().flat_map(PathMatch::param_names).collect();
        let help = crate::config::shape::nearest(name, params.into_iter()).map_or_else(
            || format!("write `{{{name}}}` for a segment of the path"),
            |near| format!("did you mean `path:{near}`?"),
        );
        self.error(span, message, help);
    }

    fn warn_at(&mut self, limit: &Spanned<file::Limit>) -> Option<Share> {
        let given = limit.warn_at.spanned()?;
        if given.value.parts() == Share::default() {
            self.error(given.span, "`warn_at: 0%` warns every request", "write a share such as 80%");
        }
        Some(given.value.parts())
    }

    fn spread_retry(&mut self, limit: &Spanned<file::Limit>) -> Option<Duration> {
        let given = limit.spread_retry.spanned()?;
        if given.value < Duration::from_secs(1) {
            self.error(given.span, "Retry-After is told in whole seconds", "write 1s or more, such as 1m");
        }
        if let (Some(key), false) = (limit.spread_retry.key(), limit.in_flight.is_absent()) {
            self.error(
                key,
                "`spread_retry` has no meaning beside `in_flight`",
                "leave it out: places end at no known time",
            );
        }
        Some(given.value)
    }

    fn response(&mut self, setting: &Setting<file::Response>) -> Option<DeniedResponse> {
        let response = setting.get()?;
        if response.body.is_absent()
            && response.status.is_absent()
            && let Some(key) = setting.key()
        {
            self.error(key, "this response says nothing", "give a `status`, a `body`, or both");
        }
        if let Some(body) = response.body.spanned() {
            self.placeholders(body);
        }
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        Some(DeniedResponse {
            status: response.status.get().map_or(http::StatusCode::TOO_MANY_REQUESTS, |status| status.0),
            content_type: response.content_type.get().map_or(plain, |value| value.0.clone()),
            body: response.body.get().map_or("", String::as_str).into(),
        })
    }
}

/// What is filled into a response's body.
const PLACEHOLDERS: [&str; 3] = ["limit.name", "limit.retry_after", "request.id"];

impl Check<'_> {
    /// A body may hold any braces, but what looks like a placeholder must be one.
    fn placeholders(&mut self, body: &Spanned<String>) {
        for (at, _) in body.match_indices('{') {
            let Some((name, _)) = body[at + 1..].split_once('}') else { continue };
            let meant = name.starts_with("limit.") || name.starts_with("request.");
            if meant && !PLACEHOLDERS.contains(&name) {
                let help = crate::config::shape::nearest(name, PLACEHOLDERS.into_iter()).map_or_else(
                    || format!("there are {{{}}}", PLACEHOLDERS.join("}, {")),
                    |near| format!("did you mean `{{{near}}}`?"),
                );
                self.error(body.span, format!("`{{{name}}}` is not filled in"), help);
            }
        }
    }
}

/// The longest that a limit may hold a request.
fn max_wait(limit: &file::Limit, scope: &Scope<'_>) -> Option<Duration> {
    let is_leaky = limit.algorithm.or(file::AlgorithmName::TokenBucket) == file::AlgorithmName::LeakyBucket;
    is_leaky.then(|| limit.max_wait.or(DEFAULT_MAX_WAIT.min(scope.timeout)))
}

fn share(setting: &Setting<crate::config::values::Share>) -> Share {
    setting.get().map_or_else(Share::default, |share| share.parts())
}

fn applies(limit: &file::Limit) -> Applies {
    let patterns = |setting: &Setting<OneOrMany<PathPattern>>| {
        setting.get().iter().flat_map(|list| &list.0).map(|item| item.value.clone()).collect()
    };
    limit.r#match.get().map_or_else(Applies::default, |given| Applies {
        path: patterns(&given.path),
        not_path: patterns(&given.not_path),
    })
}

/// `<route>/<key>`, with what a name cannot hold written as `-`.
fn default_name(route: &str, key: &[Spanned<KeyChoice>]) -> String {
    let parts: Vec<_> = key.iter().map(|choice| choice.value.to_string()).collect();
    let name = format!("{route}/{}", parts.join("+"));
    name.chars().map(|letter| if LimitName::allows(letter) { letter } else { '-' }).collect()
}
