//! Limits whose tokens are taken in advance: what they are for, and what they cost of the burst.

use std::time::Duration;

use super::Check;
use super::rates::Written;
use crate::config::file;
use crate::config::shape::Spanned;
use crate::limit::policy::{Cost, earned_during};
use crate::units::DurationText;

/// The longest lease: longer ones tie up more than they spare.
const LONGEST: Duration = Duration::from_secs(1);

impl Check<'_> {
    /// The limit's lease, and the burst that is left beside it.
    pub(super) fn leased(
        &mut self,
        limit: &Spanned<file::Limit>,
        written: &Written,
        cost: &Cost,
    ) -> Option<(Option<Duration>, u64)> {
        let Written { rate, burst, span } = *written;
        let Some(given) = limit.lease.spanned() else { return Some((None, burst)) };
        let lease = given.value;
        if !(Duration::from_millis(1)..=LONGEST).contains(&lease) {
            self.error(given.span, "`lease` is out of bounds", "write 1ms to 1s, for example 50ms");
            return None;
        }
        let ahead = earned_during(lease, rate);
        let least = ahead.saturating_add(cost.largest().max(1));
        if burst < least {
            let message = format!(
                "a lease of {} at {rate} takes {ahead} of the burst, and leaves too little of {burst}",
                DurationText(lease)
            );
            self.error(span, message, format!("write `burst: {least}` or more, or a shorter lease"));
            return None;
        }
        Some((Some(lease), burst - ahead))
    }

    /// Leases where they mean nothing.
    pub(super) fn misplaced_lease(&mut self, limit: &Spanned<file::Limit>, cost: &Cost) {
        let Some(key) = limit.lease.key() else { return };
        let algorithm = limit.algorithm.or(file::AlgorithmName::TokenBucket);
        if algorithm != file::AlgorithmName::TokenBucket || !limit.in_flight.is_absent() {
            self.error(key, "`lease` belongs to token_bucket", "leave it out, or write another limit for it");
        }
        if limit.mode.or(file::Mode::Enforce) == file::Mode::Shadow {
            self.error(
                key,
                "a limit that only watches takes nothing in advance",
                "leave `lease` out, or `mode: shadow`",
            );
        }
        let settled = [
            (limit.count.key(), "count"),
            (limit.refund.key(), "refund"),
            (limit.cost.key().filter(|_| cost.may_grow()), "cost"),
        ];
        for (span, name) in settled {
            if let Some(span) = span {
                self.error(
                    span,
                    format!("`{name}` is settled when a request ends, and tokens of a lease are not"),
                    "leave it out, or `lease`",
                );
            }
        }
        if !limit.penalty.is_absent() {
            self.error(key, "a penalty sees each denial, a lease none of them", "leave one of the two out");
        }
    }
}
