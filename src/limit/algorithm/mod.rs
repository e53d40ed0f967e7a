//! The algorithms: pure functions of state, time and cost, in integers only.

pub mod bucket;

pub use bucket::Bucket;

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
}
