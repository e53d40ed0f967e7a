//! What is done for upstreams beside requests: names are resolved, and servers checked.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::resolve::{DnsSettings, Resolver};
use super::{Upstream, check, resolve};

/// Whether there is anything to do.
#[must_use]
pub fn is_needed(upstreams: &[Arc<Upstream>]) -> bool {
    upstreams.iter().any(|upstream| upstream.settings.health.active.is_some() || has_names(upstream))
}

/// Does it until dropped, on the current `LocalRuntime`.
pub async fn keep(upstreams: &[Arc<Upstream>], dns: &DnsSettings, echo: Option<SocketAddr>) {
    let mut tasks = JoinSet::new();
    let named: Vec<_> = upstreams.iter().filter(|upstream| has_names(upstream)).collect();
    if !named.is_empty() {
        let resolver = Resolver::new(dns);
        for upstream in named {
            for server in upstream.servers.iter().filter(|server| server.address.is_name()) {
                tasks.spawn_local(resolve::keep(Arc::clone(upstream), Arc::clone(server), resolver.clone()));
            }
        }
    }
    for upstream in upstreams {
        if let Some(policy) = &upstream.settings.health.active {
            tasks.spawn_local(check::keep(Arc::clone(upstream), policy.clone(), echo));
        }
    }
    while tasks.join_next().await.is_some() {}
}

fn has_names(upstream: &Upstream) -> bool {
    upstream.servers.iter().any(|server| server.address.is_name())
}
