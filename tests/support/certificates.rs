//! Certificates made for one test, and TLS clients that show and believe what they are told to.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::client::Client;

/// How many there are.
static AUTHORITIES: AtomicUsize = AtomicUsize::new(0);

/// An authority and the files of what it signed.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// PEM files of a certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A certificate to make.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Its file's name.
    file: &'static str,
    names: &'static [&'static str],
    subject: Vec<(DnType, &'static str)>,
    /// When it ends, if that is not far away.
    ends: Option<SystemTime>,
    usage: ExtendedKeyUsagePurpose,
}

impl Wanted {
    /// A server's, for these names.
    pub(crate) fn server(file: &'static str, names: &'static [&'static str]) -> Self {
        let subject = vec![(DnType::CommonName, file)];
        Self { file, names, subject, ends: None, usage: ExtendedKeyUsagePurpose::ServerAuth }
    }

    /// A client's, of this organisation and name; empty ones are left out.
    pub(crate) fn client(file: &'static str, organisation: &'static str, name: &'static str) -> Self {
        let mut subject = vec![(DnType::OrganizationName, organisation), (DnType::CommonName, name)];
        subject.retain(|(_, value)| !value.is_empty());
        Self { subject, usage: ExtendedKeyUsagePurpose::ClientAuth, ..Self::server(file, &[]) }
    }

    /// The same, out of date.
    pub(crate) fn expired(self) -> Self {
        // The first day of 2021.
        self.until(SystemTime::UNIX_EPOCH + Duration::from_hours(447_072))
    }

    /// The same, valid since 2019 and until then.
    pub(crate) fn until(self, ends: SystemTime) -> Self {
        Self { ends: Some(ends), ..self }
    }
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        // No two have the same name, as no two have the same key.
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let directory = tempfile::tempdir().expect("a directory for certificates");
        let authority = Self { directory, issuer };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    /// Its own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Signs a certificate with a key of its own.
    pub(crate) fn sign(&self, wanted: &Wanted) -> Files {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = wanted.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in &wanted.subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.extended_key_usages = vec![wanted.usage.clone()];
        if let Some(ends) = wanted.ends {
            let since_1970 = ends.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(1970, 1, 1) + since_1970;
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Files {
            cert: self.write(&format!("{}.pem", wanted.file), &certificate.pem()),
            key: self.write(&format!("{}.key", wanted.file), &key.serialize_pem()),
        }
    }

    /// Writes a file beside the certificates.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A client that believes this authority.
    pub(crate) fn client(&self) -> TlsClient {
        TlsClient { ca: self.ca(), name: "localhost", shows: None, alpn: Vec::new(), versions: rustls::ALL_VERSIONS }
    }
}

impl Files {
    /// As an entry of `certificates:`.
    pub(crate) fn yaml(&self) -> String {
        format!("{{ cert: '{}', key: '{}' }}", self.cert.display(), self.key.display())
    }

    /// The certificate as a client gets to see it.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).expect("a certificate")
    }
}

/// How a client shakes hands.
#[derive(Debug, Clone)]
pub(crate) struct TlsClient {
    ca: PathBuf,
    name: &'static str,
    shows: Option<Files>,
    alpn: Vec<Vec<u8>>,
    versions: &'static [&'static SupportedProtocolVersion],
}

/// A stream through TLS.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl TlsClient {
    /// The same that asks for this name.
    pub(crate) fn to(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// The same that shows a certificate.
    pub(crate) fn showing(self, files: &Files) -> Self {
        Self { shows: Some(files.clone()), ..self }
    }

    /// The same that offers these protocols.
    pub(crate) fn offering(self, protocols: &[&str]) -> Self {
        Self { alpn: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(), ..self }
    }

    /// The same that speaks one version only.
    pub(crate) fn speaking(self, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        Self { versions, ..self }
    }

    /// What rustls makes of it. Sessions are resumed among the connections of one of these.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca) {
            roots.add(certificate).expect("an authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(self.versions).expect("versions").with_root_certificates(roots);
        let mut config = match &self.shows {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
                builder.with_client_auth_cert(certificates(&files.cert), key).expect("a certificate with its key")
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config.enable_early_data = true;
        Arc::new(config)
    }

    /// Shakes hands.
    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<Client<TlsStream>> {
        self.connect_with(address, &self.config())
    }

    /// [`TlsClient::connect`], with the sessions of a configuration made before.
    pub(crate) fn connect_with(
        &self,
        address: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> io::Result<Client<TlsStream>> {
        let name = ServerName::try_from(self.name).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.set_write_timeout(Some(Duration::from_secs(15)))?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client::over(address, stream))
    }
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).expect("a PEM file").collect::<Result<_, _>>().expect("certificates")
}
