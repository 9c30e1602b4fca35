//! Reads of backups as metrics: where they went, and how old what they find may be.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use volt_engine::{NodeId, PartitionId};

use super::BackupReads;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByNode {
    node: NodeId,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPartition {
    partition: PartitionId,
}

/// What is counted.
#[derive(Default)]
pub(super) struct BackupReadMetrics {
    reads: Family<ByNode, Counter>,
    fallbacks: Counter,
    staleness: Family<ByPartition, Gauge<f64, AtomicU64>>,
}

impl BackupReadMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "backup_reads",
            "Partitions that this node's clients read at backups, by node",
            self.reads.clone(),
        );
        registry.register(
            "backup_read_fallbacks",
            "Partitions whose primary was read because no backup could be",
            self.fallbacks.clone(),
        );
        registry.register_with_unit(
            "replica_staleness",
            "How old the rows of a backup here may be; absent while it can't be read",
            Unit::Seconds,
            self.staleness.clone(),
        );
    }

    pub(super) fn refresh(&self, figures: &BackupReads) {
        for &(node, reads) in &figures.by_node {
            let counter = self.reads.get_or_create(&ByNode { node });
            counter.inc_by(reads.saturating_sub(counter.get()));
        }
        self.fallbacks
            .inc_by(figures.fallbacks.saturating_sub(self.fallbacks.get()));
        self.staleness.clear();
        for &(partition, staleness) in &figures.stalenesses {
            if let Some(staleness) = staleness.filter(|staleness| *staleness > Duration::ZERO) {
                let gauge = self.staleness.get_or_create(&ByPartition { partition });
                gauge.set(staleness.as_secs_f64());
            }
        }
    }
}
