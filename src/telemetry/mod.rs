//! What is told about requests: metrics, access log, traces, process log.

pub mod access_log;
pub mod exposition;
pub mod histogram;
pub mod lines;
pub mod log_file;
pub mod logging;
pub mod metrics;
pub mod traces;

pub use access_log::AccessLog;
pub use metrics::WorkerStats;
