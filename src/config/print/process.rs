//! Logs, metrics, the admin listener and the end of the process, expanded.

use super::{Lines, quoted};
use crate::config::{AccessLogClass, AccessLogFormat, Config, LogFormat, TracingSettings};
use crate::units::{DurationText, Size};

pub(super) fn process(out: &mut Lines, config: &Config) {
    let format = match config.log.format {
        LogFormat::Auto => "auto",
        LogFormat::Pretty => "pretty",
        LogFormat::Json => "json",
    };
    let level = config.log.level.as_str().to_ascii_lowercase();
    out.pair(0, "log", format_args!("{{ level: {level}, format: {format} }}"));
    if let Some(log) = &config.access_log {
        out.line(0, "access_log:");
        out.pair(
            2,
            "format",
            match log.format {
                AccessLogFormat::Json => "json",
                AccessLogFormat::Combined => "combined",
            },
        );
        out.list(
            2,
            "only",
            log.only.iter().map(|class| match class {
                AccessLogClass::Limited => "limited".to_owned(),
                AccessLogClass::Errors => "errors".to_owned(),
            }),
        );
        out.pair(2, "sample", percent(log.sample));
        if let Some(file) = &log.file {
            out.pair(2, "file", quoted(&file.to_string_lossy()));
        }
    }
    if let Some(settings) = &config.tracing {
        tracing(out, settings);
    }
    let token = if config.metrics_need_token { "required" } else { "none" };
    out.pair(0, "metrics", format_args!("{{ path: {}, token: {token} }}", quoted(&config.metrics_path)));
    match &config.admin {
        Some(admin) => {
            out.line(0, "admin:");
            out.pair(2, "address", quoted(&admin.address.to_string()));
            if admin.token.is_some() {
                out.line(2, "# token_file: given");
            }
            out.pair(2, "dashboard", admin.dashboard);
        }
        None => out.pair(0, "admin", "none"),
    }
    if let Some(max) = config.max_memory {
        out.pair(0, "memory", format_args!("{{ max: {} }}", Size(max)));
    }
    let shutdown = config.shutdown;
    let (delay, grace) = (DurationText(shutdown.delay), DurationText(shutdown.grace));
    out.pair(0, "shutdown", format_args!("{{ delay: {delay}, grace: {grace} }}"));
    out.pair(0, "workers", config.workers);
}

/// A share as it is written.
fn percent(share: f64) -> String {
    quoted(&format!("{}%", (share * 1e8).round() / 1e6))
}

fn tracing(out: &mut Lines, settings: &TracingSettings) {
    let collector = &settings.collector;
    out.line(0, "tracing:");
    out.line(2, "otlp:");
    out.pair(4, "endpoint", quoted(&collector.text));
    if !collector.headers.is_empty() {
        out.line(4, "headers:");
        for (name, _) in &collector.headers {
            out.pair(6, name.as_str(), quoted("***"));
        }
    }
    if let Some(ca) = &collector.ca {
        out.pair(4, "ca", quoted(&ca.to_string_lossy()));
    }
    out.pair(4, "timeout", DurationText(collector.timeout));
    out.pair(2, "sample", percent(settings.sample));
    out.pair(2, "service_name", quoted(&settings.service_name));
}
