//! What an override is found by: an address, or the value of one part of the limit's key, each as subjects
//! write it: `ip=192.0.2.1`, `host=a.example`, `jwt:tenant=#<hash>`.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Wrong;
use crate::limit::key::{self, Hashing, KeyPart, KeyValue, Subject};

/// How the keys of a limit are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The parts of the limit's key that have values; none where it counts by addresses alone.
    pub parts: Vec<KeyPart>,
    /// Bits of an IPv6 address that count, where the limit may count by address.
    pub ipv6_prefix: Option<u8>,
}

impl Naming {
    /// The name of a key as people write it: an address, the value of the only part that has values, or
    /// `part=value`.
    ///
    /// # Errors
    /// When the limit counts by nothing of the kind, or by several things that the value could be of.
    pub(super) fn of_key(&self, key: &[u8], hashing: &Hashing) -> Result<Subject, Wrong> {
        let address = std::str::from_utf8(key).ok().and_then(|text| self.address(text));
        if let (Some(address), Some(prefix)) = (address, self.ipv6_prefix) {
            return Ok(of_address(address, prefix));
        }
        match key::part_of(&self.parts, self.ipv6_prefix.is_some(), key) {
            Some((part, begin)) if begin < key.len() => Ok(of_part(part, &key[begin..], hashing)),
            Some(_) => Err(Wrong::NoKey),
            None if key.is_empty() => Err(Wrong::NoKey),
            None if self.parts.is_empty() => Err(Wrong::NotAnAddress),
            None => Err(Wrong::WhichPart(key::spellings(&self.parts, &String::from_utf8_lossy(key)))),
        }
    }

    /// The name of a part's value in a request; `None` when it can have no override.
    pub(super) fn of_value(&self, part: &KeyPart, value: &KeyValue<'_>, hashing: &Hashing) -> Option<Subject> {
        match value.address {
            Some(address) => self.ipv6_prefix.map(|prefix| of_address(address, prefix)),
            None => (!value.bytes.is_empty()).then(|| of_part(part, &value.bytes, hashing)),
        }
    }

    /// Whether a name is one that a key of this limit can have: not one that was given under another key.
    pub(super) fn knows(&self, name: &str) -> bool {
        let is_of = |part: &KeyPart| name.strip_prefix(&part.to_string()).is_some_and(|rest| rest.starts_with('='));
        self.ipv6_prefix.is_some() && name.starts_with("ip=") || self.parts.iter().any(is_of)
    }

    /// A name as people read it: `192.0.2.1`, `2001:db8::/64`, `acme`, or `#` and a hash; behind the name of its
    /// part where several have values.
    pub(super) fn shown(&self, name: &Subject) -> Box<str> {
        let text = String::from_utf8_lossy(name);
        let of_only_part = match self.parts.as_slice() {
            [only] => text.strip_prefix(&format!("{only}=")),
            _ => None,
        };
        of_only_part.or_else(|| text.strip_prefix("ip=")).unwrap_or(&text).into()
    }

    /// An address, or a block of exactly the length that counts.
    fn address(&self, text: &str) -> Option<IpAddr> {
        let text = text.strip_prefix(key::CLIENT_IP).unwrap_or(text);
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address = address.parse::<IpAddr>().ok()?.to_canonical();
        let counted = if address.is_ipv4() { 32 } else { self.ipv6_prefix? };
        length.is_none_or(|length| length.parse() == Ok(counted)).then_some(address)
    }
}

/// An override holds for a claim whether it is a text or a number, so neither is marked.
fn of_part(part: &KeyPart, value: &[u8], hashing: &Hashing) -> Subject {
    let mut name = Subject::new();
    let value = KeyValue { bytes: Cow::Borrowed(value), mark: None, address: None };
    key::write_part(&mut name, part, &value, hashing);
    name
}

fn of_address(address: IpAddr, prefix: u8) -> Subject {
    let mut name = Subject::new();
    key::write_address(&mut name, address, prefix);
    name
}
