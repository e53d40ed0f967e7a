//! Addresses of HTTP servers that the proxy itself asks.

use http::uri::PathAndQuery;
use serde_json::Value as Json;

use super::pattern;
use crate::config::shape::{Problem, Word};
use crate::config::traces::WebAddress;
use crate::route::target::canonical_host;

/// Takes an address apart; `help` says what to write instead of one that is none.
pub(super) fn take_apart(text: &str, help: &str) -> Result<WebAddress, Problem> {
    let wrong = |what: &str| Problem::new(format!("`{text}` {what}"), help);
    let (tls, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return Err(wrong("does not begin with https://")),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.contains('@') {
        // The text may hold a password: messages do not repeat it.
        return Err(Problem::new("this address carries credentials, which it must not", help));
    }
    let host = canonical_host(authority).map_err(|_| wrong("has no valid host and port"))?;
    if host.name.is_empty() || host.port == Some(0) || authority.ends_with(':') {
        return Err(wrong("has no valid host and port"));
    }
    if target.contains('#') {
        return Err(wrong("has a fragment, which no server sees"));
    }
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    PathAndQuery::try_from(target.as_str()).map_err(|_| wrong("has no valid path"))?;
    Ok(WebAddress {
        tls,
        host: host.name.trim_matches(['[', ']']).into(),
        port: host.port.unwrap_or(if tls { 443 } else { 80 }),
        authority: host.port.map_or_else(|| host.name.to_string(), |port| format!("{}:{port}", host.name)).into(),
        target: target.into(),
    })
}

/// Where a collector takes spans by OTLP over HTTP. Without a path it is the one that OTLP gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct OtlpAddress {
    pub(in crate::config) text: String,
    pub(in crate::config) address: WebAddress,
}

const OTLP: &str = "write the address of OTLP over HTTP, such as http://otel-collector:4318";

/// The path of spans (OTLP specification, "OTLP/HTTP Request").
const TRACES: &str = "/v1/traces";

/// The port of OTLP over gRPC.
const GRPC: u16 = 4317;

impl Word for OtlpAddress {
    const INSTEAD_OF_A_LIST: Option<&str> = Some("write one address; a collector can pass spans on to several");

    fn parse(text: &str) -> Result<Self, Problem> {
        let mut address = take_apart(text, OTLP)?;
        if address.port == GRPC {
            let message = format!("`{text}`: {GRPC} is the port of OTLP over gRPC, which is not spoken here");
            return Err(Problem::new(message, "write the port of OTLP over HTTP, 4318 by default"));
        }
        if &*address.target == "/" {
            address.target = TRACES.into();
        }
        Ok(Self { text: text.to_owned(), address })
    }

    fn schema() -> Json {
        pattern("^(https?://.*|.*\\$\\{.*)$")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_without_a_path_has_that_of_spans() {
        for (text, expected) in [
            ("http://otel-collector:4318", ("otel-collector", 4318, "/v1/traces", false)),
            ("http://otel-collector:4318/", ("otel-collector", 4318, "/v1/traces", false)),
            ("https://Api.Example.com/otlp/v1/traces?x=1", ("api.example.com", 443, "/otlp/v1/traces?x=1", true)),
            ("http://[::1]:4318/v1/traces", ("::1", 4318, "/v1/traces", false)),
        ] {
            let read = <OtlpAddress as Word>::parse(text).unwrap().address;
            assert_eq!((&*read.host, read.port, &*read.target, read.tls), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_collector_says_what_to_write() {
        for (text, message) in [
            ("otel-collector:4318", "does not begin with"),
            ("grpc://otel-collector:4317", "does not begin with"),
            ("http://otel-collector:4317", "the port of OTLP over gRPC"),
            ("http://u:hunter2@a", "carries credentials"),
            ("http:///v1/traces", "has no valid host"),
        ] {
            let problem = <OtlpAddress as Word>::parse(text).unwrap_err();
            assert!(problem.message.contains(message), "{text}: {problem:?}");
            assert!(problem.help.is_some() && !problem.message.contains("hunter2"));
        }
    }
}
