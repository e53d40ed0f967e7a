//! The access log: where it goes, and when its file is opened anew.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::StartError;
use crate::config::{AccessLogClass, AccessLogFormat, AccessLogSettings};
use crate::signal::LogsMoved;
use crate::telemetry::log_file::LogFile;
use crate::telemetry::{AccessLog, access_log};

/// Opens the access log anew at every signal, where it is a file.
pub(super) async fn reopen(mut moved: LogsMoved, access_log: Option<AccessLog>) {
    loop {
        moved.next().await;
        if let Some(access_log) = &access_log {
            access_log.reopen();
            tracing::info!("SIGUSR1: the access log is opened anew");
        } else {
            tracing::info!("SIGUSR1 ignored: logs go to standard streams");
        }
    }
}

/// The access log in its file or on standard output. Without classes it holds every request unless sampled.
pub(super) fn start(settings: &AccessLogSettings) -> Result<AccessLog, StartError> {
    let logs = |class| settings.only.contains(&class);
    let format = match settings.format {
        AccessLogFormat::Json => access_log::Format::Json,
        AccessLogFormat::Combined => access_log::Format::Combined,
    };
    let (limited, errors) = (logs(AccessLogClass::Limited), logs(AccessLogClass::Errors));
    let log = access_log::Settings { format, limited, errors, sample: settings.sample };
    let Some(path) = &settings.file else {
        // Standard output as Rust has it keeps what it could not write.
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        return Ok(AccessLog::start(log, output)?);
    };
    let failed = |cause| StartError::AccessLog { path: path.clone(), cause };
    Ok(AccessLog::start(log, LogFile::open(path).map_err(failed)?)?)
}
