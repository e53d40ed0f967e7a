//! What the tests stand on: the program under test, clients, servers, and ways to wait.

pub(crate) mod admin;
pub(crate) mod browser;
pub(crate) mod bystander;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod dns;
pub(crate) mod fault_proxy;
pub(crate) mod fuzz;
pub(crate) mod grpc;
pub(crate) mod h2_upstream;
pub(crate) mod http2;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) mod judge;
pub(crate) mod key_server;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod mixed_load;
pub(crate) mod monitor;
pub(crate) mod named_files;
pub(crate) mod nginx;
pub(crate) mod parsers;
pub(crate) mod port;
pub(crate) mod redis_cluster;
pub(crate) mod redis_sentinel;
pub(crate) mod redis_server;
pub(crate) mod redis_stub;
pub(crate) mod tls_front;
pub(crate) mod tokens;
pub(crate) mod tollgate;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// How long anything may take that is expected to happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until there is a value; fails loudly when it takes too long.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, &mut ask)
}

/// [`eventually`], with a limit of its own.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ask() {
            return value;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The value below which this share of the values lie.
pub(crate) fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(index).copied().unwrap_or_default()
}
