//! The IPv6 networks around a client, which a penalty blocks when many of their parts misbehave.
//!
//! Who is given a /56 or a /48 (RFC 6177) has so many /64 to come from. What is counted inside such a network
//! and the network itself must be read together, so its name stands before all of their subjects, behind it
//! a `}`: `ip=2001:db8::/48}ip=2001:db8:0:1::/64`. No other subject holds one.

use super::{AmbiguousKey, Facts, Found, Hashing, Key, KeyPart, Subject, client_subject};

/// Prefix lengths of the networks around a client, the narrowest first.
const PREFIXES: [u8; 3] = [64, 56, 48];

/// A network that holds many keys of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Bits of an address that name it.
    pub ipv6_prefix: u8,
    /// The limit's key, its addresses cut so short.
    key: Key,
}

impl Network {
    /// The networks around the keys of a limit, the narrowest first; none where no address is among them.
    /// `missing` is the prefix length by which requests are counted that carry no part of the key.
    #[must_use]
    pub fn around(key: &Key, missing: Option<u8>) -> Vec<Self> {
        let parts = key.parts.iter().flatten();
        let of_part =
            |part: &KeyPart| if let KeyPart::ClientIp { ipv6_prefix } = part { Some(*ipv6_prefix) } else { None };
        let own = parts.filter_map(of_part).chain(missing).min().unwrap_or(0);
        let shorter = PREFIXES.into_iter().filter(|&prefix| prefix < own);
        shorter.map(|ipv6_prefix| Self { ipv6_prefix, key: key.cut_to(ipv6_prefix) }).collect()
    }

    /// The network around the client of a request, as a subject by itself.
    fn subject(&self, facts: &Facts<'_>, hashing: &Hashing) -> Result<Subject, AmbiguousKey> {
        Ok(match self.key.subject(facts, hashing)? {
            Found::Present { subject, .. } => subject,
            Found::Missing => client_subject(facts, self.ipv6_prefix),
        })
    }
}

impl Key {
    fn cut_to(&self, ipv6_prefix: u8) -> Self {
        let cut = |part: &KeyPart| match part {
            KeyPart::ClientIp { .. } => KeyPart::ClientIp { ipv6_prefix },
            part => part.clone(),
        };
        Self { parts: self.parts.iter().map(|alternatives| alternatives.iter().map(cut).collect()).collect() }
    }
}

/// Names the widest of these networks in `subject`, and returns what they are counted by, in their order.
///
/// # Errors
/// As [`Key::subject`].
pub(in crate::limit) fn enter(
    subject: &mut Subject,
    networks: &[Network],
    facts: &Facts<'_>,
    hashing: &Hashing,
) -> Result<Vec<Subject>, AmbiguousKey> {
    let mut around = networks.iter().map(|network| network.subject(facts, hashing)).collect::<Result<Vec<_>, _>>()?;
    let Some(widest) = around.last().cloned() else { return Ok(around) };
    for inside in around.iter_mut().chain([subject]) {
        let mut tagged = widest.clone();
        tagged.push(b'}');
        tagged.extend_from_slice(inside);
        *inside = tagged;
    }
    Ok(around)
}

/// A subject without the network that stands before it, and that network.
#[must_use]
pub fn network_of(subject: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match subject.iter().position(|&byte| byte == b'}') {
        Some(brace) => (Some(&subject[..brace]), &subject[brace + 1..]),
        None => (None, subject),
    }
}

/// A subject as people are told it: without the network around it.
#[must_use]
pub fn own(subject: &[u8]) -> &[u8] {
    network_of(subject).1
}
