//! The spool directory as metrics: what this node has loaded.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::balancing::spool::SpoolCounts;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// What is counted.
#[derive(Default)]
pub(super) struct SpoolMetrics {
    files: Family<ByOutcome, Counter>,
    rows: Family<ByOutcome, Counter>,
    taken_over: Counter,
}

impl SpoolMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "spool_files",
            "Files of the spool directory that this node has loaded, or could not load",
            self.files.clone(),
        );
        registry.register(
            "spool_rows",
            "Their rows that this node has loaded or rejected",
            self.rows.clone(),
        );
        registry.register(
            "spool_taken_over",
            "Files that this node took from nodes that were gone, for itself or another",
            self.taken_over.clone(),
        );
    }

    pub(super) fn refresh(&self, counts: SpoolCounts) {
        let set = |counter: &Counter, count: u64| counter.inc_by(count.saturating_sub(counter.get()));
        for (outcome, count) in [("done", counts.done), ("failed", counts.failed)] {
            set(&self.files.get_or_create(&ByOutcome { outcome }), count);
        }
        for (outcome, count) in [("loaded", counts.loaded), ("rejected", counts.rejected)] {
            set(&self.rows.get_or_create(&ByOutcome { outcome }), count);
        }
        set(&self.taken_over, counts.taken_over);
    }
}
