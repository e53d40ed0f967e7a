//! The keys that a limit meets most, by a sketch of fixed size: Space-Saving (Metwally, Agrawal, El Abbadi 2005)
//! in small sets, so that a decision looks at one set only. For reporting alone; nothing is decided by it.
//!
//! A key that is met more often than the share of its set allows is surely in the list; its count is never too
//! low, and too high by at most what is told beside it. Each worker has its own, merged when it is read; whoever
//! reads begins a new period every few minutes, and the list shows this one and the one before.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::decision::Decision;
use super::key::Subject;
use super::policy::Policy;
use crate::slots::Slots;

/// Sets of a sketch: a power of two.
const SETS: usize = 16;
/// Keys of a set; with [`SETS`] the most keys that a worker tells of a limit (128).
const WAYS: usize = 8;

/// The top keys of one worker, by a limit's ordinal. Off, and of no cost, by default.
#[derive(Debug, Default)]
pub struct TopKeys {
    limits: Slots<Mutex<Periods>>,
    on: bool,
    /// Keyed, so that no client can aim for the set of another.
    hasher: ahash::RandomState,
}

/// What is counted now, and what was counted before.
#[derive(Debug, Default)]
struct Periods {
    now: Sketch,
    before: Sketch,
}

/// One period of one limit. Nothing is allocated before the first key.
#[derive(Debug, Default)]
struct Sketch {
    sets: Vec<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    subject: Subject,
    met: Met,
}

/// How often a key was met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// Requests that the limit decided; never too few.
    pub requests: u64,
    /// Those of them that it denied, or would have.
    pub denied: u64,
    /// By how much `requests` may be too many.
    pub error: u64,
}

impl TopKeys {
    /// Counting.
    #[must_use]
    pub fn on() -> Self {
        Self { limits: Slots::default(), on: true, hasher: ahash::RandomState::new() }
    }

    /// Whether anything is counted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Counts what was decided of one request: the rates of one limit are one decision.
    pub fn note<'p, 'k>(
        &self,
        keys: &(impl Iterator<Item = (&'p Policy, &'k Subject)> + Clone),
        decisions: &[Decision<'_>],
    ) {
        if !self.is_on() {
            return;
        }
        for rates in decisions.chunk_by(|a, b| std::ptr::eq(a.policy, b.policy)) {
            let Some(policy) = rates.first().map(|decision| decision.policy) else { continue };
            let key = keys.clone().find(|(of, _)| std::ptr::eq(*of, policy));
            if let Some((_, subject)) = key {
                let periods = self.limits.at(policy.ordinal);
                let denied = rates.iter().any(|decision| !decision.allowed);
                periods.lock().now.count(self.hasher.hash_one(subject), subject, denied);
            }
        }
    }

    /// Begins a new period: what was counted in the one before the last is forgotten.
    pub fn turn(&self) {
        for (_, periods) in self.limits.iter() {
            let mut periods = periods.lock();
            periods.before = std::mem::take(&mut periods.now);
        }
    }

    /// Adds what was counted of a policy to a list.
    pub fn read(&self, policy: usize, into: &mut HashMap<Subject, Met>) {
        let Some(periods) = self.limits.get(policy) else { return };
        let periods = periods.lock();
        for entry in periods.now.sets.iter().chain(&periods.before.sets).flatten() {
            let met = into.entry(entry.subject.clone()).or_default();
            met.requests += entry.met.requests;
            met.denied += entry.met.denied;
            met.error += entry.met.error;
        }
    }
}

impl Sketch {
    fn count(&mut self, hash: u64, subject: &Subject, denied: bool) {
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Vec::new);
        }
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are wanted")]
        let set = &mut self.sets[hash as usize & (SETS - 1)];
        let denied = u64::from(denied);
        if let Some(entry) = set.iter_mut().find(|entry| entry.hash == hash && entry.subject == *subject) {
            entry.met.requests += 1;
            entry.met.denied += denied;
            return;
        }
        if set.len() < WAYS {
            let met = Met { requests: 1, denied, error: 0 };
            set.push(Entry { hash, subject: subject.clone(), met });
            return;
        }
        // The rarest makes room; the new key may have been met as often while it was not in the list.
        if let Some(rarest) = set.iter_mut().min_by_key(|entry| entry.met.requests) {
            let error = rarest.met.requests;
            rarest.hash = hash;
            rarest.subject.clone_from(subject);
            rarest.met = Met { requests: error + 1, denied, error };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_keys_are_in_the_list_whatever_else_comes() {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let (mut sketch, mut random) = (Sketch::default(), fastrand::Rng::with_seed(5));
        let mut truth: HashMap<Subject, u64> = HashMap::new();
        for turn in 0..20_000 {
            let key = if turn % 4 == 0 { format!("heavy{}", turn % 5) } else { format!("light{}", random.u32(..9000)) };
            let subject = Subject::from_slice(key.as_bytes());
            *truth.entry(subject.clone()).or_default() += 1;
            sketch.count(hasher.hash_one(&subject), &subject, turn % 8 == 0);
        }
        let kept: HashMap<_, _> =
            sketch.sets.iter().flatten().map(|entry| (entry.subject.clone(), entry.met)).collect();
        assert!(kept.len() <= SETS * WAYS);
        for (subject, met) in &kept {
            let count = truth[subject];
            assert!(met.requests >= count && met.requests - met.error <= count, "{met:?} for {count}");
        }
        for (subject, count) in truth.iter().filter(|(subject, _)| subject.starts_with(b"heavy")) {
            assert!(kept.contains_key(subject), "{count} times, and not in the list");
        }
    }

    #[test]
    fn two_periods_are_told() {
        let top = TopKeys::on();
        let subject = Subject::from_slice(b"a");
        let read = || {
            let mut list = HashMap::new();
            top.read(0, &mut list);
            list.get(&subject).map(|met| met.requests)
        };
        let count = || top.limits.at(0).lock().now.count(top.hasher.hash_one(&subject), &subject, false);
        count();
        top.turn();
        count();
        assert_eq!(read(), Some(2));
        top.turn();
        assert_eq!(read(), Some(1));
        top.turn();
        assert_eq!(read(), None);
    }
}
