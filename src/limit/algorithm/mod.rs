//! The algorithms: pure functions of state, time and cost, in integers only.

pub mod bucket;

use super::store::Answer;
pub use bucket::Bucket;
use bucket::State;

/// How one limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Up to `capacity` at once, then at the rate.
    TokenBucket(Bucket),
    /// The same bucket, whose admitted requests are held until their turn.
    LeakyBucket {
        /// The bucket that admits.
        bucket: Bucket,
        /// How many requests from idle go through without delay, at least 1.
        delay_after: u64,
    },
}

/// What one limit says of one cost at one instant; nothing has been changed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluation {
    /// Whether this limit by itself admits.
    pub allowed: bool,
    /// Microseconds until the cost fits: 0 when allowed, -1 for never.
    pub retry_us: i64,
    /// Microseconds the request is to be held if it is admitted (leaky buckets).
    pub wait_us: u64,
    /// The deficit without and with the cost, 1/R ticks.
    deficit: [u64; 2],
    /// Whether the state was too far ahead and is to be written as empty, whatever is decided.
    reanchored: bool,
    /// What was asked.
    cost: u64,
    /// When, microseconds since 1970.
    now_us: i64,
}

impl Algorithm {
    /// The bucket behind either algorithm.
    #[must_use]
    pub fn bucket(&self) -> &Bucket {
        match self {
            Self::TokenBucket(bucket) | Self::LeakyBucket { bucket, .. } => bucket,
        }
    }

    /// The letter that stands for the algorithm in a Redis key (see `lua/`).
    #[must_use]
    pub fn letter(&self) -> char {
        match self {
            Self::TokenBucket(_) => 'b',
            Self::LeakyBucket { .. } => 'q',
        }
    }

    /// Reads a state and judges a cost, without changing anything; 0 only looks.
    #[must_use]
    pub fn evaluate(&self, stored: Option<State>, cost: u64, now_us: i64) -> Evaluation {
        let bucket = self.bucket();
        let reading = bucket.read(stored, now_us);
        let allowed = bucket.admits(reading.deficit, cost);
        let wait_us = match self {
            Self::LeakyBucket { bucket, delay_after } if allowed && cost > 0 => {
                bucket.wait_us(reading.deficit, *delay_after)
            }
            _ => 0,
        };
        Evaluation {
            allowed,
            retry_us: bucket.retry_us(reading.deficit, cost),
            wait_us,
            deficit: [reading.deficit, bucket.charged(reading.deficit, cost)],
            reanchored: reading.reanchored,
            cost,
            now_us,
        }
    }

    /// What this limit answers once the whole decision is known; it was charged when that was
    /// granted and the limit itself allowed it.
    #[must_use]
    pub fn answer(&self, evaluation: &Evaluation, granted: bool) -> Answer {
        let deficit = evaluation.deficit_after(granted);
        Answer {
            allowed: evaluation.allowed,
            remaining: self.bucket().remaining(deficit),
            retry_us: evaluation.retry_us,
            reset_us: self.bucket().reset_us(deficit),
        }
    }

    /// What is to be written once the whole decision is known, if anything.
    #[must_use]
    pub fn written(&self, evaluation: &Evaluation, granted: bool) -> Option<State> {
        let charged = granted && evaluation.allowed;
        (evaluation.cost > 0 && (charged || evaluation.reanchored))
            .then(|| self.bucket().state(evaluation.deficit_after(granted), evaluation.now_us))
    }
}

impl Evaluation {
    /// The deficit the decision leaves.
    fn deficit_after(&self, granted: bool) -> u64 {
        self.deficit[usize::from(granted && self.allowed)]
    }
}
