//! The node's metrics: one registry, what the layers count, and what is read off the map when somebody looks.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use volt_engine::{NodeId, PartitionId};

use super::archived::Archived;
use super::backup_reads::BackupReadMetrics;
use super::failures::Failures;
use super::fills::Fills;
use super::linked::Linked;
use super::peers::PeerCalls;
use super::queue::QueueMetrics;
use super::spool::SpoolMetrics;
use super::statements::Statements;
use super::{DataPlane, Storage};
use crate::gateway::GatewayMetrics;
use crate::metadata::Metadata;
use crate::peers::Peers;
use crate::txn::MemoryFigures;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPartition {
    partition: PartitionId,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByNode {
    node: NodeId,
}

type Seconds = Gauge<f64, AtomicU64>;

/// What this node counts. Cheap to use from every thread.
pub struct Metrics {
    registry: Registry,
    lag: Family<ByPartition, Gauge>,
    in_sync: Family<ByPartition, Gauge>,
    hazard: Family<ByNode, Gauge<f64, AtomicU64>>,
    failovers: Counter,
    primaries: Gauge,
    map_version: Gauge,
    lease: Gauge,
    leads: Gauge,
    nodes_alive: Gauge,
    log_bytes: Gauge,
    checkpoint_bytes: Gauge,
    checkpoint_seconds: Seconds,
    checkpoints: Gauge,
    checkpoints_failed: Gauge,
    replay_seconds: Seconds,
    keys_kept: Gauge,
    keys_repeated: Gauge,
    memory_resident: Gauge,
    memory_rows: Gauge,
    memory_limit: Gauge,
    memory_refused: Gauge,
    ttl_expired_rows: Counter,
    backup_reads: BackupReadMetrics,
    failures: Failures,
    fills: Fills,
    archived: Archived,
    linked: Linked,
    spool: SpoolMetrics,
    queue: QueueMetrics,
    /// When the newest failover that was counted was committed.
    last_failover: Mutex<Option<i64>>,
}

impl Metrics {
    /// The node's, with what its gateway counts.
    pub fn new(gateway: Arc<GatewayMetrics>) -> Self {
        let mut registry = Registry::with_prefix("volt");
        registry.register_collector(Box::new(Statements(gateway)));
        let mut metrics = Self {
            lag: Family::default(),
            in_sync: Family::default(),
            hazard: Family::default(),
            failovers: Counter::default(),
            primaries: Gauge::default(),
            map_version: Gauge::default(),
            lease: Gauge::default(),
            leads: Gauge::default(),
            nodes_alive: Gauge::default(),
            log_bytes: Gauge::default(),
            checkpoint_bytes: Gauge::default(),
            checkpoint_seconds: Seconds::default(),
            checkpoints: Gauge::default(),
            checkpoints_failed: Gauge::default(),
            replay_seconds: Seconds::default(),
            keys_kept: Gauge::default(),
            keys_repeated: Gauge::default(),
            memory_resident: Gauge::default(),
            memory_rows: Gauge::default(),
            memory_limit: Gauge::default(),
            memory_refused: Gauge::default(),
            ttl_expired_rows: Counter::default(),
            backup_reads: BackupReadMetrics::default(),
            failures: Failures::default(),
            fills: Fills::default(),
            archived: Archived::default(),
            linked: Linked::default(),
            spool: SpoolMetrics::default(),
            queue: QueueMetrics::default(),
            last_failover: Mutex::default(),
            registry: Registry::default(),
        };
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
            "node_hazard",
            "How likely each living node is to fail soon, 0 to 1, as this one sees it",
            metrics.hazard.clone(),
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
        registry.register(
            "idempotency_keys",
            "Idempotency keys kept in the partitions whose primary this node is",
            metrics.keys_kept.clone(),
        );
        registry.register(
            "idempotency_repeats",
            "Requests since the start that were answered with what was kept under their key",
            metrics.keys_repeated.clone(),
        );
        registry.register(
            "ttl_expired_rows",
            "Rows since the start that this node's primaries removed because they had expired",
            metrics.ttl_expired_rows.clone(),
        );
        metrics.backup_reads.register(&mut registry);
        metrics.failures.register(&mut registry);
        metrics.fills.register(&mut registry);
        metrics.archived.register(&mut registry);
        metrics.linked.register(&mut registry);
        metrics.spool.register(&mut registry);
        metrics.queue.register(&mut registry);
        metrics.register_storage(&mut registry);
        metrics.register_memory(&mut registry);
        metrics.registry = registry;
        metrics
    }

    /// With this node's calls to its peers.
    pub fn with_peers(mut self, peers: Arc<Peers>) -> Self {
        self.registry.register_collector(Box::new(PeerCalls(peers)));
        self
    }

    fn register_storage(&self, registry: &mut Registry) {
        let (seconds, bytes) = (&self.checkpoint_seconds, &self.checkpoint_bytes);
        registry.register("log_bytes", "Bytes of log on disk", self.log_bytes.clone());
        registry.register("checkpoint_bytes", "Size of the newest checkpoint", bytes.clone());
        registry.register(
            "checkpoint_seconds",
            "How long the newest checkpoint took",
            seconds.clone(),
        );
        registry.register(
            "checkpoints",
            "Checkpoints taken since the start",
            self.checkpoints.clone(),
        );
        registry.register(
            "checkpoints_failed",
            "Checkpoints that failed since the start",
            self.checkpoints_failed.clone(),
        );
        registry.register(
            "replay_seconds",
            "How long the start took to read checkpoint and log back",
            self.replay_seconds.clone(),
        );
    }

    fn register_memory(&self, registry: &mut Registry) {
        registry.register(
            "memory_resident_bytes",
            "Bytes of this process that are in memory",
            self.memory_resident.clone(),
        );
        registry.register(
            "memory_row_bytes",
            "Bytes of it that are rows",
            self.memory_rows.clone(),
        );
        registry.register(
            "memory_limit_bytes",
            "Bytes beyond which rows are no longer put; 0: no limit",
            self.memory_limit.clone(),
        );
        registry.register(
            "memory_refused_writes",
            "Writes that were refused since the start for want of memory",
            self.memory_refused.clone(),
        );
    }

    fn refresh_memory(&self, memory: MemoryFigures) {
        let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.memory_resident.set(number(memory.resident));
        self.memory_rows.set(number(memory.rows));
        self.memory_limit.set(number(memory.limit));
        self.memory_refused.set(number(memory.refused));
    }

    fn refresh_storage(&self, storage: Storage) {
        let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.log_bytes.set(number(storage.log_bytes));
        self.checkpoint_bytes.set(number(storage.checkpoint_bytes));
        self.checkpoint_seconds.set(storage.checkpoint_seconds);
        self.checkpoints.set(number(storage.checkpoints.0));
        self.checkpoints_failed.set(number(storage.checkpoints.1));
        self.replay_seconds.set(storage.replay_seconds);
    }

    /// Reads off the map and the replicas what can be read there.
    pub(super) fn refresh(&self, metadata: &Metadata, data: &dyn DataPlane) {
        self.refresh_storage(data.storage());
        self.refresh_memory(data.memory());
        self.fills.refresh(data.fills());
        self.archived.refresh(data.archived());
        let report = data.archive_report().ok();
        self.archived
            .refresh_standby(report.and_then(|report| report.following));
        self.linked.refresh(&data.linked());
        self.spool.refresh(data.spool());
        self.queue.refresh(data.queue());
        self.backup_reads.refresh(&data.backup_reads());
        let expired = data.expired_rows();
        let counted = self.ttl_expired_rows.get();
        self.ttl_expired_rows.inc_by(expired.saturating_sub(counted));
        let (keys, number) = (data.keys(), |number| i64::try_from(number).unwrap_or(i64::MAX));
        self.keys_kept.set(number(keys.kept));
        self.keys_repeated.set(number(keys.repeats));
        self.lag.clear();
        for (partition, records) in data.lags() {
            let records = i64::try_from(records).unwrap_or(i64::MAX);
            self.lag.get_or_create(&ByPartition { partition }).set(records);
        }
        let map = metadata.map();
        self.map_version.set(i64::try_from(map.version).unwrap_or(i64::MAX));
        self.lease.set(i64::from(metadata.lease().is_valid()));
        self.leads.set(i64::from(metadata.is_leader()));
        self.primaries.set(i64::from(map.roles(metadata.node_id()).primaries));
        let alive = map.nodes.values().filter(|node| node.state.is_alive()).count();
        self.nodes_alive.set(i64::try_from(alive).unwrap_or(i64::MAX));
        for partition in map.partitions.values() {
            let members = i64::try_from(map.in_sync(partition).len()).unwrap_or(i64::MAX);
            self.in_sync
                .get_or_create(&ByPartition {
                    partition: partition.partition_id,
                })
                .set(members);
        }
        self.hazard.clear();
        for (node, hazard) in metadata.hazards().iter().filter(|(node, _)| map.is_alive(**node)) {
            self.hazard.get_or_create(&ByNode { node: *node }).set(hazard.score);
        }
        self.failures.refresh(&map);
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
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn reads_as_text() {
        let gateway = Arc::new(GatewayMetrics::default());
        gateway.succeeded.store(1, Relaxed);
        gateway.latency[2].store(1, Relaxed);
        let text = Metrics::new(gateway).text();
        assert!(
            text.contains("volt_transactions_total{outcome=\"committed\"} 1"),
            "{text}"
        );
        assert!(text.contains("volt_transaction_seconds_count 1"), "{text}");
    }
}
