//! TLS towards upstream servers. As with listeners, everything is read and checked here.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::{Check, Reported};
use crate::config::file;
use crate::config::shape::Problem;
use crate::config::values::{Scheme, Server};
use crate::tls::{Certificate, MinVersion, Offer, ServerTls, Trust};
use crate::upstream::{Address, Protocol, Security};

/// What the servers of one upstream are offered.
#[derive(Debug)]
pub(super) struct Offers {
    any: Arc<ClientConfig>,
    http1: Option<Arc<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl Offers {
    /// TLS with this server; `None` where it is not spoken.
    pub(super) fn security(&self, server: &Server) -> Option<Security> {
        let host = match (server.scheme, &server.address) {
            (Scheme::Https, Address::Tcp { host, .. }) => host.to_string(),
            // Who answers for records can write what targets it likes: the certificate is for their own name.
            (Scheme::Https, Address::Srv(_)) => server.host.clone(),
            _ => return None,
        };
        // A host that stands in an address is always a name that can be asked for, or an IP address.
        let name = self.name.clone().or_else(|| ServerName::try_from(host).ok())?;
        Some(Security { name, any: Arc::clone(&self.any), http1: self.http1.clone() })
    }
}

impl Check<'_> {
    /// TLS of an upstream; `None` when none of its servers speaks it, or when something is wrong with it.
    pub(super) fn server_tls(
        &mut self,
        keys: &file::Upstream,
        servers: &[&Server],
        protocol: Protocol,
    ) -> Option<(ServerTls, Offers)> {
        let is_spoken = servers.iter().any(|server| server.scheme == Scheme::Https);
        if let (false, Some(key)) = (is_spoken || servers.is_empty(), keys.tls.key()) {
            let help = "write https:// in their addresses, or leave `tls` out";
            self.error(key, "`tls` is given, but no server's address begins with https://", help);
        }
        if !is_spoken || matches!(keys.tls, crate::config::shape::Setting::Invalid) {
            return None;
        }
        let given = keys.tls.get().cloned().unwrap_or_default();
        let tls = ServerTls {
            trust: self.trust(&given)?,
            shows: self.shown(&given).ok()?,
            name: given.server_name.get().map(|name| name.0.clone()),
            min_version: match given.min_version.or(file::MinVersion::Tls12) {
                file::MinVersion::Tls12 => MinVersion::Tls12,
                file::MinVersion::Tls13 => MinVersion::Tls13,
            },
        };
        let offers = self.offers(keys, &tls, protocol)?;
        Some((tls, offers))
    }

    fn offers(&mut self, keys: &file::Upstream, tls: &ServerTls, protocol: Protocol) -> Option<Offers> {
        let offer = match protocol {
            Protocol::Auto => Offer::Either,
            Protocol::Http1 => Offer::Http1,
            Protocol::Http2 => Offer::Http2,
        };
        let speaks_http1 = protocol != Protocol::Http2;
        let configs = tls
            .client_config(offer)
            .and_then(|any| Ok((any, speaks_http1.then(|| tls.client_config(Offer::Http1)).transpose()?)));
        match configs {
            Ok((any, http1)) => Some(Offers { any, http1, name: tls.name.clone() }),
            Err(error) => {
                let place = keys.tls.key().or_else(|| keys.servers.key());
                let problem = Problem::from(error);
                match place {
                    Some(place) => self.reader.error(place, problem),
                    None => self.error_of_file(&problem.message, problem.help.as_deref().unwrap_or_default()),
                }
                None
            }
        }
    }

    fn trust(&mut self, given: &file::UpstreamTls) -> Option<Trust> {
        if given.insecure_skip_verify.or(false) {
            let key = given.insecure_skip_verify.key()?;
            let message =
                "the certificates of these servers are not verified: whoever is in between reads and changes all";
            self.warn(key, message, "name their authority with `ca`, and leave this out");
            if let Some(ca) = given.ca.key() {
                self.error(ca, "`ca` has no effect when nothing is verified", "leave `insecure_skip_verify` out");
            }
            return Some(Trust::Anything);
        }
        if given.ca.is_absent() {
            return Some(Trust::System);
        }
        let pem = self.contents(&given.ca)?;
        let file = given.ca.spanned()?;
        match Trust::read(self.path(file), &pem) {
            Ok(trust) => Some(trust),
            Err(error) => {
                self.reader.error(file.span, Problem::from(error));
                None
            }
        }
    }

    /// The certificate that is shown, if any.
    fn shown(&mut self, given: &file::UpstreamTls) -> Result<Option<Certificate>, Reported> {
        match (given.cert.key(), given.key.key()) {
            (None, None) if given.cert.is_absent() && given.key.is_absent() => return Ok(None),
            (Some(alone), None) | (None, Some(alone)) if given.cert.is_absent() || given.key.is_absent() => {
                self.error(alone, "a certificate needs its key, and a key its certificate", "give `cert` and `key`");
                return Err(Reported);
            }
            _ => {}
        }
        self.read_certificate(&given.cert, &given.key).map(Some).ok_or(Reported)
    }
}
