//! What the tests stand on.

pub(crate) mod redis_server;
