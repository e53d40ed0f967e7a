//! What became of spans.

use super::Sources;
use crate::telemetry::exposition::{Exposition, Kind};

impl Sources {
    /// Spans, where requests are traced.
    pub(super) fn spans(&self, out: &mut Exposition) {
        let Some(counts) = &self.traces else { return };
        out.family("tollgate_trace_spans", Kind::Counter, "Spans of sampled requests, by what became of them.");
        let results = [("exported", counts.exported()), ("dropped", counts.dropped()), ("refused", counts.refused())];
        for (result, count) in results {
            out.value(&[("result", result)], count);
        }
        out.family("tollgate_trace_exporter_up", Kind::Gauge, "1 when the collector took the last batch of spans.");
        out.value(&[], u64::from(counts.is_up()));
    }
}
