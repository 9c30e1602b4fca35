//! The node's metrics: one registry, what the layers count, and what is read off the map when somebody looks.

use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use volt_engine::PartitionId;

use crate::metadata::Metadata;

/// The fastest bucket of the latency histogram, in seconds; each next one is twice as slow.
const FIRST_BUCKET: f64 = 20e-6;
/// Buckets of the latency histogram: up to about 10 s.
const BUCKETS: u16 = 20;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Committed, and acknowledged.
    Committed,
    /// Refused with an error; nothing happened.
    Failed,
    /// Its client was told that nobody knows.
    Unknown,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(match self {
            Self::Committed => "committed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPartition {
    partition: PartitionId,
}

/// What this node counts. Cheap to use from every thread.
pub struct Metrics {
    registry: Registry,
    committed: Counter,
    failed: Counter,
    unknown: Counter,
    latency: Histogram,
    connections: Gauge,
    lag: Family<ByPartition, Gauge>,
    in_sync: Family<ByPartition, Gauge>,
    failovers: Counter,
    primaries: Gauge,
    map_version: Gauge,
    lease: Gauge,
    leads: Gauge,
    nodes_alive: Gauge,
    /// When the newest failover that was counted was committed.
    last_failover: Mutex<Option<i64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("volt");
        let transactions = Family::<ByOutcome, Counter>::default();
        let latency = Histogram::new(exponential_buckets(FIRST_BUCKET, 2.0, BUCKETS));
        let counted = |outcome| transactions.get_or_create(&ByOutcome { outcome }).clone();
        let mut metrics = Self {
            committed: counted(Outcome::Committed),
            failed: counted(Outcome::Failed),
            unknown: counted(Outcome::Unknown),
            latency: latency.clone(),
            connections: Gauge::default(),
            lag: Family::default(),
            in_sync: Family::default(),
            failovers: Counter::default(),
            primaries: Gauge::default(),
            map_version: Gauge::default(),
            lease: Gauge::default(),
            leads: Gauge::default(),
            nodes_alive: Gauge::default(),
            last_failover: Mutex::default(),
            registry: Registry::default(),
        };
        registry.register("transactions", "Transactions, by how they ended", transactions);
        registry.register_with_unit(
            "transaction",
            "From a statement's arrival to its answer",
            Unit::Seconds,
            latency,
        );
        registry.register("connections", "SQL connections", metrics.connections.clone());
        registry.register(
            "replication_lag_records",
            "Records that a partition's slowest backup in sync lacks, on its primary",
            metrics.lag.clone(),
        );
        registry.register(
            "in_sync_replicas",
            "Members of a partition's in-sync set",
            metrics.in_sync.clone(),
        );
        registry.register(
            "failovers",
            "Changes of primary that a death caused",
            metrics.failovers.clone(),
        );
        registry.register(
            "primaries",
            "Partitions whose primary this node is",
            metrics.primaries.clone(),
        );
        registry.register("map_version", "Version of the cluster map", metrics.map_version.clone());
        registry.register("lease_valid", "1 while this node holds a lease", metrics.lease.clone());
        registry.register(
            "metadata_leader",
            "1 while this node leads the metadata group",
            metrics.leads.clone(),
        );
        registry.register(
            "nodes_alive",
            "Nodes that the map calls alive",
            metrics.nodes_alive.clone(),
        );
        metrics.registry = registry;
        metrics
    }
}

impl Metrics {
    /// A transaction ended.
    pub fn transaction(&self, outcome: Outcome, took: Duration) {
        match outcome {
            Outcome::Committed => self.committed.inc(),
            Outcome::Failed => self.failed.inc(),
            Outcome::Unknown => self.unknown.inc(),
        };
        self.latency.observe(took.as_secs_f64());
    }

    /// A SQL connection began (1) or ended (-1).
    pub fn connection(&self, change: i64) {
        self.connections.inc_by(change);
    }

    /// How many records the slowest backup of a partition lacks.
    pub fn replication_lag(&self, partition: PartitionId, records: u64) {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        self.lag.get_or_create(&ByPartition { partition }).set(records);
    }

    /// For the layers that have metrics of their own.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Reads off the map what can be read there.
    pub(super) fn refresh(&self, metadata: &Metadata) {
        let map = metadata.map();
        self.map_version.set(i64::try_from(map.version).unwrap_or(i64::MAX));
        self.lease.set(i64::from(metadata.lease().is_valid()));
        self.leads.set(i64::from(metadata.is_leader()));
        self.primaries.set(i64::from(map.roles(metadata.node_id()).primaries));
        let alive = map.nodes.values().filter(|node| node.state.is_alive()).count();
        self.nodes_alive.set(i64::try_from(alive).unwrap_or(i64::MAX));
        for partition in map.partitions.values() {
            let members = i64::try_from(partition.in_sync.len()).unwrap_or(i64::MAX);
            self.in_sync
                .get_or_create(&ByPartition {
                    partition: partition.partition_id,
                })
                .set(members);
        }
        let mut last = self
            .last_failover
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let newer = map
            .failovers
            .iter()
            .filter(|failover| last.is_none_or(|last| failover.at_micros > last))
            .count();
        self.failovers.inc_by(newer as u64);
        *last = map.failovers.iter().map(|failover| failover.at_micros).max().or(*last);
    }

    /// All of it, as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string doesn't fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_text() {
        let metrics = Metrics::default();
        metrics.transaction(Outcome::Committed, Duration::from_micros(300));
        metrics.replication_lag(3, 7);
        let text = metrics.text();
        assert!(
            text.contains("volt_transactions_total{outcome=\"committed\"} 1"),
            "{text}"
        );
        assert!(text.contains("volt_transaction_seconds_count 1"), "{text}");
        assert!(
            text.contains("volt_replication_lag_records{partition=\"3\"} 7"),
            "{text}"
        );
    }
}
