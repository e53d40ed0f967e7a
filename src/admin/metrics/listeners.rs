//! What a scrape tells of the client's side: connections, TLS, memory.

use std::sync::Arc;

use super::{Sources, summed};
use crate::config::{Config, ListenerTls};
use crate::telemetry::exposition::{Exposition, Kind};
use crate::telemetry::metrics::HandshakeState;

impl Sources {
    /// Connections by listener.
    pub(super) fn connections(&self, config: &Config, out: &mut Exposition) {
        out.family("tollgate_connections", Kind::Gauge, "Open connections, with or without a request.");
        for listener in &config.listeners {
            let now = self.workers.iter().map(|(stats, _)| stats.connections(listener.ordinal));
            let (active, idle) = now.fold((0, 0), |(active, idle), now| (active + now.active, idle + now.idle));
            out.value(&[("listener", &listener.name), ("state", "active")], active);
            out.value(&[("listener", &listener.name), ("state", "idle")], idle);
        }
        out.family("tollgate_connections_refused", Kind::Counter, "Connections closed at once for lack of room.");
        for listener in &config.listeners {
            let refused = summed(self.workers.iter().map(|(stats, _)| stats.turned_away_by_reason(listener.ordinal)));
            for (reason, count) in refused {
                out.value(&[("listener", &listener.name), ("reason", reason)], count);
            }
        }
    }

    /// TLS by listener.
    pub(super) fn tls(&self, config: &Config, out: &mut Exposition) {
        out.family("tollgate_tls_handshake_failures", Kind::Counter, "TLS handshakes that came to no connection.");
        for (index, name, _) in tls_listeners(config) {
            let failed = summed(self.workers.iter().map(|(stats, _)| stats.handshakes_failed_by_kind(index)));
            for (kind, count) in failed {
                out.value(&[("listener", name), ("kind", kind)], count);
            }
        }
        out.family("tollgate_tls_handshakes", Kind::Gauge, "TLS handshakes under way, or waiting for their turn.");
        for (index, name, _) in tls_listeners(config) {
            for (state, label) in [(HandshakeState::Running, "running"), (HandshakeState::Waiting, "waiting")] {
                let now = self.workers.iter().map(|(stats, _)| stats.handshakes(index, state)).sum();
                out.value(&[("listener", name), ("state", label)], now);
            }
        }
        certificates(config, out);
    }

    /// Memory, where it is bounded.
    pub(super) fn memory(&self, out: &mut Exposition) {
        let Some((used, max)) = self.pressure.usage() else { return };
        out.family("tollgate_memory_bytes", Kind::Gauge, "Resident memory, and the most that is to be used.");
        out.value(&[("kind", "used")], used);
        out.value(&[("kind", "max")], max);
        out.family("tollgate_memory_shedding", Kind::Gauge, "1 while connections and requests are refused for it.");
        out.value(&[], u64::from(self.pressure.sheds()));
    }
}

/// Certificates by listener, as they are shown now.
fn certificates(config: &Config, out: &mut Exposition) {
    out.family("tollgate_tls_reloads", Kind::Counter, "Changed certificates and authorities, by what came of them.");
    for (_, name, tls) in tls_listeners(config) {
        let (renewed, failed) = tls.live.reloads();
        out.value(&[("listener", name), ("result", "ok")], renewed);
        out.value(&[("listener", name), ("result", "failed")], failed);
    }
    out.family("tollgate_certificate_not_after_seconds", Kind::Gauge, "When a certificate expires, Unix time.");
    for (_, name, tls) in tls_listeners(config) {
        for (position, certificate) in tls.live.now().certificates.iter().enumerate() {
            let not_after = u64::try_from(certificate.validity.not_after.as_second()).unwrap_or(0);
            let number = (position + 1).to_string();
            let subject = certificate.names.first().map_or("", |name| name);
            let labels = [("listener", name), ("certificate", &number), ("name", subject)];
            out.value(&labels, not_after);
        }
    }
}

/// Ordinal, name and TLS of the listeners that have it.
fn tls_listeners(config: &Config) -> impl Iterator<Item = (usize, &str, &Arc<ListenerTls>)> {
    config.listeners.iter().filter_map(|listener| Some((listener.ordinal, &*listener.name, listener.tls.as_ref()?)))
}
