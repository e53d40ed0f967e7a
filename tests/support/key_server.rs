//! A server of key sets that can be made to fail in every way while it runs, with TLS or without.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::redis_server::TlsFiles;

/// What a request is answered with.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// 200 with this body.
    Body(String),
    /// This status, with a body that would be a valid key set.
    Status(u16, String),
    /// Nothing, until the behaviour changes.
    Hang,
    /// The connection is closed without an answer.
    Close,
    /// A body without an end.
    Endless,
}

/// A running server.
pub(crate) struct KeyServer {
    address: SocketAddr,
    state: Arc<State>,
    tls: Option<(tempfile::TempDir, PathBuf)>,
}

struct State {
    behaviour: Mutex<Behaviour>,
    changed: Condvar,
    requests: AtomicUsize,
}

impl KeyServer {
    /// Serves these keys on a free port.
    pub(crate) fn start(keys: &str) -> Self {
        Self::behaving(Behaviour::Body(keys.to_owned()))
    }

    /// Starts with a behaviour, on a free port.
    pub(crate) fn behaving(behaviour: Behaviour) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").expect("a free port"), behaviour, None)
    }

    /// Serves these keys on a port of the test's choice.
    pub(crate) fn start_on(port: u16, keys: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        Self::listen(listener, Behaviour::Body(keys.to_owned()), None)
    }

    /// Serves these keys with TLS, and an authority of its own.
    pub(crate) fn start_with_tls(keys: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = TlsFiles::make(directory.path()).ca;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::listen(listener, Behaviour::Body(keys.to_owned()), Some((directory, ca)))
    }

    fn listen(listener: TcpListener, behaviour: Behaviour, tls: Option<(tempfile::TempDir, PathBuf)>) -> Self {
        let address = listener.local_addr().expect("an address");
        let config = tls.as_ref().map(|(directory, _)| server_config(directory.path()));
        let (changed, requests) = (Condvar::new(), AtomicUsize::new(0));
        let state = Arc::new(State { behaviour: Mutex::new(behaviour), changed, requests });
        let served = Arc::clone(&state);
        serve_each(listener, config, move |stream| served.serve(stream));
        Self { address, state, tls }
    }

    /// The address of the key set.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/.well-known/jwks.json", self.address)
    }

    /// The PEM file of its authority.
    pub(crate) fn ca(&self) -> &Path {
        &self.tls.as_ref().expect("it speaks TLS").1
    }

    /// Behaves differently from now on; who hangs is answered.
    pub(crate) fn become_(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().expect("no panic") = behaviour;
        self.state.changed.notify_all();
    }

    /// Requests that have arrived so far.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }
}

impl State {
    fn serve(&self, mut stream: impl Read + Write) {
        let mut head = BufReader::new(&mut stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if head.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let _ = self.answer(&mut stream);
    }

    fn answer(&self, stream: &mut impl Write) -> std::io::Result<()> {
        let behaviour = self.behaviour.lock().expect("no panic");
        let waited = self.changed.wait_while(behaviour, |behaviour| matches!(behaviour, Behaviour::Hang));
        let behaviour = waited.expect("no panic").clone();
        match behaviour {
            Behaviour::Body(body) => respond(stream, 200, &body),
            Behaviour::Status(status, body) => respond(stream, status, &body),
            Behaviour::Hang | Behaviour::Close => Ok(()),
            Behaviour::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                // Until the other side has had enough, which a test asserts.
                for _ in 0..100_000 {
                    stream.write_all(b"1000\r\n")?;
                    stream.write_all(&[b' '; 0x1000])?;
                    stream.write_all(b"\r\n")?;
                }
                Ok(())
            }
        }
    }
}

fn respond(stream: &mut impl Write, status: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} x\r\nlocation: /elsewhere\r\ncontent-length: {length}\r\n\r\n{body}")?;
    stream.flush()
}

/// Bytes both ways, through TLS or not.
pub(crate) trait Duplex: Read + Write {}

impl<T: Read + Write> Duplex for T {}

/// Serves every connection on a thread of its own, for ever.
pub(crate) fn serve_each(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    serve: impl Fn(Box<dyn Duplex>) + Send + Sync + 'static,
) {
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (serve, tls) = (Arc::clone(&serve), tls.clone());
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_mins(1)));
                match tls {
                    None => serve(Box::new(stream)),
                    Some(config) => {
                        let connection = ServerConnection::new(config).expect("a TLS connection");
                        serve(Box::new(StreamOwned::new(connection, stream)));
                    }
                }
            });
        }
    });
}

pub(crate) fn server_config(directory: &Path) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(directory.join("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("TLS versions").with_no_client_auth().with_single_cert(vec![certificate], key);
    Arc::new(config.expect("a server's certificate"))
}

/// Closes with the test: who still waits is let go.
impl Drop for KeyServer {
    fn drop(&mut self) {
        self.become_(Behaviour::Close);
    }
}
