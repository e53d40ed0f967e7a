//! Which clients are let in by their certificates.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

/// Whether clients show certificates.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They are asked; one that is shown must be valid.
    Request(Authorities),
    /// Without a valid one there is no connection.
    Require(Authorities),
}

/// The authorities whose client certificates are believed: at least one.
#[derive(Debug, Clone)]
pub struct Authorities {
    /// Where they were read from.
    pub file: PathBuf,
    /// Tells what was read from others.
    pub(super) digest: blake3::Hash,
    optional: Arc<dyn ClientCertVerifier>,
    required: Arc<dyn ClientCertVerifier>,
}

/// Why authorities cannot be used, with the cure. There is no going on without them: nobody would be
/// kept out.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The file holds none.
    #[error("this file holds no certificate; it must be PEM, with the authorities that sign client certificates")]
    None,
    /// One of them cannot be read.
    #[error("a certificate in this file cannot be used: {0}; it must be X.509 version 3, in PEM")]
    Unusable(String),
}

impl Authorities {
    /// Reads authorities from PEM; each of them must be usable.
    ///
    /// # Errors
    /// When there is none, or one cannot be used.
    pub fn read(file: PathBuf, pem: &[u8]) -> Result<Self, AuthoritiesError> {
        let unusable = |error: &dyn std::error::Error| AuthoritiesError::Unusable(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| unusable(&error))?;
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
        if roots.is_empty() {
            return Err(AuthoritiesError::None);
        }
        let roots = Arc::new(roots);
        let builder = || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::new(default_provider()));
        let required = builder().build().map_err(|error| unusable(&error))?;
        let optional = builder().allow_unauthenticated().build().map_err(|error| unusable(&error))?;
        Ok(Self { file, digest: blake3::hash(pem), optional, required })
    }
}

impl ClientAuth {
    /// Whether any client may show a certificate.
    #[must_use]
    pub fn asks(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whose certificates are believed.
    #[must_use]
    pub fn authorities(&self) -> Option<&Authorities> {
        match self {
            Self::None => None,
            Self::Request(authorities) | Self::Require(authorities) => Some(authorities),
        }
    }

    /// What verifies them.
    pub(super) fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        match self {
            Self::None => None,
            Self::Request(authorities) => Some(Arc::clone(&authorities.optional)),
            Self::Require(authorities) => Some(Arc::clone(&authorities.required)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_that_keep_nobody_out_are_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap().pem();
        let read = |pem: &str| Authorities::read(PathBuf::from("ca"), pem.as_bytes());
        assert!(read(&good).is_ok());
        for (bad, says) in [
            ("", "no certificate"),
            (&*key.serialize_pem(), "no certificate"),
            (&format!("{good}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "cannot be used"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
