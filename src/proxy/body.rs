//! Bodies of responses towards the client: one type, nothing boxed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::record::Record;
use super::response_body::ResponseBody;

/// A response body, and the record of its request, which is complete when the body ends.
#[derive(Debug)]
pub struct Body {
    source: Source,
    record: Option<Record>,
}

/// Where the bytes come from.
#[derive(Debug)]
enum Source {
    /// Nothing.
    Empty,
    /// An answer of our own.
    Full(Bytes),
    /// An upstream's answer.
    Upstream(ResponseBody),
}

/// Why a body ended early; its text never reaches a client.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's response broke off.
    #[error("upstream response broke off: {0}")]
    Upstream(#[source] hyper::Error),
    /// A stream of HTTP/2 was reset without an error, before its end.
    #[error("upstream response was cut short")]
    CutShort,
    /// The upstream sent nothing for too long.
    #[error("upstream response stalled")]
    Stalled,
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::from(Source::Empty)
    }

    /// An answer of our own.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::from(if bytes.is_empty() { Source::Empty } else { Source::Full(bytes) })
    }

    /// An upstream's answer.
    #[must_use]
    pub fn upstream(body: ResponseBody) -> Self {
        Self::from(Source::Upstream(body))
    }

    /// Completes `record` when this body ends.
    pub(super) fn record(&mut self, record: Record) {
        self.record = Some(record);
    }

    fn from(source: Source) -> Self {
        Self { source, record: None }
    }

    fn sent(&mut self, frame: &Frame<Bytes>) {
        if let (Some(record), Some(data)) = (&mut self.record, frame.data_ref()) {
            record.sent(data.len());
        }
        if http_body::Body::is_end_stream(self) {
            self.completed();
        }
    }

    fn completed(&mut self) {
        if let Some(record) = &mut self.record {
            record.completed();
        }
    }

    fn failed(&mut self, error: &BodyError) {
        if let Some(record) = &mut self.record {
            record.broke_off(error);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Empty => None,
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.source = Source::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Source::Upstream(body) => ready!(Pin::new(body).poll_frame(context)),
        };
        match &polled {
            Some(Ok(frame)) => this.sent(frame),
            Some(Err(error)) => this.failed(error),
            None => this.completed(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(_) => false,
            Source::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(body) => body.size_hint(),
        }
    }
}

/// Measures the silence between two frames. The timer exists only once there was silence.
#[derive(Debug)]
pub(super) struct IdleClock {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    silent: bool,
}

impl IdleClock {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, sleep: None, silent: false }
    }

    /// There was a frame.
    pub(super) fn reset(&mut self) {
        self.silent = false;
    }

    /// There is silence: ready once it has lasted too long.
    pub(super) fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit)));
        if !self.silent {
            self.silent = true;
            sleep.as_mut().reset(Instant::now() + self.limit);
        }
        sleep.as_mut().poll(context)
    }
}
