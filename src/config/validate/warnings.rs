//! What is valid and probably not meant.

mod evasion;
mod sockets;

use super::Check;
use super::routes::Places;
use crate::config::Config;

use crate::limit::algorithm::Bucket;
use crate::limit::key::{Hashing, KeyPart};
use crate::limit::policy::{Mode, Policy, Terms};
use crate::limit::store::settings::Backend;
use crate::route::Route;

/// Fields that proxies write client addresses into.
const FORWARDED: [&str; 6] =
    ["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip", "x-client-ip"];

/// Words in the path or name of a route that checks passwords.
const LOGIN: [&str; 6] = ["login", "signin", "sign-in", "logon", "password", "authenticate"];

impl Check<'_> {
    pub(super) fn warn_about(&mut self, config: &Config, places: &Places) {
        for policy in &config.policies {
            self.warn_about_key(policy, config, places);
            self.warn_about_tiers(policy, config, places);
        }
        // A mistake may have left out what the rest would miss, or made a match wider than it is meant.
        if !self.is_sound() {
            return;
        }
        for (shadowed, by) in config.router.shadowed() {
            if let Some(span) = places.route(&shadowed.name) {
                self.warn(
                    span,
                    format!("no request reaches the route `{}`: `{}` takes them all", shadowed.name, by.name),
                    "make its match more specific, or remove it",
                );
            }
        }
        // The implicit route of unmatched requests has exactly the limits of every request.
        let unmatched = config.router.routes().last();
        let global: Vec<usize> =
            unmatched.iter().flat_map(|route| &route.policies).map(|policy| policy.index).collect();
        let mut redundant = Vec::new();
        for route in config.router.routes() {
            self.warn_about_redundant(route, &global, places, &mut redundant);
            self.warn_about_login(route, places);
        }
        self.warn_about_unverified(config, places);
    }

    fn warn_about_key(&mut self, policy: &Policy, config: &Config, places: &Places) {
        let Some(span) = places.policy(&policy.name) else { return };
        let parts = || policy.key.parts.iter().flatten();
        let forwarded = parts().find_map(|part| match part {
            KeyPart::Header(name) if FORWARDED.contains(&name.as_str()) => Some(name),
            _ => None,
        });
        if let Some(name) = forwarded
            && config.trusted_proxies.is_empty()
            && !config.trusts_unix
        {
            self.warn(
                span,
                format!("clients write `{name}` themselves, and no proxy is trusted to overwrite it"),
                "use `key: client_ip`, and list the proxies in front in `trusted_proxies`",
            );
        }
        if matches!(config.store.backend, Backend::Memory) && is_leased(policy) {
            self.warn(
                span,
                "a lease spares calls to Redis, and there are none: it only makes the burst smaller",
                "leave `lease` out, or configure `store.redis`",
            );
        }
        if let Backend::Redis(redis) = &config.store.backend
            && matches!(redis.hashing, Hashing::Hashed(None))
            && parts().any(KeyPart::is_hashed)
        {
            self.warn(
                span,
                "values of this key stand in Redis as an unkeyed hash: whoever reads Redis can guess short ones",
                "give `store.key_secret_file`",
            );
        }
    }

    /// A plan that clients choose themselves.
    fn warn_about_tiers(&mut self, policy: &Policy, config: &Config, places: &Places) {
        let chosen = policy.tiers.iter().flat_map(|tiers| &tiers.by).find(|part| part.is_client_chosen());
        if let (Some(part), Some(span), true) = (chosen, places.tiers(&policy.name), config.trusted_proxies.is_empty())
        {
            self.warn(
                span,
                format!("clients choose their tier themselves: whoever sends `{part}` is believed"),
                "let a proxy in front set it for every request, and list that proxy in `trusted_proxies`",
            );
        }
    }

    /// A limit that another one of the same requests always reaches first.
    fn warn_about_redundant(&mut self, route: &Route, global: &[usize], places: &Places, said: &mut Vec<usize>) {
        let policies = &route.policies;
        for (position, policy) in policies.iter().enumerate() {
            let tighter = policies.iter().enumerate().find(|&(other, tighter)| {
                other != position && never_binds(policy, tighter) && (other < position || !never_binds(tighter, policy))
            });
            let Some((_, tighter)) = tighter else { continue };
            // A limit of every request may bind on another route, where the tighter one does not hold.
            let misses_elsewhere = global.contains(&policy.index) && !global.contains(&tighter.index);
            if said.contains(&policy.index) || misses_elsewhere {
                continue;
            }
            said.push(policy.index);
            if let Some(span) = places.policy(&policy.name) {
                self.warn(
                    span,
                    format!("this limit can never bind: `{}` has the same key and is tighter", tighter.name),
                    "remove it, or make it tighter in burst or in rate",
                );
            }
        }
    }

    fn warn_about_login(&mut self, route: &Route, places: &Places) {
        let named_login = |text: &str| LOGIN.iter().any(|word| text.to_ascii_lowercase().contains(word));
        if !named_login(&route.name) && !route.matches.paths.iter().any(|path| named_login(path.text())) {
            return;
        }
        let by_address =
            |policy: &Policy| policy.key.parts.iter().flatten().all(|part| matches!(part, KeyPart::ClientIp { .. }));
        if let (true, Some(span)) = (
            !route.policies.is_empty() && route.policies.iter().all(|policy| by_address(policy)),
            places.route(&route.name),
        ) {
            self.warn(
                span,
                "passwords tried from many addresses pass these limits: all of them count by client address",
                "add a limit keyed by the account, such as `key: header:x-username`, beside them",
            );
        }
    }
}

/// Whether tokens of this limit are taken in advance.
fn is_leased(policy: &Policy) -> bool {
    matches!(&policy.terms, Terms::Limited(limits) if limits.iter().any(|limit| limit.lease.is_some()))
}

/// Whether whatever `tighter` admits, `policy` admits too.
fn never_binds(policy: &Policy, tighter: &Policy) -> bool {
    let comparable = policy.key == tighter.key
        && policy.missing == tighter.missing
        && policy.cost == tighter.cost
        && tighter.mode == Mode::Enforce
        && policy.mode == Mode::Enforce
        && tighter.overrides.is_empty()
        && policy.overrides.is_empty()
        && tighter.tiers.is_none()
        && policy.tiers.is_none()
        && tighter.schedules.is_none()
        && policy.schedules.is_none()
        && tighter.dynamic.is_none()
        && policy.dynamic.is_none()
        && tighter.applies.path.is_empty()
        && tighter.applies.not_path.is_empty();
    let bucket = |policy: &Policy| match &policy.terms {
        Terms::Limited(limits) if limits.len() == 1 => limits[0].algorithm.bucket().copied(),
        _ => None,
    };
    let (Some(limit), Some(other)) = (bucket(policy), bucket(tighter)) else { return false };
    comparable && is_tighter(&other, &limit)
}

/// Whether a bucket's burst and rate are both at most the other's.
fn is_tighter(bucket: &Bucket, other: &Bucket) -> bool {
    let per = |bucket: &Bucket| u128::from(bucket.period) * u128::from(bucket.tick);
    bucket.capacity <= other.capacity && u128::from(bucket.rate) * per(other) <= u128::from(other.rate) * per(bucket)
}
