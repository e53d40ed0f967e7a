//! One span as its worker made it.

use std::sync::Arc;
use std::time::SystemTime;

use super::context::{Context, SpanId, TraceId};

/// Longest text of an attribute or name, bytes; what clients send is cut there.
const LONGEST: usize = 1_024;

/// A part of a request's time, and what is known of it.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace it belongs to.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The span that it is a part of, unless it is the first of its trace.
    pub parent: Option<SpanId>,
    /// Whether that one was made by another process.
    pub entry: Entry,
    /// What `tracestate` said.
    pub state: Option<Box<str>>,
    /// What it is, in few different words.
    pub name: String,
    /// What kind of work.
    pub kind: Kind,
    /// When it began, nanoseconds since 1970.
    pub begun: u64,
    /// When it ended, likewise.
    pub ended: u64,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it came to nothing.
    pub failed: bool,
    /// A trace that it has to do with, but is no part of.
    pub link: Option<Context>,
}

/// Where a span's parent was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// In this process, or there is none.
    Local,
    /// In the client's.
    Remote,
}

/// What a span is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request that was answered.
    Server,
    /// Work within the process.
    Internal,
    /// A request that was sent.
    Client,
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text that was made for it.
    Text(String),
    /// A word of the program's own.
    Word(&'static str),
    /// A name in the configuration.
    Name(Arc<str>),
    /// A number.
    Integer(i64),
    /// Seconds, mostly.
    Float(f64),
    /// Yes or no.
    Flag(bool),
}

impl Value {
    /// A text of a client's making, cut where it is too long.
    #[must_use]
    pub fn of_client(text: &str) -> Self {
        Self::Text(text[..text.floor_char_boundary(LONGEST)].to_owned())
    }
}

/// Nanoseconds since 1970.
#[must_use]
pub fn nanos(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Some span.
    pub(in crate::telemetry::traces) fn sample() -> Span {
        let context = Context::random();
        Span {
            trace: context.trace,
            id: context.span,
            parent: Some(SpanId::random()),
            entry: Entry::Remote,
            state: Some("vendor=1".into()),
            name: "GET /things/{id}".to_owned(),
            kind: Kind::Server,
            begun: 1_700_000_000_000_000_000,
            ended: 1_700_000_000_001_500_000,
            attributes: vec![
                ("http.request.method", Value::Word("GET")),
                ("url.path", Value::of_client("/things/7")),
                ("tollgate.route", Value::Name("things".into())),
                ("http.response.status_code", Value::Integer(500)),
                ("tollgate.limit.wait", Value::Float(0.25)),
                ("tollgate.limit.degraded", Value::Flag(true)),
            ],
            failed: true,
            link: Some(Context { sampled: true, ..Context::random() }),
        }
    }

    #[test]
    fn what_a_client_sends_is_cut_between_characters() {
        let Value::Text(text) = Value::of_client(&"é".repeat(1_000)) else { panic!("a text") };
        assert_eq!(text.len(), LONGEST);
        let Value::Text(text) = Value::of_client(&format!("x{}", "é".repeat(1_000))) else { panic!("a text") };
        assert_eq!(text.len(), LONGEST - 1);
    }
}
