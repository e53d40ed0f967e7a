//! Addresses to listen on, and address blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value as Json, json};

use crate::config::shape::{Problem, Word};

/// `host:port` or `:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Address(pub(in crate::config) SocketAddr);

impl Word for Address {
    fn parse(text: &str) -> Result<Self, Problem> {
        const HELP: &str =
            "write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080, or `:8080` for every address";
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse().map_err(|_| Problem::new(format!("`{text}` has no valid port"), HELP))?;
            return Ok(Self(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)));
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        if let Ok(port) = text.parse::<u16>() {
            return Err(Problem::new(format!("`{text}` is only a port"), format!("did you mean `:{port}`?")));
        }
        let wrong = || Problem::new(format!("`{text}` is not an address to listen on"), HELP);
        text.parse().map(Self).map_err(|_| wrong())
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// One entry of `trusted_proxies`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Blocks(pub(in crate::config) Vec<IpNet>);

/// What `private` stands for: loopback, RFC 1918, link-local (RFC 3927), unique local (RFC 4193).
const PRIVATE: [&str; 8] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

impl Word for Blocks {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "private" {
            return Ok(Self(PRIVATE.iter().filter_map(|block| block.parse().ok()).collect()));
        }
        let wrong = || {
            Problem::new(format!("`{text}` is not an address block"), "write 203.0.113.0/24, 2001:db8::/32 or private")
        };
        let block = network(text).ok_or_else(wrong)?;
        without_host_bits(block)?;
        Ok(Self(vec![block]))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// An address or an address block, as written; IPv4 where it is mapped into IPv6, as clients' addresses are.
pub(in crate::config) fn network(text: &str) -> Option<IpNet> {
    let block = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    match (block.addr().to_canonical(), block.prefix_len()) {
        (IpAddr::V4(address), length) if length >= 96 && block.addr().is_ipv6() => {
            Ipv4Net::new(address, length - 96).ok().map(IpNet::V4)
        }
        _ => Some(block),
    }
}

/// A block names its first address: whoever writes another may have meant that address alone.
pub(in crate::config) fn without_host_bits(block: IpNet) -> Result<(), Problem> {
    if block == block.trunc() {
        return Ok(());
    }
    let message = format!("`{block}` is an address within a block");
    Err(Problem::new(
        message,
        format!("write `{}` for the block, or `{}` for the address", block.trunc(), block.addr()),
    ))
}

/// One entry of an override's `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct OverrideKey {
    pub(in crate::config) text: String,
    /// The address block that it reads as, if it does; as written.
    pub(in crate::config) network: Option<IpNet>,
}

impl Word for OverrideKey {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::new("an empty key value", "write the value of the key, or an address block"));
        }
        Ok(Self { text: text.to_owned(), network: network(text) })
    }

    fn schema() -> Json {
        json!({ "type": ["string", "integer"] })
    }
}
