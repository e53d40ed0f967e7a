//! Limits, expanded.

use std::time::Duration;

use super::{Lines, cost, quoted, terms, variants};
use crate::config::Config;
use crate::limit::key::KeyPart;
use crate::limit::policy::{Missing, Mode, OnStoreError, OverrideMatch, PathPattern, Policy};
use crate::units::DurationText;

pub(super) fn limits(out: &mut Lines, indent: usize, policies: &[std::sync::Arc<Policy>], config: &Config) {
    if !policies.is_empty() {
        out.line(indent, "limits:");
    }
    for policy in policies {
        out.line(indent + 2, format_args!("- name: {}", quoted(&policy.name)));
        limit(out, indent + 4, policy, config.max_waits.get(policy.index).copied().flatten());
    }
}

fn limit(out: &mut Lines, indent: usize, policy: &Policy, max_wait: Option<Duration>) {
    out.list(indent, "key", policy.key.parts.iter().map(|choice| key_choice(choice)));
    if policy.key.may_be_missing() {
        out.pair(
            indent,
            "missing",
            match policy.missing {
                Missing::ClientIp { .. } => "client_ip",
                Missing::Deny => "deny",
                Missing::Skip => "skip",
            },
        );
    }
    terms::terms(out, indent, &policy.terms, max_wait);
    cost::costs(out, indent, policy);
    out.pair(indent, "mode", if policy.mode == Mode::Shadow { "shadow" } else { "enforce" });
    if policy.mode == Mode::Shadow {
        let (headers, enforce) = (policy.shadow_headers, policy.enforced_share);
        out.pair(indent, "shadow", format_args!("{{ headers: {headers}, enforce: {enforce} }}"));
    }
    overrides(out, indent, policy);
    variants::tiers(out, indent, policy);
    variants::schedules(out, indent, policy);
    variants::dynamic_overrides(out, indent, policy);
    if let Some(share) = policy.warn_at {
        out.pair(indent, "warn_at", share);
    }
    if let Some(over) = policy.spread_retry {
        out.pair(indent, "spread_retry", DurationText(over));
    }
    out.pair(
        indent,
        "on_store_error",
        match policy.on_store_error {
            OnStoreError::Local => "local",
            OnStoreError::Allow => "allow",
            OnStoreError::Deny => "deny",
        },
    );
    let applies = &policy.applies;
    if !applies.path.is_empty() || !applies.not_path.is_empty() {
        out.line(indent, "match:");
        out.list(indent + 2, "path", applies.path.iter().map(path_pattern));
        out.list(indent + 2, "not_path", applies.not_path.iter().map(path_pattern));
    }
    if let Some(response) = &policy.response {
        out.line(indent, "response:");
        out.pair(indent + 2, "status", response.status.as_u16());
        out.pair(indent + 2, "content_type", quoted(&String::from_utf8_lossy(response.content_type.as_bytes())));
        out.pair(indent + 2, "body", quoted(&response.body));
    }
}

fn overrides(out: &mut Lines, indent: usize, policy: &Policy) {
    if !policy.overrides.is_empty() {
        out.line(indent, "overrides:");
    }
    for given in &policy.overrides {
        // What a value must be written behind.
        let several = policy.key.named_parts().len() > 1;
        let keys: Vec<_> = given
            .matches
            .iter()
            .map(|matches| match matches {
                OverrideMatch::Network(network) => quoted(&network.to_string()),
                OverrideMatch::Value { part, .. } if several => quoted(&format!("{part}=***")),
                OverrideMatch::Value { .. } => quoted("***"),
            })
            .collect();
        out.line(indent + 2, format_args!("- key: [{}]", keys.join(", ")));
        terms::only(out, indent + 4, &given.terms);
    }
}

pub(super) fn key_choice(choice: &[KeyPart]) -> String {
    choice.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

fn path_pattern(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.to_string(),
        PathPattern::Prefix(prefix) => format!("{prefix}*"),
    }
}
