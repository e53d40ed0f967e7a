//! The names of states in Redis, and the Cluster slot that each of them belongs to.

use super::super::super::key;
use super::super::Ask;
use super::super::settings::{HashTags, RedisSettings};

/// Slots of a Cluster.
pub const SLOTS: usize = 16_384;

/// How keys are written: their first part, and what of them stands in braces.
#[derive(Debug, Clone, Copy)]
pub struct KeyForm<'a> {
    /// First part of every key.
    pub prefix: &'a str,
    /// What decides the slot; the subject when `None`.
    pub tags: Option<&'a HashTags>,
}

impl<'a> KeyForm<'a> {
    /// As the configuration says.
    #[must_use]
    pub fn of(settings: &'a RedisSettings) -> Self {
        Self { prefix: &settings.key_prefix, tags: Some(&settings.hash_tags) }
    }

    /// The route that a state's key is tagged with, if it is.
    #[must_use]
    pub fn route(self, state_id: &str) -> Option<&'a str> {
        self.tags.and_then(|tags| tags.route_of(state_id))
    }

    /// The slot of an ask's key.
    #[must_use]
    pub fn slot(self, ask: &Ask<'_>) -> u16 {
        self.slot_of_state(ask.state_id, ask.subject)
    }

    /// The slot of the key of a subject's state.
    #[must_use]
    pub fn slot_of_state(self, state_id: &str, subject: &[u8]) -> u16 {
        let (network, own) = key::network_of(subject);
        slot_of(self.route(state_id).map_or(network.unwrap_or(own), str::as_bytes))
    }
}

impl<'a> From<&'a str> for KeyForm<'a> {
    fn from(prefix: &'a str) -> Self {
        Self { prefix, tags: None }
    }
}

/// The slot of a key whose braces hold this.
#[must_use]
pub fn slot_of(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, &byte| (crc << 8) ^ CRC16[usize::from(crc.to_be_bytes()[0] ^ byte)]);
    crc % 16_384
}

/// CRC-16/XMODEM, which is what the Cluster specification names.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot_of(b"123456789"), 0x31c3, "the check value of the specification");
        for (tag, slot) in [("foo", 12182), ("bar", 5061), ("user1000", 3443), ("", 0)] {
            assert_eq!(slot_of(tag.as_bytes()), slot, "{tag}");
        }
    }
}
