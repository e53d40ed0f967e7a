//! Who may ask at all, by the client's address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Address blocks that are let in or kept out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// When not empty: nobody else is let in.
    pub allow: Vec<IpNet>,
    /// Kept out, whatever `allow` says.
    pub deny: Vec<IpNet>,
}

impl Access {
    /// Whether a client (IPv4-mapped IPv6 as IPv4) is let in. One without an address is in no block.
    #[must_use]
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        let listed = |blocks: &[IpNet]| client.is_some_and(|client| blocks.iter().any(|block| block.contains(&client)));
        !listed(&self.deny) && (self.allow.is_empty() || listed(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_stays_out_and_a_list_of_the_allowed_is_complete() {
        let access = |allow: &[&str], deny: &[&str]| Access {
            allow: allow.iter().map(|block| block.parse().unwrap()).collect(),
            deny: deny.iter().map(|block| block.parse().unwrap()).collect(),
        };
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
        assert!(access(&[], &[]).admits("192.0.2.1".parse().ok()));
        assert!(access(&[], &["10.0.0.0/8"]).admits("192.0.2.1".parse().ok()));
        assert!(access(&[], &["10.0.0.0/8"]).admits(None) && !access(&["10.0.0.0/8"], &[]).admits(None));
    }
}
