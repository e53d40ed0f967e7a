//! A policy: one named limit as the configuration states it, ready to be asked.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::algorithm::Algorithm;
pub use super::cost::{Answered, Cost, LARGEST as LARGEST_COST, Settling, Statuses};
use super::dynamic::Rules;
use super::fingerprint;
use super::key::{Facts, Found, Hashing, Key, KeyPart, KeyValue, Network, client_subject};
use super::schedule::Schedules;
use crate::units::Rate;

/// A named limit. Its name is its identity: state, statistics and metrics hang on it.
#[derive(Debug)]
pub struct Policy {
    /// Unique in the configuration; `<route>/<key>` when the file gives none.
    pub name: Arc<str>,
    /// Position in [`crate::config::Config::policies`].
    pub index: usize,
    /// What its name has through every reload: the number of its statistics.
    pub ordinal: usize,
    /// What is counted separately.
    pub key: Key,
    /// What happens when no part of the key is present.
    pub missing: Missing,
    /// The networks around IPv6 keys that its penalties watch, the narrowest first.
    pub networks: Vec<Network>,
    /// What holds unless something below does.
    pub terms: Terms,
    /// Exceptions by exact key value or address block; the first match wins.
    pub overrides: Vec<Override>,
    /// What may be set for single keys while the proxy runs; that comes before everything else.
    pub dynamic: Option<Rules>,
    /// Other terms by plan, where no override matches.
    pub tiers: Option<Tiers>,
    /// Other terms at certain hours, where neither an override nor a tier holds.
    pub schedules: Option<Schedules>,
    /// How much a request costs.
    pub cost: Cost,
    /// Which answers give a charge back.
    pub settling: Settling,
    /// Whether it denies or only watches.
    pub mode: Mode,
    /// Which of the requests that reach it are counted.
    pub applies: Applies,
    /// What to do when the store does not answer.
    pub on_store_error: OnStoreError,
    /// The answer that replaces the default 429, if the file gives one.
    pub response: Option<Arc<DeniedResponse>>,
    /// Whether a shadow limit still sends its `RateLimit` fields.
    pub shadow_headers: bool,
    /// The share of its keys for which a shadow limit denies all the same.
    pub enforced_share: Share,
    /// From which used share of its capacity on admitted requests carry a warning.
    pub warn_at: Option<Share>,
    /// By how much denied requests of one key may be told to come later than the exact time, each for a
    /// token of its own; `None`: all are told the exact time.
    pub spread_retry: Option<Duration>,
}

/// What is allowed: nothing, everything, or what a limit admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terms {
    /// Not asked, not counted.
    Unlimited,
    /// `rate: 0/s`: denied without a store call and without a Retry-After.
    Deny,
    /// Counted: by each of these, which are charged together (several rates of one limit).
    Limited(Vec<Limit>),
}

/// One state per key, and the algorithm that reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// `<policy>[@1 (an override) | @@pro (a tier) | @dynamic][~period]`: no state is read with another limit's
    /// numbers but the policy's own by its schedules. Names and tiers hold neither `@` nor `~`, so no two of these can be one.
    pub state_id: Arc<str>,
    /// What tells it from the policy's other rates, `~<period>`; empty where there is one.
    pub suffix: Box<str>,
    /// The rate as the file states it, for people; `None` for requests in flight and penalties.
    pub rate: Option<Rate>,
    /// How it counts.
    pub algorithm: Algorithm,
    /// How long tokens may be spent that were taken in advance; the bucket is smaller by what that may be.
    pub lease: Option<Duration>,
    /// Counts by this of [`Policy::networks`] instead of the key, and only where there is one.
    pub network: Option<usize>,
}

/// What may be earned, rounded up, while a lease of this length lasts: by so much the bucket is smaller.
#[must_use]
pub fn earned_during(lease: Duration, rate: Rate) -> u64 {
    let earned = u128::from(rate.count).saturating_mul(lease.as_micros()).div_ceil(rate.period.as_micros().max(1));
    u64::try_from(earned).unwrap_or(u64::MAX)
}

impl Limit {
    /// The burst as the file states it.
    #[must_use]
    pub fn burst(&self) -> u64 {
        let leased = self.lease.zip(self.rate).map_or(0, |(lease, rate)| earned_during(lease, rate));
        self.algorithm.capacity() + leased
    }
}

/// Terms for some keys.
#[derive(Debug, Clone)]
pub struct Override {
    /// Which keys.
    pub matches: Vec<OverrideMatch>,
    /// What holds for them.
    pub terms: Terms,
}

/// One entry of an override's `key:` list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverrideMatch {
    /// An address block, matched against a key that is a client address (the whole address, not its /64).
    Network(ipnet::IpNet),
    /// An exact value of one part of the key, and of no other.
    Value {
        /// The part.
        part: KeyPart,
        /// Its value, decoded.
        value: Box<str>,
    },
}

/// Terms by the value of a key part.
#[derive(Debug, Clone)]
pub struct Tiers {
    /// The first present of these names the tier.
    pub by: Vec<KeyPart>,
    /// The tiers; whoever has another value, or none, has the policy's own terms.
    pub values: Vec<Tier>,
}

/// One tier.
#[derive(Debug, Clone)]
pub struct Tier {
    /// The exact value.
    pub name: Box<str>,
    /// What holds for it.
    pub terms: Terms,
}

/// A share of a whole, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Share(u32);

/// Whether a limit denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It denies.
    Enforce,
    /// It is evaluated and counted in the metrics, and denies nothing.
    Shadow,
}

/// What happens to a request that carries no part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is counted by its client address (with this IPv6 prefix length).
    ClientIp {
        /// Bits of an IPv6 address that count.
        ipv6_prefix: u8,
    },
    /// It is denied.
    Deny,
    /// This limit does not apply to it.
    Skip,
}

/// What to do with a decision that the store did not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStoreError {
    /// Decide in this process' memory store.
    Local,
    /// Let it pass.
    Allow,
    /// Answer 503.
    Deny,
}

/// Which requests a limit counts, by canonical path in the form in which paths are compared.
#[derive(Debug, Clone, Default)]
pub struct Applies {
    /// When not empty, only these.
    pub path: Vec<PathPattern>,
    /// Never these.
    pub not_path: Vec<PathPattern>,
}

/// `/exact` or `/prefix/*`, in the form in which paths are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// The whole path.
    Exact(Box<str>),
    /// Everything below this prefix (which ends in `/`), and the prefix without its last slash.
    Prefix(Box<str>),
}

/// A custom answer to a denied request.
#[derive(Debug, Clone)]
pub struct DeniedResponse {
    /// 400 to 599; 429 unless the file says otherwise.
    pub status: http::StatusCode,
    /// The body's media type.
    pub content_type: HeaderValue,
    /// The body; `{limit.name}`, `{limit.retry_after}` and `{request.id}` are filled in.
    pub body: Box<str>,
}

impl Policy {
    /// Whether a charge may change after the decision.
    #[must_use]
    pub fn settles(&self) -> bool {
        self.cost.may_grow() || self.settling.may_refund()
    }

    /// What a request cost, now that it is answered: nothing when the charge is given back, what an upstream's
    /// field tells; `None`: what was charged.
    #[must_use]
    pub fn true_cost(&self, status: StatusCode, headers: &HeaderMap, answered: Answered) -> Option<u64> {
        if self.settling.refunds(status, answered) {
            return Some(0);
        }
        (answered == Answered::Upstream).then(|| self.cost.told(headers)).flatten()
    }

    /// Whether it denies whom it counts this request by: a shadow limit does so for a fixed share of its keys,
    /// the same ones on every proxy, with every store.
    #[must_use]
    pub fn mode_for(&self, facts: &Facts<'_>) -> Mode {
        if self.mode == Mode::Enforce || self.enforced_share == Share::default() {
            return self.mode;
        }
        let subject = match (self.key.subject(facts, &Hashing::Raw), self.missing) {
            (Ok(Found::Present { subject, .. }), _) => subject,
            (_, Missing::ClientIp { ipv6_prefix }) => client_subject(facts, ipv6_prefix),
            _ => return self.mode,
        };
        let is_enforced = fingerprint::place_of(&self.name, &subject) < self.enforced_share.0;
        if is_enforced { Mode::Enforce } else { self.mode }
    }
}

impl Policy {
    /// Everything of a request that it looks at: the parts of its key, and what tells its tiers apart.
    pub fn asked_parts(&self) -> impl Iterator<Item = &KeyPart> {
        let tiers = self.tiers.iter().flat_map(|tiers| &tiers.by);
        self.key.parts.iter().flatten().chain(tiers)
    }

    /// What holds for any of its keys, as far as the file says.
    pub fn terms_of_all_keys(&self) -> impl Iterator<Item = &Terms> {
        let overrides = self.overrides.iter().map(|entry| &entry.terms);
        let tiers = self.tiers.iter().flat_map(|tiers| &tiers.values).map(|tier| &tier.terms);
        let schedules = self.schedules.iter().flat_map(|schedules| &schedules.list).map(|schedule| &schedule.terms);
        std::iter::once(&self.terms).chain(overrides).chain(tiers).chain(schedules)
    }
}

impl Terms {
    /// Whether requests are counted while they are under way.
    #[must_use]
    pub fn counts_in_flight(&self) -> bool {
        let in_flight = |limit: &Limit| matches!(limit.algorithm, Algorithm::InFlight(_));
        matches!(self, Self::Limited(limits) if limits.iter().any(in_flight))
    }
}

impl Tiers {
    /// The position of the tier of this name.
    #[must_use]
    pub fn find(&self, value: &[u8]) -> Option<usize> {
        self.values.iter().position(|tier| tier.name.as_bytes() == value)
    }
}

impl Share {
    /// Parts of the whole.
    pub const WHOLE: u32 = 1_000_000;

    /// This many parts per million, at most all.
    #[must_use]
    pub fn of(parts: u32) -> Self {
        Self(parts.min(Self::WHOLE))
    }

    /// Whether `part` is at least this share of `whole`.
    #[must_use]
    pub fn reached_by(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(Self::WHOLE) >= u128::from(whole) * u128::from(self.0)
    }
}

impl std::fmt::Display for Share {
    /// A percentage, such as `5%` or `0.25%`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        match rest {
            0 => write!(f, "{whole}%"),
            _ => write!(f, "{whole}.{}%", format!("{rest:04}").trim_end_matches('0')),
        }
    }
}

impl Applies {
    /// Whether a request for this path is counted.
    #[must_use]
    pub fn to(&self, path: &str) -> bool {
        (self.path.is_empty() || self.path.iter().any(|pattern| pattern.matches(path)))
            && !self.not_path.iter().any(|pattern| pattern.matches(path))
    }
}

impl PathPattern {
    /// Whether this path is meant.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(prefix) => path.starts_with(&**prefix) || Some(path) == prefix.strip_suffix('/'),
        }
    }
}

impl OverrideMatch {
    /// Whether the value of this part, or the client address that it stands for, is meant.
    #[must_use]
    pub fn matches(&self, found: &KeyPart, found_value: &KeyValue<'_>) -> bool {
        match self {
            Self::Network(network) => found_value.address.is_some_and(|address| network.contains(&address)),
            Self::Value { part, value } => value.as_bytes() == &*found_value.bytes && part == found,
        }
    }
}

/// The longest a request of a leaky bucket may be held.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(10);
