//! What is watched and logged, and how the process ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tracing::Level;

use super::Check;
use super::listeners::overlap;
use crate::config::file::{self, File};
use crate::config::shape::Short;
use crate::config::{
    AccessLogClass, AccessLogFormat, AccessLogSettings, AdminSettings, Listener, LogFormat, LogSettings,
    ShutdownSettings,
};
use crate::limit::policy::PathPattern;

impl Check<'_> {
    pub(super) fn admin(&mut self, file: &File, listeners: &[Listener]) -> Option<AdminSettings> {
        let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
        let admin = match file.admin.get() {
            Some(Short::Short(file::Off::None)) => return None,
            Some(Short::Long(admin)) => admin.clone(),
            None => file::Admin::default(),
        };
        let address = admin.address.get().map_or(default, |address| address.0);
        let token = self.secret_file(&admin.token_file);
        if let Some(given) = admin.address.spanned() {
            if !address.ip().is_loopback() && admin.token_file.is_absent() {
                self.error(
                    given.span,
                    "the admin listener is open to other machines without a token",
                    "add `token_file`, or listen on 127.0.0.1",
                );
            }
            if let Some(other) = listeners.iter().find(|other| overlap(other.address, address)) {
                let message = format!("the listener `{}` has this address already", other.name);
                self.error(given.span, message, "give the admin listener its own port");
            }
        }
        Some(AdminSettings { address, token })
    }

    pub(super) fn log(&mut self, file: &File) -> LogSettings {
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

    pub(super) fn access_log(&mut self, file: &File) -> Option<AccessLogSettings> {
        file.access_log.key()?;
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

    pub(super) fn metrics_path(&mut self, file: &File) -> Box<str> {
        let given = file.metrics.get().and_then(|metrics| metrics.path.spanned());
        let Some(given) = given else { return "/metrics".into() };
        match &given.value {
            PathPattern::Exact(path) if !matches!(&**path, "/healthz" | "/readyz" | "/") => path.clone(),
            _ => {
                self.error(given.span, "the metrics cannot stand here", "write a path of its own, such as /metrics");
                "/metrics".into()
            }
        }
    }

    pub(super) fn shutdown(&mut self, file: &File) -> ShutdownSettings {
        let shutdown = file.shutdown.get().cloned().unwrap_or_default();
        ShutdownSettings { delay: shutdown.delay.or(Duration::ZERO), grace: shutdown.grace.or(Duration::from_secs(30)) }
    }
}
