//! What the configuration says of traces.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::limit::store::settings::Secret;

/// Which requests are traced, and where their spans go.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingSettings {
    /// Who collects spans.
    pub collector: Arc<Collector>,
    /// Share of the requests that are traced, 0 to 1, of those whose trace does not begin at a trusted client.
    pub sample: f64,
    /// What the process is called in traces.
    pub service_name: Box<str>,
}

/// An `OpenTelemetry` collector that takes OTLP over HTTP.
#[derive(Debug)]
pub struct Collector {
    /// Its address as it is shown: secrets in it are covered.
    pub text: Box<str>,
    /// The same, taken apart.
    pub address: WebAddress,
    /// Fields sent to it.
    pub headers: Vec<(HeaderName, Secret)>,
    /// TLS; `None` in clear text.
    pub tls: Option<CollectorTls>,
    /// PEM file of the authorities that are believed; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// Hash of what that file held.
    pub believed: Option<blake3::Hash>,
    /// How long a batch may take, its connection included.
    pub timeout: Duration,
}

/// What a connection to it is opened with, and the name its certificate must have.
pub type CollectorTls = (Arc<ClientConfig>, ServerName<'static>);

/// An address of HTTP, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebAddress {
    /// Whether it begins with `https`.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: Box<str>,
    /// TCP port.
    pub port: u16,
    /// What Host says: the port only where it was given.
    pub authority: Box<str>,
    /// Path and query.
    pub target: Box<str>,
}

impl PartialEq for Collector {
    /// Whether the file says the same of both, and the authorities are the same.
    fn eq(&self, other: &Self) -> bool {
        let said = |one: &Self| (one.address.clone(), one.headers.clone(), one.ca.clone(), one.believed, one.timeout);
        said(self) == said(other)
    }
}

impl WebAddress {
    /// Whether a connection to it never leaves the machine.
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        let loopback = |address: std::net::IpAddr| address.to_canonical().is_loopback();
        &*self.host == "localhost" || self.host.parse().is_ok_and(loopback)
    }
}
