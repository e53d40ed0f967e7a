//! Upstreams that speak HTTP/2, in clear text or over TLS, stream by stream.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::certificates::Files;

/// One request and where its response goes.
pub(crate) struct Exchange {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
}

type Script = dyn Fn(Exchange) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// A server of HTTP/2 that runs a script for each stream.
pub(crate) struct H2Upstream {
    address: SocketAddr,
    shared: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Request<()>>>,
}

/// How it is reached.
#[derive(Clone)]
pub(crate) struct Service {
    tls: Option<(Files, &'static [&'static [u8]])>,
    max_streams: u32,
}

impl Service {
    /// Clear text.
    pub(crate) fn clear() -> Self {
        Self { tls: None, max_streams: 100 }
    }

    /// TLS with this certificate and these ALPN names.
    pub(crate) fn tls(files: &Files, alpn: &'static [&'static [u8]]) -> Self {
        Self { tls: Some((files.clone(), alpn)), max_streams: 100 }
    }

    /// Most streams at once.
    pub(crate) fn allowing(self, max_streams: u32) -> Self {
        Self { max_streams, ..self }
    }

    fn acceptor(&self) -> Option<TlsAcceptor> {
        let (files, alpn) = self.tls.as_ref()?;
        let chain = CertificateDer::pem_file_iter(&files.cert).expect("a file").map(|one| one.expect("PEM")).collect();
        let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_no_client_auth();
        let mut config = builder.with_single_cert(chain, key).expect("a certificate and its key");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Some(TlsAcceptor::from(Arc::new(config)))
    }
}

impl H2Upstream {
    /// Starts it on a thread of its own.
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        service: Service,
        script: impl Fn(Exchange) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::<Seen>::default();
        let seen = Arc::clone(&shared);
        let script: Arc<Script> = Arc::new(move |exchange| Box::pin(script(exchange)));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(accept(listener, service, seen, script));
        });
        Self { address, shared }
    }

    /// Its address with this scheme.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// Connections that were opened to it so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Heads of requests that arrived so far.
    pub(crate) fn seen(&self) -> Vec<Request<()>> {
        self.shared.requests.lock().expect("no script panics").clone()
    }
}

async fn accept(listener: std::net::TcpListener, service: Service, seen: Arc<Seen>, script: Arc<Script>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let acceptor = service.acceptor();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let (acceptor, seen, script) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&script));
        let max_streams = service.max_streams;
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, max_streams, seen, script).await,
                Some(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    serve(stream, max_streams, seen, script).await;
                }
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, max_streams: u32, seen: Arc<Seen>, script: Arc<Script>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(max_streams);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        seen.requests.lock().expect("no script panics").push(head);
        tokio::spawn(script(Exchange { request, respond }));
    }
}

/// Reads a body to its end.
pub(crate) async fn whole(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, body.trailers().await?))
}
