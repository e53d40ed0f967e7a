//! TLS towards upstream servers: whom we believe, what we show, and which protocols we offer.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Certificate, H2, HTTP_1_1, MinVersion};

/// Everything that is said of TLS towards the servers of one upstream.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// Whose certificates servers must show.
    pub trust: Trust,
    /// What we show when a server asks for it.
    pub shows: Option<Certificate>,
    /// The name in their certificates and in SNI, where it is not the one in their address.
    pub name: Option<ServerName<'static>>,
    /// The oldest version spoken.
    pub min_version: MinVersion,
}

/// Whose certificates are believed.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those that the system believes.
    System,
    /// Those of the authorities in a file, and no others.
    File(PathBuf, Arc<RootCertStore>),
    /// Any certificate at all.
    Anything,
}

/// The protocols that are offered to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/2, else HTTP/1.1.
    Either,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone.
    Http2,
}

/// Why an upstream's TLS cannot be set up, with the cure.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// A file of authorities holds none.
    #[error("this file holds no certificate; it must be PEM, with the authorities that sign servers' certificates")]
    NoAuthority,
    /// One of them cannot be read.
    #[error("a certificate in this file cannot be used: {0}; it must be X.509 version 3, in PEM")]
    Authority(String),
    /// The system has none.
    #[error("this system has no certificate authorities to believe; name yours with `ca`")]
    NoSystemAuthority,
    /// The parts do not fit.
    #[error("TLS cannot be set up: {0}; use a key and a version that fit each other")]
    Setup(rustls::Error),
}

impl Trust {
    /// The authorities in a PEM file; each of them must be usable.
    ///
    /// # Errors
    /// When there is none, or one cannot be used.
    pub fn read(file: PathBuf, pem: &[u8]) -> Result<Self, ServerTlsError> {
        let unusable = |error: &dyn std::error::Error| ServerTlsError::Authority(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
        }
        if roots.is_empty() { Err(ServerTlsError::NoAuthority) } else { Ok(Self::File(file, Arc::new(roots))) }
    }

    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::System, Self::System) | (Self::Anything, Self::Anything) => true,
            (Self::File(_, one), Self::File(_, another)) => one.roots == another.roots,
            _ => false,
        }
    }

    fn roots(&self) -> Result<Option<Arc<RootCertStore>>, ServerTlsError> {
        match self {
            Self::Anything => Ok(None),
            Self::File(_, roots) => Ok(Some(Arc::clone(roots))),
            Self::System => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() { Err(ServerTlsError::NoSystemAuthority) } else { Ok(Some(Arc::new(roots))) }
            }
        }
    }
}

impl ServerTls {
    /// What connections are opened with. Sessions are resumed among connections of this upstream alone.
    ///
    /// # Errors
    /// When there is nobody to believe, or the parts do not fit together.
    pub fn client_config(&self, offer: Offer) -> Result<Arc<ClientConfig>, ServerTlsError> {
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.min_version.versions())
            .map_err(ServerTlsError::Setup)?;
        let builder = match self.trust.roots()? {
            Some(roots) => builder.with_root_certificates(roots),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(BelievesAnything(provider))),
        };
        let mut config = match &self.shows {
            None => builder.with_no_client_auth(),
            Some(shown) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown.certified_key()))),
        };
        config.alpn_protocols = offer.names();
        Ok(Arc::new(config))
    }
}

impl ServerTls {
    /// Whether the same is believed and shown: by what the files hold, not by their names.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let shown = |tls: &Self| tls.shows.as_ref().map(|shown| shown.key.cert.clone());
        self.trust.is_like(&other.trust)
            && shown(self) == shown(other)
            && self.name == other.name
            && self.min_version == other.min_version
    }
}

impl Offer {
    fn names(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Either => &[H2, HTTP_1_1],
            Self::Http1 => &[HTTP_1_1],
            Self::Http2 => &[H2],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

impl Certificate {
    fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

/// Takes every certificate (`insecure_skip_verify`). Signatures are checked all the same: who shows a
/// certificate must have its key.
#[derive(Debug)]
struct BelievesAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for BelievesAnything {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
