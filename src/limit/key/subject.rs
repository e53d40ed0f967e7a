//! How a key part's value is written into a subject.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv6Addr};

use super::{Hashing, KeyPart, KeyValue, Subject};

/// Longest value that enters a subject as it is.
const LONGEST_PLAIN: usize = 64;

/// Appends one part: its kind, and its value as it is or hashed.
pub(in crate::limit) fn write(subject: &mut Subject, part: &KeyPart, value: &KeyValue<'_>, hashing: &Hashing) {
    match part {
        KeyPart::ClientIp { ipv6_prefix } => {
            if let Some(address) = value.address {
                write_address(subject, address, *ipv6_prefix);
            }
        }
        KeyPart::Global => subject.extend_from_slice(b"global"),
        _ => {
            let _ = write!(Text(subject), "{}=", Kind(part));
            write_value(subject, value, part.is_hashed(), hashing);
        }
    }
}

/// Appends a part behind its length.
pub(super) fn write_counted(subject: &mut Subject, part: &Subject) {
    let _ = write!(Text(subject), "{}:", part.len());
    subject.extend_from_slice(part);
}

/// Appends a client address; IPv6 cut to the prefix.
pub(in crate::limit) fn write_address(subject: &mut Subject, address: IpAddr, ipv6_prefix: u8) {
    subject.extend_from_slice(b"ip=");
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mut separator = &b""[..];
            for octet in address.octets() {
                subject.extend_from_slice(separator);
                subject.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
                separator = b".";
            }
        }
        IpAddr::V6(address) => {
            let prefix = u32::from(ipv6_prefix.min(128));
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            let _ = write!(Text(subject), "{}/{prefix}", Ipv6Addr::from_bits(address.to_bits() & mask));
        }
    }
}

/// Appends a value. A plain one never begins with `#`, which marks a hash.
fn write_value(subject: &mut Subject, value: &KeyValue<'_>, secret: bool, hashing: &Hashing) {
    let mut marked = Subject::new();
    let value: &[u8] = match value.mark {
        None => &value.bytes,
        Some(mark) => {
            marked.push(mark);
            marked.extend_from_slice(&value.bytes);
            &marked
        }
    };
    let hash = match hashing {
        Hashing::Raw => return subject.extend_from_slice(value),
        Hashing::Hashed(_) if !secret && is_plain(value) => return subject.extend_from_slice(value),
        Hashing::Hashed(None) => blake3::hash(value),
        Hashing::Hashed(Some(secret)) => blake3::keyed_hash(secret, value),
    };
    subject.push(b'#');
    subject.extend_from_slice(&hash.to_hex().as_bytes()[..32]);
}

/// Whether a value is short, printable and safe inside a Redis hash tag.
fn is_plain(value: &[u8]) -> bool {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/:@!$'()*+,;%[]".contains(byte);
    value.len() <= LONGEST_PLAIN && value.iter().all(safe)
}

/// The kind of a part, as it stands before `=`.
struct Kind<'a>(&'a KeyPart);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            KeyPart::ClientIp { .. } => f.write_str("ip"),
            part => part.fmt(f),
        }
    }
}

/// Formats into a subject.
struct Text<'a>(&'a mut Subject);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
