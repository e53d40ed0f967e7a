//! One test binary (linking is slow), a module per behaviour, through a socket.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

#[path = "../support/raw.rs"]
mod raw;

mod inbound;
mod smuggling;
//! One test binary; a module per behaviour.

mod oracle;
