//! What the project exists for: deciding whether a request is within its limits, exactly.
//!
//! [`Limiter::check`] takes the policies of a route and the [`Facts`] of a request and returns a
//! [`Verdict`]. It knows HTTP's types (headers, URI, method) but neither hyper nor routes.

pub mod algorithm;
pub mod bill;
pub mod books;
mod coalesce;
pub mod control;
pub mod cost;
pub mod decision;
pub mod denials;
pub mod dynamic;
pub mod fallback;
pub mod fingerprint;
pub mod headers;
pub mod hold;
pub mod inspect;
pub mod key;
mod lease;
pub mod limiter;
mod owed;
pub mod plan;
pub mod policy;
mod remote;
pub mod replay;
pub mod schedule;
mod spread;
pub mod stats;
pub mod store;
mod store_clock;
pub mod top;

pub use bill::Bill;
pub use decision::{Decision, Outcome, Source, Verdict};
pub use key::Facts;
pub use limiter::Limiter;
pub use policy::Policy;
