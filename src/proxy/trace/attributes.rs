//! What spans say, in the names of OpenTelemetry's semantic conventions (HTTP, version 1); what those have no
//! name for begins with `tollgate.`. No value of a query, a header, a cookie or a limit's key is among it.

use std::net::IpAddr;

use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};

use super::{Ending, RequestBody, Value};
use crate::limit::{Outcome, Verdict};
use crate::proxy::client::Client;
use crate::proxy::record::{decision_word, is_degraded};
use crate::proxy::socket::Peer;
use crate::proxy::{Downstream, headers};
use crate::route::{PathMatch, Route};
use crate::telemetry::traces::Span;
use crate::upstream::{Address, Endpoint, Upstream};

/// Names and values.
type Attributes = Vec<(&'static str, Value)>;

/// The methods that are told by name (RFC 9110 §9, RFC 5789).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];

/// What stands for every other method.
const OTHER: &str = "_OTHER";

/// The word for a method.
pub(super) fn method(method: &Method) -> Value {
    Value::Word(METHODS.iter().find(|known| **known == method.as_str()).unwrap_or(&OTHER))
}

/// What a span is called: the method and, where it is known, what is asked, as the configuration has it.
pub(super) fn name(method: &Value, place: &str) -> String {
    let method = match method {
        Value::Word(word) if *word != OTHER => word,
        _ => "HTTP",
    };
    if place.is_empty() { method.to_owned() } else { format!("{method} {place}") }
}

/// What is known of a request as soon as its head is there.
pub(super) fn of_request(head: &Parts, client: &Client, downstream: &Downstream) -> Attributes {
    let mut told = Vec::with_capacity(16);
    if !METHODS.contains(&head.method.as_str()) {
        told.push(("http.request.method_original", Value::of_client(head.method.as_str())));
    }
    // As sent, until it is known to be valid.
    told.push(("url.path", Value::of_client(head.uri.path())));
    told.push(("url.scheme", Value::Word(scheme(downstream, &head.headers))));
    told.push(("network.protocol.version", Value::Word(version(head.version))));
    told.push(("tollgate.request_id", of_field(&client.request_id)));
    if let Some(address) = client.address {
        told.push(("client.address", Value::Text(address.to_string())));
    }
    match downstream.peer {
        Peer::Address(peer) => {
            told.push(("network.peer.address", Value::Text(peer.ip().to_canonical().to_string())));
            told.push(("network.peer.port", Value::Integer(peer.port().into())));
        }
        Peer::Unix => told.push(("network.transport", Value::Word("unix"))),
    }
    if let Some(agent) = head.headers.get(USER_AGENT) {
        told.push(("user_agent.original", of_field(agent)));
    }
    told
}

/// What it asks for, once that is in canonical form.
pub(super) fn canonical(told: &mut Attributes, host: &str, path: &str) {
    if !host.is_empty() {
        told.push(("server.address", Value::of_client(host)));
    }
    let path = Value::of_client(path);
    match told.iter_mut().find(|(name, _)| *name == "url.path") {
        Some((_, sent)) => *sent = path,
        None => told.push(("url.path", path)),
    }
}

/// The path of a route that has only one.
pub(super) fn template(route: &Route) -> Option<&str> {
    match &*route.matches.paths {
        [PathMatch::Template(template)] => Some(&template.text),
        _ => None,
    }
}

/// Where it belongs.
pub(super) fn of_route(told: &mut Attributes, route: &Route) {
    if let Some(template) = template(route) {
        told.push(("http.route", Value::Text(template.to_owned())));
    }
}

/// What the limits said.
pub(super) fn of_verdict(verdict: &Verdict<'_>) -> Attributes {
    let mut told = Vec::with_capacity(5);
    if let Some(word) = decision_word(verdict) {
        told.push(("tollgate.limit.decision", Value::Word(word)));
    }
    if let Some(deciding) = verdict.deciding().or_else(|| verdict.tightest()) {
        told.push(("tollgate.limit", Value::Name(deciding.policy.name.clone())));
        let remaining = i64::try_from(deciding.remaining).unwrap_or(i64::MAX);
        told.push(("tollgate.limit.remaining", Value::Integer(remaining)));
    }
    if let Outcome::Allowed { wait } = verdict.outcome
        && !wait.is_zero()
    {
        told.push(("tollgate.limit.wait", Value::Float(wait.as_secs_f64())));
    }
    told.push(("tollgate.limit.degraded", Value::Flag(is_degraded(verdict))));
    told
}

/// Whom an attempt asks, and for what.
pub(super) fn of_attempt(upstream: &Upstream, endpoint: &Endpoint, request: &Request<RequestBody>) -> Attributes {
    let server = &endpoint.server;
    let mut told = Vec::with_capacity(12);
    told.push(("tollgate.upstream", Value::Name(upstream.name.clone())));
    told.push(("tollgate.server", Value::Name(server.label.clone())));
    match if matches!(server.address, Address::Srv(_)) { &endpoint.address } else { &server.address } {
        Address::Tcp { host, port } => {
            told.push(("server.address", Value::Text(host.to_string())));
            told.push(("server.port", Value::Integer((*port).into())));
        }
        Address::Unix(path) => told.push(("server.address", Value::Text(path.to_string_lossy().into_owned()))),
        Address::Srv(name) => told.push(("server.address", Value::Text(name.to_string()))),
        Address::Echo => told.push(("server.address", Value::Word("echo"))),
    }
    if let Address::Tcp { host, port } = &endpoint.address
        && host.parse::<IpAddr>().is_ok()
    {
        told.push(("network.peer.address", Value::Text(host.to_string())));
        told.push(("network.peer.port", Value::Integer((*port).into())));
    }
    told.push(("url.full", url(endpoint, request)));
    told
}

/// The URL that is asked, what its query says left out.
fn url(endpoint: &Endpoint, request: &Request<RequestBody>) -> Value {
    let scheme = if endpoint.server.security.is_some() { "https" } else { "http" };
    let host = endpoint.server.host.to_str().unwrap_or_default();
    let query = if request.uri().query().is_some() { "?REDACTED" } else { "" };
    let Value::Text(path) = Value::of_client(request.uri().path()) else { return Value::Word("") };
    Value::Text(format!("{scheme}://{host}{path}{query}"))
}

/// The head of an attempt's answer.
pub(super) fn of_answer<B>(span: &mut Span, response: &Response<B>) {
    let status = response.status();
    span.attributes.push(("http.response.status_code", Value::Integer(status.as_u16().into())));
    span.attributes.push(("network.protocol.version", Value::Word(version(response.version()))));
    if status.is_client_error() || status.is_server_error() {
        span.attributes.push(("error.type", Value::Text(status.as_str().to_owned())));
        span.failed = true;
    }
}

/// How an attempt ended that was under way when its request ended.
pub(super) fn cut_short(span: &mut Span, ending: Ending) {
    let answered = span.attributes.iter().any(|(name, _)| *name == "http.response.status_code");
    match ending.error {
        _ if !answered => span.attributes.push(("error.type", Value::Word(ending.error.unwrap_or("client_left")))),
        Some(error) if !span.failed => {
            span.attributes.push(("error.type", Value::Word(error)));
            span.failed = true;
        }
        _ => {}
    }
}

/// How a request ended. What a client is to blame for is no failure of the span.
pub(super) fn of_ending(span: &mut Span, ending: Ending) {
    if let Some(error) = ending.error {
        span.attributes.push(("tollgate.error", Value::Word(error)));
    }
    let Some(status) = ending.status else {
        return span.attributes.push(("error.type", Value::Word("client_left")));
    };
    span.attributes.push(("http.response.status_code", Value::Integer(status.as_u16().into())));
    if status.is_server_error() {
        span.attributes.push(("error.type", Value::Text(status.as_str().to_owned())));
        span.failed = true;
    } else if let Some(error) = ending.error.filter(|_| !status.is_client_error() && !ending.limited) {
        // It broke off, or it is a status of gRPC.
        span.attributes.push(("error.type", Value::Word(error)));
        span.failed = true;
    }
}

/// How the client asked, as a trusted proxy in front tells it.
fn scheme(downstream: &Downstream, fields: &HeaderMap) -> &'static str {
    let told = fields.get(&headers::X_FORWARDED_PROTO).filter(|_| downstream.trusted);
    match told.map(HeaderValue::as_bytes) {
        Some(b"https") => "https",
        Some(b"http") => "http",
        _ if downstream.secured.is_some() => "https",
        _ => "http",
    }
}

fn of_field(value: &HeaderValue) -> Value {
    Value::of_client(&String::from_utf8_lossy(value.as_bytes()))
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
