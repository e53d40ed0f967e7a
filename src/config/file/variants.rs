//! What else may hold for a limit's keys: by tier, by the hour, by order of the admin API.

use std::time::Duration;

use crate::config::shape::{Named, OneOrMany, Short, keys};
use crate::config::values::{Allowance, DaySpan, Hour, KeyChoice, LimitName, ZoneName};

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

keys! {
    /// Another rate at certain hours.
    Schedule {
        /// Its name, for people; unique in the limit. Required.
        name: LimitName,
        /// The days on which it begins: `mon`, `mon-fri`, or a list. Default: every day.
        days: OneOrMany<DaySpan>,
        /// When it begins, by the wall clock, such as `22:00`. Default: 00:00.
        from: Hour,
        /// When it ends; not later than `from`: on the day after. Default: 24:00.
        to: Hour,
        /// Whose wall clock: a zone of the IANA database, such as `Europe/Berlin`. Default: UTC.
        timezone: ZoneName,
        /// A rate, or a list of rates with the periods of the limit's own; `0/s` (deny) or `unlimited`. Required, unless `in_flight` is given.
        rate: OneOrMany<Allowance>,
        /// The most at once. Default: the count of the rate.
        burst: u64,
        /// How many requests may be under way at once.
        in_flight: u64,
    }
}

keys! {
    /// What may be set for single keys while the proxy runs, through the admin API.
    DynamicOverrides {
        /// The highest rate that may be set, or `unlimited`. Required.
        max_rate: Allowance,
        /// The highest burst. Default: the count of `max_rate`.
        max_burst: u64,
        /// The longest time an override may last. Default: 7d.
        max_ttl: Duration,
    }
}
