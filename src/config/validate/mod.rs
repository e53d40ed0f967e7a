//! From the file's settings to a [`Config`], with everything that is wrong reported at its place.

mod admin;
mod balancing;
mod costs;
mod dynamic;
mod extras;
mod fields;
mod jwt;
mod leases;
mod limits;
mod listeners;
mod loops;
mod matches;
mod overrides;
mod process;
mod rates;
mod redirect;
mod rewrites;
mod routes;
mod schedules;
mod secrets;
mod server_tls;
mod servers;
mod store;
mod terms;
mod tiers;
mod tls;
mod tracing;
mod trials;
mod upstreams;
mod warnings;

pub(super) use secrets::{regular, sentence};
pub(super) use tracing::secrets_of;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::file::{self, File};
use super::frames::Span;
use super::shape::{Problem, Reader, Setting};
use super::values::{Trusted, Workers};
use super::{AdminSettings, ClientIp, ClientIpSource, Config, ListenAddress, Listener, Ordinals};
use crate::limit::headers::HeaderStyle;
use crate::limit::policy::OnStoreError;

/// What every part of the validation shares.
pub(super) struct Check<'a> {
    /// The configuration's text, to tell what was written in it from what the environment filled in.
    text: &'a str,
    /// Where relative paths begin: the file's directory.
    directory: PathBuf,
    /// Whether the file says whose tokens to believe, rightly or not.
    believes_tokens: bool,
    /// Whether a listener asks for client certificates, as far as can be told.
    asks_certificates: bool,
    /// What the configuration takes the place of.
    previous: Option<&'a Config>,
    ordinals: Ordinals,
    reader: &'a mut Reader,
}

/// Something is wrong, and was reported.
pub(super) struct Reported;

/// Turns settings into a configuration.
///
/// # Errors
/// When the reader holds an error: the admin listener, where that is known all the same.
pub(super) fn validate(
    file: &File,
    text: &str,
    (directory, previous): (&Path, Option<&Config>),
    reader: &mut Reader,
) -> Result<Config, Option<AdminSettings>> {
    let believes_tokens = !file.jwt.is_absent();
    let directory = directory.to_owned();
    let ordinals = previous.map(|previous| previous.ordinals.clone()).unwrap_or_default();
    let mut check = Check { text, directory, believes_tokens, asks_certificates: true, previous, ordinals, reader };
    let check = &mut check;
    let listeners = check.listeners(file);
    // The files of their certificates are followed by themselves.
    check.reader.files.clear();
    check.asks_certificates = !check.is_sound() || tls::ask_for_certificates(&listeners);
    let (trusted_proxies, trusts_unix) = trust(file);
    check.warn_about_trust(file, &listeners);
    let client_ip = check.client_ip(file);
    let store = check.store(file);
    let jwt = check.jwt(file);
    let upstreams = check.upstreams(file, client_ip.ipv6_prefix, &store);
    let access = check.access(&file.access);
    let routed = check.routes(file, upstreams, client_ip.ipv6_prefix);
    let found = check.reader.diagnostics.len();
    let admin = check.admin(file, &listeners);
    let is_known = check.reader.diagnostics.len() == found && admin::is_read(file);
    let trials = check.trials(file, &routed.places);
    let mut config = Config {
        listeners: listeners.into_iter().map(Arc::new).collect(),
        trusted_proxies,
        trusts_unix,
        client_ip,
        access,
        router: routed.router,
        policies: routed.policies,
        max_waits: routed.max_waits,
        upstreams: routed.upstreams,
        dns: upstreams::dns(file),
        rate_limit_headers: header_style(file),
        store,
        jwt,
        log: process::log(file),
        access_log: check.access_log(file),
        tracing: check.tracing(file),
        metrics_path: check.metrics_path(file),
        metrics_need_token: admin::metrics_need_token(file),
        admin,
        max_memory: check.max_memory(file),
        shutdown: process::shutdown(file),
        workers: workers(file),
        trials,
        ordinals: std::mem::take(&mut check.ordinals),
        files: check.reader.files.clone(),
    };
    servers::tag_routes(&mut config, file);
    check.refuse_loops(file, &config);
    check.warn_about(&config, &routed.places);
    check.warn_about_sockets(file, &config);
    check.warn_about_unused_tokens(file, &config);
    check.warn_about_tokens_in_tests(file, &config);
    if check.is_sound() { Ok(config) } else { Err(config.admin.filter(|_| is_known)) }
}

/// Whose word about clients is believed: networks, and whether those behind Unix sockets too.
fn trust(file: &File) -> (Vec<IpNet>, bool) {
    let listed = || file.trusted_proxies.get().into_iter().flat_map(|list| &list.0);
    let networks = listed().filter_map(|entry| match &entry.value {
        Trusted::Networks(blocks) => Some(&blocks.0),
        Trusted::Unix => None,
    });
    (networks.flatten().copied().collect(), listed().any(|entry| entry.value == Trusted::Unix))
}

fn header_style(file: &File) -> HeaderStyle {
    match file.rate_limit_headers.or(file::RateLimitHeaders::Draft) {
        file::RateLimitHeaders::Draft => HeaderStyle::Draft,
        file::RateLimitHeaders::Legacy => HeaderStyle::Legacy,
        file::RateLimitHeaders::Both => HeaderStyle::Both,
        file::RateLimitHeaders::None => HeaderStyle::None,
    }
}

fn workers(file: &File) -> usize {
    match file.workers.or(Workers::Auto) {
        Workers::Auto => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        Workers::Count(count) => count,
    }
}

impl From<file::OnStoreError> for OnStoreError {
    fn from(written: file::OnStoreError) -> Self {
        match written {
            file::OnStoreError::Local => Self::Local,
            file::OnStoreError::Allow => Self::Allow,
            file::OnStoreError::Deny => Self::Deny,
        }
    }
}

impl Check<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.reader.error(span, Problem::new(message, help));
    }

    fn warn(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.reader.warn(span, Problem::new(message, help));
    }

    /// A mistake of the file as a whole.
    fn error_of_file(&mut self, message: &str, help: &str) {
        self.reader.diagnostics.push(super::frames::Diagnostic {
            severity: super::frames::Severity::Error,
            message: message.to_owned(),
            span: None,
            help: Some(help.to_owned()),
        });
    }

    /// Whether no error was found so far.
    fn is_sound(&self) -> bool {
        !self.reader.diagnostics.iter().any(|diagnostic| diagnostic.severity == super::frames::Severity::Error)
    }

    /// Whether the environment had a hand in what stands here.
    fn is_from_environment(&self, span: Span) -> bool {
        self.text.get(span.start..span.end).is_some_and(|text| text.contains("${"))
    }

    /// A duration that must not be zero.
    fn time(&mut self, setting: &Setting<Duration>, default: Duration) -> Duration {
        let Some(given) = setting.spanned() else { return default };
        if given.value.is_zero() {
            self.error(given.span, "this time must be longer than zero", "write 1s, for example");
        }
        given.value
    }

    /// A whole number within bounds.
    fn number(&mut self, setting: &Setting<u64>, default: usize, bounds: std::ops::RangeInclusive<u64>) -> usize {
        let Some(given) = setting.spanned() else { return default };
        if !bounds.contains(&given.value) {
            self.error(
                given.span,
                format!("{} is out of bounds", given.value),
                format!("write {} to {}", bounds.start(), bounds.end()),
            );
        }
        usize::try_from(given.value).unwrap_or(usize::MAX)
    }

    fn warn_about_trust(&mut self, file: &File, listeners: &[Listener]) {
        for entry in file.trusted_proxies.get().into_iter().flat_map(|list| &list.0) {
            match &entry.value {
                Trusted::Networks(blocks) if blocks.0.iter().any(|block| block.prefix_len() == 0) => self.warn(
                    entry.span,
                    "everybody is trusted: each client chooses its own address",
                    "list only the proxies in front of this one",
                ),
                Trusted::Unix if !listeners.iter().any(|one| matches!(one.address, ListenAddress::Unix(_))) => {
                    self.warn(entry.span, "no listener is a Unix socket", "leave `unix` out");
                }
                _ => {}
            }
        }
    }

    fn client_ip(&mut self, file: &File) -> ClientIp {
        let Some(given) = file.client_ip.get() else {
            return ClientIp { source: ClientIpSource::XForwardedFor, ipv6_prefix: 64 };
        };
        let prefix = self.number(&given.ipv6_prefix, 64, 1..=128);
        let source = given.header.get().map_or(ClientIpSource::XForwardedFor, |name| match name.as_str() {
            "x-forwarded-for" => ClientIpSource::XForwardedFor,
            "forwarded" => ClientIpSource::Forwarded,
            _ => ClientIpSource::Header(name.clone()),
        });
        if let Some(header) = given.header.spanned()
            && file.trusted_proxies.get().is_none_or(|list| list.0.is_empty())
            && !matches!(file.trusted_proxies, Setting::Invalid)
        {
            self.warn(
                header.span,
                "this field is never believed, because no proxy is trusted",
                "list the proxies in front in `trusted_proxies`, or leave `client_ip.header` out",
            );
        }
        ClientIp { source, ipv6_prefix: u8::try_from(prefix).unwrap_or(64) }
    }
}
