//! `limits/{limit}/keys[/{key}]`: which keys a limit meets most, how one of them stands, and its reset.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Outcome;
use crate::admin::Service;
use crate::admin::answer::Answer;
use crate::config::Config;
use crate::limit::inspect::{Held, limits_of, subjects};
use crate::limit::key::{self, Subject};
use crate::limit::policy::{Limit, Policy};
use crate::limit::stats::StoreErrorKind;
use crate::limit::top::Met;

/// Keys that are listed unless `?count=` says otherwise, and at most.
const LISTED: (usize, usize) = (20, 100);

/// One key of a limit: the subjects it may have, and the states of each.
struct Asked {
    config: Arc<Config>,
    subjects: Vec<Subject>,
    limits: Vec<Limit>,
}

impl Service {
    pub(super) fn top_keys(&self, name: &str, query: Option<&str>) -> Result<Value, Answer> {
        let policy = self.limit(name)?;
        let given = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("count=")));
        let count = match given.map(str::parse::<usize>) {
            None => LISTED.0,
            Some(Ok(count)) if (1..=LISTED.1).contains(&count) => count,
            Some(_) => return Err(Answer::bad_request("`count` is a number from 1 to 100.")),
        };
        let keys: Vec<_> = self.met(&policy).into_iter().take(count).map(|(key, met)| told(&key, met)).collect();
        Ok(json!({ "limit": &*policy.name, "since_seconds": self.counted_seconds(), "keys": keys }))
    }

    /// The keys of a limit as people are told them, those that are denied most first.
    pub(in crate::admin) fn met(&self, policy: &Policy) -> Vec<(String, Met)> {
        let hashing = self.admin.sources.config().store.hashing();
        let met = self.admin.sources.met(policy.ordinal);
        let mut keys: Vec<_> = met.into_iter().map(|(subject, met)| (key::shown(&subject, &hashing), met)).collect();
        keys.sort_by(|(a, one), (b, other)| {
            (other.denied, other.requests).cmp(&(one.denied, one.requests)).then_with(|| a.cmp(b))
        });
        keys
    }

    pub(super) async fn key(&self, name: &str, text: &[u8]) -> Result<Value, Answer> {
        let policy = self.limit(name)?;
        let asked = self.asked(&policy, text)?;
        let mut states = Vec::new();
        for subject in &asked.subjects {
            let held = self.inspector.look(&asked.config.store, &asked.limits, subject).await.map_err(unanswered)?;
            states.push((subject, held));
        }
        // A claim may be a text or a number: the one that has used something is meant.
        let used = states.iter().position(|(_, held)| held.iter().any(is_used)).unwrap_or(0);
        let (shown, held) = match states.get(used) {
            Some((subject, held)) => (key::shown(subject, &asked.config.store.hashing()), held.as_slice()),
            None => (String::new(), &[][..]),
        };
        let own = |held: &Held| held.limit.state_id.split(['@', '~']).next() == Some(&held.limit.state_id);
        let relevant = held.iter().enumerate().filter(|(position, held)| *position == 0 || own(held) || is_used(held));
        let states: Vec<_> = relevant.map(|(_, held)| state(&policy, held)).collect();
        Ok(json!({ "limit": &*policy.name, "key": shown, "states": states }))
    }

    pub(super) async fn reset(&self, name: &str, text: &[u8]) -> Outcome {
        let policy = self.limit(name)?;
        let asked = self.asked(&policy, text)?;
        for subject in &asked.subjects {
            self.inspector.reset(&asked.config.store, &asked.limits, subject).await.map_err(unanswered)?;
        }
        self.admin.control.note_reset();
        Ok(Answer::json(&json!({ "limit": &*policy.name, "reset": true })))
    }

    /// Reads a key as people write it, or as the list of top keys shows it.
    fn asked(&self, policy: &Policy, text: &[u8]) -> Result<Asked, Answer> {
        let config = self.admin.sources.config();
        let hashing = config.store.hashing();
        let met: HashMap<Subject, Met> = self.admin.sources.met(policy.ordinal);
        let listed = met.into_keys().find(|subject| key::shown(subject, &hashing).as_bytes() == text);
        let subjects = match listed {
            Some(subject) => vec![subject],
            None => subjects(policy, text, &hashing).map_err(|error| Answer::bad_request(&error.to_string()))?,
        };
        let overrides = self.admin.overrides.as_ref().map(|overrides| overrides.snapshot());
        let dynamic = overrides
            .as_deref()
            .and_then(|overrides| subjects.iter().find_map(|subject| overrides.terms_of(&policy.name, subject)));
        let limits = limits_of(policy, dynamic);
        Ok(Asked { config, subjects, limits })
    }
}

fn told(key: &str, met: Met) -> Value {
    json!({ "key": key, "requests": met.requests, "denied": met.denied, "error": met.error })
}

fn is_used(held: &Held) -> bool {
    held.answer.reset_us > 0
}

/// One state as JSON.
fn state(policy: &Policy, held: &Held) -> Value {
    let id = &*held.limit.state_id;
    json!({
        "state": id.strip_prefix(&*policy.name).filter(|rest| !rest.is_empty()).unwrap_or("own"),
        "rate": held.limit.rate.map(|rate| rate.to_string()),
        "burst": held.limit.burst(),
        "remaining": held.answer.remaining,
        "reset_ms": held.answer.reset_us.div_ceil(1000),
    })
}

/// The answer when the store gives none.
pub(super) fn unanswered(kind: StoreErrorKind) -> Answer {
    let detail = format!("The store did not answer ({}): {}.", kind.label(), kind.advice());
    Answer::problem(503, "Service unavailable", &detail)
}
