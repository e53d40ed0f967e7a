//! One test binary (linking is slow), a module per behaviour. Everything here runs the real program
//! and talks to it through sockets; what a test needs beside it (Redis, upstreams) it starts itself.
//! One test binary (linking is slow), a module per behaviour.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test that cannot go on must fail")]

#[path = "../support/mod.rs"]
mod support;

mod command_line;
mod contract;
mod denials;
mod flood;
mod keys;
mod observability;
mod recipes;
mod layering;
mod regressions;
mod start;
mod store_failure;
mod streaming;
//! One test binary; a module per behaviour.

mod oracle;
mod differential;
mod redis_store;
//! One test binary (linking is slow), a module per behaviour, through a socket.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

#[path = "../support/raw.rs"]
mod raw;

mod inbound;
mod smuggling;
