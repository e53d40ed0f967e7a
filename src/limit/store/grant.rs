//! Many identical requests in one call: how many were admitted, and what each of them is told.
//!
//! The answer is that of so many decisions one after the other, at one instant: the first ones are
//! admitted, then nothing changes any more and all others are told the same.

use smallvec::SmallVec;

use super::super::algorithm::Algorithm;
use super::{Answer, Ask, Reply};

/// What a store says of identical requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// How many were admitted: the first ones.
    pub count: u64,
    /// The store's clock at the decision, microseconds since 1970.
    pub now_us: i64,
    /// One per [`Ask`], in order.
    pub limits: SmallVec<[Left; 2]>,
}

/// One limit after all of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How many of the requests it was charged for: the first ones. All that were admitted, where it
    /// enforces and they cost something.
    pub charged: u64,
    /// What the next such request would be told; not charged.
    pub next: Answer,
    /// The deficit of a bucket, in 1/R ticks; 0 for all others.
    pub deficit: u64,
}

impl Granted {
    /// What the request at this place is told; the first is 0. `asks` are those of the call.
    #[must_use]
    pub fn reply(&self, asks: &[Ask<'_>], place: u64) -> Reply {
        let granted = place < self.count;
        let denials = || asks.iter().zip(&self.limits).filter(|(ask, _)| !ask.is_shadow() && !granted);
        let never = denials().any(|(_, left)| left.next.retry_us < 0);
        let longest = denials().map(|(_, left)| left.next.retry_us).max().unwrap_or(0);
        Reply {
            granted,
            now_us: self.now_us,
            wait_us: 0,
            retry_us: if never { -1 } else { longest },
            answers: asks.iter().zip(&self.limits).map(|(ask, left)| left.answer(ask, place)).collect(),
            instants: SmallVec::new(),
        }
    }
}

impl Left {
    fn answer(&self, ask: &Ask<'_>, place: u64) -> Answer {
        let Some(later) = self.charged.checked_sub(place + 1) else { return self.next };
        let reset_us = match ask.algorithm {
            Algorithm::TokenBucket(bucket) => {
                bucket.reset_us(self.deficit.saturating_sub(bucket.charged(0, ask.cost).saturating_mul(later)))
            }
            _ => self.next.reset_us,
        };
        let remaining = self.next.remaining.saturating_add(ask.cost.saturating_mul(later));
        Answer { allowed: true, remaining, retry_us: 0, reset_us }
    }
}
