//! 128-bit names of limiter states inside this process, keyed so that a client cannot aim for a
//! collision (SipHash-1-3, with a key drawn per map).

use std::hash::{BuildHasher, Hasher, RandomState};

use siphasher::sip;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::algorithm::Algorithm;
use super::policy::Share;
use super::store::Ask;

/// Draws fingerprints under one random key.
#[derive(Debug, Clone)]
pub struct Fingerprints(SipHasher13);

impl Fingerprints {
    /// With a fresh key from the system's randomness.
    #[must_use]
    pub fn new() -> Self {
        let random = || RandomState::new().hash_one(0_u8);
        Self(SipHasher13::new_with_keys(random(), random()))
    }

    /// The name of a whole question: requests of one name ask the same of the same states.
    #[must_use]
    pub fn of_question(&self, asks: &[Ask<'_>]) -> u128 {
        let mut hasher = self.0;
        for ask in asks {
            hasher.write_u128(self.of_terms(ask.state_id, ask.algorithm, ask.subject));
            hasher.write_u64(ask.cost);
            hasher.write_u8(ask.shadow);
        }
        hasher.finish128().as_u128()
    }

    /// The name of a subject's state of a limit: algorithm, window, state id and subject; never 0.
    #[must_use]
    pub fn of(&self, state_id: &str, algorithm: &Algorithm, subject: &[u8]) -> u128 {
        self.begin(state_id, algorithm, subject).finish128().as_u128().max(1)
    }

    /// The same, another one for every set of numbers that the state is read with.
    #[must_use]
    pub fn of_terms(&self, state_id: &str, algorithm: &Algorithm, subject: &[u8]) -> u128 {
        let mut hasher = self.begin(state_id, algorithm, subject);
        for number in algorithm.numbers() {
            hasher.write_u64(number);
        }
        hasher.finish128().as_u128().max(1)
    }

    fn begin(&self, state_id: &str, algorithm: &Algorithm, subject: &[u8]) -> SipHasher13 {
        let mut hasher = self.0;
        hasher.write_u32(u32::from(algorithm.letter()));
        hasher.write_u64(algorithm.window_us());
        hasher.write(state_id.as_bytes());
        hasher.write_u8(0xff); // never part of UTF-8: ends the id
        hasher.write(subject);
        hasher
    }
}

/// Where a subject of a policy stands among all, 0 to 999,999: evenly spread, and the same in every process.
#[must_use]
pub fn place_of(policy: &str, subject: &[u8]) -> u32 {
    let mut hasher = sip::SipHasher13::new();
    hasher.write(policy.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(subject);
    let place = (u128::from(hasher.finish()) * u128::from(Share::WHOLE)) >> 64;
    u32::try_from(place).unwrap_or(0)
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self::new()
    }
}
