//! The queue as metrics: what this node has run.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::balancing::queue::QueueCounts;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// What is counted.
#[derive(Default)]
pub(super) struct QueueMetrics(Family<ByOutcome, Counter>);

impl QueueMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "queue_attempts",
            "Attempts of this node to run a statement of the queue: it is done, has failed, or is tried again",
            self.0.clone(),
        );
    }

    pub(super) fn refresh(&self, counts: QueueCounts) {
        let outcomes = [
            ("done", counts.done),
            ("failed", counts.failed),
            ("again", counts.again),
        ];
        for (outcome, count) in outcomes {
            let counter = self.0.get_or_create(&ByOutcome { outcome });
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}
