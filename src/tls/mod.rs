//! TLS towards clients: which certificate a name gets, and whose certificates are believed; and towards
//! upstream servers. What is made here is checked when the configuration is loaded, so that nothing of it
//! can fail later.

mod certificate;
mod clients;
mod der;
mod live;
mod names;
mod servers;
mod subject;

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedProtocolVersion};

pub use certificate::{Certificate, CertificateError, Validity};
pub use clients::{Authorities, AuthoritiesError, ClientAuth};
pub use live::{Age, Aged, Change, Credentials, Live, StaleError};
use names::Names;
pub use servers::{Offer, ServerTls, ServerTlsError, Trust};
pub use subject::subject;

/// The ALPN name of HTTP/2 over TLS (RFC 9113 §3.2).
pub const H2: &[u8] = b"h2";
/// The ALPN name of HTTP/1.1 (RFC 7301 §6).
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// TLS 1.3 alone.
static NEWEST: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl MinVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => rustls::ALL_VERSIONS,
            Self::Tls13 => NEWEST,
        }
    }
}

/// What a client gets that asks for a name of which there is no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownName {
    /// The first certificate.
    Default,
    /// The alert `unrecognized_name` (RFC 6066 §3).
    Reject,
}

/// What a listener goes by, whatever its certificates.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The oldest version spoken.
    pub min_version: MinVersion,
    /// For names that no certificate is for.
    pub unknown_name: UnknownName,
    /// ALPN names, the preferred one first.
    pub protocols: Vec<&'static [u8]>,
}

/// What one listener shows and asks for. Sessions are resumed on this listener alone, and not at all
/// where clients show certificates: those are verified on every connection. There is no early data.
///
/// # Errors
/// When the parts do not fit together.
fn server_config(terms: &Terms, names: Arc<Names>, clients: &ClientAuth) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(terms.min_version.versions())?;
    let verifier = clients.verifier();
    let asks = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(names);
    config.alpn_protocols = terms.protocols.iter().map(|name| name.to_vec()).collect();
    // All that is offered is good; auditors want one side to decide, and that is the better informed one.
    config.ignore_client_order = true;
    if asks {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = Ticketer::new()?;
    }
    Ok(Arc::new(config))
}
