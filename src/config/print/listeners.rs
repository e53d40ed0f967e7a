//! Listeners, expanded.

use super::{Lines, quoted};
use crate::config::{Listener, ListenerTls};
use crate::tls::{ClientAuth, MinVersion};
use crate::units::{DurationText, Size};

pub(super) fn listeners(out: &mut Lines, listeners: &[Listener]) {
    out.line(0, "listeners:");
    for listener in listeners {
        out.line(2, format_args!("{}:", quoted(&listener.name)));
        out.pair(4, "address", quoted(&listener.address.to_string()));
        let protocols = [(listener.protocols.h1, "h1"), (listener.protocols.h2, "h2")];
        out.list(4, "protocols", protocols.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()));
        if let Some(listener_tls) = &listener.tls {
            tls(out, listener_tls);
        }
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
    out.line(4, "tls:");
    out.line(6, "certificates:");
    for certificate in &tls.certificates {
        let (cert, key) = &certificate.files;
        let (cert, key) = (quoted(&cert.to_string_lossy()), quoted(&key.to_string_lossy()));
        out.line(8, format_args!("- {{ cert: {cert}, key: {key} }}"));
    }
    let min_version = match tls.min_version {
        MinVersion::Tls12 => "1.2",
        MinVersion::Tls13 => "1.3",
    };
    out.pair(6, "min_version", quoted(min_version));
    let (mode, authorities) = match &tls.client_auth {
        ClientAuth::None => return out.pair(6, "client_auth", "{ mode: none }"),
        ClientAuth::Request(authorities) => ("request", authorities),
        ClientAuth::Require(authorities) => ("require", authorities),
    };
    let ca = quoted(&authorities.file.to_string_lossy());
    out.pair(6, "client_auth", format_args!("{{ mode: {mode}, ca: {ca} }}"));
}
