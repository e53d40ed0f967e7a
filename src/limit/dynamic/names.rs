//! What an override is found by: an address as subjects write it, or a value, plain or hashed as in subjects.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Wrong;
use crate::limit::key::{self, Hashing, KeyValue, Subject};

/// How the keys of a limit are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Naming {
    /// Whether the limit counts by anything but addresses.
    pub by_value: bool,
    /// Bits of an IPv6 address that count, where the limit may count by address.
    pub ipv6_prefix: Option<u8>,
    /// Whether clients choose values, so that one may be a secret.
    pub client_chosen: bool,
}

impl Naming {
    /// The name of a key as people write it: an address, or the value of any part of the limit's key.
    ///
    /// # Errors
    /// When the limit counts by nothing of the kind.
    pub(super) fn of_key(self, key: &[u8], hashing: &Hashing) -> Result<Subject, Wrong> {
        let address = std::str::from_utf8(key).ok().and_then(|text| self.address(text));
        match (address, self.ipv6_prefix) {
            (Some(address), Some(prefix)) => Ok(of_address(address, prefix)),
            _ if key.is_empty() => Err(Wrong::NoKey),
            _ if self.by_value => Ok(self.of_bytes(key, hashing)),
            _ => Err(Wrong::NotAnAddress),
        }
    }

    /// The name of a value in a request; `None` when it can have no override.
    pub(super) fn of_value(self, value: &KeyValue<'_>, hashing: &Hashing) -> Option<Subject> {
        match value.address {
            Some(address) => self.ipv6_prefix.map(|prefix| of_address(address, prefix)),
            None => (self.by_value && !value.bytes.is_empty()).then(|| self.of_bytes(&value.bytes, hashing)),
        }
    }

    /// An address, or a block of exactly the length that counts.
    fn address(self, text: &str) -> Option<IpAddr> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address = address.parse::<IpAddr>().ok()?.to_canonical();
        let counted = if address.is_ipv4() { 32 } else { self.ipv6_prefix? };
        length.is_none_or(|length| length.parse() == Ok(counted)).then_some(address)
    }

    fn of_bytes(self, value: &[u8], hashing: &Hashing) -> Subject {
        let mut name = Subject::from_slice(b"=");
        let value = KeyValue { bytes: Cow::Borrowed(value), mark: None, address: None };
        key::write_value(&mut name, &value, self.client_chosen, hashing);
        name
    }
}

fn of_address(address: IpAddr, prefix: u8) -> Subject {
    let mut name = Subject::new();
    key::write_address(&mut name, address, prefix);
    name
}

/// A name as people read it: `192.0.2.1`, `2001:db8::/64`, `acme`, or `#` and a hash.
pub(super) fn shown(name: &Subject) -> Box<str> {
    let text = String::from_utf8_lossy(name);
    let bare = text.strip_prefix("ip=").or_else(|| text.strip_prefix('=')).unwrap_or(&text);
    bare.into()
}
