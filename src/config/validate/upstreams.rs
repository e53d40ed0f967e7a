//! Where requests go.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::Check;
use super::server_tls::Offers;
use crate::config::file::{self, File, ServerKeys};
use crate::config::frames::Span;
use crate::config::shape::{Problem, Setting, Short, Spanned, Word, nearest};
use crate::config::values::Server;
use crate::limit::store::settings::StoreSettings;
use crate::upstream::lookup::Lookup;
use crate::upstream::resolve::DnsSettings;
use crate::upstream::{self, Protocol, Settings, Upstream, announce};

/// How long a response head may take unless the file says otherwise.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The upstreams found so far; routes that name a URL add their own.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    pub(super) all: Vec<Arc<Upstream>>,
    /// Names that stand in the file, also those whose upstream is wrong.
    declared: Vec<String>,
    ipv6_prefix: u8,
    /// Hides addresses in cookies.
    secret: Vec<u8>,
}

/// One server of the file.
#[derive(Debug, Clone)]
struct Listed {
    server: Server,
    weight: u32,
    backup: bool,
}

impl From<Server> for Listed {
    fn from(server: Server) -> Self {
        Self { server, weight: 1, backup: false }
    }
}

impl Check<'_> {
    pub(super) fn upstreams(&mut self, file: &File, ipv6_prefix: u8, store: &StoreSettings) -> Upstreams {
        let secret = store.key_secret().map(<[u8]>::to_vec).unwrap_or_default();
        let mut upstreams = Upstreams { ipv6_prefix, secret, ..Upstreams::default() };
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
                    Short::Short(server) => (vec![server.clone().into()], file::Upstream::default()),
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
            let upstream = self.upstream(&name.value, servers, &keys, &upstreams);
            upstreams.all.push(upstream);
        }
        upstreams
    }

    fn servers(&mut self, keys: &file::Upstream) -> Vec<Listed> {
        let listed = keys.servers.get().map(|list| list.0.as_slice()).unwrap_or_default();
        let mut servers: Vec<Listed> = Vec::new();
        for entry in listed {
            let Some((server, span)) = self.server(entry) else { continue };
            if servers.iter().any(|other| other.server == server.server) {
                self.error(span, format!("`{}` is listed twice", server.server.label), "list each server once");
            }
            servers.push(server);
        }
        if let (true, Some(key)) = (servers.iter().all(|server| server.backup), keys.servers.key())
            && !servers.is_empty()
        {
            self.error(key, "every server is a backup, of no other one", "leave `backup` out where it is asked first");
        }
        servers
    }

    fn server(&mut self, entry: &Spanned<Short<Server, ServerKeys>>) -> Option<(Listed, Span)> {
        let given = match &entry.value {
            Short::Short(server) => return Some((server.clone().into(), entry.span)),
            Short::Long(given) => given,
        };
        if given.url.is_absent() {
            self.error(entry.span, "this server has no address", "write `url: http://host:port`");
        }
        let url = given.url.spanned()?;
        let weight = u32::try_from(self.number(&given.weight, 1, 1..=1_000)).unwrap_or(1);
        Some((Listed { server: url.value.clone(), weight, backup: given.backup.or(false) }, url.span))
    }

    fn upstream(
        &mut self,
        name: &str,
        listed: Vec<Listed>,
        keys: &file::Upstream,
        upstreams: &Upstreams,
    ) -> Arc<Upstream> {
        let protocol = match keys.protocol.or(file::UpstreamProtocol::Auto) {
            file::UpstreamProtocol::Auto => Protocol::Auto,
            file::UpstreamProtocol::H1 => Protocol::Http1,
            file::UpstreamProtocol::H2 => Protocol::Http2,
        };
        let addresses: Vec<_> = listed.iter().map(|listed| &listed.server).collect();
        let (tls, offers) = self.server_tls(keys, &addresses, protocol).unzip();
        let settings = Settings {
            balance: self.balance(keys, upstreams.ipv6_prefix),
            sticky: self.sticky(keys, &upstreams.secret),
            health: self.health(keys, &addresses),
            protocol,
            tls,
            proxy_protocol: match keys.proxy_protocol.or(file::SentProxyProtocol::None) {
                file::SentProxyProtocol::None => None,
                file::SentProxyProtocol::V1 => Some(announce::Version::V1),
                file::SentProxyProtocol::V2 => Some(announce::Version::V2),
            },
            connect_timeout: self.time(&keys.connect_timeout, Duration::from_secs(2)),
            response_timeout: self.time(&keys.response_timeout, RESPONSE_TIMEOUT),
            max_idle_connections: self.number(&keys.max_idle_connections, 128, 0..=100_000),
            idle_timeout: self.time(&keys.idle_timeout, Duration::from_secs(4)),
            max_connection_age: self.time(&keys.max_connection_age, Duration::from_hours(1)),
            queue: Arc::new(self.queue(keys)),
            breaker: self.breaker(keys),
        };
        let servers = listed.into_iter().map(|listed| self.live(name, listed, offers.as_ref())).collect();
        let earlier = self.previous.and_then(|config| config.upstreams.iter().find(|earlier| &*earlier.name == name));
        Upstream::after(Arc::from(name), servers, settings, earlier)
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
        let upstream = self.upstream(&label, vec![server.into()], &file::Upstream::default(), upstreams);
        upstreams.all.push(Arc::clone(&upstream));
        upstream
    }
}

impl Check<'_> {
    fn live(&mut self, upstream: &str, listed: Listed, offers: Option<&Offers>) -> upstream::Server {
        let Listed { server, weight, backup } = listed;
        upstream::Server {
            ordinal: self.ordinals.servers.of(&format!("{upstream} {}", server.label)),
            security: offers.and_then(|offers| offers.security(&server)),
            lookup: Arc::new(Lookup::of(&server.address)),
            address: server.address,
            label: server.label.into(),
            host: HeaderValue::from_str(&server.host).unwrap_or_else(|_| HeaderValue::from_static("upstream")),
            weight,
            backup,
            draining: Arc::default(),
        }
    }
}

/// Who is asked for the addresses of servers.
pub(super) fn dns(file: &File) -> DnsSettings {
    let listed = file.dns.get().and_then(|dns| dns.nameservers.get()).into_iter().flat_map(|list| &list.0);
    DnsSettings { nameservers: listed.map(|item| item.value.0).collect() }
}
