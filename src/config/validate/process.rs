//! What is logged, how much memory may be used, and how the process ends.

use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use super::Check;
use crate::config::file::{self, File};
use crate::config::{AccessLogClass, AccessLogFormat, AccessLogSettings, LogFormat, LogSettings, ShutdownSettings};
use crate::units::Size;

/// Least that `memory.max` may be, bytes.
const LEAST_MEMORY: u64 = 16 << 20;

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

impl Check<'_> {
    /// The access log, if it is wanted.
    pub(super) fn access_log(&mut self, file: &File) -> Option<AccessLogSettings> {
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
        Some(AccessLogSettings { format, only, sample, file: self.log_file(log) })
    }

    /// Where it is written; whether that can be is seen at the start.
    fn log_file(&mut self, log: &file::AccessLog) -> Option<PathBuf> {
        let given = log.file.spanned()?;
        let path = self.path(&given.value);
        let home = path.parent().filter(|home| !home.as_os_str().is_empty());
        if path.is_dir() {
            let message = format!("cannot write `{}`: it is a directory", path.display());
            self.error(given.span, message, "name a file in it, such as access.log");
        } else if let Some(home) = home.filter(|home| !home.is_dir()) {
            let message = format!("cannot write `{}`: there is no directory `{}`", path.display(), home.display());
            self.error(given.span, message, "create it first, writable for the user that the proxy runs as");
        }
        Some(path)
    }

    /// The most memory that may be used.
    pub(super) fn max_memory(&mut self, file: &File) -> Option<u64> {
        let given = file.memory.get()?.max.spanned()?;
        if given.value.0 < LEAST_MEMORY {
            let message = format!("{} is less than the process itself needs", given.value);
            self.error(given.span, message, format!("write {} or more", Size(LEAST_MEMORY)));
        } else if !cfg!(target_os = "linux") {
            self.error(given.span, "how much memory is used is known on Linux only", "leave `memory` out");
        }
        Some(given.value.0)
    }
}

pub(super) fn shutdown(file: &File) -> ShutdownSettings {
    let shutdown = file.shutdown.get().cloned().unwrap_or_default();
    ShutdownSettings { delay: shutdown.delay.or(Duration::ZERO), grace: shutdown.grace.or(Duration::from_secs(30)) }
}
