//! The cluster map and the catalog: the metadata group's whole state, pure.
//!
//! Every node holds a copy, applied from the metadata log; readers take an `Arc` of the newest one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use volt_engine::catalog::Table;
use volt_engine::{Epoch, GroupId, NodeId, PartitionId, TableId};

/// Who holds what, and what the tables are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Grows by one with every applied command; 0: not initialised.
    pub version: u64,
    /// The cluster's UUID, as text; empty until initialised.
    pub cluster_uuid: String,
    /// Partitions of each replication group, for the cluster's life.
    pub partitions_per_group: u32,
    /// The nodes, also the dead ones.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// The replication groups.
    pub groups: BTreeMap<GroupId, ReplicationGroup>,
    /// Every partition of every group.
    pub partitions: BTreeMap<PartitionId, PartitionInfo>,
    /// The catalog.
    pub tables: BTreeMap<TableId, Arc<Table>>,
    /// The next `TableId`.
    pub next_table: TableId,
    /// Changes with every change of `tables`; plans made at another one are stale.
    pub catalog_version: u64,
    /// Nodes whose restart somebody asked for (RECOVER NODE) and that have not come back.
    pub recovering: BTreeSet<NodeId>,
    /// The newest failovers, oldest first; at most `MAX_FAILOVERS_KEPT`.
    pub failovers: VecDeque<Failover>,
}

/// How many failovers `ClusterMap::failovers` keeps.
pub const MAX_FAILOVERS_KEPT: usize = 256;

/// A node, as the metadata group knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its number.
    pub node_id: NodeId,
    /// Its name: the pod's, or `node-1`.
    pub name: String,
    /// host:port of the peer protocol.
    pub address: String,
    /// host:port of SQL.
    pub sql_address: String,
    /// Failure zone; may be empty.
    pub zone: String,
    /// New with every empty data directory; starts at 1.
    pub incarnation: u64,
    /// New with every start of the process.
    pub boot_id: u64,
    /// Where it stands.
    pub state: NodeState,
    /// Weight in placement; 100 is normal.
    pub weight: u32,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Holds replicas and serves.
    Active,
    /// Alive; its replicas are being moved away.
    Draining,
    /// Alive; holds no replica, may be removed.
    Drained,
    /// Its process is dead or unreachable.
    Dead {
        /// Known to have ended (its socket refuses, its container ended, a newer boot took its place): its lease needn't be waited for.
        process_ended: bool,
        /// It was draining when it died.
        draining: bool,
    },
}

impl NodeState {
    /// Active, draining or drained.
    pub fn is_alive(self) -> bool {
        !matches!(self, Self::Dead { .. })
    }
}

/// Tables of the same number of backups and the same mode lie in the same partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicationGroup {
    /// Backups asked for: copies less one.
    pub replication: u32,
    /// When a write is acknowledged.
    pub mode: ReplicationMode,
    /// Its partitions, by index; the hash of a partition key chooses one.
    pub partitions: Vec<PartitionId>,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReplicationMode {
    /// When every in-sync replica has it.
    Sync,
}

/// A partition's configuration: the reign.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionInfo {
    /// Its number.
    pub partition_id: PartitionId,
    /// Its replication group.
    pub group: GroupId,
    /// Its place in the group.
    pub index: u32,
    /// The number of this reign.
    pub epoch: Epoch,
    /// None: waits for a member of its in-sync set.
    pub primary: Option<NodeId>,
    /// The boot id of the primary's process: a restarted primary is not the primary.
    pub primary_boot: u64,
    /// Replicas that hold every committed effect, the primary among them.
    pub in_sync: BTreeSet<NodeId>,
    /// Replicas being filled.
    pub learners: BTreeSet<NodeId>,
    /// Members that restarted: their boot's replica is in sync only if it is the only one (after a power cut). See `REPLICATION.md`, "A process that restarts is no member".
    pub restarted: BTreeSet<NodeId>,
}

/// A change of primary that somebody's death caused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failover {
    /// Whose death.
    pub node_id: NodeId,
    /// When it was committed, microseconds since 1970 on the leader's clock.
    pub at_micros: i64,
    /// Partitions whose primary changed.
    pub partitions: u32,
    /// heartbeat, connection or operator.
    pub detector: String,
    /// What was seen.
    pub evidence: String,
}

impl ClusterMap {
    /// The table with this name.
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.values().find(|table| table.name == name)
    }
}
