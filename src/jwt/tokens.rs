//! One worker's tokens: verified once, then remembered until they expire, the keys change, or others need
//! the room.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::key_set::KeySet;
use super::keys::{Keys, now};
use super::stats::{TokenKind, TokenStats};
use super::token::{self, Refusal, Verified};

/// The longest token that is looked at, bytes.
const LONGEST: usize = 16 * 1024;
/// Tokens remembered at once, in each of two generations.
const MOST: usize = 2_048;
/// Bytes that the tokens of one generation have together.
const MOST_BYTES: usize = 2 << 20;

/// One worker's tokens.
#[derive(Debug)]
pub struct Tokens {
    keys: Arc<Keys>,
    remembered: RefCell<Remembered>,
    stats: Arc<TokenStats>,
}

/// Tokens that were verified with one set of keys, by the hash of their whole text. A generation that is full
/// becomes the older one, and what was the older one is forgotten.
#[derive(Debug)]
struct Remembered {
    keys: Arc<KeySet>,
    recent: Generation,
    older: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    tokens: HashMap<Name, Rc<Verified>, ahash::RandomState>,
    bytes: usize,
}

/// A token's hash: another token with the same one cannot be made.
type Name = [u8; blake3::OUT_LEN];

impl Tokens {
    /// Nothing verified yet.
    #[must_use]
    pub fn new(keys: Arc<Keys>) -> Self {
        let stats = Arc::<TokenStats>::default();
        keys.enlist(Arc::clone(&stats));
        let remembered = Remembered::new(Arc::clone(&keys.current()));
        Self { keys, remembered: RefCell::new(remembered), stats }
    }

    /// Whose keys they are verified with.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What a token says, if it is to be believed now.
    pub(super) fn read(&self, token: &[u8]) -> Option<Rc<Verified>> {
        match self.look_up(token, now()) {
            Ok((verified, kind)) => {
                self.stats.count(kind);
                Some(verified)
            }
            Err(refusal) => {
                let kind = TokenKind::from(refusal);
                self.stats.count(kind);
                tracing::debug!(reason = kind.label(), "token not accepted");
                if matches!(refusal, Refusal::UnknownKey | Refusal::Signature) {
                    self.keys.miss();
                }
                None
            }
        }
    }

    fn look_up(&self, token: &[u8], now: Duration) -> Result<(Rc<Verified>, TokenKind), Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::TooLong);
        }
        let (rules, keys) = (self.keys.settings(), self.keys.current());
        let mut remembered = self.remembered.borrow_mut();
        remembered.follow(&keys);
        let name = *blake3::hash(token).as_bytes();
        if let Some(verified) = remembered.find(&name, token.len()) {
            verified.holds(now, rules.leeway).inspect_err(|_| remembered.forget(&name))?;
            return Ok((verified, TokenKind::Remembered));
        }
        let verified = Rc::new(token::verify(token, &keys, rules, now)?);
        remembered.add(name, Rc::clone(&verified), token.len());
        Ok((verified, TokenKind::Valid))
    }
}

impl Remembered {
    fn new(keys: Arc<KeySet>) -> Self {
        Self { keys, recent: Generation::default(), older: Generation::default() }
    }

    /// Forgets everything when the keys are others.
    fn follow(&mut self, keys: &Arc<KeySet>) {
        if !Arc::ptr_eq(&self.keys, keys) {
            *self = Self::new(Arc::clone(keys));
        }
    }

    /// A token that is remembered; it counts as recent from now on.
    fn find(&mut self, name: &Name, size: usize) -> Option<Rc<Verified>> {
        if let Some(verified) = self.recent.tokens.get(name) {
            return Some(Rc::clone(verified));
        }
        let verified = self.older.tokens.remove(name)?;
        self.add(*name, Rc::clone(&verified), size);
        Some(verified)
    }

    fn add(&mut self, name: Name, verified: Rc<Verified>, size: usize) {
        if self.recent.tokens.len() >= MOST || self.recent.bytes + size > MOST_BYTES {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.bytes += size;
        self.recent.tokens.insert(name, verified);
    }

    fn forget(&mut self, name: &Name) {
        // Its bytes stay counted until the generation ends: the bound holds all the more.
        self.recent.tokens.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tokens are remembered after so many of this size have come.
    fn remembered_of(count: usize, size: usize) -> usize {
        let mut remembered = Remembered::new(Arc::default());
        for number in 0..count {
            let verified = Rc::new(Verified::default());
            remembered.add(*blake3::hash(&number.to_le_bytes()).as_bytes(), verified, size);
        }
        remembered.recent.tokens.len() + remembered.older.tokens.len()
    }

    #[test]
    fn the_number_and_the_size_of_what_is_remembered_are_bounded() {
        assert_eq!(remembered_of(100, 500), 100);
        let many = remembered_of(100_000, 500);
        assert!((MOST..=2 * MOST).contains(&many), "{many}");
        let large = remembered_of(100_000, LONGEST);
        assert!(large <= 2 * MOST_BYTES / LONGEST, "{large}");
    }

    #[test]
    fn a_token_in_use_outlives_a_flood_of_others() {
        let mut remembered = Remembered::new(Arc::default());
        let used = [0xff; blake3::OUT_LEN];
        remembered.add(used, Rc::new(Verified::default()), 500);
        for number in 0..10 * MOST {
            remembered.add(*blake3::hash(&number.to_le_bytes()).as_bytes(), Rc::new(Verified::default()), 500);
            assert!(remembered.find(&used, 500).is_some(), "after {number}");
        }
        let unused = *blake3::hash(&0_usize.to_le_bytes()).as_bytes();
        assert!(remembered.find(&unused, 500).is_none());
    }

    #[test]
    fn other_keys_forget_everything() {
        let keys: Arc<KeySet> = Arc::default();
        let mut remembered = Remembered::new(Arc::clone(&keys));
        remembered.add(Name::default(), Rc::new(Verified::default()), 500);
        remembered.follow(&keys);
        assert!(remembered.find(&Name::default(), 500).is_some());
        remembered.follow(&Arc::default());
        assert!(remembered.find(&Name::default(), 500).is_none());
    }
}
