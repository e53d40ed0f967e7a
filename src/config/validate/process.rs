//! What is logged, and how the process ends.

use std::time::Duration;

use tracing::Level;

use crate::config::file::{self, File};
use crate::config::{AccessLogClass, AccessLogFormat, AccessLogSettings, LogFormat, LogSettings, ShutdownSettings};

pub(super) fn log(file: &File) -> LogSettings {
    let log = file.log.get().cloned().unwrap_or_default();
    LogSettings {
        level: match log.level.or(file::LogLevel::Info) {
            file::LogLevel::Error => Level::ERROR,
            file::LogLevel::Warn => Level::WARN,
            file::LogLevel::Info => Level::INFO,
            file::LogLevel::Debug => Level::DEBUG,
            file::LogLevel::Trace => Level::TRACE,
        },
        format: match log.format.or(file::LogFormat::Auto) {
            file::LogFormat::Auto => LogFormat::Auto,
            file::LogFormat::Pretty => LogFormat::Pretty,
            file::LogFormat::Json => LogFormat::Json,
        },
    }
}

pub(super) fn access_log(file: &File) -> Option<AccessLogSettings> {
    let log = file.access_log.get()?;
    let listed = log.only.get().map(|list| list.0.as_slice()).unwrap_or_default();
    let only = listed.iter().map(|class| match class.value {
        file::AccessLogClass::Limited => AccessLogClass::Limited,
        file::AccessLogClass::Errors => AccessLogClass::Errors,
    });
    let only: Vec<_> = only.collect();
    let sample = log.sample.get().map_or(if only.is_empty() { 1.0 } else { 0.0 }, |share| share.0);
    let format = match log.format.or(file::AccessLogFormat::Json) {
        file::AccessLogFormat::Json => AccessLogFormat::Json,
        file::AccessLogFormat::Combined => AccessLogFormat::Combined,
    };
    Some(AccessLogSettings { format, only, sample })
}

pub(super) fn shutdown(file: &File) -> ShutdownSettings {
    let shutdown = file.shutdown.get().cloned().unwrap_or_default();
    ShutdownSettings { delay: shutdown.delay.or(Duration::ZERO), grace: shutdown.grace.or(Duration::from_secs(30)) }
}
