//! How many connections may be open at once: per listener, and per client address on it. Shared by
//! all workers, since the kernel spreads one client's connections over them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::config::Config;

/// Shards of the per-address map; a power of two.
const SHARDS: usize = 16;

/// The open connections of every listener.
#[derive(Debug)]
pub struct Caps {
    /// By index in [`Config::listeners`].
    listeners: Vec<ListenerCaps>,
    /// Bits of an IPv6 address that make one client.
    ipv6_prefix: u8,
}

/// The open connections of one listener; on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct ListenerCaps {
    /// Open now.
    open: AtomicUsize,
    /// At most this many.
    max: usize,
    /// At most this many per address, when capped.
    max_per_ip: Option<usize>,
    /// Open now per address; only kept when capped.
    by_ip: [Mutex<HashMap<IpAddr, usize, ahash::RandomState>>; SHARDS],
}

/// Why a connection was turned away; the label in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `max_connections` of the listener are open.
    Listener,
    /// `max_connections_per_ip` are open from this address.
    Address,
}

/// One open connection; dropping it makes room again.
#[derive(Debug)]
pub struct Permit {
    /// Where it is counted.
    caps: Arc<Caps>,
    /// On which listener.
    listener: usize,
    /// Under which address, when those are counted.
    address: Option<IpAddr>,
}

impl Caps {
    /// Nothing open yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let listeners = config.listeners.iter().map(|listener| ListenerCaps {
            open: AtomicUsize::new(0),
            max: listener.max_connections,
            max_per_ip: listener.max_connections_per_ip,
            by_ip: Default::default(),
        });
        Self { listeners: listeners.collect(), ipv6_prefix: config.client_ip.ipv6_prefix }
    }

    /// Counts a new connection, and under its address those that have one to be counted under: not
    /// trusted proxies, which carry many clients.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn admit(self: &Arc<Self>, listener: usize, address: Option<IpAddr>) -> Result<Permit, Full> {
        let caps = &self.listeners[listener];
        if caps.open.fetch_add(1, Ordering::Relaxed) >= caps.max {
            caps.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Listener);
        }
        let mut permit = Permit { caps: Arc::clone(self), listener, address: None };
        permit.count(address)?;
        Ok(permit)
    }
}

impl Permit {
    /// Counts the connection under its address, once that is known.
    ///
    /// # Errors
    /// When the address has as many as it may.
    pub fn count(&mut self, address: Option<IpAddr>) -> Result<(), Full> {
        let caps = &self.caps.listeners[self.listener];
        let Some((max, address)) = caps.max_per_ip.zip(address) else { return Ok(()) };
        let address = client_network(address, self.caps.ipv6_prefix);
        let mut counts = caps.shard(address).lock();
        let count = counts.entry(address).or_insert(0);
        if *count >= max {
            return Err(Full::Address);
        }
        *count += 1;
        self.address = Some(address);
        Ok(())
    }
}

impl Full {
    /// Its label in the metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Listener => "max_connections",
            Self::Address => "max_connections_per_ip",
        }
    }
}

impl ListenerCaps {
    /// The part of the map that counts this address.
    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, usize, ahash::RandomState>> {
        let last = match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[7],
        };
        &self.by_ip[usize::from(last) % SHARDS]
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let caps = &self.caps.listeners[self.listener];
        caps.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut counts = caps.shard(address).lock();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

/// The address that stands for one client: IPv4 whole (v4-mapped too), IPv6 cut to its prefix.
fn client_network(peer: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(max: usize, max_per_ip: Option<usize>) -> Arc<Caps> {
        let one = ListenerCaps { open: AtomicUsize::new(0), max, max_per_ip, by_ip: Default::default() };
        Arc::new(Caps { listeners: vec![one], ipv6_prefix: 64 })
    }

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn a_closed_connection_makes_room_for_another() {
        let caps = caps(1, None);
        let first = caps.admit(0, ip("127.0.0.1")).unwrap();
        assert_eq!(caps.admit(0, None).unwrap_err(), Full::Listener);
        drop(first);
        assert!(caps.admit(0, ip("127.0.0.2")).is_ok());
    }

    #[test]
    fn one_address_cannot_take_more_than_its_share() {
        let caps = caps(10, Some(2));
        let held: Vec<_> = ["10.0.0.1", "::ffff:10.0.0.1"].map(|text| caps.admit(0, ip(text)).unwrap()).into();
        assert_eq!(caps.admit(0, ip("10.0.0.1")).unwrap_err(), Full::Address);
        assert!(caps.admit(0, None).is_ok(), "trusted proxies carry many clients");
        assert!(caps.admit(0, ip("10.0.0.2")).is_ok());
        drop(held);
        assert!(caps.listeners[0].by_ip.iter().all(|shard| shard.lock().is_empty()), "no address is kept for nothing");
        assert_eq!(caps.listeners[0].open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_share() {
        let caps = caps(10, Some(1));
        let _held = caps.admit(0, ip("2001:db8::1")).unwrap();
        assert_eq!(caps.admit(0, ip("2001:db8::ffff")).unwrap_err(), Full::Address);
        assert!(caps.admit(0, ip("2001:db8:0:1::1")).is_ok());
    }
}
