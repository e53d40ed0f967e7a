//! A gRPC server and its clients, made of tonic: messages are bytes, services are four ways to echo.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::server::{ClientStreamingService, Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// Messages as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What happened to calls at the server, in order.
pub(crate) type Log = Arc<Mutex<Vec<String>>>;

/// A running server. `/echo/unary` answers with what it got; `/echo/server` sends it three times; `/echo/client`
/// joins all messages; `/echo/both` sends each one back at once. `/echo/silent` never answers.
pub(crate) struct GrpcServer {
    address: SocketAddr,
    log: Log,
}

type Boxed<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// One call.
#[derive(Clone)]
struct Echo(Log);

/// Tells when the call it belongs to is given up before its end.
struct Given {
    log: Log,
    ended: bool,
}

impl Drop for Given {
    fn drop(&mut self) {
        if !self.ended {
            self.log.lock().expect("nobody panics").push("given up".to_owned());
        }
    }
}

impl Echo {
    fn begin(&self, metadata: &MetadataMap) -> Given {
        let timeout = metadata.get("grpc-timeout").map_or("-".to_owned(), |value| format!("{value:?}"));
        self.0.lock().expect("nobody panics").push(format!("timeout {timeout}"));
        Given { log: Arc::clone(&self.0), ended: false }
    }
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Boxed<Bytes>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let given = self.begin(request.metadata());
        Box::pin(async move {
            let mut given = given;
            if request.get_ref() == "silence" {
                std::future::pending::<()>().await;
            }
            given.ended = true;
            if request.get_ref() == "refuse" {
                return Err(Status::failed_precondition("not today"));
            }
            let mut response = Response::new(request.into_inner());
            response.metadata_mut().insert("x-served-by", "tonic".parse().expect("a value"));
            Ok(response)
        })
    }
}

impl ServerStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = Boxed<Messages>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let message = request.into_inner();
        let three = tokio_stream::iter((0..3).map(move |_| Ok(message.clone())));
        Box::pin(async move { Ok(Response::new(Box::pin(three) as Messages)) })
    }
}

impl ClientStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Boxed<Bytes>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let mut messages = request.into_inner();
        Box::pin(async move {
            let mut all = Vec::new();
            while let Some(message) = messages.message().await? {
                all.extend_from_slice(&message);
            }
            Ok(Response::new(all.into()))
        })
    }
}

/// Sends back each message; remembers when the client gives up.
struct Back {
    messages: Streaming<Bytes>,
    given: Given,
}

impl Stream for Back {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.messages).poll_next(cx);
        if let Poll::Ready(None) = polled {
            self.given.ended = true;
        }
        polled
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = Boxed<Messages>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let given = self.begin(request.metadata());
        let back = Back { messages: request.into_inner(), given };
        Box::pin(async move { Ok(Response::new(Box::pin(back) as Messages)) })
    }
}

impl GrpcServer {
    /// Starts it in clear text on a thread of its own.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("an address");
        let log = Log::default();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let echo = Echo(Arc::clone(&kept));
                    let service = service_fn(move |request| serve(echo.clone(), request));
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(async move { drop(builder.serve_connection(TokioIo::new(stream), service).await) });
                }
            });
        });
        Self { address, log }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happened so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("nobody panics").clone()
    }
}

async fn serve(
    echo: Echo,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, std::convert::Infallible> {
    let mut grpc = Grpc::new(Raw);
    Ok(match request.uri().path() {
        "/echo/unary" => grpc.unary(echo, request).await,
        "/echo/server" => grpc.server_streaming(echo, request).await,
        "/echo/client" => grpc.client_streaming(echo, request).await,
        "/echo/both" => grpc.streaming(echo, request).await,
        _ => Status::unimplemented("no such method").into_http(),
    })
}

/// A client of whatever listens at this address.
pub(crate) struct GrpcClient {
    grpc: tonic::client::Grpc<Channel>,
}

impl GrpcClient {
    /// Connects in clear text.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
        Self { grpc: tonic::client::Grpc::new(endpoint.connect().await.expect("connected")) }
    }

    async fn ready(&mut self) {
        self.grpc.ready().await.expect("a connection");
    }

    /// One message there and one back, within `timeout` if there is one.
    pub(crate) async fn unary(
        &mut self,
        message: &'static str,
        timeout: Option<Duration>,
    ) -> Result<Response<Bytes>, Status> {
        self.ready().await;
        let mut request = Request::new(Bytes::from_static(message.as_bytes()));
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        self.grpc.unary(request, PathAndQuery::from_static("/echo/unary"), Raw).await
    }

    /// One message there, several back.
    pub(crate) async fn server_streaming(&mut self, message: &'static str) -> Result<Vec<Bytes>, Status> {
        self.ready().await;
        let request = Request::new(Bytes::from_static(message.as_bytes()));
        let path = PathAndQuery::from_static("/echo/server");
        self.grpc.server_streaming(request, path, Raw).await?.into_inner().collect().await
    }

    /// Several messages there, one back.
    pub(crate) async fn client_streaming(&mut self, messages: &[&'static str]) -> Result<Bytes, Status> {
        self.ready().await;
        let messages: Vec<_> = messages.iter().map(|message| Bytes::from_static(message.as_bytes())).collect();
        let request = Request::new(tokio_stream::iter(messages));
        let path = PathAndQuery::from_static("/echo/client");
        Ok(self.grpc.client_streaming(request, path, Raw).await?.into_inner())
    }

    /// Messages both ways as they come.
    pub(crate) async fn both(&mut self) -> Result<(mpsc::Sender<Bytes>, Streaming<Bytes>), Status> {
        self.ready().await;
        let (sender, receiver) = mpsc::channel(8);
        let request = Request::new(Receiver(receiver));
        let path = PathAndQuery::from_static("/echo/both");
        Ok((sender, self.grpc.streaming(request, path, Raw).await?.into_inner()))
    }
}

/// What a channel brings, as a stream.
struct Receiver(mpsc::Receiver<Bytes>);

impl Stream for Receiver {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(cx)
    }
}

/// The next message of a stream.
pub(crate) async fn next(stream: &mut Streaming<Bytes>) -> Option<Result<Bytes, Status>> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}
