//! Where clients connect.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Check;
use crate::config::file::{self, File};
use crate::config::frames::Span;
use crate::config::shape::{Setting, Short};
use crate::config::values::Listening;
use crate::config::{ListenAddress, Listener, Protocols, ProxyProtocol};

/// Permissions of a Unix socket: its user and its group.
const DEFAULT_MODE: u32 = 0o660;

impl Check<'_> {
    pub(super) fn listeners(&mut self, file: &File) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        let mut redirects = Vec::new();
        if let Some(listen) = file.listen.spanned() {
            if let Some(key) = file.listeners.key() {
                self.error(key, "`listen` is the short form of `listeners`", "keep one of the two");
            }
            listeners.push(self.listener("default", listen.value.0.clone(), &file::Listener::default()));
        }
        let named = file.listeners.get().map(|named| named.0.as_slice()).unwrap_or_default();
        for (name, setting) in named {
            let Some((address, span, keys)) = self.listener_parts(name.span, setting) else { continue };
            if name.value == "admin" || name.value.is_empty() {
                self.error(name.span, format!("a listener cannot be named `{}`", name.value), "choose another name");
            }
            if let Some(other) = listeners.iter().find(|other| overlap(&other.address, &address)) {
                let message = format!("the listener `{}` has this address already", other.name);
                self.error(span, message, "give each listener its own port");
            }
            let listener = self.listener(&name.value, address, &keys);
            redirects.extend(keys.redirect_to_https.spanned().map(|asked| (listeners.len(), asked.clone())));
            self.proxy_protocol_is_believed(file, &keys);
            listeners.push(listener);
        }
        self.redirects(&mut listeners, &redirects);
        if listeners.is_empty() && file.listen.is_absent() && self.nothing_given(&file.listeners) {
            self.error_of_file("nothing says where to listen", "add `listen: :8080`");
        }
        listeners
    }

    fn nothing_given<T>(&self, setting: &Setting<crate::config::shape::Named<T>>) -> bool {
        match setting {
            Setting::Absent => true,
            Setting::Invalid => false,
            Setting::Given { value, .. } => value.value.0.is_empty() && self.is_sound(),
        }
    }

    /// Address, where it stands, and the other keys.
    fn listener_parts(
        &mut self,
        name: Span,
        setting: &Setting<Short<Listening, file::Listener>>,
    ) -> Option<(ListenAddress, Span, file::Listener)> {
        let given = match setting {
            Setting::Absent => {
                self.error(name, "this listener has no address", "write `address: :8080` below it");
                return None;
            }
            Setting::Invalid => return None,
            Setting::Given { value, .. } => value,
        };
        match &given.value {
            Short::Short(address) => Some((address.0.clone(), given.span, file::Listener::default())),
            Short::Long(keys) => {
                if keys.address.is_absent() {
                    self.error(name, "this listener has no address", "write `address: :8080` below it");
                }
                let address = keys.address.spanned()?;
                Some((address.value.0.clone(), address.span, keys.clone()))
            }
        }
    }

    fn listener(&mut self, name: &str, address: ListenAddress, keys: &file::Listener) -> Listener {
        let per_ip = keys.max_connections_per_ip.spanned().is_some();
        let protocols = self.protocols(keys);
        Listener {
            name: Arc::from(name),
            ordinal: self.ordinals.listeners.of(name),
            mode: self.mode(&address, keys),
            address,
            protocols,
            redirect_to_https: None,
            proxy_protocol: match keys.proxy_protocol.or(file::ProxyProtocol::Never) {
                file::ProxyProtocol::Never => ProxyProtocol::Never,
                file::ProxyProtocol::Optional => ProxyProtocol::Optional,
                file::ProxyProtocol::Required => ProxyProtocol::Required,
            },
            tls: self.tls(&keys.tls, protocols),
            max_connections: self.number(&keys.max_connections, 20_000, 1..=10_000_000),
            max_connections_per_ip: per_ip.then(|| self.number(&keys.max_connections_per_ip, 1, 1..=10_000_000)),
            header_timeout: self.time(&keys.header_timeout, Duration::from_secs(10)),
            idle_timeout: self.time(&keys.idle_timeout, Duration::from_secs(75)),
            stream_idle_timeout: self.time(&keys.stream_idle_timeout, Duration::from_hours(1)),
            max_header_size: self.max_header_size(keys),
        }
    }

    fn protocols(&mut self, keys: &file::Listener) -> Protocols {
        let Some(listed) = keys.protocols.get() else { return Protocols { h1: true, h2: true } };
        let has = |wanted| listed.0.iter().any(|listed| listed.value == wanted);
        let protocols = Protocols { h1: has(file::Protocol::H1), h2: has(file::Protocol::H2) };
        if let Some(key) = keys.protocols.key()
            && !protocols.h1
            && !protocols.h2
        {
            self.error(key, "a listener speaks at least one protocol", "write [h1, h2], or leave `protocols` out");
        }
        protocols
    }

    fn max_header_size(&mut self, keys: &file::Listener) -> usize {
        let Some(given) = keys.max_header_size.spanned() else { return 32 << 10 };
        if !(1 << 10..=1 << 20).contains(&given.value.0) {
            self.error(given.span, format!("{} is out of bounds", given.value), "write 1KiB to 1MiB");
        }
        usize::try_from(given.value.0).unwrap_or(32 << 10)
    }

    fn mode(&mut self, address: &ListenAddress, keys: &file::Listener) -> u32 {
        if let (Some(key), ListenAddress::Tcp(_)) = (keys.mode.key(), address) {
            self.error(key, "`mode` belongs to a Unix socket", "leave it out, or listen on unix:/path");
        }
        keys.mode.get().map_or(DEFAULT_MODE, |mode| mode.0)
    }

    /// A header that nobody may send is a mistake.
    fn proxy_protocol_is_believed(&mut self, file: &File, keys: &file::Listener) {
        let Some(given) = keys.proxy_protocol.spanned() else { return };
        let nobody =
            file.trusted_proxies.is_absent() || file.trusted_proxies.get().is_some_and(|list| list.0.is_empty());
        let help = "list the load balancers in front in `trusted_proxies`";
        match given.value {
            file::ProxyProtocol::Required if nobody => {
                self.error(given.span, "nobody can connect: the PROXY protocol is for trusted proxies only", help);
            }
            file::ProxyProtocol::Optional if nobody => {
                self.warn(given.span, "no header is ever believed, because no proxy is trusted", help);
            }
            _ => {}
        }
    }
}

/// Whether two sockets cannot both be bound.
pub(super) fn overlap(one: &ListenAddress, other: &ListenAddress) -> bool {
    let (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) = (one, other) else { return one == other };
    let covers = |ip: IpAddr, other: IpAddr| ip == other || (ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4()));
    one.port() == other.port() && one.port() != 0 && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}
