//! Another protocol on a client's connection: WebSocket over HTTP/1.1 (RFC 6455, RFC 9110 §7.8).
//!
//! The tunnel opens only after the upstream's 101, which must name the protocol that was asked for;
//! until then what the client sends waits between its socket and hyper. Any other answer is an
//! ordinary one, and the next request on the connection is read as one.
//!
//! Only `websocket` is passed on. No limit sees into a tunnel: `h2c`, or another protocol that carries
//! requests, would take them past every one of them.

mod flow;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TE, UPGRADE};
use http::request::Parts;
use http::{Method, Version};

use super::body::IdleClock;
use super::cut::Cut;
use super::pool::Switched;
use super::record::Record;
use super::transport::Transport;
use flow::Flow;

/// Longest silence of a tunnel that one side has closed its half of.
const HALF_CLOSED: Duration = Duration::from_mins(1);

/// When a silent client is probed.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// A protocol that a connection may change to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// WebSocket.
    WebSocket,
}

impl Protocol {
    /// What a request asks for, before its hop-by-hop fields are taken away: a GET of HTTP/1.1 that
    /// names the protocol in Upgrade, and Upgrade in Connection.
    pub(super) fn asked(head: &Parts) -> Option<Self> {
        if head.version != Version::HTTP_11 || head.method != Method::GET || !head.headers.contains_key(UPGRADE) {
            return None;
        }
        let named = |field: HeaderName, token: &str| tokens(&head.headers, field).any(|one| is(one, token));
        let asked = named(CONNECTION, "upgrade") && named(UPGRADE, Self::WebSocket.name());
        asked.then_some(Self::WebSocket)
    }

    /// Whether the fields of a 101 grant this protocol and no other.
    pub(super) fn is_granted(self, headers: &HeaderMap) -> bool {
        let mut granted = tokens(headers, UPGRADE);
        granted.next().is_some_and(|token| is(token, self.name())) && granted.next().is_none()
    }

    /// Asks the upstream for it, or tells the client that it is granted.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        headers.remove(TE);
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(self.name()));
    }

    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
        }
    }
}

/// The members of a list field, over all its lines.
fn tokens(headers: &HeaderMap, field: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(field).into_iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    lines.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

fn is(token: &[u8], name: &str) -> bool {
    token.eq_ignore_ascii_case(name.as_bytes())
}

/// The upstream's end of a connection that changed protocols, and the record of the request that did
/// it. Dropping it closes the one and completes the other.
#[derive(Debug)]
pub struct Tunnel {
    upstream: Switched,
    up: Flow,
    down: Flow,
    idle: IdleClock,
    limit: Duration,
    record: Record,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both sides closed.
    Closed,
    /// The client's connection failed.
    Client,
    /// The upstream's connection failed.
    Upstream,
    /// Nothing came from either side for too long.
    Idle,
}

impl Tunnel {
    /// A tunnel to `upstream`, which may be silent for `limit`.
    pub(super) fn new(mut upstream: Switched, limit: Duration, record: Record) -> Self {
        let early = std::mem::take(&mut upstream.early);
        let (up, down) = (Flow::default(), Flow::beginning_with(early));
        Self { upstream, up, down, idle: IdleClock::new(limit), limit, record }
    }

    /// Carries bytes both ways until both sides have closed or one is gone. The client has sent
    /// `early` behind its request.
    pub(super) async fn run(mut self, mut client: Transport, early: Bytes) {
        self.up = Flow::beginning_with(early);
        // A client that vanished without a word must not hold its tunnel until that is idle for too long.
        client.socket().set_keepalive(KEEPALIVE);
        match poll_fn(|cx| self.poll(cx, &mut client)).await {
            End::Closed | End::Client => self.record.completed(),
            End::Upstream => self.record.failed(Cut::TunnelBrokeOff),
            End::Idle => self.record.failed(Cut::TunnelIdle),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, client: &mut Transport) -> Poll<End> {
        let before = self.moved();
        let up = self.up.poll(cx, client, &mut self.upstream.stream);
        let down = self.down.poll(cx, &mut self.upstream.stream, client);
        self.record.carried(self.up.received(), self.down.delivered());
        match (up, down) {
            (Poll::Ready(Err(_)), _) => return Poll::Ready(End::Client),
            (_, Poll::Ready(Err(_))) => return Poll::Ready(End::Upstream),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
            (Poll::Ready(Ok(())), Poll::Pending) | (Poll::Pending, Poll::Ready(Ok(()))) => self.shorten(),
            (Poll::Pending, Poll::Pending) => {}
        }
        if self.moved() != before {
            self.idle.reset();
        }
        self.idle.poll_expired(cx).map(|()| End::Idle)
    }

    /// Every byte in either direction counts, twice.
    fn moved(&self) -> u64 {
        [&self.up, &self.down].map(|flow| flow.received().wrapping_add(flow.delivered())).iter().sum()
    }

    /// One side is done: the other does not get as long any more.
    fn shorten(&mut self) {
        if self.limit > HALF_CLOSED {
            self.limit = HALF_CLOSED;
            self.idle = IdleClock::new(HALF_CLOSED);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(method: &str, version: Version, fields: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Protocol::asked(&request.body(()).unwrap().into_parts().0).is_some()
    }

    #[test]
    fn only_a_get_of_http_1_1_that_says_it_in_both_fields_asks() {
        let both = &[("connection", "keep-alive, Upgrade"), ("upgrade", "h2c, WebSocket")];
        assert!(asked("GET", Version::HTTP_11, both));
        assert!(!asked("POST", Version::HTTP_11, both));
        assert!(!asked("GET", Version::HTTP_10, both));
        for fields in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket/13")],
            &[("connection", "upgrade"), ("upgrade", "xwebsocket")],
        ] {
            assert!(!asked("GET", Version::HTTP_11, fields), "{fields:?}");
        }
    }

    #[test]
    fn a_101_grants_what_was_asked_for_and_nothing_else() {
        let granted = |lines: &[&str]| {
            let headers = lines.iter().map(|line| (UPGRADE, line.parse().unwrap())).collect();
            Protocol::WebSocket.is_granted(&headers)
        };
        assert!(granted(&["websocket"]) && granted(&["WebSocket,"]));
        for lines in [&[][..], &["h2c"], &["websocket, h2c"], &["websocket", "h2c"], &["websocket", "websocket"]] {
            assert!(!granted(lines), "{lines:?}");
        }
    }
}
