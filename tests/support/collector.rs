//! An OpenTelemetry collector that keeps every span, and can be made to fail in every way while it runs. It reads
//! spans with the messages that OpenTelemetry generates from its own files.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use super::eventually;
use super::key_server::{serve_each, server_config};
use super::redis_server::TlsFiles;

/// What a batch is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// It is kept.
    Take,
    /// It is kept, but for so many spans, as is said.
    TakeBut(i64),
    /// It is not kept: this status.
    Status(u16),
    /// Nothing, until the behaviour changes.
    Hang,
}

/// A running collector.
pub(crate) struct Collector {
    address: SocketAddr,
    state: Arc<State>,
    tls: Option<(tempfile::TempDir, PathBuf)>,
}

struct State {
    behaviour: Mutex<Behaviour>,
    changed: Condvar,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    /// The heads of the requests that came, as text.
    heads: Vec<String>,
    services: Vec<String>,
    connections: usize,
}

/// The spans of one trace.
#[derive(Debug, Clone)]
pub(crate) struct Trace(pub(crate) Vec<Span>);

impl Collector {
    /// Takes spans on a free port.
    pub(crate) fn start() -> Self {
        Self::behaving(Behaviour::Take)
    }

    /// Starts with a behaviour, on a free port.
    pub(crate) fn behaving(behaviour: Behaviour) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").expect("a free port"), behaviour, None)
    }

    /// Takes spans on a port of the test's choice.
    pub(crate) fn start_on(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        Self::listen(listener, Behaviour::Take, None)
    }

    /// Takes spans over TLS, with an authority of its own.
    pub(crate) fn start_with_tls() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = TlsFiles::make(directory.path()).ca;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::listen(listener, Behaviour::Take, Some((directory, ca)))
    }

    fn listen(listener: TcpListener, behaviour: Behaviour, tls: Option<(tempfile::TempDir, PathBuf)>) -> Self {
        let address = listener.local_addr().expect("an address");
        let config = tls.as_ref().map(|(directory, _)| server_config(directory.path()));
        let state =
            Arc::new(State { behaviour: Mutex::new(behaviour), changed: Condvar::new(), kept: Mutex::default() });
        let served = Arc::clone(&state);
        serve_each(listener, config, move |stream| {
            served.kept.lock().expect("no panic").connections += 1;
            served.serve(stream);
        });
        Self { address, state, tls }
    }

    /// Its address as the configuration has it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
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

    /// Spans kept so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.state.kept.lock().expect("no panic").spans.clone()
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.state.kept.lock().expect("no panic").spans.len()
    }

    /// The heads of the requests that came so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.state.kept.lock().expect("no panic").heads.clone()
    }

    /// Names of services that spans came from.
    pub(crate) fn services(&self) -> Vec<String> {
        self.state.kept.lock().expect("no panic").services.clone()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.kept.lock().expect("no panic").connections
    }

    /// Waits for as many spans, which must be all and of one trace.
    #[track_caller]
    pub(crate) fn trace(&self, count: usize) -> Trace {
        let spans = eventually("the spans", || Some(self.spans()).filter(|spans| spans.len() >= count));
        assert_eq!(spans.len(), count, "{spans:#?}");
        assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id), "one trace: {spans:#?}");
        Trace(spans)
    }
}

impl Trace {
    /// The spans of a kind, by their beginning.
    pub(crate) fn of(&self, kind: SpanKind) -> Vec<&Span> {
        let mut found: Vec<_> = self.0.iter().filter(|span| span.kind() == kind).collect();
        found.sort_by_key(|span| span.start_time_unix_nano);
        found
    }

    /// The only span of a kind.
    #[track_caller]
    pub(crate) fn only(&self, kind: SpanKind) -> &Span {
        let found = self.of(kind);
        assert_eq!(found.len(), 1, "one of {kind:?}: {:#?}", self.0);
        found[0]
    }
}

/// What an attribute says, as text; empty when it is not there.
pub(crate) fn told(span: &Span, name: &str) -> String {
    let mut found = span.attributes.iter().filter(|attribute| attribute.key == name);
    let value = found.next().and_then(|attribute| attribute.value.clone()).and_then(|value| value.value);
    assert!(found.next().is_none(), "{name} twice in {span:#?}");
    match value {
        None => String::new(),
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(other) => panic!("{name} is {other:?}"),
    }
}

/// An id in hexadecimal digits.
pub(crate) fn hex(id: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).expect("four bits");
    id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

impl State {
    fn serve(&self, stream: impl Read + Write) {
        let mut stream = BufReader::new(stream);
        while let Some((head, body)) = receive(&mut stream) {
            let behaviour = self.behaviour(&head);
            let (status, answer) = match behaviour {
                Behaviour::Take | Behaviour::TakeBut(_) => (200, self.keep(&body, behaviour)),
                Behaviour::Status(status) => (status, Vec::new()),
                Behaviour::Hang => return,
            };
            let length = answer.len();
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {length}\r\n\r\n"
            );
            let out = stream.get_mut();
            if out.write_all(head.as_bytes()).and_then(|()| out.write_all(&answer)).and_then(|()| out.flush()).is_err()
            {
                return;
            }
        }
    }

    /// What it does with a batch, once it does anything.
    fn behaviour(&self, head: &str) -> Behaviour {
        self.kept.lock().expect("no panic").heads.push(head.to_owned());
        let behaviour = self.behaviour.lock().expect("no panic");
        *self.changed.wait_while(behaviour, |behaviour| *behaviour == Behaviour::Hang).expect("no panic")
    }

    fn keep(&self, body: &[u8], behaviour: Behaviour) -> Vec<u8> {
        let request = ExportTraceServiceRequest::decode(body).expect("a batch of spans");
        let mut kept = self.kept.lock().expect("no panic");
        for resource in request.resource_spans {
            let about = resource.resource.unwrap_or_default();
            let about = Span { attributes: about.attributes, ..Span::default() };
            kept.services.push(told(&about, "service.name"));
            assert!(!told(&about, "service.instance.id").is_empty(), "{about:?}");
            kept.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        let Behaviour::TakeBut(rejected_spans) = behaviour else { return Vec::new() };
        let partial = ExportTracePartialSuccess { rejected_spans, error_message: "too old".to_owned() };
        ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    }
}

/// The head and the body of the next request.
fn receive(stream: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Ends with the test: who still waits is let go.
impl Drop for Collector {
    fn drop(&mut self) {
        self.become_(Behaviour::Status(503));
    }
}
