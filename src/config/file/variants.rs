//! What else may hold for a limit's keys: by tier.

use crate::config::shape::{Named, OneOrMany, Short, keys};
use crate::config::values::{Allowance, KeyChoice};

keys! {
    /// Other rates by plan.
    Tiers {
        /// What tells the tiers apart: any part of a key but an address, or several with `|`. Required.
        by: KeyChoice,
        /// The tiers by value: a rate, a list of rates, `unlimited`, or keys and values. A value that is not listed has the limit's own rate. Required.
        values: Named<Short<OneOrMany<Allowance>, TierTerms>>,
    }
}

keys! {
    /// One tier.
    TierTerms {
        /// A rate or a list of rates, `0/s` (deny) or `unlimited`. Required, unless `in_flight` is given.
        rate: OneOrMany<Allowance>,
        /// The most at once. Default: the count of the rate.
        burst: u64,
        /// How many requests may be under way at once.
        in_flight: u64,
    }
}
