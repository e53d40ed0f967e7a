//! The Redis store: one decision is one call of one atomic script (`lua/`).

pub mod connection;
pub mod script;
