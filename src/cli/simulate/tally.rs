//! What one limit has seen: how many requests of how many keys, and the key that stands out.

use ahash::{HashMap, HashMapExt, RandomState};

use crate::limit::key;

/// Keys that are counted each by itself; further ones count together.
const KEYS: usize = 1 << 20;

/// Counts of one limit.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Requests that it counts, or would have counted if they had carried its key.
    pub(super) reached: u64,
    /// Requests that it decided on.
    pub(super) requests: u64,
    /// Those it denied, or would have denied if it did more than watch.
    pub(super) limited: u64,
    /// Those that did not carry its key.
    pub(super) without_key: u64,
    keys: Keys,
    worst: Option<Standout>,
    peak: Option<Standout>,
}

/// A key that stands out, and in what measure.
#[derive(Debug, Clone)]
pub(super) struct Standout {
    /// As in the store; what clients choose is hashed.
    pub(super) key: String,
    pub(super) number: u64,
    hash: u64,
}

/// Numbers by the hash of a key.
#[derive(Debug)]
struct Keys {
    hasher: RandomState,
    counted: HashMap<u64, Key>,
    /// Whether there were more keys than are counted.
    overflown: bool,
}

/// Numbers of one key.
#[derive(Debug, Clone, Copy, Default)]
struct Key {
    requests: u32,
    limited: u32,
    /// The second of the latest request, and the requests in it.
    second: i64,
    in_second: u32,
}

impl Tally {
    /// One decision.
    pub(super) fn count(&mut self, at_us: i64, subject: &[u8], allowed: bool) {
        self.requests += 1;
        self.limited += u64::from(!allowed);
        let Some((hash, key)) = self.keys.find(subject) else { return };
        let second = at_us.div_euclid(1_000_000);
        key.requests = key.requests.saturating_add(1);
        key.limited = key.limited.saturating_add(u32::from(!allowed));
        key.in_second = if key.second == second { key.in_second.saturating_add(1) } else { 1 };
        key.second = second;
        let key = *key;
        if !allowed {
            Standout::raise(&mut self.worst, hash, key.limited, subject);
        }
        Standout::raise(&mut self.peak, hash, key.in_second, subject);
    }

    /// How many keys; not all of them when the second is `false`.
    pub(super) fn keys(&self) -> (u64, bool) {
        (self.keys.counted.len() as u64, !self.keys.overflown)
    }

    /// The key with the most refusals.
    pub(super) fn worst(&self) -> Option<&Standout> {
        self.worst.as_ref()
    }

    /// The key with the most requests in one second.
    pub(super) fn peak(&self) -> Option<&Standout> {
        self.peak.as_ref()
    }
}

impl Standout {
    /// Notes a key whose number is above the highest so far.
    fn raise(highest: &mut Option<Self>, hash: u64, number: u32, subject: &[u8]) {
        let number = u64::from(number);
        match highest {
            Some(standout) if standout.number >= number => {}
            Some(standout) if standout.hash == hash => standout.number = number,
            _ => *highest = Some(Self { key: String::from_utf8_lossy(key::own(subject)).into_owned(), number, hash }),
        }
    }
}

impl Keys {
    /// The numbers of a key, unless too many keys are known already.
    fn find(&mut self, subject: &[u8]) -> Option<(u64, &mut Key)> {
        let hash = self.hasher.hash_one(subject);
        if self.counted.len() >= KEYS && !self.counted.contains_key(&hash) {
            self.overflown = true;
            return None;
        }
        Some((hash, self.counted.entry(hash).or_default()))
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self { hasher: RandomState::new(), counted: HashMap::new(), overflown: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_key_and_the_peak_of_a_key_are_found_on_the_way() {
        let mut tally = Tally::default();
        for (second, key, allowed) in [
            (1, "a", true),
            (1, "b", false),
            (1, "a", false),
            (2, "a", false),
            (2, "b", true),
            (2, "b", true),
            (2, "b", true),
        ] {
            tally.count(second * 1_000_000 + 5, key.as_bytes(), allowed);
        }
        assert_eq!((tally.requests, tally.limited, tally.keys()), (7, 3, (2, true)));
        let standout = |standout: Option<&Standout>| standout.map(|standout| (standout.key.clone(), standout.number));
        assert_eq!(standout(tally.worst()), Some(("a".into(), 2)));
        assert_eq!(standout(tally.peak()), Some(("b".into(), 3)));
    }
}
