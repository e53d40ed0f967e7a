//! Looking at the states of single keys, and resetting them, off the requests' path: with Redis over a
//! connection of its own, which is opened when it is first needed. Looking charges nothing.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::fallback::Fallback;
use super::key::{self, Facts, Hashing, KeyPart, KeyValue, NoClaims, Subject};
use super::policy::{Limit, Missing, Policy, Terms};
use super::stats::{LimitStats, StoreErrorKind};
use super::store::redis::RedisStore;
use super::store::settings::{Backend, StoreSettings};
use super::store::{Answer, Ask};

/// Looks at states. Needs a local runtime.
#[derive(Debug)]
pub struct Inspector {
    fallback: Arc<Fallback>,
    stats: Arc<LimitStats>,
    redis: OnceCell<Rc<RedisStore>>,
}

/// One state of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its limit.
    pub limit: Limit,
    /// What the store says of it.
    pub answer: Answer,
}

/// Why a text names no key of a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Only addresses are counted by.
    #[error("This limit counts by {0}: write an address.")]
    NotAnAddress(String),
    /// Several things are, together or in turn.
    #[error("This limit counts by {0}: write the key as `tollgate explain` and the list of top keys show it.")]
    WhichPart(String),
}

impl Inspector {
    /// Over the states of a process; what goes wrong with Redis is counted in `stats`.
    #[must_use]
    pub fn new(fallback: Arc<Fallback>, stats: Arc<LimitStats>) -> Self {
        Self { fallback, stats, redis: OnceCell::new() }
    }

    /// What the store says of these limits for a subject, in order, without charging anything.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn look(
        &self,
        settings: &StoreSettings,
        limits: &[Limit],
        subject: &Subject,
    ) -> Result<Vec<Held>, StoreErrorKind> {
        let mut held = Vec::with_capacity(limits.len());
        for limit in limits {
            let ask = Ask::new(&limit.state_id, &limit.algorithm, subject, 0);
            let reply = match self.redis(settings) {
                Some(store) => store.decide(&[ask]).await?,
                None => self.fallback.memory.decide(&[ask]),
            };
            let answer = reply.answers.first().copied().ok_or(StoreErrorKind::Protocol)?;
            held.push(Held { limit: limit.clone(), answer });
        }
        Ok(held)
    }

    /// Makes the states of these limits for a subject equal to "never seen".
    ///
    /// # Errors
    /// When the store does not do it; some may be reset then.
    pub async fn reset(
        &self,
        settings: &StoreSettings,
        limits: &[Limit],
        subject: &Subject,
    ) -> Result<(), StoreErrorKind> {
        for limit in limits {
            if let Some(store) = self.redis(settings) {
                store.reset(&limit.state_id, &limit.algorithm, subject).await?;
            }
            // With Redis: what was remembered of it for the time without.
            self.fallback.memory.reset(&limit.state_id, &limit.algorithm, subject);
        }
        Ok(())
    }

    fn redis(&self, settings: &StoreSettings) -> Option<&Rc<RedisStore>> {
        let Backend::Redis(settings) = &settings.backend else { return None };
        Some(self.redis.get_or_init(|| RedisStore::start(settings, Arc::clone(&self.stats))))
    }
}

/// Every limit that a policy may count one key by, each state once.
#[must_use]
pub fn limits_of(policy: &Policy, dynamic: Option<&Terms>) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    for terms in policy.terms_of_all_keys().chain(dynamic) {
        let Terms::Limited(of_terms) = terms else { continue };
        for limit in of_terms {
            if limit.network.is_none() && !limits.iter().any(|known| known.state_id == limit.state_id) {
                limits.push(limit.clone());
            }
        }
    }
    limits
}

/// The subjects that a text may mean: an address, the value of the only part that has one, `part=value`, or a
/// subject as it is shown. More than one only where a claim may be a text or a number.
///
/// # Errors
/// When it can be no key of the policy.
pub fn subjects(policy: &Policy, text: &[u8], hashing: &Hashing) -> Result<Vec<Subject>, Unknown> {
    let parts = policy.key.named_parts();
    let ipv6_prefix = policy.key.parts.iter().flatten().find_map(prefix_of).or(match policy.missing {
        Missing::ClientIp { ipv6_prefix } => Some(ipv6_prefix),
        Missing::Deny | Missing::Skip => None,
    });
    let is_single = policy.key.parts.len() == 1;
    if let (Some(address), Some(prefix)) = (address(text), ipv6_prefix.filter(|_| is_single)) {
        return Ok(vec![of_address(policy, address, prefix)]);
    }
    if text == b"global" && policy.key.parts.iter().flatten().any(|part| *part == KeyPart::Global) {
        return Ok(vec![Subject::from_slice(text)]);
    }
    if !is_single && key::counted(text).is_some_and(|found| found.len() == policy.key.parts.len()) {
        return Ok(vec![Subject::from_slice(text)]);
    }
    match key::part_of(&parts, ipv6_prefix.is_some(), text).filter(|_| is_single) {
        Some((part, begin)) if begin < text.len() => Ok(of_part(part, &text[begin..], hashing)),
        _ if parts.is_empty() => Err(Unknown::NotAnAddress(policy.key.to_string())),
        _ => Err(Unknown::WhichPart(policy.key.to_string())),
    }
}

fn prefix_of(part: &KeyPart) -> Option<u8> {
    if let KeyPart::ClientIp { ipv6_prefix } = part { Some(*ipv6_prefix) } else { None }
}

/// An address, with `ip=` or `client_ip=` before it or a prefix length behind it, or without.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.strip_prefix(key::CLIENT_IP).or(text.strip_prefix("ip=")).unwrap_or(text);
    Some(text.split_once('/').map_or(text, |(address, _)| address).parse::<IpAddr>().ok()?.to_canonical())
}

/// The subject of a client's address, with the network around it where penalties watch that.
fn of_address(policy: &Policy, address: IpAddr, ipv6_prefix: u8) -> Subject {
    let facts = Facts {
        client_ip: Some(address),
        method: &Method::GET,
        host: "",
        path: "/",
        query: None,
        headers: &HeaderMap::new(),
        has_unsized_body: false,
        tls_subject: None,
        params: &[],
        route: "",
        claims: &NoClaims,
    };
    let mut subject = key::client_subject(&facts, ipv6_prefix);
    if address.is_ipv6() && !policy.networks.is_empty() {
        // No part occurs twice in no fields.
        let _ = key::enter(&mut subject, &policy.networks, &facts, &Hashing::Raw);
    }
    subject
}

/// The subjects of a part's value; a hash stands for itself where values enter hashed.
fn of_part(part: &KeyPart, value: &[u8], hashing: &Hashing) -> Vec<Subject> {
    let is_hash = value.len() == 33 && value[0] == b'#' && value[1..].iter().all(u8::is_ascii_hexdigit);
    if is_hash && matches!(hashing, Hashing::Hashed(_)) {
        let mut subject = Subject::from_slice(format!("{part}=").as_bytes());
        subject.extend_from_slice(value);
        return vec![subject];
    }
    let marks: &[Option<u8>] = if matches!(part, KeyPart::Jwt(_)) { &[Some(b'"'), None] } else { &[None] };
    let marked = marks.iter().map(|&mark| {
        let mut subject = Subject::new();
        let value = KeyValue { bytes: Cow::Borrowed(value), mark, address: None };
        key::write_part(&mut subject, part, &value, hashing);
        subject
    });
    marked.collect()
}
