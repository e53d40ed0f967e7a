//! A proxy that forwards to itself: a request would go round until a Via field stops it.

use std::sync::Arc;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Check;
use crate::config::file::File;
use crate::config::frames::Span;
use crate::config::{Config, ListenAddress, Listener};
use crate::upstream::{Address, Upstream};

impl Check<'_> {
    /// No server may be one of the listeners.
    pub(super) fn refuse_loops(&mut self, file: &File, config: &Config) {
        for upstream in &config.upstreams {
            let Some(listener) = own_listener(upstream, config) else { continue };
            let message = format!("`{}` leads to this proxy's own listener `{}`", upstream.name, listener.name);
            let help = "write the address of the service behind it";
            match place(file, upstream) {
                Some(span) => self.error(span, message, help),
                None => self.error_of_file(&message, help),
            }
        }
    }
}

fn own_listener<'a>(upstream: &Upstream, config: &'a Config) -> Option<&'a Arc<Listener>> {
    let is_asked =
        |listener: &&Arc<Listener>| upstream.servers.iter().any(|server| is_at(&server.address, &listener.address));
    config.listeners.iter().find(is_asked)
}

fn is_at(server: &Address, listener: &ListenAddress) -> bool {
    match (server, listener) {
        (Address::Tcp { host, port }, ListenAddress::Tcp(own)) => {
            let host = if &**host == "localhost" { Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { host.parse() };
            host.is_ok_and(|ip| takes(*own, SocketAddr::new(ip, *port)))
        }
        (Address::Unix(path), ListenAddress::Unix(own)) => **path == **own,
        _ => false,
    }
}

/// Whether a connection to `address` would be accepted by a listener on `own`. Port 0 is none yet.
fn takes(own: SocketAddr, address: SocketAddr) -> bool {
    let ip = address.ip();
    own.port() != 0 && own.port() == address.port() && (own.ip() == ip || own.ip().is_unspecified() && ip.is_loopback())
}

/// Where the upstream is named.
fn place(file: &File, upstream: &Upstream) -> Option<Span> {
    let named = file.upstreams.get().into_iter().flat_map(|named| &named.0);
    let declared = named.map(|(name, _)| name).find(|name| name.value == *upstream.name).map(|name| name.span);
    let of_routes = file.routes.get().into_iter().flat_map(|list| &list.0).filter_map(|route| route.upstream.spanned());
    let by_address = file.upstream.spanned().into_iter().chain(of_routes);
    // A bare address is called by what follows its scheme.
    declared.or_else(|| by_address.into_iter().find(|text| text.value.contains(&*upstream.name)).map(|text| text.span))
}
