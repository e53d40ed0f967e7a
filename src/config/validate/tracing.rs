//! Traces: where spans go, and what the collector is told about who sends them.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;

use super::{Check, Reported};
use crate::config::file::{self, File, Otlp};
use crate::config::frames::Span;
use crate::config::mask::mask;
use crate::config::shape::{Problem, Setting, Short};
use crate::config::traces::{Collector, CollectorTls, TracingSettings, WebAddress};
use crate::config::values::PlainText;
use crate::limit::store::settings::Secret;
use crate::tls::{MinVersion, Offer, ServerTls, Trust};

/// Fields that are the exporter's own.
const OWN: [&str; 7] =
    ["host", "content-type", "content-length", "content-encoding", "connection", "transfer-encoding", "user-agent"];

/// Where the file holds values that no frame may show.
pub(in crate::config) fn secrets_of(file: &File) -> Vec<Span> {
    let otlp = file.tracing.get().and_then(|tracing| tracing.otlp.get());
    let Some(Short::Long(otlp)) = otlp else { return Vec::new() };
    let values = otlp.headers.get().into_iter().flat_map(|headers| &headers.0);
    values.filter_map(|(_, value)| value.spanned()).map(|value| value.span).collect()
}

/// Whether the value of a field of this name opens doors.
fn is_secret(name: &HeaderName) -> bool {
    *name == AUTHORIZATION || ["key", "token", "secret", "auth", "team"].iter().any(|part| name.as_str().contains(part))
}

impl Check<'_> {
    /// Traces, if they are wanted.
    pub(super) fn tracing(&mut self, file: &File) -> Option<TracingSettings> {
        let tracing = file.tracing.get()?;
        if let (true, Some(key)) = (tracing.otlp.is_absent(), file.tracing.key()) {
            let help = "write `otlp: http://otel-collector:4318` below it";
            self.error(key, "`tracing` does not say where spans go", help);
        }
        let service_name = tracing.service_name.get().map_or("tollgate", |name| name.0.as_str());
        if let Some(given) = tracing.service_name.spanned().filter(|name| name.value.0.trim().is_empty()) {
            self.error(given.span, "this is no name", "write one, such as edge, or leave `service_name` out");
        }
        let collector = self.collector(tracing)?;
        Some(TracingSettings {
            collector: Arc::new(collector),
            sample: tracing.sample.get().map_or(1.0, |share| share.0),
            service_name: service_name.into(),
        })
    }

    fn collector(&mut self, tracing: &file::Tracing) -> Option<Collector> {
        let (otlp, endpoint) = match tracing.otlp.get()? {
            Short::Short(address) => (Otlp::default(), Some(address.clone())),
            Short::Long(otlp) => (otlp.clone(), otlp.endpoint.get().cloned()),
        };
        if let (true, Some(key), Short::Long(_)) = (otlp.endpoint.is_absent(), tracing.otlp.key(), tracing.otlp.get()?)
        {
            self.error(key, "`otlp` has no `endpoint`", "write `endpoint: http://otel-collector:4318` below it");
        }
        let timeout = self.time(&otlp.timeout, Duration::from_secs(10));
        let headers = self.collector_headers(&otlp);
        let endpoint = endpoint?;
        let place = otlp.endpoint.spanned().map(|given| given.span).or_else(|| tracing.otlp.key())?;
        let tls = self.collector_tls(&otlp, &endpoint.address, place).ok()?;
        let ca = otlp.ca.get().map(|path| self.path(path));
        if !endpoint.address.tls
            && !endpoint.address.is_this_machine()
            && headers.iter().any(|(name, _)| is_secret(name))
        {
            self.warn(place, "secrets are sent to the collector in clear text", "write https://, or send none");
        }
        let believed = ca.as_deref().map(|file| blake3::hash(&std::fs::read(file).unwrap_or_default()));
        Some(Collector {
            text: mask(&endpoint.text).into(),
            address: endpoint.address,
            headers,
            tls,
            ca,
            believed,
            timeout,
        })
    }

    /// The fields that are sent along, with the token's.
    fn collector_headers(&mut self, otlp: &Otlp) -> Vec<(HeaderName, Secret)> {
        let mut headers: Vec<(HeaderName, Secret)> = Vec::new();
        for (name, value) in otlp.headers.get().into_iter().flat_map(|headers| &headers.0) {
            let Ok(header) = HeaderName::from_str(&name.value) else {
                let message = format!("`{}` is not a field name", name.value);
                self.error(name.span, message, "write letters, digits and `-`, such as x-api-key");
                continue;
            };
            if OWN.contains(&header.as_str()) {
                self.error(name.span, format!("`{header}` is set by the proxy itself"), "leave it out");
            } else if headers.iter().any(|(given, _)| *given == header) {
                self.error(name.span, format!("`{header}` is given twice"), "keep one of them");
            } else if let Some(secret) = self.header_secret(&header, value) {
                headers.push((header, secret));
            }
        }
        if let Some(token) = self.token(&otlp.token_file) {
            match otlp.token_file.key() {
                Some(key) if headers.iter().any(|(name, _)| *name == AUTHORIZATION) => {
                    self.error(key, "`authorization` is given twice", "keep `token_file`");
                }
                _ => headers.push((AUTHORIZATION, token)),
            }
        }
        headers
    }

    fn header_secret(&mut self, name: &HeaderName, value: &Setting<PlainText>) -> Option<Secret> {
        let given = value.spanned()?;
        if HeaderValue::from_str(&given.value.0).is_err() {
            let help = "write it on one line; what comes from the environment must not end with a line feed";
            self.error(given.span, format!("the value of `{name}` cannot be sent in a field"), help);
            return None;
        }
        if is_secret(name) && !self.is_from_environment(given.span) {
            let message = format!("`{name}` is a secret written in the file");
            self.warn(given.span, message, "use ${NAME} from the environment, or `token_file`");
        }
        Some(Secret::new(&given.value.0))
    }

    fn token(&mut self, setting: &Setting<PathBuf>) -> Option<Secret> {
        let token = format!("Bearer {}", self.secret_file(setting)?.reveal());
        let given = setting.spanned()?.clone();
        if HeaderValue::from_str(&token).is_err() {
            self.error(given.span, "the token in this file cannot be sent in a field", "put it on one line");
            return None;
        }
        Some(Secret::in_file(&token, &self.path(&given.value)))
    }

    /// TLS with the collector.
    fn collector_tls(
        &mut self,
        otlp: &Otlp,
        address: &WebAddress,
        place: Span,
    ) -> Result<Option<CollectorTls>, Reported> {
        if !address.tls {
            if let Some(key) = otlp.ca.key() {
                self.error(key, "`ca` has no meaning without TLS", "leave it out, or write https:// in `endpoint`");
            }
            return Ok(None);
        }
        let trust = if otlp.ca.is_absent() {
            Ok(Trust::System)
        } else {
            let pem = self.contents(&otlp.ca).ok_or(Reported)?;
            Trust::read(self.path(otlp.ca.get().ok_or(Reported)?), &pem)
        };
        // A host that stands in an address is always a name that can be asked for, or an IP address.
        let name = ServerName::try_from(address.host.to_string()).map_err(|_| Reported)?;
        let tls = |trust| ServerTls { trust, shows: None, name: None, min_version: MinVersion::Tls12 };
        match trust.and_then(|trust| tls(trust).client_config(Offer::Http1)) {
            Ok(config) => Ok(Some((config, name))),
            Err(error) => {
                let place = otlp.ca.spanned().map_or(place, |given| given.span);
                self.reader.error(place, Problem::from(error));
                Err(Reported)
            }
        }
    }
}
