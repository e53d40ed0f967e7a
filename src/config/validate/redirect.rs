//! Where clear-text listeners send their clients: to the listener that speaks TLS, or a given port.

use super::Check;
use crate::config::shape::Spanned;
use crate::config::values::HttpsRedirect;
use crate::config::{ListenAddress, Listener};

/// The port of https.
const HTTPS: u16 = 443;

impl Check<'_> {
    /// Settles the ports of listeners that redirect, by index, once all listeners are known.
    pub(super) fn redirects(&mut self, listeners: &mut [Listener], asked: &[(usize, Spanned<HttpsRedirect>)]) {
        for (index, redirect) in asked {
            let port = match redirect.value {
                HttpsRedirect::No => continue,
                HttpsRedirect::Port(port) => Some(port),
                HttpsRedirect::Yes => self.tls_port(listeners, redirect),
            };
            if listeners[*index].tls.is_some() {
                self.error(redirect.span, "this listener speaks TLS already", "leave `redirect_to_https` out");
            }
            listeners[*index].redirect_to_https = port;
        }
    }

    /// The port of the one listener that speaks TLS.
    fn tls_port(&mut self, listeners: &[Listener], redirect: &Spanned<HttpsRedirect>) -> Option<u16> {
        let ports = listeners.iter().filter(|listener| listener.tls.is_some());
        let ports: Vec<_> = ports
            .filter_map(|listener| match listener.address {
                ListenAddress::Tcp(address) => Some(address.port()),
                ListenAddress::Unix(_) => None,
            })
            .collect();
        match ports[..] {
            _ if ports.contains(&HTTPS) => Some(HTTPS),
            [port] if port != 0 => Some(port),
            [] if self.is_sound() => {
                self.warn(
                    redirect.span,
                    "no listener speaks TLS: clients are sent to port 443 of the same host",
                    "give a listener `tls`, or write the port on which something else does: `redirect_to_https: 443`",
                );
                Some(HTTPS)
            }
            [] => None,
            _ => {
                self.error(
                    redirect.span,
                    "which port clients reach TLS on cannot be told from the listeners",
                    "write the port, such as `redirect_to_https: 8443`",
                );
                None
            }
        }
    }
}
