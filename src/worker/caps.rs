//! How many connections may be open at once: per listener, and per client address on it. Shared by
//! all workers, since the kernel spreads one client's connections over them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::config::Listener;
use crate::slots::Slots;

/// Shards of the per-address map; a power of two.
const SHARDS: usize = 16;

/// The open connections of every listener.
#[derive(Debug, Default)]
pub struct Caps {
    /// By [`Listener::ordinal`].
    listeners: Slots<Open>,
}

/// The open connections of one listener; on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Open {
    /// Open now.
    all: AtomicUsize,
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
    /// Counts a new connection of a listener, and under its address (of an IPv6 one so many bits) those that have one
    /// to be counted under: not trusted proxies, which carry many clients.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn admit(self: &Arc<Self>, listener: &Listener, address: Option<IpAddr>, bits: u8) -> Result<Permit, Full> {
        let open = self.listeners.at(listener.ordinal);
        if open.all.fetch_add(1, Ordering::Relaxed) >= listener.max_connections {
            open.all.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Listener);
        }
        let mut permit = Permit { caps: Arc::clone(self), listener: listener.ordinal, address: None };
        permit.count(listener.max_connections_per_ip, address, bits)?;
        Ok(permit)
    }
}

impl Permit {
    /// Counts the connection under its address, once that is known.
    ///
    /// # Errors
    /// When the address has as many as it may.
    pub fn count(&mut self, most: Option<usize>, address: Option<IpAddr>, bits: u8) -> Result<(), Full> {
        let Some((most, address)) = most.zip(address) else { return Ok(()) };
        let address = client_network(address, bits);
        let mut counts = self.caps.listeners.at(self.listener).shard(address).lock();
        let count = counts.entry(address).or_insert(0);
        if *count >= most {
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

impl Open {
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
        let open = self.caps.listeners.at(self.listener);
        open.all.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut counts = open.shard(address).lock();
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

    /// A listener that may have so many connections, and so many of each address.
    fn listener(max: usize, max_per_ip: Option<usize>) -> Listener {
        let yaml = "listen: 127.0.0.1:0\nupstream: echo\n";
        let config = crate::config::parse(yaml, &crate::config::Origin::Arguments, &|_| None).unwrap().config;
        Listener { max_connections: max, max_connections_per_ip: max_per_ip, ..Listener::clone(&config.listeners[0]) }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn a_closed_connection_makes_room_for_another() {
        let (caps, listener) = (Arc::<Caps>::default(), listener(1, None));
        let first = caps.admit(&listener, ip("127.0.0.1"), 64).unwrap();
        assert_eq!(caps.admit(&listener, None, 64).unwrap_err(), Full::Listener);
        drop(first);
        assert!(caps.admit(&listener, ip("127.0.0.2"), 64).is_ok());
    }

    #[test]
    fn one_address_cannot_take_more_than_its_share() {
        let (caps, listener) = (Arc::<Caps>::default(), listener(10, Some(2)));
        let held: Vec<_> =
            ["10.0.0.1", "::ffff:10.0.0.1"].map(|text| caps.admit(&listener, ip(text), 64).unwrap()).into();
        assert_eq!(caps.admit(&listener, ip("10.0.0.1"), 64).unwrap_err(), Full::Address);
        assert!(caps.admit(&listener, None, 64).is_ok(), "trusted proxies carry many clients");
        assert!(caps.admit(&listener, ip("10.0.0.2"), 64).is_ok());
        drop(held);
        assert!(
            caps.listeners.at(0).by_ip.iter().all(|shard| shard.lock().is_empty()),
            "no address is kept for nothing"
        );
        assert_eq!(caps.listeners.at(0).all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_share() {
        let (caps, listener) = (Arc::<Caps>::default(), listener(10, Some(1)));
        let _held = caps.admit(&listener, ip("2001:db8::1"), 64).unwrap();
        assert_eq!(caps.admit(&listener, ip("2001:db8::ffff"), 64).unwrap_err(), Full::Address);
        assert!(caps.admit(&listener, ip("2001:db8:0:1::1"), 64).is_ok());
    }
}
