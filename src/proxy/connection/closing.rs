//! The last words of an HTTP/1 connection: the answer to a refused request, and a close that does
//! not take back what the client has yet to read (RFC 9112 §9.6).

use std::time::{Duration, SystemTime};

use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::proxy::Downstream;
use crate::proxy::inbound::{Gate, Inbound, Refusal};
use crate::proxy::socket::Socket;

/// How long a client may take to read the last answer and close.
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes read and thrown away meanwhile.
const LINGER_BYTES: usize = 1024 * 1024;

/// Ends a connection that hyper is done with; `first` when we, not the client, chose to end it.
pub(super) async fn close(inbound: Inbound, first: bool, downstream: &Downstream) {
    let refused = inbound.refused();
    note(refused.or(inbound.broken()), downstream);
    let lingering = refused.is_some() || inbound.unread() || first;
    let stream = inbound.into_stream();
    if !lingering && !stream.says_goodbye() {
        return;
    }
    part(stream, refused, if lingering { Wait::ForTheClient } else { Wait::ForNobody }).await;
}

/// Ends a connection that never became one of HTTP.
pub(super) async fn turn_away(stream: Socket, refusal: Refusal, downstream: &Downstream) {
    note(Some(refusal), downstream);
    part(stream, Some(refusal), Wait::ForTheClient).await;
}

/// Closes our side and waits a while for the client to read what was sent, and to close its own.
pub(in crate::proxy) async fn linger(stream: Socket) {
    part(stream, None, Wait::ForTheClient).await;
}

/// Who is waited for after our side was closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    ForTheClient,
    ForNobody,
}

/// Answers what was refused, and closes.
async fn part(mut stream: impl AsyncRead + AsyncWrite + Unpin, refused: Option<Refusal>, wait: Wait) {
    // Out of time or a client that is gone: either way there is nobody left to tell.
    let _ = tokio::time::timeout(LINGER, async {
        if let Some(refusal) = refused {
            stream.write_all(answer(refusal).as_bytes()).await?;
        }
        stream.shutdown().await?;
        if wait == Wait::ForTheClient { discard(&mut stream).await } else { Ok(()) }
    })
    .await;
}

/// Ends a connection on which hyper failed: the client left, stalled, or its response broke off.
pub(super) fn break_off(inbound: Inbound, error: &hyper::Error, downstream: &Downstream) {
    note(inbound.refused().or(inbound.broken()), downstream);
    tracing::debug!(peer = %downstream.peer, %error, "connection ended early");
    if error.is_user() || error.is_body_write_aborted() {
        // A FIN could be read as the response's proper end; a reset cannot.
        inbound.into_stream().socket().reset_on_close();
    }
}

fn note(refusal: Option<Refusal>, downstream: &Downstream) {
    if let Some(refusal) = refusal {
        downstream.stats.refused(refusal.kind());
        tracing::debug!(peer = %downstream.peer, reason = refusal.kind(), "request refused");
    }
}

/// Counts an HTTP/2 connection that ended because of what came on it, if that is why.
pub(super) fn note_flood(gate: &Gate, downstream: &Downstream) {
    note(gate.flooded().then_some(Refusal::Flood), downstream);
}

/// Our own answer to a request that never became one.
fn answer(refusal: Refusal) -> String {
    let status = refusal.status();
    let (code, title, kind) = (status.as_u16(), status.canonical_reason().unwrap_or("Error"), refusal.kind());
    let body = format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{code},\"detail\":\"{kind}\"}}\n");
    let date = jiff::Timestamp::try_from(SystemTime::now())
        .ok()
        .and_then(|now| DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok())
        .map(|now| format!("date: {now}\r\n"))
        .unwrap_or_default();
    format!(
        "HTTP/1.1 {code} {title}\r\n{date}connection: close\r\ncontent-type: application/problem+json\r\n\
         proxy-status: tollgate; error=http_request_error; details=\"{kind}\"\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn discard(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    let mut left = LINGER_BYTES;
    let mut scrap = [0; 4096];
    while left > 0 {
        let read = stream.read(&mut scrap).await?;
        if read == 0 {
            break;
        }
        left = left.saturating_sub(read);
    }
    Ok(())
}
