//! The built-in upstream that answers with the request it received: an HTTP server on a loopback
//! port of this process, reached through the real forwarding path.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// Bodies up to this size come back as text.
const MAX_TEXT: usize = 4 * 1024;
/// A connection that sends no request head for this long is closed; above the pool's idle time.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause after a failed accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves for ever, on the current `LocalRuntime`.
pub async fn serve(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(stream), service_fn(echo));
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "echo connection ended");
            }
        });
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let text = describe(&head, &read(body).await);
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What is known of a body: its size, and its beginning.
#[derive(Default)]
struct Read {
    size: usize,
    start: Vec<u8>,
}

/// Reads a body to its end and keeps only its first bytes.
async fn read(mut body: Incoming) -> Read {
    let mut read = Read::default();
    while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Some(data) = frame.data_ref() else { continue };
        let room = (MAX_TEXT + 1).saturating_sub(read.start.len()).min(data.len());
        read.size += data.len();
        read.start.extend_from_slice(&data[..room]);
    }
    read
}

/// The request as JSON.
fn describe(head: &Parts, body: &Read) -> String {
    let mut json = String::from("{\n");
    let _ = writeln!(json, "  \"method\": {},", quoted(head.method.as_str()));
    let _ = writeln!(json, "  \"path\": {},", quoted(head.uri.path()));
    if let Some(query) = head.uri.query() {
        let _ = writeln!(json, "  \"query\": {},", quoted(query));
    }
    let _ = writeln!(json, "  \"headers\": {},", fields(&head.headers));
    if (1..=MAX_TEXT).contains(&body.size)
        && let Ok(text) = std::str::from_utf8(&body.start)
    {
        let _ = writeln!(json, "  \"body\": {},", quoted(text));
    }
    let _ = writeln!(json, "  \"body_size\": {}\n}}", body.size);
    json
}

/// An object of field names and values; values of one name are joined as RFC 9110 §5.2 says.
fn fields(headers: &HeaderMap) -> String {
    let fields = headers.keys().map(|name| {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        format!("\n    {}: {}", quoted(name.as_str()), quoted(&values.join(", ")))
    });
    format!("{{{}\n  }}", fields.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
