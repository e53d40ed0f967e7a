//! Clients of Unix sockets have no address, which limits by address may not expect.

use super::Check;
use crate::config::file::File;
use crate::config::frames::Span;
use crate::config::shape::{Setting, Short};
use crate::config::{Config, ListenAddress};
use crate::limit::key::KeyPart;

impl Check<'_> {
    pub(in crate::config::validate) fn warn_about_sockets(&mut self, file: &File, config: &Config) {
        let by_address = |part: &KeyPart| matches!(part, KeyPart::ClientIp { .. });
        let mut keys = config.policies.iter().flat_map(|policy| policy.key.parts.iter().flatten());
        if config.trusts_unix || !keys.any(by_address) {
            return;
        }
        for span in sockets(file) {
            self.warn(
                span,
                "clients of this socket have no address: limits by `client_ip` count all of them as one",
                "believe what writes X-Forwarded-For there with `trusted_proxies: [unix]`, or choose another key",
            );
        }
    }
}

/// Where Unix sockets stand.
fn sockets(file: &File) -> Vec<Span> {
    let mut addresses: Vec<_> =
        file.listen.spanned().map(|listen| (&listen.value.0, listen.span)).into_iter().collect();
    for (_, setting) in file.listeners.get().into_iter().flat_map(|named| &named.0) {
        let Setting::Given { value, .. } = setting else { continue };
        match &value.value {
            Short::Short(address) => addresses.push((&address.0, value.span)),
            Short::Long(keys) => addresses.extend(keys.address.spanned().map(|given| (&given.value.0, given.span))),
        }
    }
    addresses.retain(|(address, _)| matches!(address, ListenAddress::Unix(_)));
    addresses.into_iter().map(|(_, span)| span).collect()
}
