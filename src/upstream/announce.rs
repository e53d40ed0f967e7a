//! The PROXY protocol towards servers: the first bytes of a connection tell whose it is
//! (haproxy.org/download/2.9/doc/proxy-protocol.txt, versions 1 and 2).

use std::net::{IpAddr, SocketAddr};

/// What every header of version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
}

impl Version {
    /// The header; without an origin that of a connection of our own.
    #[must_use]
    pub fn header(self, origin: Option<Origin>) -> Vec<u8> {
        let origin = origin.map(Origin::of_one_family);
        match self {
            Self::V1 => line(origin).into_bytes(),
            Self::V2 => binary(origin),
        }
    }
}

impl Origin {
    /// IPv4-mapped addresses are IPv4; where only one side is IPv4, both are IPv6.
    fn of_one_family(self) -> Self {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (client, local) = (plain(self.client), plain(self.local));
        let wide = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), address.port()),
            IpAddr::V6(_) => address,
        };
        if client.is_ipv4() == local.is_ipv4() {
            Self { client, local }
        } else {
            Self { client: wide(client), local: wide(local) }
        }
    }
}

fn line(origin: Option<Origin>) -> String {
    let Some(Origin { client, local }) = origin else { return "PROXY UNKNOWN\r\n".to_owned() };
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port())
}

fn binary(origin: Option<Origin>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some(Origin { client, local }) = origin else {
        // LOCAL, no addresses.
        header.extend([0x20, 0x00, 0, 0]);
        return header;
    };
    let mut addresses = Vec::with_capacity(36);
    for address in [client, local] {
        match address.ip() {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    addresses.extend([client.port(), local.port()].iter().flat_map(|port| port.to_be_bytes()));
    // PROXY; TCP over IPv4 or IPv6; so many bytes follow.
    let family = if client.is_ipv4() { 0x11 } else { 0x21 };
    header.extend([0x21, family, 0, if client.is_ipv4() { 12 } else { 36 }]);
    header.append(&mut addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(client: &str, local: &str) -> Origin {
        Origin { client: client.parse().unwrap(), local: local.parse().unwrap() }
    }

    #[test]
    fn version_1_is_a_line() {
        for (origin, expected) in [
            (Some(origin("192.0.2.1:4000", "198.51.100.2:80")), "PROXY TCP4 192.0.2.1 198.51.100.2 4000 80\r\n"),
            (Some(origin("[2001:db8::1]:1", "[::1]:443")), "PROXY TCP6 2001:db8::1 ::1 1 443\r\n"),
            (Some(origin("[::ffff:192.0.2.1]:1", "127.0.0.1:2")), "PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"),
            (Some(origin("192.0.2.1:1", "[::1]:2")), "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"),
            (None, "PROXY UNKNOWN\r\n"),
        ] {
            assert_eq!(String::from_utf8(Version::V1.header(origin)).unwrap(), expected);
        }
    }

    #[test]
    fn version_2_is_binary() {
        let header = Version::V2.header(Some(origin("192.0.2.1:4000", "198.51.100.2:80")));
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x0f\xa0\0\x50";
        assert_eq!(header, expected);
        let header = Version::V2.header(Some(origin("[2001:db8::1]:1", "[::1]:443")));
        assert_eq!((header.len(), &header[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(Version::V2.header(None), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }
}
