//! Overrides for single keys that are set while the proxy runs, through the admin API, within what the
//! configuration allows, and each with an end.
//!
//! With Redis they stand in one hash there, so that every proxy of the store sees them: each reads it once a
//! second when it has changed, off the requests' path, and keeps what it read last while Redis is away. With
//! the memory store they live in this process. What requests see is an immutable [`Snapshot`].

mod names;
mod rules;
mod shared;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::key::{Hashing, KeyPart, KeyValue, Subject};
use super::policy::{Policy, Terms};
use super::stats::StoreErrorKind;
use super::store::settings::Backend;
pub use names::Naming;
pub use rules::{Counting, Debt, Rules, Wanted, Wrong};
use shared::Order;

/// The most overrides of one store, over all of its limits.
pub const MOST: usize = 1000;

/// The overrides of a process.
#[derive(Debug)]
pub struct DynamicOverrides {
    /// Limits that may have any, by name.
    policies: HashMap<Arc<str>, Arc<Policy>>,
    hashing: Hashing,
    snapshot: ArcSwap<Snapshot>,
    place: Place,
}

/// Where they are kept.
#[derive(Debug)]
enum Place {
    /// In the snapshot; whoever changes it holds the lock.
    Memory(Mutex<()>),
    /// In Redis; changes are ordered from the task that reads it, which takes the other end when it starts.
    Redis { orders: mpsc::Sender<Order>, taken: Mutex<Option<mpsc::Receiver<Order>>> },
}

/// The overrides at one time.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Larger in every later one.
    number: u64,
    limits: Limits,
}

/// Overrides by limit and name.
type Limits = HashMap<Arc<str>, HashMap<Subject, Entry, ahash::RandomState>, ahash::RandomState>;

/// One override.
#[derive(Debug, Clone)]
struct Entry {
    wanted: Wanted,
    terms: Terms,
    until: Instant,
    /// The key as lists show it.
    shown: Box<str>,
}

/// One override as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// An address, a value, or the hash that stands for one that clients choose.
    pub key: Box<str>,
    /// What holds.
    pub wanted: Wanted,
    /// For how long.
    pub left: Duration,
}

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such limit.
    #[error("There is no limit `{0}` with `dynamic_overrides` in the configuration.")]
    NoLimit(String),
    /// Nothing to remove.
    #[error("This key has no override.")]
    NoOverride,
    /// It is not allowed, or says nothing that can be counted.
    #[error("{0}")]
    Wrong(#[from] Wrong),
    /// There are too many.
    #[error("There are {MOST} overrides already: remove one, or let one end.")]
    Full,
    /// The store did not answer.
    #[error("Redis did not do it ({}): list the overrides to see what holds.", .0.label())]
    Store(StoreErrorKind),
}

impl DynamicOverrides {
    /// Those of a configuration; `None` when no limit allows any.
    #[must_use]
    pub fn new(policies: &[Arc<Policy>], backend: &Backend) -> Option<Arc<Self>> {
        let policies: HashMap<_, _> = policies
            .iter()
            .filter(|policy| policy.dynamic.is_some())
            .map(|policy| (Arc::clone(&policy.name), Arc::clone(policy)))
            .collect();
        let (hashing, place) = match backend {
            Backend::Memory => (Hashing::Raw, Place::Memory(Mutex::new(()))),
            Backend::Redis(settings) => {
                let (orders, taken) = mpsc::channel(shared::MOST_ORDERS);
                (settings.hashing.clone(), Place::Redis { orders, taken: Mutex::new(Some(taken)) })
            }
        };
        let any = !policies.is_empty();
        any.then(|| Arc::new(Self { policies, hashing, snapshot: ArcSwap::default(), place }))
    }

    /// What holds now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The overrides of a limit, and what it allows.
    ///
    /// # Errors
    /// When the limit allows none.
    pub fn list(&self, limit: &str) -> Result<(&Rules, Vec<Listed>), Refusal> {
        let (_, rules) = self.find(limit)?;
        let snapshot = self.snapshot.load();
        let now = Instant::now();
        let entries = snapshot.limits.get(limit).into_iter().flat_map(HashMap::values);
        let mut listed: Vec<_> = entries.filter(|entry| entry.until > now).map(|entry| entry.listed(now)).collect();
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok((rules, listed))
    }

    /// Gives a key of a limit other terms for this long.
    ///
    /// # Errors
    /// When the configuration does not allow it, there is no room, or the store does not answer.
    pub async fn set(&self, limit: &str, key: &[u8], wanted: Wanted, ttl: Duration) -> Result<Listed, Refusal> {
        let (policy, rules) = self.find(limit)?;
        let terms = rules.allow(&wanted, ttl)?;
        let name = rules.naming.of_key(key, &self.hashing)?;
        let entry =
            Entry { wanted, terms, until: Instant::now() + ttl, shown: shown(rules, key, &name, &self.hashing) };
        let listed = Listed { left: ttl, ..entry.listed(Instant::now()) };
        match &self.place {
            Place::Memory(changing) => {
                let _changing = changing.lock();
                self.change(|limits| {
                    let count: usize = limits.values().map(HashMap::len).sum();
                    let entries = limits.entry(Arc::clone(&policy.name)).or_default();
                    if count >= MOST && !entries.contains_key(&name) {
                        return Err(Refusal::Full);
                    }
                    entries.insert(name, entry);
                    Ok(())
                })?;
            }
            Place::Redis { orders, .. } => shared::set(orders, limit, &name, (&wanted, ttl)).await?,
        }
        Ok(listed)
    }

    /// Ends a key's override.
    ///
    /// # Errors
    /// When there is none, or the store does not answer.
    pub async fn remove(&self, limit: &str, key: &[u8]) -> Result<(), Refusal> {
        let (_, rules) = self.find(limit)?;
        let name = rules.naming.of_key(key, &self.hashing)?;
        match &self.place {
            Place::Memory(changing) => {
                let _changing = changing.lock();
                self.change(|limits| {
                    let removed = limits.get_mut(limit).and_then(|entries| entries.remove(&name));
                    removed.map(|_| ()).ok_or(Refusal::NoOverride)
                })
            }
            Place::Redis { orders, .. } => shared::remove(orders, limit, &name).await,
        }
    }

    fn find(&self, limit: &str) -> Result<(&Arc<Policy>, &Rules), Refusal> {
        let policy = self.policies.get(limit);
        policy
            .and_then(|policy| Some((policy, policy.dynamic.as_ref()?)))
            .ok_or_else(|| Refusal::NoLimit(limit.to_owned()))
    }

    /// Publishes the overrides after a change; those that have ended are left out.
    fn change(&self, change: impl FnOnce(&mut Limits) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let old = self.snapshot.load();
        let now = Instant::now();
        let mut limits = old.limits.clone();
        for entries in limits.values_mut() {
            entries.retain(|_, entry| entry.until > now);
        }
        change(&mut limits)?;
        self.publish(limits);
        Ok(())
    }

    fn publish(&self, limits: Limits) {
        let number = self.snapshot.load().number + 1;
        self.snapshot.store(Arc::new(Snapshot { number, limits }));
    }
}

impl Snapshot {
    /// What holds for the key of this name, if anything was set for it.
    #[must_use]
    pub fn terms_of(&self, limit: &str, name: &Subject) -> Option<&Terms> {
        let entry = self.limits.get(limit)?.get(name)?;
        (Instant::now() < entry.until).then_some(&entry.terms)
    }

    /// A number that is larger in every later snapshot.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What holds for one of these values of a policy's key.
    pub(super) fn find(
        &self,
        policy: &Policy,
        values: &[(&KeyPart, KeyValue<'_>)],
        hashing: &Hashing,
    ) -> Option<&Terms> {
        let rules = policy.dynamic.as_ref()?;
        let entries = self.limits.get(&policy.name).filter(|entries| !entries.is_empty())?;
        let named = values.iter().filter_map(|(part, value)| rules.naming.of_value(part, value, hashing));
        let mut found = named.filter_map(|name| entries.get(&name));
        found.find(|entry| Instant::now() < entry.until).map(|entry| &entry.terms)
    }
}

impl Entry {
    fn listed(&self, now: Instant) -> Listed {
        Listed { key: self.shown.clone(), wanted: self.wanted, left: self.until.saturating_duration_since(now) }
    }
}

/// A key as lists show it: never a value that clients choose, which may be a secret.
fn shown(rules: &Rules, key: &[u8], name: &Subject, hashing: &Hashing) -> Box<str> {
    let hashed = match hashing {
        Hashing::Raw => rules.naming.of_key(key, &Hashing::Hashed(None)).ok(),
        Hashing::Hashed(_) => None,
    };
    rules.naming.shown(hashed.as_ref().unwrap_or(name))
}
