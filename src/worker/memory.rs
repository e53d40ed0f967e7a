//! Measures the memory of the process, and says when load is shed for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::param::page_size;

use super::Shared;

/// Time between two measurements.
const INTERVAL: Duration = Duration::from_millis(100);
/// Where the system tells, in pages: all, then resident.
const STATM: &str = "/proc/self/statm";

/// Measures until dropped.
///
/// # Errors
/// When the system does not tell.
pub async fn watch(shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let used = resident()?;
        let max = shared.pressure.usage().map(|(_, max)| max);
        match shared.pressure.measured(used) {
            Some(true) => {
                tracing::warn!(used, max, "memory is scarce: new connections are closed, new requests get 503");
            }
            Some(false) => tracing::info!(used, max, "there is memory again, everything is served"),
            None => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Resident memory, bytes.
fn resident() -> io::Result<u64> {
    let text = std::fs::read_to_string(STATM)?;
    let pages = text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other(format!("{STATM} is not as expected")))?;
    Ok(pages * page_size() as u64)
}
