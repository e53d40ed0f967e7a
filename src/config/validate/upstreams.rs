//! Where requests go.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::HeaderValue;

use super::Check;
use super::server_tls::Offers;
use crate::config::file::{self, File, ServerKeys};
use crate::config::frames::Span;
use crate::config::shape::{Problem, Setting, Short, Spanned, Word, nearest};
use crate::config::values::Server;
use crate::upstream::outage::Outage;
use crate::upstream::{Endpoint, EndpointId, Protocol, Upstream};

/// How long a response head may take unless the file says otherwise.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The upstreams found so far; routes that name a URL add their own.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    pub(super) all: Vec<Arc<Upstream>>,
    /// Names that stand in the file, also those whose upstream is wrong.
    declared: Vec<String>,
    endpoints: usize,
}

impl Check<'_> {
    pub(super) fn upstreams(&mut self, file: &File) -> Upstreams {
        let mut upstreams = Upstreams::default();
        let named = file.upstreams.get().map(|named| named.0.as_slice()).unwrap_or_default();
        for (name, setting) in named {
            upstreams.declared.push(name.value.clone());
            if name.value == "echo" {
                self.error(name.span, "`echo` is the built-in upstream", "choose another name");
            }
            let (servers, keys) = match setting {
                Setting::Invalid => continue,
                Setting::Absent => (Vec::new(), file::Upstream::default()),
                Setting::Given { value, .. } => match &value.value {
                    Short::Short(server) => (vec![server.clone()], file::Upstream::default()),
                    Short::Long(keys) => (self.servers(keys), keys.clone()),
                },
            };
            if servers.is_empty() && !matches!(keys.servers, Setting::Invalid) {
                self.error(
                    name.span,
                    format!("the upstream `{}` has no server", name.value),
                    "write `servers: [http://127.0.0.1:3000]` below it",
                );
            }
            let upstream = self.upstream(&name.value, servers, &keys, &mut upstreams.endpoints);
            upstreams.all.push(Arc::new(upstream));
        }
        upstreams
    }

    fn servers(&mut self, keys: &file::Upstream) -> Vec<Server> {
        let listed = keys.servers.get().map(|list| list.0.as_slice()).unwrap_or_default();
        let mut servers: Vec<Server> = Vec::new();
        for entry in listed {
            let (server, span) = match &entry.value {
                Short::Short(server) => (server, entry.span),
                Short::Long(ServerKeys { url: Setting::Given { value: url, .. } }) => (&url.value, url.span),
                Short::Long(ServerKeys { url: Setting::Invalid }) => continue,
                Short::Long(ServerKeys { url: Setting::Absent }) => {
                    self.error(entry.span, "this server has no address", "write `url: http://host:port`");
                    continue;
                }
            };
            if servers.contains(server) {
                self.error(span, format!("`{}` is listed twice", server.label), "list each server once");
            }
            servers.push(server.clone());
        }
        servers
    }

    fn upstream(&mut self, name: &str, servers: Vec<Server>, keys: &file::Upstream, endpoints: &mut usize) -> Upstream {
        let protocol = match keys.protocol.or(file::UpstreamProtocol::Auto) {
            file::UpstreamProtocol::Auto => Protocol::Auto,
            file::UpstreamProtocol::H1 => Protocol::Http1,
            file::UpstreamProtocol::H2 => Protocol::Http2,
        };
        let (tls, offers) = self.server_tls(keys, &servers, protocol).unzip();
        Upstream {
            name: Arc::from(name),
            endpoints: servers
                .into_iter()
                .map(|server| Arc::new(endpoint(server, offers.as_ref(), endpoints)))
                .collect(),
            protocol,
            tls,
            connect_timeout: self.time(&keys.connect_timeout, Duration::from_secs(2)),
            response_timeout: self.time(&keys.response_timeout, RESPONSE_TIMEOUT),
            max_idle_connections: self.number(&keys.max_idle_connections, 128, 0..=100_000),
            idle_timeout: self.time(&keys.idle_timeout, Duration::from_secs(4)),
            max_connection_age: self.time(&keys.max_connection_age, Duration::from_hours(1)),
            next: AtomicUsize::new(0),
        }
    }

    /// The upstream that a route names: one of the file's, `echo`, or a URL.
    pub(super) fn resolve(&mut self, named: &Spanned<String>, upstreams: &mut Upstreams) -> Option<Arc<Upstream>> {
        let name = named.value.as_str();
        if let Some(found) = upstreams.all.iter().find(|upstream| &*upstream.name == name) {
            return Some(Arc::clone(found));
        }
        if upstreams.declared.iter().any(|declared| declared == name) {
            return None;
        }
        if name != "echo" && !name.contains(['/', ':', '.']) {
            self.unknown_upstream(named.span, name, upstreams);
            return None;
        }
        match <Server as Word>::parse(name) {
            Ok(server) => Some(self.implicit(server, upstreams)),
            Err(problem) => {
                self.reader.error(named.span, problem);
                None
            }
        }
    }

    fn unknown_upstream(&mut self, span: Span, name: &str, upstreams: &Upstreams) {
        let known = upstreams.declared.iter().map(String::as_str).chain(["echo"]);
        let help = nearest(name, known).map_or_else(
            || format!("add it: `upstreams: {{ {name}: http://127.0.0.1:3000 }}`, or write a server's address here"),
            |near| format!("did you mean `{near}`?"),
        );
        self.reader.error(span, Problem::new(format!("there is no upstream `{name}`"), help));
    }

    /// The upstream of a bare address: named like it, and shared by all routes that write it.
    fn implicit(&mut self, server: Server, upstreams: &mut Upstreams) -> Arc<Upstream> {
        let label = server.label.clone();
        if let Some(found) = upstreams.all.iter().find(|upstream| *upstream.name == *label) {
            return Arc::clone(found);
        }
        let upstream =
            Arc::new(self.upstream(&label, vec![server], &file::Upstream::default(), &mut upstreams.endpoints));
        upstreams.all.push(Arc::clone(&upstream));
        upstream
    }
}

fn endpoint(server: Server, offers: Option<&Offers>, endpoints: &mut usize) -> Endpoint {
    let id = EndpointId(*endpoints);
    *endpoints += 1;
    Endpoint {
        id,
        security: offers.and_then(|offers| offers.security(&server)),
        address: server.address,
        label: server.label.into(),
        host: HeaderValue::from_str(&server.host).unwrap_or_else(|_| HeaderValue::from_static("upstream")),
        outage: Outage::default(),
    }
}
