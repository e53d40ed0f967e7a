//! Which endpoint takes a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Endpoint, Upstream};

impl Upstream {
    /// Every endpoint once, beginning with the one whose turn it is (round robin over all workers):
    /// the order in which a request tries them.
    pub fn in_turn(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let first = match self.endpoints.len() {
            0 | 1 => 0,
            count => self.next.fetch_add(1, Ordering::Relaxed) % count,
        };
        let (before, from) = self.endpoints.split_at(first);
        from.iter().chain(before)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use http::HeaderValue;

    use super::super::outage::Outage;
    use super::super::{Address, EndpointId, Protocol};
    use super::*;

    fn upstream(servers: usize) -> Upstream {
        let endpoint = |id| Endpoint {
            id: EndpointId(id),
            address: Address::Echo,
            security: None,
            label: "echo".into(),
            host: HeaderValue::from_static("echo"),
            outage: Outage::default(),
        };
        Upstream {
            name: "web".into(),
            endpoints: (0..servers).map(endpoint).map(Arc::new).collect(),
            protocol: Protocol::Auto,
            tls: None,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(30),
            max_idle_connections: 8,
            idle_timeout: Duration::from_secs(4),
            max_connection_age: Duration::from_hours(1),
            next: AtomicUsize::new(0),
        }
    }

    fn order(upstream: &Upstream) -> Vec<usize> {
        upstream.in_turn().map(|endpoint| endpoint.id.0).collect()
    }

    #[test]
    fn each_request_begins_one_server_further_and_tries_each_once() {
        let upstream = upstream(3);
        assert_eq!(order(&upstream), [0, 1, 2]);
        assert_eq!(order(&upstream), [1, 2, 0]);
        assert_eq!(order(&upstream), [2, 0, 1]);
        assert_eq!(order(&upstream), [0, 1, 2]);
    }

    #[test]
    fn a_single_server_needs_no_turn() {
        let upstream = upstream(1);
        assert_eq!(order(&upstream), [0]);
        assert_eq!(upstream.next.load(Ordering::Relaxed), 0);
    }
}
