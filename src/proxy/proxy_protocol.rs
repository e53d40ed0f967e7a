//! The PROXY protocol, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`): what a load balancer says of
//! the client in front of the connection's own bytes. It is believed from trusted proxies only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use super::socket::{Peer, Socket};

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What one of version 1 begins with.
const PREFIX: &[u8; 6] = b"PROXY ";
/// The longest header of version 1, its line end included.
const LONGEST_LINE: usize = 107;
/// Signature, version and command, family, length.
const FIXED: usize = 16;
/// The longest header of version 2 that is read. Its length could say 64 KiB; what is sent are a few
/// hundred bytes.
const LONGEST: usize = 4096;

/// Whether a header comes before the connection's own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// There may be one.
    Perhaps,
    /// There must be one.
    Always,
}

/// Why a connection is closed before it has begun; the word for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Who sends it is not a trusted proxy.
    Untrusted,
    /// There is no header where there must be one.
    Missing,
    /// There is something that only begins like one.
    Malformed,
    /// It took too long.
    Timeout,
    /// The client closed, as checks of a load balancer do.
    Closed,
}

impl Refused {
    /// Its label in the metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Untrusted => "proxy_protocol_untrusted",
            Self::Missing => "proxy_protocol_missing",
            Self::Malformed => "proxy_protocol_malformed",
            Self::Timeout => "proxy_protocol_timeout",
            Self::Closed => "proxy_protocol_closed",
        }
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// A header, or it may become one.
    Incomplete,
    /// Something else.
    Other,
    /// A whole header of this many bytes; the client, if it tells one.
    Header { length: usize, source: Option<SocketAddr> },
}

/// A header that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed;

/// Takes the header off a trusted proxy's connection: the client it tells, or the proxy itself.
///
/// # Errors
/// When there is none and must be one, when it cannot be read, or does not come in time.
pub async fn read(socket: &mut Socket, peer: Peer, expected: Expected, limit: Duration) -> Result<Peer, Refused> {
    let (length, source) = match timeout(limit, wait(socket)).await {
        Err(_) => return Err(Refused::Timeout),
        Ok(Err(_)) => return Err(Refused::Closed),
        Ok(Ok(Err(Malformed))) => return Err(Refused::Malformed),
        Ok(Ok(Ok(Beginning::Header { length, source }))) => (length, source),
        Ok(Ok(Ok(Beginning::Incomplete))) if socket.early().is_empty() => return Err(Refused::Closed),
        Ok(Ok(Ok(Beginning::Incomplete | Beginning::Other))) => match expected {
            Expected::Perhaps => return Ok(peer),
            Expected::Always => return Err(Refused::Missing),
        },
    };
    socket.skip(length);
    Ok(source.map_or(peer, Peer::Address))
}

/// Waits until it is clear what the connection begins with, or it has ended.
async fn wait(socket: &mut Socket) -> io::Result<Result<Beginning, Malformed>> {
    loop {
        match beginning(socket.early()) {
            Ok(Beginning::Incomplete) if socket.wait_for_more(LONGEST).await? => {}
            known => return Ok(known),
        }
    }
}

fn beginning(bytes: &[u8]) -> Result<Beginning, Malformed> {
    let starts = |whole: &[u8]| bytes.iter().zip(whole).all(|(byte, expected)| byte == expected);
    if starts(PREFIX) {
        return if bytes.len() < PREFIX.len() { Ok(Beginning::Incomplete) } else { line(bytes) };
    }
    if starts(SIGNATURE) {
        return if bytes.len() < FIXED { Ok(Beginning::Incomplete) } else { binary(bytes) };
    }
    Ok(Beginning::Other)
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 4711 443` and CR LF.
fn line(bytes: &[u8]) -> Result<Beginning, Malformed> {
    let shown = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = shown.iter().position(|&byte| byte == b'\n') else {
        return if shown.len() == LONGEST_LINE { Err(Malformed) } else { Ok(Beginning::Incomplete) };
    };
    let text = shown[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok()).ok_or(Malformed)?;
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        // Whatever else stands there has no meaning.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(endpoints::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(endpoints::<Ipv6Addr>(words)?),
        _ => return Err(Malformed),
    };
    Ok(Beginning::Header { length: end + 1, source })
}

/// Source and destination address, source and destination port, and nothing more.
fn endpoints<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Result<SocketAddr, Malformed>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut next = || words.next().ok_or(Malformed);
    let address = |word: &str| word.parse::<A>().map_err(|_| Malformed);
    let (source, _to) = (address(next()?)?, address(next()?)?);
    let (source_port, _to) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(Malformed);
    }
    Ok(SocketAddr::new(source.into(), source_port))
}

/// Decimal digits without a sign, or zeros before them.
fn port(word: &str) -> Result<u16, Malformed> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if is_plain { word.parse().map_err(|_| Malformed) } else { Err(Malformed) }
}

/// Version 2. What follows the addresses (TLVs) is skipped.
fn binary(bytes: &[u8]) -> Result<Beginning, Malformed> {
    let (command, family) = (bytes[12], bytes[13]);
    let length = FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if !matches!(command, 0x20 | 0x21) || length > LONGEST {
        return Err(Malformed);
    }
    let Some(rest) = bytes.get(FIXED..length) else { return Ok(Beginning::Incomplete) };
    let source = match (command, family) {
        // LOCAL, a check of the proxy's own; or a client that is not said, or of a kind that speaks no
        // TCP: the proxy counts as the client.
        (0x20, _) | (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        (_, 0x11) => Some(address::<4, 12>(rest)?),
        (_, 0x21) => Some(address::<16, 36>(rest)?),
        _ => return Err(Malformed),
    };
    Ok(Beginning::Header { length, source })
}

/// Source address, destination address, source port, destination port: `ALL` bytes.
fn address<const SIZE: usize, const ALL: usize>(bytes: &[u8]) -> Result<SocketAddr, Malformed>
where
    IpAddr: From<[u8; SIZE]>,
{
    let block: &[u8; ALL] = bytes.first_chunk().ok_or(Malformed)?;
    let source: &[u8; SIZE] = block.first_chunk().ok_or(Malformed)?;
    let port = u16::from_be_bytes([block[2 * SIZE], block[2 * SIZE + 1]]);
    Ok(SocketAddr::new(IpAddr::from(*source), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(source: SocketAddr, extra: &[u8]) -> [Vec<u8>; 2] {
        let (word, family, mut block) = match source.ip() {
            IpAddr::V4(v4) => ("TCP4", 0x11, [v4.octets(), [127, 0, 0, 1]].concat()),
            IpAddr::V6(v6) => ("TCP6", 0x21, [v6.octets(), Ipv6Addr::LOCALHOST.octets()].concat()),
        };
        let to = if source.is_ipv4() { "127.0.0.1" } else { "::1" };
        let line = format!("PROXY {word} {} {to} {} 443\r\n", source.ip(), source.port()).into_bytes();
        block.extend(source.port().to_be_bytes());
        block.extend(443_u16.to_be_bytes());
        block.extend(extra);
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [line, [&SIGNATURE[..], &[0x21, family], &length, &block].concat()]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_no_part_of_it_is_taken_for_anything_else(
            source: SocketAddr,
            extra in prop::collection::vec(any::<u8>(), 0..300),
            behind: Vec<u8>,
        ) {
            for header in header(SocketAddr::new(source.ip(), source.port()), &extra) {
                let length = header.len();
                let expected = SocketAddr::new(source.ip(), source.port());
                for cut in 0..length {
                    prop_assert_eq!(beginning(&header[..cut]), Ok(Beginning::Incomplete));
                }
                let whole = [&header[..], &behind].concat();
                prop_assert_eq!(beginning(&whole), Ok(Beginning::Header { length, source: Some(expected) }));
            }
        }

        #[test]
        fn no_bytes_are_misread(mut bytes: Vec<u8>, start in 0..4_usize) {
            let starts: [&[u8]; 4] = [b"", PREFIX, SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11"];
            bytes.splice(0..0, starts[start].iter().copied());
            if let Ok(Beginning::Header { length, .. }) = beginning(&bytes) {
                prop_assert!(length <= bytes.len() && length <= LONGEST);
                // More bytes change nothing about a header that is whole.
                prop_assert_eq!(beginning(&bytes), beginning(&[&bytes[..length], b"x"].concat()));
            }
        }
    }
}
