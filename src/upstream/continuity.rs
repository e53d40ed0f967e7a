//! What goes on when a configuration takes the place of another: upstreams that stay what they were, and servers
//! that stay where they were.

use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::{Endpoint, Endpoints, Server, Settings, Upstream};
use crate::tls::ServerTls;

impl Upstream {
    /// An upstream in the place of an earlier one: that itself, where nothing has changed. Otherwise servers that are
    /// reached as before keep their connections and what is known of them.
    #[must_use]
    pub fn after(
        name: Arc<str>,
        mut servers: Vec<Server>,
        mut settings: Settings,
        earlier: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let Some(earlier) = earlier else { return Arc::new(Self::new(name, servers, settings)) };
        let stays = servers.len() == earlier.servers.len()
            && servers.iter().zip(&earlier.servers).all(|(server, before)| server.is_like(before))
            && settings.is_like(&earlier.settings);
        if stays {
            return Arc::clone(earlier);
        }
        settings.queue = Arc::new(settings.queue.after(&earlier.settings.queue));
        for server in &mut servers {
            if let Some(before) = earlier.servers.iter().find(|before| server.is_where(before)) {
                server.lookup = Arc::clone(&before.lookup);
                server.draining = Arc::clone(&before.draining);
            }
        }
        if !settings.reaches_like(&earlier.settings) {
            return Arc::new(Self::new(name, servers, settings));
        }
        let upstream = Self::new(name, servers, settings);
        upstream.set_endpoints(upstream.endpoints_after(earlier));
        Arc::new(upstream)
    }

    fn endpoints_after(&self, earlier: &Self) -> Endpoints {
        let (now, before) = (self.endpoints(), earlier.endpoints());
        let of = |server: &Arc<Server>| {
            let known = before.iter().filter(|endpoint| server.is_where(&endpoint.server));
            let known: Endpoints = known.map(|endpoint| Arc::new(endpoint.at(server))).collect();
            if known.is_empty() {
                now.iter().filter(|endpoint| Arc::ptr_eq(&endpoint.server, server)).map(Arc::clone).collect()
            } else {
                known
            }
        };
        self.servers.iter().flat_map(of).collect()
    }
}

impl Endpoint {
    /// The same endpoint of a server that is configured otherwise.
    fn at(&self, server: &Arc<Server>) -> Self {
        // Records give each address a weight of its own until they are read again.
        let of_records = self.weight != self.server.weight;
        Self {
            id: self.id,
            server: Arc::clone(server),
            address: self.address.clone(),
            is_name: self.is_name,
            weight: if of_records { self.weight } else { server.weight },
            backup: server.backup || (self.backup && !self.server.backup),
            hash: self.hash,
            load: Arc::clone(&self.load),
            connections: Arc::clone(&self.connections),
            health: Arc::clone(&self.health),
            outage: Arc::clone(&self.outage),
            last_check: Arc::clone(&self.last_check),
        }
    }
}

impl Server {
    fn is_like(&self, other: &Self) -> bool {
        self.is_where(other) && (&self.host, self.weight, self.backup) == (&other.host, other.weight, other.backup)
    }

    fn tls_name(&self) -> Option<&ServerName<'static>> {
        self.security.as_ref().map(|security| &security.name)
    }

    /// Whether it is reached as the other is.
    fn is_where(&self, other: &Self) -> bool {
        self.address == other.address && self.label == other.label && self.tls_name() == other.tls_name()
    }
}

impl Settings {
    fn is_like(&self, other: &Self) -> bool {
        self.reaches_like(other)
            && self.balance == other.balance
            && self.sticky == other.sticky
            && self.health == other.health
            && self.times() == other.times()
            && self.max_idle_connections == other.max_idle_connections
            && self.queue.is_like(&other.queue)
            && self.breaker.as_ref().map(|one| &one.settings) == other.breaker.as_ref().map(|one| &one.settings)
    }

    /// Whether a connection that was opened under the other could have been opened under these.
    fn reaches_like(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (Some(one), Some(another)) => ServerTls::is_like(one, another),
            (one, another) => one.is_none() && another.is_none(),
        };
        tls && self.protocol == other.protocol && self.proxy_protocol == other.proxy_protocol
    }

    fn times(&self) -> [std::time::Duration; 4] {
        [self.connect_timeout, self.response_timeout, self.idle_timeout, self.max_connection_age]
    }
}
