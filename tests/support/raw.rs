//! Raw TCP clients, for requests no HTTP client would send, and a server of one connection loop whose
//! handler notes what reached it.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::watch;
use tollgate::config::{ListenAddress, Listener, Protocols, ProxyProtocol};
use tollgate::proxy::Downstream;
use tollgate::proxy::connection::{Connection, Phase};
use tollgate::proxy::inbound::{Clocks, Refusal};
use tollgate::proxy::listener::{self, Bound, Listening};
use tollgate::proxy::transport::Transport;
use tollgate::telemetry::WorkerStats;

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A client that sends bytes as they are.
pub(crate) struct Client {
    stream: TcpStream,
}

/// One response as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|have| have.eq_ignore_ascii_case(line))
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// Sends; a server that has already closed is not this function's business.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.stream.write_all(bytes);
        self
    }

    /// Sends one byte per segment.
    pub(crate) fn trickle(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes.chunks(1) {
            if self.stream.write_all(byte).is_err() {
                break;
            }
        }
        self
    }

    /// Closes the sending side.
    pub(crate) fn finish(&mut self) -> &mut Self {
        let _ = self.stream.shutdown(Shutdown::Write);
        self
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Everything until the server closes; a reset or silence is a failure.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{error} after {:?}", text(&bytes)));
        bytes
    }

    /// Everything until the server closes or resets; false when it did neither.
    pub(crate) fn read_all(&mut self, bytes: &mut Vec<u8>) -> bool {
        match self.stream.read_to_end(bytes) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }

    /// All answers until the server closes.
    pub(crate) fn answers(&mut self) -> Vec<Answer> {
        let bytes = self.rest();
        let mut rest = &bytes[..];
        let mut answers = Vec::new();
        while !rest.is_empty() {
            answers.push(take_answer(&mut rest).unwrap_or_else(|| panic!("not an answer: {:?}", text(rest))));
        }
        answers
    }

    /// The next answer on a connection that stays open.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut bytes = Vec::new();
        let mut scrap = [0; 4096];
        loop {
            if let Some(answer) = take_answer(&mut &bytes[..]) {
                return answer;
            }
            let read = self.stream.read(&mut scrap).unwrap();
            assert!(read > 0, "closed after {:?}", text(&bytes));
            bytes.extend_from_slice(&scrap[..read]);
        }
    }

    /// Reads until `wanted` has come.
    pub(crate) fn expect(&mut self, wanted: &[u8]) {
        let mut got = vec![0; wanted.len()];
        self.stream.read_exact(&mut got).unwrap();
        assert_eq!(text(&got), text(wanted));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Takes one answer framed by Content-Length off the front of `bytes`, if it is complete.
fn take_answer(bytes: &mut &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = text(&bytes[..end]);
    let status = head.get(9..12)?.parse().ok()?;
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|value| value.trim().to_owned()))
        .map_or(0, |value| value.parse().unwrap());
    let body = bytes.get(end..end + length)?.to_vec();
    *bytes = &bytes[end + length..];
    Some(Answer { status, head, body })
}

/// What reached the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A request with its whole body.
    Whole { method: String, target: String, body: Vec<u8> },
    /// A request whose body failed.
    Broken(Option<Refusal>),
    /// A request to `/early`, answered without reading its body.
    Early,
    /// A request to `/hang` was dropped before it was answered.
    Dropped,
}

/// A running server.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    phase: watch::Sender<Phase>,
}

impl Edge {
    pub(crate) fn start() -> Self {
        Self::with(Clocks::new(Duration::from_secs(10), Duration::from_secs(75)), Protocols { h1: true, h2: true })
    }

    pub(crate) fn with(clocks: Clocks, protocols: Protocols) -> Self {
        let socket = listener::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let settings = Listener {
            name: "test".into(),
            ordinal: 0,
            address: ListenAddress::Tcp(address),
            mode: 0,
            protocols,
            redirect_to_https: None,
            proxy_protocol: ProxyProtocol::Never,
            tls: None,
            max_connections: 1000,
            max_connections_per_ip: None,
            header_timeout: clocks.head,
            idle_timeout: clocks.idle,
            stream_idle_timeout: Duration::from_hours(1),
            max_header_size: 32 * 1024,
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (phase, phases) = watch::channel(Phase::Running);
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(<_>::default()).unwrap();
            runtime.block_on(accept_all(socket, settings, clocks, shared, phases));
        });
        Self { address, seen, phase }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn turn(&self, phase: Phase) {
        self.phase.send(phase).unwrap();
    }

    /// What reached the handler since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// The same, once anything did.
    pub(crate) fn wait_seen(&self) -> Vec<Seen> {
        let deadline = Instant::now() + PATIENCE;
        while self.seen.lock().unwrap().is_empty() {
            assert!(Instant::now() < deadline, "nothing reached the handler");
            std::thread::yield_now();
        }
        self.seen()
    }
}

async fn accept_all(
    socket: std::net::TcpListener,
    settings: Listener,
    clocks: Clocks,
    seen: Arc<Mutex<Vec<Seen>>>,
    phase: watch::Receiver<Phase>,
) {
    let socket = Listening::begin(Bound::Tcp(socket)).unwrap();
    let settings = Arc::new(settings);
    loop {
        let (stream, peer) = listener::accept(&socket).await;
        let downstream = Downstream {
            peer,
            peer_text: http::HeaderValue::try_from(peer.ip().unwrap().to_string()).unwrap(),
            local: None,
            listener: Arc::clone(&settings),
            trusted: false,
            in_flight: 0.into(),
            close: false.into(),
            version: http::Version::HTTP_11.into(),
            secured: None,
            tunnel: <_>::default(),
            stats: Arc::new(WorkerStats::new()),
            phase: Rc::new(phase.clone()),
        };
        let connection = Connection { downstream: Rc::new(downstream), clocks, phase: phase.clone() };
        let (settings, seen) = (Arc::clone(&settings), Arc::clone(&seen));
        tokio::task::spawn_local(async move {
            connection
                .serve(Transport::Plain(stream), &settings, move |request, _| handle(request, Arc::clone(&seen)))
                .await;
        });
    }
}

/// A response body of so many frames.
struct Pieces(Vec<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

struct Leaving(Arc<Mutex<Vec<Seen>>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(Seen::Dropped);
    }
}

async fn handle(request: Request<Incoming>, seen: Arc<Mutex<Vec<Seen>>>) -> Response<Pieces> {
    let respond = |status: StatusCode, body: Vec<u8>| {
        Response::builder().status(status).body(Pieces(vec![Bytes::from(body)])).unwrap()
    };
    let (parts, body) = request.into_parts();
    match parts.uri.path() {
        "/early" => {
            seen.lock().unwrap().push(Seen::Early);
            return respond(StatusCode::TOO_MANY_REQUESTS, Vec::new());
        }
        "/hang" => {
            let _leaving = Leaving(Arc::clone(&seen));
            std::future::pending::<()>().await;
        }
        "/late" => tokio::time::sleep(Duration::from_millis(5)).await,
        "/panic" => panic!("asked to"),
        "/large" => return Response::new(Pieces(vec![Bytes::from(vec![b'x'; 16 * 1024]); 4096])),
        _ => {}
    }
    match body.collect().await {
        Ok(body) => {
            let body = body.to_bytes().to_vec();
            seen.lock().unwrap().push(Seen::Whole {
                method: parts.method.to_string(),
                target: parts.uri.to_string(),
                body: body.clone(),
            });
            respond(StatusCode::OK, body)
        }
        Err(error) => {
            let refusal = Refusal::behind(&error);
            seen.lock().unwrap().push(Seen::Broken(refusal));
            respond(refusal.map_or(StatusCode::BAD_REQUEST, Refusal::status), Vec::new())
        }
    }
}
