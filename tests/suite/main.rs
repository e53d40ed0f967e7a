//! One test binary (linking is slow), a module per behaviour. Everything here runs the real program
//! and talks to it through sockets; what a test needs beside it (Redis, upstreams) it starts itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test that cannot go on must fail")]

#[path = "../support/raw.rs"]
mod raw;
#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod command_line;
mod configuration;
mod contract;
mod denials;
mod differential;
mod examples;
mod flood;
mod forwarding;
mod forwarding_http2;
mod identity;
mod inbound;
mod keys;
mod layering;
mod observability;
mod oracle;
mod penalties;
mod recipes;
mod redis_replies;
mod redis_store;
mod regressions;
mod smuggling;
mod start;
mod store_failure;
mod streaming;
