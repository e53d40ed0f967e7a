//! What is told about requests: metrics, access log, process log.

pub mod access_log;
pub mod exposition;
pub mod histogram;
pub mod lines;
pub mod logging;
pub mod metrics;

pub use access_log::AccessLog;
pub use metrics::WorkerStats;
