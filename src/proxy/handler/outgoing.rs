//! A request on its way out: its fields, its body, and what the upstream's side is told of it.

use std::net::SocketAddr;

use http::{HeaderMap, Version};

use super::Exchange;
use crate::config::ClientIpSource;
use crate::limit::Facts;
use crate::proxy::balancing;
use crate::proxy::headers::{self, Belief, Forwarded};
use crate::proxy::inbound::Pace;
use crate::proxy::patience::Patience;
use crate::proxy::rejection::Rejection;
use crate::proxy::request_body::RequestBody;
use crate::proxy::socket::Peer;
use crate::route::Route;
use crate::upstream::Upstream;
use crate::upstream::announce::Origin;

impl Exchange<'_> {
    /// Whose word about the request's origin counts.
    pub(super) fn belief(&self) -> Belief<'_> {
        let client_field = match &self.config.client_ip.source {
            ClientIpSource::Header(name) => Some(name),
            ClientIpSource::XForwardedFor | ClientIpSource::Forwarded => None,
        };
        Belief { trusted: self.downstream.trusted, client_field }
    }

    /// The body to forward.
    pub(super) fn request_body(&mut self) -> RequestBody {
        let Some(incoming) = self.body.take() else { return RequestBody::default() };
        // The clock of HTTP/1 bodies is kept between the socket and hyper.
        let pace = if self.grpc { Pace::stream(self.stream_idle()) } else { Pace::default() };
        let body = RequestBody::new(incoming, (self.version == Version::HTTP_2).then_some(pace));
        self.upload = body.upload();
        body
    }

    /// What the peer speaks.
    pub(super) fn own_scheme(&self) -> &'static str {
        if self.downstream.secured.is_some() { "https" } else { "http" }
    }

    /// Makes the client's fields, sanitised, those of the upstream's request.
    pub(super) fn prepare(&self, headers: &mut HeaderMap) {
        headers::complete_request(
            headers,
            &Forwarded {
                peer: self.downstream.peer.ip(),
                peer_text: &self.downstream.peer_text,
                request_id: &self.client.request_id,
                version: self.version,
                scheme: self.own_scheme(),
            },
        );
        if let Some(told) = self.downstream.secured.as_ref().and_then(|secured| secured.told.as_ref()) {
            told.write(headers);
        }
        if let Some(protocol) = self.upgrade {
            protocol.write(headers);
        }
        self.record.announce(headers);
    }

    /// How long the head of the response may take. A gRPC stream may answer late: only what its route or
    /// its client says bounds it.
    pub(super) fn patience(&self, route: &Route, upstream: &Upstream, headers: &HeaderMap) -> Patience {
        if !self.grpc {
            return Patience::new(route.timeout.unwrap_or(upstream.settings.response_timeout));
        }
        Patience::of_call(route.timeout.unwrap_or_else(|| self.stream_idle()), headers)
    }

    /// Whose request it is, as far as it has an address. Of a client behind a trusted proxy the port is not known.
    pub(super) fn origin(&self) -> Option<Origin> {
        let client = self.client.address?;
        let client = match self.downstream.peer {
            Peer::Address(peer) if peer.ip().to_canonical() == client => peer,
            Peer::Address(_) | Peer::Unix => SocketAddr::new(client, 0),
        };
        Some(Origin { client, local: self.downstream.local? })
    }

    /// Notes which of the upstream's endpoints the request would rather go to.
    pub(super) fn prefer(&mut self, route: &Route, facts: &Facts<'_>) -> Result<(), Rejection<'static>> {
        self.wish = balancing::wish(route, facts)?;
        Ok(())
    }
}
