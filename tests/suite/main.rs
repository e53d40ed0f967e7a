//! One test binary; a module per behaviour.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod oracle;
