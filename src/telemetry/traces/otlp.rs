//! Spans as OTLP has them on the wire: the part of `opentelemetry/proto/trace/v1/trace.proto` and of
//! `collector/trace/v1/trace_service.proto` (version 1, stable) that is used here, and nothing else of them.

use prost::Message;

use super::context::Context;
use super::span::{Entry, Kind, Span, Value};

/// `SpanFlags`: whether the parent's being remote is told, and that it is.
const TELLS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// The trace flag of sampled spans.
const SAMPLED: u32 = 1;
/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

/// What the process says of itself in every batch.
#[derive(Debug, Clone)]
pub(super) struct Resource(wire::Resource);

/// What a collector answers to a batch that it took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Receipt {
    /// Spans that it did not take after all.
    pub(super) refused: usize,
    /// Why.
    pub(super) reason: String,
}

impl Resource {
    /// The service, and which instance of it this process is.
    pub(super) fn of(service: &str) -> Self {
        let instance = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let attributes = vec![
            ("service.name", Value::Text(service.to_owned())),
            ("service.version", Value::Word(env!("CARGO_PKG_VERSION"))),
            ("service.instance.id", Value::Text(instance.to_string())),
        ];
        Self(wire::Resource { attributes: attributes.into_iter().map(attribute).collect() })
    }

    /// A batch, ready to be sent.
    pub(super) fn encode(&self, spans: Vec<Span>) -> Vec<u8> {
        let scope = wire::Scope { name: "tollgate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = wire::ScopeSpans { scope: Some(scope), spans: spans.into_iter().map(span).collect() };
        let resource_spans = wire::ResourceSpans { resource: Some(self.0.clone()), scope_spans: vec![scope_spans] };
        wire::Request { resource_spans: vec![resource_spans] }.encode_to_vec()
    }
}

impl Receipt {
    /// Reads an answer; one that cannot be read says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        let partial = wire::Response::decode(body).ok().and_then(|response| response.partial_success);
        partial.map_or_else(Self::default, |partial| Self {
            refused: usize::try_from(partial.rejected_spans).unwrap_or(0),
            reason: partial.error_message,
        })
    }
}

fn span(span: Span) -> wire::Span {
    let remote = if span.entry == Entry::Remote { IS_REMOTE } else { 0 };
    wire::Span {
        trace_id: span.trace.bytes(),
        span_id: span.id.bytes(),
        trace_state: span.state.map(String::from).unwrap_or_default(),
        parent_span_id: span.parent.map(super::SpanId::bytes).unwrap_or_default(),
        name: span.name,
        kind: match span.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
        },
        start_time_unix_nano: span.begun,
        end_time_unix_nano: span.ended.max(span.begun),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        links: span.link.iter().map(link).collect(),
        status: span.failed.then_some(wire::Status { code: ERROR }),
        flags: SAMPLED | TELLS_REMOTE | remote,
    }
}

fn link(context: &Context) -> wire::Link {
    wire::Link {
        trace_id: context.trace.bytes(),
        span_id: context.span.bytes(),
        flags: u32::from(context.sampled) | TELLS_REMOTE | IS_REMOTE,
    }
}

fn attribute((key, value): (&'static str, Value)) -> wire::KeyValue {
    let value = match value {
        Value::Text(text) => wire::Any::Text(text),
        Value::Word(word) => wire::Any::Text(word.to_owned()),
        Value::Name(name) => wire::Any::Text(name.to_string()),
        Value::Integer(number) => wire::Any::Integer(number),
        Value::Float(number) => wire::Any::Float(number),
        Value::Flag(flag) => wire::Any::Flag(flag),
    };
    wire::KeyValue { key: key.to_owned(), value: Some(wire::AnyValue { value: Some(value) }) }
}

/// The messages, with their field numbers.
#[expect(clippy::struct_field_names, reason = "the names are the protocol's")]
mod wire {
    use prost::{Message, Oneof};

    /// `ExportTraceServiceRequest`.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) resource_spans: Vec<ResourceSpans>,
    }

    /// `ExportTraceServiceResponse`.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Response {
        #[prost(message, optional, tag = "1")]
        pub(super) partial_success: Option<PartialSuccess>,
    }

    /// `ExportTracePartialSuccess`.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct PartialSuccess {
        #[prost(int64, tag = "1")]
        pub(super) rejected_spans: i64,
        #[prost(string, tag = "2")]
        pub(super) error_message: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub(super) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(super) scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ScopeSpans {
        #[prost(message, optional, tag = "1")]
        pub(super) scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub(super) spans: Vec<Span>,
    }

    /// `InstrumentationScope`.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Scope {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) version: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) span_id: Vec<u8>,
        #[prost(string, tag = "3")]
        pub(super) trace_state: String,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(super) name: String,
        #[prost(int32, tag = "6")]
        pub(super) kind: i32,
        #[prost(fixed64, tag = "7")]
        pub(super) start_time_unix_nano: u64,
        #[prost(fixed64, tag = "8")]
        pub(super) end_time_unix_nano: u64,
        #[prost(message, repeated, tag = "9")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(message, repeated, tag = "13")]
        pub(super) links: Vec<Link>,
        #[prost(message, optional, tag = "15")]
        pub(super) status: Option<Status>,
        #[prost(fixed32, tag = "16")]
        pub(super) flags: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Link {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) span_id: Vec<u8>,
        #[prost(fixed32, tag = "6")]
        pub(super) flags: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Status {
        #[prost(int32, tag = "3")]
        pub(super) code: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct AnyValue {
        #[prost(oneof = "Any", tags = "1, 2, 3, 4")]
        pub(super) value: Option<Any>,
    }

    #[derive(Clone, PartialEq, Oneof)]
    pub(super) enum Any {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(bool, tag = "2")]
        Flag(bool),
        #[prost(int64, tag = "3")]
        Integer(i64),
        #[prost(double, tag = "4")]
        Float(f64),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;

    use super::*;
    use crate::telemetry::traces::span::tests::sample;

    /// Read with the messages that `OpenTelemetry` generates from its own files.
    #[test]
    fn a_batch_reads_as_what_was_written() {
        let (one, two) = (sample(), Span { parent: None, link: None, failed: false, entry: Entry::Local, ..sample() });
        let bytes = Resource::of("edge").encode(vec![one.clone(), two.clone()]);
        let request = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(request.resource_spans.len(), 1);
        let resource = &request.resource_spans[0];
        let named = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str| {
            let found = attributes.iter().find(|attribute| attribute.key == key);
            found.and_then(|found| found.value.clone()).and_then(|value| value.value)
        };
        let about = &resource.resource.as_ref().unwrap().attributes;
        assert_eq!(named(about, "service.name"), Some(Any::StringValue("edge".to_owned())));
        let spans = &resource.scope_spans[0].spans;
        assert_eq!(spans.len(), 2);
        let read = &spans[0];
        assert_eq!((&read.trace_id, &read.span_id), (&one.trace.bytes(), &one.id.bytes()));
        assert_eq!((read.parent_span_id.len(), read.trace_state.as_str()), (8, "vendor=1"));
        assert_eq!((read.name.as_str(), read.kind().as_str_name()), ("GET /things/{id}", "SPAN_KIND_SERVER"));
        assert_eq!((read.start_time_unix_nano, read.end_time_unix_nano), (one.begun, one.ended));
        assert_eq!(read.status.as_ref().unwrap().code().as_str_name(), "STATUS_CODE_ERROR");
        assert_eq!((read.links.len(), &read.links[0].span_id), (1, &one.link.unwrap().span.bytes()));
        assert_eq!(read.flags, 0x301);
        for (key, value) in [
            ("http.request.method", Any::StringValue("GET".to_owned())),
            ("url.path", Any::StringValue("/things/7".to_owned())),
            ("tollgate.route", Any::StringValue("things".to_owned())),
            ("http.response.status_code", Any::IntValue(500)),
            ("tollgate.limit.wait", Any::DoubleValue(0.25)),
            ("tollgate.limit.degraded", Any::BoolValue(true)),
        ] {
            assert_eq!(named(&read.attributes, key), Some(value), "{key}");
        }
        assert!(spans[1].parent_span_id.is_empty() && spans[1].status.is_none() && spans[1].links.is_empty());
        assert_eq!(spans[1].flags, 0x101);
    }

    #[test]
    fn an_answer_tells_what_was_not_taken() {
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".to_owned() };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(Receipt::read(&answer), Receipt { refused: 3, reason: "too old".to_owned() });
        for nothing in [&b""[..], b"{}", b"\xff\xff\xff"] {
            assert_eq!(Receipt::read(nothing), Receipt::default());
        }
    }
}
