//! The keys of what a route matches.

use http::Method;

use crate::config::shape::{Named, OneOrMany, Short, keys};
use crate::config::values::{PlainText, RegexText, WholePath};
use crate::route::{HostPattern, PathTemplate};

keys! {
    /// What a route matches.
    Match {
        /// A host or several: `api.example.com` or `*.example.com`.
        host: OneOrMany<HostPattern>,
        /// A path or several: `/v1/orders`, `/v1/{tenant}/orders`, `/assets/*`, or `{ regex: '/v[0-9]+/users/(?<id>[0-9]+)' }`.
        path: OneOrMany<Short<PathTemplate, PathKeys>>,
        /// A method or several. GET means HEAD too.
        method: OneOrMany<Method>,
        /// Fields: the value that each must have, or `{ present: true }`, `{ present: false }` or `{ regex: 'v[0-9]+' }`.
        headers: Named<Short<PlainText, Condition>>,
        /// Query parameters and the values that they must have once decoded, or `present` or `regex` as for fields. One that occurs twice is answered with 400.
        query: Named<Short<PlainText, Condition>>,
    }
}

keys! {
    /// A path by a regular expression.
    PathKeys {
        /// Fits the whole path, in its canonical form; named groups are path parameters. Required.
        regex: WholePath,
    }
}

keys! {
    /// What a field or a query parameter must be like.
    Condition {
        /// `true`: it must be there, with any value; `false`: it must not be there.
        present: bool,
        /// A regular expression that its whole value fits.
        regex: RegexText,
    }
}
