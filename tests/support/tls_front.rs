//! TLS before a server that speaks clear text, and what its clients showed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::certificates::Files;

/// Takes TLS off and passes the rest on.
pub(crate) struct TlsFront {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Shown>>>,
}

/// What a client said in its handshake.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) name: Option<String>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

/// How it shakes hands.
pub(crate) struct Manner<'a> {
    pub(crate) files: &'a Files,
    pub(crate) alpn: &'a [&'a [u8]],
    /// Whose client certificates it requires.
    pub(crate) clients: Option<&'a Path>,
}

impl Manner<'_> {
    fn config(&self) -> rustls::ServerConfig {
        let certificates = |file: &Path| -> Vec<_> {
            CertificateDer::pem_file_iter(file).expect("a file").map(|one| one.expect("PEM")).collect()
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates(ca));
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.files.key).expect("a key");
        let mut config = builder.with_single_cert(certificates(&self.files.cert), key).expect("a certificate");
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

impl TlsFront {
    /// Before the server at `behind`.
    pub(crate) fn before(behind: SocketAddr, manner: &Manner<'_>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Vec<Shown>>>::default();
        let (acceptor, kept) = (TlsAcceptor::from(Arc::new(manner.config())), Arc::clone(&seen));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(carry(stream, behind, acceptor.clone(), Arc::clone(&kept)));
                }
            });
        });
        Self { address, seen }
    }

    /// Its address, by name.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What clients showed so far.
    pub(crate) fn seen(&self) -> Vec<Shown> {
        self.seen.lock().expect("nobody panics").clone()
    }
}

async fn carry(stream: TcpStream, behind: SocketAddr, acceptor: TlsAcceptor, seen: Arc<Mutex<Vec<Shown>>>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let session = stream.get_ref().1;
    seen.lock().expect("nobody panics").push(Shown {
        name: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        certificate: session
            .peer_certificates()
            .and_then(|shown| shown.first().cloned().map(CertificateDer::into_owned)),
    });
    let Ok(mut server) = TcpStream::connect(behind).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
}
