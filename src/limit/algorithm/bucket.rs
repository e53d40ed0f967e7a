//! The token bucket (the same admitted set as GCRA and as a leaky bucket used as a meter).
//!
//! State is the theoretical arrival time TAT = `at + rem / R` ticks: the instant at which the
//! bucket is full again. A state that equals "full" is no state.

use crate::units::Rate;

/// The numbers of a bucket, checked so that every product stays exact (see [`Bucket::new`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// C, the most that can be admitted at once.
    pub capacity: u64,
    /// R, tokens earned per period; reduced by the greatest common divisor with `period`.
    pub rate: u64,
    /// P, the period in ticks, reduced likewise.
    pub period: u64,
    /// U, microseconds per tick: a power of ten from 1 to 1,000,000.
    pub tick: u64,
}

/// The stored state: TAT in ticks since 1970 and a remainder in 1/R tick, `rem < R`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Whole ticks.
    pub at: i64,
    /// The rest, in units of 1/R tick.
    pub rem: u64,
}

/// What a bucket says of a request, without having changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the cost fits.
    pub allowed: bool,
    /// Deficit d before this request, in 1/R ticks: 0 is full, C·P is empty.
    pub deficit: u64,
}

/// Why a rate and a burst cannot be kept exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// No tick between 1 µs and 1 s keeps C·P below 2^52.
    #[error("a burst of {capacity} at {rate} cannot be counted exactly: use a smaller burst or a rounder rate")]
    TooLarge {
        /// The burst asked for.
        capacity: u64,
        /// The rate asked for.
        rate: Rate,
    },
}
