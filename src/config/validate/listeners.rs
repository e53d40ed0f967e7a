//! Where clients connect.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Check;
use crate::config::file::{self, File};
use crate::config::frames::Span;
use crate::config::shape::{Setting, Short};
use crate::config::{Listener, Protocols};

impl Check<'_> {
    pub(super) fn listeners(&mut self, file: &File) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        if let Some(listen) = file.listen.spanned() {
            if let Some(key) = file.listeners.key() {
                self.error(key, "`listen` is the short form of `listeners`", "keep one of the two");
            }
            listeners.push(self.listener("default", listen.value.0, &file::Listener::default()));
        }
        let named = file.listeners.get().map(|named| named.0.as_slice()).unwrap_or_default();
        for (name, setting) in named {
            let Some((address, span, keys)) = self.listener_parts(name.span, setting) else { continue };
            if name.value == "admin" || name.value.is_empty() {
                self.error(name.span, format!("a listener cannot be named `{}`", name.value), "choose another name");
            }
            if let Some(other) = listeners.iter().find(|other| overlap(other.address, address)) {
                let message = format!("the listener `{}` has this address already", other.name);
                self.error(span, message, "give each listener its own port");
            }
            let listener = self.listener(&name.value, address, &keys);
            listeners.push(listener);
        }
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
        setting: &Setting<Short<crate::config::values::Address, file::Listener>>,
    ) -> Option<(SocketAddr, Span, file::Listener)> {
        let given = match setting {
            Setting::Absent => {
                self.error(name, "this listener has no address", "write `address: :8080` below it");
                return None;
            }
            Setting::Invalid => return None,
            Setting::Given { value, .. } => value,
        };
        match &given.value {
            Short::Short(address) => Some((address.0, given.span, file::Listener::default())),
            Short::Long(keys) => {
                if keys.address.is_absent() {
                    self.error(name, "this listener has no address", "write `address: :8080` below it");
                }
                let address = keys.address.spanned()?;
                Some((address.value.0, address.span, keys.clone()))
            }
        }
    }

    fn listener(&mut self, name: &str, address: SocketAddr, keys: &file::Listener) -> Listener {
        let per_ip = keys.max_connections_per_ip.spanned().is_some();
        let protocols = self.protocols(keys);
        Listener {
            name: Arc::from(name),
            address,
            protocols,
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
}

/// Whether two sockets cannot both be bound.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |ip: IpAddr, other: IpAddr| ip == other || (ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4()));
    one.port() == other.port() && one.port() != 0 && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}
