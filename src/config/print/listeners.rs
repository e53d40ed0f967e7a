//! Listeners, expanded.

use std::sync::Arc;

use super::{Lines, quoted};
use crate::config::{ListenAddress, Listener, ListenerTls, ProxyProtocol};
use crate::tls::{ClientAuth, MinVersion, UnknownName};
use crate::units::{DurationText, Size};

pub(super) fn listeners(out: &mut Lines, listeners: &[Arc<Listener>]) {
    out.line(0, "listeners:");
    for listener in listeners {
        out.line(2, format_args!("{}:", quoted(&listener.name)));
        out.pair(4, "address", quoted(&listener.address.to_string()));
        let protocols = [(listener.protocols.h1, "h1"), (listener.protocols.h2, "h2")];
        out.list(4, "protocols", protocols.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()));
        if let ListenAddress::Unix(_) = listener.address {
            out.pair(4, "mode", quoted(&format!("{:04o}", listener.mode)));
        }
        if let Some(listener_tls) = &listener.tls {
            tls(out, listener_tls);
        }
        if let Some(port) = listener.redirect_to_https {
            out.pair(4, "redirect_to_https", port);
        }
        out.pair(
            4,
            "proxy_protocol",
            match listener.proxy_protocol {
                ProxyProtocol::Never => "never",
                ProxyProtocol::Optional => "optional",
                ProxyProtocol::Required => "required",
            },
        );
        out.pair(4, "max_connections", listener.max_connections);
        if let Some(bound) = listener.max_connections_per_ip {
            out.pair(4, "max_connections_per_ip", bound);
        }
        out.pair(4, "header_timeout", DurationText(listener.header_timeout));
        out.pair(4, "idle_timeout", DurationText(listener.idle_timeout));
        out.pair(4, "stream_idle_timeout", DurationText(listener.stream_idle_timeout));
        out.pair(4, "max_header_size", Size(listener.max_header_size as u64));
    }
}

fn tls(out: &mut Lines, tls: &ListenerTls) {
    let (credentials, terms) = (tls.live.now(), tls.live.terms());
    out.line(4, "tls:");
    out.line(6, "certificates:");
    for certificate in &credentials.certificates {
        let (cert, key) = &certificate.files;
        let (cert, key) = (quoted(&cert.to_string_lossy()), quoted(&key.to_string_lossy()));
        out.line(8, format_args!("- {{ cert: {cert}, key: {key} }}"));
    }
    let min_version = match terms.min_version {
        MinVersion::Tls12 => "1.2",
        MinVersion::Tls13 => "1.3",
    };
    out.pair(6, "min_version", quoted(min_version));
    let unknown_name = match terms.unknown_name {
        UnknownName::Default => "default",
        UnknownName::Reject => "reject",
    };
    out.pair(6, "unknown_name", unknown_name);
    out.pair(6, "max_handshakes", tls.max_handshakes);
    let (mode, authorities) = match &credentials.client_auth {
        ClientAuth::None => return out.pair(6, "client_auth", "{ mode: none }"),
        ClientAuth::Request(authorities) => ("request", authorities),
        ClientAuth::Require(authorities) => ("require", authorities),
    };
    let ca = quoted(&authorities.file.to_string_lossy());
    let forward = tls.forward_client_certificate;
    out.pair(6, "client_auth", format_args!("{{ mode: {mode}, ca: {ca}, forward: {forward} }}"));
}
