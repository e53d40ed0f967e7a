//! One test binary (linking is slow), a module per behaviour.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test that cannot go on must fail")]

mod configuration;
mod examples;
