//! What TLS towards Redis trusts and shows.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::super::super::stats::StoreErrorKind;
use super::super::settings::RedisTls;
use super::dial::ConnectError;

/// The rustls configuration of a store's connections. The files are read when it is first wanted, and
/// again after an attempt to connect failed: they may have been replaced.
#[derive(Debug)]
pub(super) struct Tls {
    wanted: Option<RedisTls>,
    read: RefCell<Option<Arc<ClientConfig>>>,
}

impl Tls {
    pub(super) fn new(wanted: Option<&RedisTls>) -> Self {
        Self { wanted: wanted.cloned(), read: RefCell::new(None) }
    }

    /// What to connect with; `None` is plain TCP.
    ///
    /// # Errors
    /// Names the file that could not be used.
    pub(super) async fn config(&self) -> Result<Option<Arc<ClientConfig>>, ConnectError> {
        let Some(wanted) = &self.wanted else { return Ok(None) };
        let read = self.read.borrow().clone();
        if read.is_some() {
            return Ok(read);
        }
        let wanted = wanted.clone();
        let read = tokio::task::spawn_blocking(move || client_config(&wanted)).await;
        let read = read.map_err(io::Error::other).flatten();
        let read = Arc::new(read.map_err(|error| ConnectError::new(StoreErrorKind::Tls, error.to_string()))?);
        *self.read.borrow_mut() = Some(Arc::clone(&read));
        Ok(Some(read))
    }

    /// The files are to be read again.
    pub(super) fn forget(&self) {
        *self.read.borrow_mut() = None;
    }
}

/// Reads the files and makes a rustls configuration of them. Blocks on the disk.
///
/// # Errors
/// Names the file that could not be used.
fn client_config(tls: &RedisTls) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &tls.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| unusable(path, &error))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(io::Error::other("no certificate authority to trust was found"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &tls.client else { return Ok(builder.with_no_client_auth()) };
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    builder
        .with_client_auth_cert(certificates(certificate)?, private_key)
        .map_err(|error| unusable(certificate, &error))
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{} cannot be used: {error}", path.display()))
}
