//! Who may ask at all, by the client's address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Address blocks that are let in or kept out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// When not empty: nobody else is let in.
    pub allow: AddressBlocks,
    /// Kept out, whatever `allow` says.
    pub deny: AddressBlocks,
}

/// Address blocks, found by halving: thousands of them cost no more than a few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressBlocks {
    written: Vec<IpNet>,
    /// First and last addresses, in order, apart from each other. IPv4 comes before IPv6.
    ranges: Vec<(IpAddr, IpAddr)>,
}

impl Access {
    /// Whether a client (IPv4-mapped IPv6 as IPv4) is let in. One without an address is in no block.
    #[must_use]
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        let listed = |blocks: &AddressBlocks| client.is_some_and(|client| blocks.contain(client));
        !listed(&self.deny) && (self.allow.is_empty() || listed(&self.allow))
    }

    /// Whether everybody is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

impl AddressBlocks {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Each as it was written.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.written.iter()
    }

    fn contain(&self, client: IpAddr) -> bool {
        let behind = self.ranges.partition_point(|(first, _)| *first <= client);
        self.ranges[..behind].last().is_some_and(|(_, last)| client <= *last)
    }
}

impl FromIterator<IpNet> for AddressBlocks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(blocks: I) -> Self {
        let written: Vec<IpNet> = blocks.into_iter().collect();
        // A block lies within another one, or apart from it.
        let aggregated = IpNet::aggregate(&written);
        let mut ranges: Vec<_> = aggregated.iter().map(|block| (block.network(), block.broadcast())).collect();
        ranges.sort_unstable();
        Self { written, ranges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(texts: &[&str]) -> AddressBlocks {
        texts.iter().map(|block| block.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn what_is_denied_stays_out_and_a_list_of_the_allowed_is_complete() {
        let access = |allow: &[&str], deny: &[&str]| Access { allow: blocks(allow), deny: blocks(deny) };
        let both = access(&["10.0.0.0/8", "2001:db8::/32"], &["10.6.6.0/24"]);
        for (client, expected) in [
            ("10.1.1.1", true),
            ("10.6.6.1", false),
            ("192.0.2.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(both.admits(client.parse().ok()), expected, "{client}");
        }
        assert!(access(&[], &[]).admits("192.0.2.1".parse().ok()) && access(&[], &[]).is_open());
        assert!(access(&[], &["10.0.0.0/8"]).admits("192.0.2.1".parse().ok()));
        assert!(access(&[], &["::/0"]).admits("192.0.2.1".parse().ok()));
        assert!(!access(&[], &["0.0.0.0/0"]).admits("255.255.255.255".parse().ok()));
        assert!(access(&[], &["10.0.0.0/8"]).admits(None) && !access(&["10.0.0.0/8"], &[]).admits(None));
    }

    #[test]
    fn halving_finds_what_looking_at_each_block_finds() {
        let mut random = fastrand::Rng::with_seed(0xACCE);
        let mut found = 0;
        for _ in 0..2_000 {
            let random_block = |random: &mut fastrand::Rng| -> IpNet {
                if random.bool() {
                    let address = std::net::Ipv4Addr::from_bits(0x0A00_0000 | random.u32(..1 << 10));
                    IpNet::new(address.into(), random.u8(20..=32)).unwrap().trunc()
                } else {
                    let address = std::net::Ipv6Addr::from_bits(u128::from(random.u32(..1 << 10)));
                    IpNet::new(address.into(), random.u8(116..=128)).unwrap().trunc()
                }
            };
            let listed: Vec<_> = (0..random.usize(..12)).map(|_| random_block(&mut random)).collect();
            let blocks: AddressBlocks = listed.iter().copied().collect();
            for _ in 0..20 {
                let client = random_block(&mut random).addr();
                let expected = listed.iter().any(|block| block.contains(&client));
                assert_eq!(blocks.contain(client), expected, "{client} in {listed:?}");
                found += u32::from(expected);
            }
        }
        assert!((5_000..35_000).contains(&found), "{found}");
    }
}
