//! The keys of a limit.

use std::time::Duration;

use super::variants::{DynamicOverrides, Schedule, Tiers};
use crate::config::shape::{List, Named, OneOrMany, Short, keys, words};
use crate::config::values::{
    Alignment, Allowance, CostText, HeaderText, KeyChoice, LimitName, OverrideKey, Share, Status, StatusRange,
};
use crate::limit::policy::PathPattern;

keys! {
    /// A limit.
    Limit {
        /// Its name; unique. It is known by that: under another name it begins to count anew. Default: `<route>/<key>`, of limits of every request `default/<key>`.
        name: LimitName,
        /// What is counted separately: `client_ip`, `header:NAME`, `cookie:NAME`, `query:NAME`, `path:PARAM`, `tls:subject`, `jwt:CLAIM` (of a verified token), `host`, `method`, `route` or `global`; `a | b` is the first one present; a list is a combined key. Required.
        key: OneOrMany<KeyChoice>,
        /// What happens when the key is not present: `client_ip` (default), `deny` or `skip`.
        missing: Missing,
        /// `token_bucket` (default), `leaky_bucket` (admitted requests leave one by one), `fixed_window`, `sliding_window` or `sliding_log`.
        algorithm: AlgorithmName,
        /// How much is earned back: `100/s`, `5/10s`, `1000/m`, `0/s` (never) or `unlimited`; a list of rates must all pass. Required, unless `in_flight` is given.
        rate: OneOrMany<Allowance>,
        /// For buckets: the most at once. Default: the count of the rate.
        burst: u64,
        /// For `token_bucket` with Redis: how long a proxy may spend tokens that it took in advance, 1ms to 1s; fewer calls for hot keys. The burst is smaller by what is earned in that time. Default: none.
        lease: Duration,
        /// Instead of a rate: how many requests may be under way at once.
        in_flight: u64,
        /// For `in_flight`: how long a place stays taken that a dead proxy cannot give back. Default: 30s.
        slot_ttl: Duration,
        /// For `fixed_window`: where windows begin: `clock` (default, UTC), `first_request`, or a time zone such as `Europe/Berlin`.
        align: Alignment,
        /// Blocks a key that is denied again and again.
        penalty: Penalty,
        /// For `leaky_bucket`: how many go through without delay. Default: 1.
        delay_after: u64,
        /// For `leaky_bucket`: the longest a request may be held. Default: 10s, never above the route's timeout.
        max_wait: Duration,
        /// What a request costs: a number, or keys: `default`, one per method, `header` (a request field that holds it), `body` (one more per part of this size), `response_header` (a field of the answer that holds the true cost), `max`. Default: 1.
        cost: Short<u64, Named<CostText>>,
        /// How far costs that are known only afterwards may go below empty. Default: the burst.
        max_debt: u64,
        /// Counts only requests that are answered so; all others are given back.
        count: Count,
        /// Gives requests back that are answered so.
        refund: Refund,
        /// `enforce` (default) or `shadow` (counted in the metrics, denies nothing).
        mode: Mode,
        /// What a shadow limit shows.
        shadow: Shadow,
        /// Other rates for some keys; the first that matches wins.
        overrides: List<Override>,
        /// Other rates by plan or any other key part; an override comes first.
        tiers: Tiers,
        /// Other rates at certain hours of the week; overrides and tiers come first. No two may hold at once.
        schedules: List<Schedule>,
        /// Allows overrides for single keys to be set through the admin API, up to these caps; they come before all others.
        dynamic_overrides: DynamicOverrides,
        /// From this share of the burst on, admitted requests carry a warning (`X-RateLimit-Warning`).
        warn_at: Share,
        /// Keeps clients that share a key from coming back all at once: of those denied, each is told in Retry-After the time of a token of its own, one after the other, never sooner than true and up to this much later. Default: all are told the exact time.
        spread_retry: Duration,
        /// When the store does not answer: `local`, `allow` or `deny`. Default: the store's.
        on_store_error: OnStoreError,
        /// Which paths it counts.
        r#match: LimitMatch,
        /// The answer instead of the usual 429.
        response: Response,
    }
}

words! {
    /// What happens to a request without the key.
    Missing {
        /// Counted by its client address.
        ClientIp = "client_ip",
        /// Denied.
        Deny = "deny",
        /// Not counted.
        Skip = "skip",
    }
}

words! {
    /// How a limit counts.
    AlgorithmName {
        /// Up to the burst at once, then at the rate.
        TokenBucket = "token_bucket",
        /// The same, and admitted requests are held for their turn.
        LeakyBucket = "leaky_bucket",
        /// So much per window of the clock.
        FixedWindow = "fixed_window",
        /// Two neighbouring windows, weighted.
        SlidingWindow = "sliding_window",
        /// So much in every window, by the instant of each request.
        SlidingLog = "sliding_log",
    }
    instead of "in_flight": "leave `algorithm` and `rate` out, and write `in_flight: 5` for five at once"
    instead of "gcra": "write `token_bucket`, which admits exactly the same"
}

words! {
    /// Whether a limit denies.
    Mode {
        /// It denies.
        Enforce = "enforce",
        /// It only watches.
        Shadow = "shadow",
    }
}

keys! {
    /// What a shadow limit shows.
    Shadow {
        /// Whether its rate-limit fields are sent. Default: false.
        headers: bool,
        /// The share of its keys for which it denies all the same, always the same ones. Default: 0%.
        enforce: Share,
    }
}

keys! {
    /// Another rate for some keys.
    Override {
        /// Key values, or address blocks where requests are counted by address; `jwt:tenant=acme` where several parts of the limit's key have values. Required.
        key: OneOrMany<OverrideKey>,
        /// A rate or a list of rates, `0/s` (deny) or `unlimited`. Required, unless `in_flight` is given.
        rate: OneOrMany<Allowance>,
        /// The most at once. Default: the count of the rate.
        burst: u64,
        /// How many requests may be under way at once.
        in_flight: u64,
    }
}

keys! {
    /// Which answers count.
    Count {
        /// Statuses: `401`, `4xx` or `500-503`. Required.
        status: OneOrMany<StatusRange>,
    }
}

keys! {
    /// Which requests are given back.
    Refund {
        /// Statuses of the upstream's answer: `503`, `5xx` or `500-503`.
        status: OneOrMany<StatusRange>,
        /// Whether requests are given back that the upstream failed to answer. Default: false.
        upstream_failure: bool,
    }
}

keys! {
    /// Blocks a key that is denied again and again.
    Penalty {
        /// Denials that block; those before a Retry-After has run out count once. Default: 3.
        after: u64,
        /// How long the first block lasts; each further one twice as long. Default: 10m.
        block: Duration,
        /// The longest block, and how long a key must keep quiet until all is forgotten. Default: 24h.
        max: Duration,
        /// Where IPv6 addresses are counted: so many blocked parts of a /56 block all of it, so many blocked /56 of a /48 all of that; 0: never. Default: 8.
        widen_after: u64,
    }
}

words! {
    /// What to do when the store does not answer.
    OnStoreError {
        /// Decide in this process.
        Local = "local",
        /// Let it pass.
        Allow = "allow",
        /// Answer 503.
        Deny = "deny",
    }
}

keys! {
    /// Which paths a limit counts.
    LimitMatch {
        /// Only these: `/exact` or `/prefix/*`.
        path: OneOrMany<PathPattern>,
        /// Never these.
        not_path: OneOrMany<PathPattern>,
    }
}

keys! {
    /// The answer to a denied request.
    Response {
        /// 400 to 599. Default: 429.
        status: Status,
        /// Its media type. Default: text/plain; charset=utf-8.
        content_type: HeaderText,
        /// Its body; `{limit.name}`, `{limit.retry_after}` and `{request.id}` are filled in.
        body: String,
    }
}
