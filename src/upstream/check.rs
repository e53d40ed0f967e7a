//! Checks of endpoints by requests of our own (`health.active`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::connect::{Call, Wanted};
use super::health::{Active, Change, Check};
use super::stream::Stream;
use super::{Endpoint, LastCheck, Protocol, Upstream, lookup};

const AGENT: HeaderValue = HeaderValue::from_static("tollgate-health");
/// Most of an answer's body that is read.
const MOST_READ: usize = 64 * 1024;
/// The answer SERVING of the gRPC health service: field 1, value 1.
const SERVING: &[u8] = &[0x08, 0x01];

/// Checks the endpoints of an upstream, for ever.
pub async fn keep(upstream: Arc<Upstream>, policy: Active, echo: Option<SocketAddr>) {
    lookup::all_answered(&upstream.servers, policy.timeout).await;
    loop {
        let mut checks = JoinSet::new();
        // A name without an address is told of by those who ask for it.
        for endpoint in upstream.endpoints().iter().filter(|endpoint| !endpoint.is_name) {
            checks.spawn_local(one(Arc::clone(&upstream), Arc::clone(endpoint), policy.clone(), echo));
        }
        while checks.join_next().await.is_some() {}
        // Several proxies should not check at the same instant.
        tokio::time::sleep(policy.interval.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
    }
}

async fn one(upstream: Arc<Upstream>, endpoint: Arc<Endpoint>, policy: Active, echo: Option<SocketAddr>) {
    let checking = tokio::time::timeout(policy.timeout, check(&upstream, &endpoint, &policy.check, echo));
    let result = checking.await.unwrap_or_else(|_| Err(late(policy.timeout)));
    let (name, server, address) = (&*upstream.name, &*endpoint.server.label, &endpoint.address);
    let error = result.as_ref().err().map(|error| error.to_string().into());
    *endpoint.last_check.lock() = Some(LastCheck { at: SystemTime::now(), error });
    match (endpoint.health.checked(result.is_ok(), &policy), result) {
        (Some(Change::Down), Err(error)) => {
            tracing::warn!(upstream = name, server, %address, %error, "upstream server found unhealthy");
        }
        (Some(Change::Up), Ok(())) => {
            upstream.settings.queue.wake_all();
            tracing::info!(upstream = name, server, %address, "upstream server found healthy");
        }
        _ => {}
    }
}

fn late(limit: Duration) -> io::Error {
    io::Error::other(format!("no answer within {} ms", limit.as_millis()))
}

async fn check(
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    check: &Check,
    echo: Option<SocketAddr>,
) -> io::Result<()> {
    let wanted = Call { upstream, endpoint, wanted: Wanted::Any, origin: None };
    let stream = wanted.open(echo).await.map_err(io::Error::other)?;
    match check {
        Check::Tcp => Ok(()),
        Check::Http { path, host, statuses } => {
            let request = get(endpoint, path, host.as_deref())?;
            let status = send(stream, upstream.settings.protocol, request).await?.status();
            let well = statuses.iter().any(|range| range.contains(&status.as_u16()));
            if well { Ok(()) } else { Err(io::Error::other(format!("it answered {}", status.as_u16()))) }
        }
        Check::Grpc { service } => {
            let response = send(stream, Protocol::Http2, call(endpoint, service)?).await?;
            serves(response).await
        }
    }
}

fn get(endpoint: &Endpoint, path: &str, host: Option<&str>) -> io::Result<Request<Full<Bytes>>> {
    let host = host.map_or(Ok(endpoint.server.host.clone()), HeaderValue::from_str).map_err(io::Error::other)?;
    let path: PathAndQuery = path.parse().map_err(io::Error::other)?;
    let mut request = Request::new(Full::default());
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().extend([(HOST, host), (USER_AGENT, AGENT)]);
    Ok(request)
}

/// `grpc.health.v1.Health/Check` with the name of a service (field 1, a string), behind a head of five bytes.
fn call(endpoint: &Endpoint, service: &str) -> io::Result<Request<Full<Bytes>>> {
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 128);
    let length = length.ok_or_else(|| io::Error::other("the service's name is too long"))?;
    let mut message = if length == 0 { Vec::new() } else { vec![0x0A, length] };
    message.extend_from_slice(service.as_bytes());
    let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap_or(u8::MAX)];
    body.append(&mut message);
    let mut request = Request::new(Full::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/grpc.health.v1.Health/Check");
    let fields = [
        (HOST, endpoint.server.host.clone()),
        (USER_AGENT, AGENT),
        (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (TE, HeaderValue::from_static("trailers")),
    ];
    request.headers_mut().extend(fields);
    Ok(request)
}

async fn serves(response: Response<Incoming>) -> io::Result<()> {
    let status = |headers: &HeaderMap| headers.get("grpc-status").map(|status| status == "0");
    if response.status() != StatusCode::OK || status(response.headers()) == Some(false) {
        return Err(io::Error::other("the health service refused to answer"));
    }
    let body = Limited::new(response.into_body(), MOST_READ).collect().await.map_err(io::Error::other)?;
    let said_well = body.trailers().is_none_or(|trailers| status(trailers) != Some(false));
    let message = body.to_bytes();
    let serving = message.get(5..) == Some(SERVING);
    if serving && said_well { Ok(()) } else { Err(io::Error::other("the health service does not say SERVING")) }
}

/// Sends a request on a connection of its own, in the protocol that the server speaks.
async fn send(stream: Stream, protocol: Protocol, mut request: Request<Full<Bytes>>) -> io::Result<Response<Incoming>> {
    let is_tls = matches!(stream, Stream::Tls(_));
    if protocol != Protocol::Http2 && !stream.agreed_on_h2() {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(connection);
        return sender.send_request(request).await.map_err(io::Error::other);
    }
    let host = request.headers_mut().remove(HOST).unwrap_or_else(|| HeaderValue::from_static("localhost"));
    let scheme = if is_tls { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(request.uri().to_string());
    *request.uri_mut() = uri.build().map_err(io::Error::other)?;
    *request.version_mut() = Version::HTTP_2;
    let handshake = http2::handshake(OnThisThread, TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    tokio::task::spawn_local(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Runs a connection's streams where the check runs.
#[derive(Debug, Clone, Copy)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(stream);
    }
}
