//! `servers/{upstream}/{server}/drain`: a server that gets no new requests.

use serde_json::json;

use super::Outcome;
use crate::admin::Service;
use crate::admin::answer::Answer;

impl Service {
    pub(super) fn drain(&self, upstream: &str, server: &str, draining: bool) -> Outcome {
        let config = self.admin.sources.config();
        let found = config.upstreams.iter().find(|known| &*known.name == upstream);
        let found = found.ok_or_else(|| Answer::not_found(&format!("There is no upstream `{upstream}`.")))?;
        let mut changed = None;
        let mut in_flight = 0;
        // A server that the file lists twice is one.
        for known in found.servers.iter().filter(|known| &*known.label == server) {
            changed = Some(found.drain(known, draining) || changed == Some(true));
            let endpoints = found.endpoints();
            let of_server = endpoints.iter().filter(|endpoint| endpoint.server.ordinal == known.ordinal);
            in_flight += of_server.map(|endpoint| endpoint.load.requests()).sum::<usize>();
        }
        let Some(changed) = changed else {
            let detail =
                format!("The upstream `{upstream}` has no server `{server}`; GET /api/v1/upstreams lists them.");
            return Err(Answer::not_found(&detail));
        };
        Ok(Answer::json(&json!({
            "upstream": upstream,
            "server": server,
            "draining": draining,
            "changed": changed,
            "in_flight": in_flight,
        })))
    }
}
