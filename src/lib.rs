//! Tollgate: a reverse proxy with exact, distributed rate limiting built in.
//!
//! # The life of a request
//!
//! 1. A [`worker`] (one thread, one runtime, one core) accepts a connection on one of its
//!    listeners and hands it to [`proxy::connection`], which shakes hands where there is [`tls`].
//! 2. [`proxy::inbound`] stands between the socket and hyper and lets one strictly valid
//!    request head through at a time.
//! 3. [`proxy::handler`] tells the story: find the [`route`], ask the [`limit::Limiter`] for a
//!    verdict, forward to an [`upstream`], write the rate-limit fields, answer.
//!    Limits keyed by a claim make [`jwt`] verify the request's token.
//! 4. The limiter decides all limits of the request at once, in the memory store or in Redis
//!    through one atomic script ([`limit::store`]).
//! 5. [`telemetry`] counts and logs what happened; [`admin`] shows it. [`explain`] tells the same story of a
//!    request that nobody sends.
//!
//! Who may depend on whom is stated in `tests/suite/layering.rs` and checked there.

pub mod admin;
pub mod cli;
pub mod config;
pub mod explain;
pub mod handover;
pub mod jwt;
pub mod limit;
pub mod proxy;
pub mod reload;
pub mod route;
pub mod server;
pub mod signal;
pub mod slots;
pub mod telemetry;
pub mod tls;
pub mod units;
pub mod upstream;
pub mod worker;
