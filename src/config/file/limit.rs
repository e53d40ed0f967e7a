//! The keys of a limit.

use std::time::Duration;

use crate::config::shape::{List, Named, OneOrMany, Short, keys, words};
use crate::config::values::{Allowance, HeaderText, KeyChoice, LimitName, OverrideKey, Status};
use crate::limit::policy::PathPattern;

keys! {
    /// A limit.
    Limit {
        /// Its name; unique. Default: `<route>/<key>`.
        name: LimitName,
        /// What is counted separately: `client_ip`, `header:NAME`, `cookie:NAME`, `query:NAME`, `path:PARAM`, `tls:subject` (of the client's certificate), `host`, `method`, `route` or `global`; `a | b` is the first one present; a list is a combined key. Required.
        key: OneOrMany<KeyChoice>,
        /// What happens when the key is not present: `client_ip` (default), `deny` or `skip`.
        missing: Missing,
        /// `token_bucket` (default) or `leaky_bucket` (admitted requests leave one by one).
        algorithm: AlgorithmName,
        /// How much is earned back: `100/s`, `5/10s`, `1000/m`, `0/s` (never) or `unlimited`. Required.
        rate: Allowance,
        /// The most at once. Default: the count of the rate.
        burst: u64,
        /// For `leaky_bucket`: how many go through without delay. Default: 1.
        delay_after: u64,
        /// For `leaky_bucket`: the longest a request may be held. Default: 10s, never above the route's timeout.
        max_wait: Duration,
        /// What a request costs: a number, or one per method. Default: 1.
        cost: Short<u64, Named<u64>>,
        /// `enforce` (default) or `shadow` (counted in the metrics, denies nothing).
        mode: Mode,
        /// What a shadow limit shows.
        shadow: Shadow,
        /// Other rates for some keys; the first that matches wins.
        overrides: List<Override>,
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
    }
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
        /// Whether its rate-limit fields are sent.
        headers: bool,
    }
}

keys! {
    /// Another rate for some keys.
    Override {
        /// Key values, or address blocks where the key is `client_ip`. Required.
        key: OneOrMany<OverrideKey>,
        /// A rate, `0/s` (deny) or `unlimited`. Required.
        rate: Allowance,
        /// The most at once. Default: the count of the rate.
        burst: u64,
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
