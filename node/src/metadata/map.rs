//! The cluster map and the catalog: the metadata group's whole state, pure.
//!
//! Every node holds a copy, applied from the metadata log; readers take an `Arc` of the newest one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use volt_engine::catalog::{Index, Table};
use volt_engine::procedure::Procedure;
use volt_engine::value::DataType;
use volt_engine::{Epoch, GroupId, IndexId, NodeId, PartitionId, ProcedureId, SequenceId, TableId};

use super::failure::{Failure, Finding};
use super::link::{Link, LinkId};
use super::moves::TableMove;
pub use super::restoration::Restoration;
use super::sequence::Sequence;
use super::standby::Standby;
use crate::config::RecoveryOrder;

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
    /// The next `GroupId`: a group ends with its last table, and its number is not used again.
    pub next_group: GroupId,
    /// The next `PartitionId`; never used again either, for nodes that were away still hold replicas of the old ones.
    pub next_partition: PartitionId,
    /// The next `IndexId`.
    pub next_index: IndexId,
    /// The stored procedures.
    pub procedures: BTreeMap<ProcedureId, Arc<Procedure>>,
    /// The next `ProcedureId`.
    pub next_procedure: ProcedureId,
    /// The views, by name.
    pub views: BTreeMap<String, Arc<View>>,
    /// The sequences.
    pub sequences: BTreeMap<SequenceId, Arc<Sequence>>,
    /// The next `SequenceId`.
    pub next_sequence: SequenceId,
    /// The replication links.
    pub links: BTreeMap<LinkId, Arc<Link>>,
    /// The next `LinkId`; 0 stands for 1.
    pub next_link: LinkId,
    /// Changes with every change of what there is in the catalog, not with the values that sequences hand out; plans made at another one are stale.
    pub catalog_version: u64,
    /// Tables that move to other partitions.
    pub moves: BTreeMap<TableId, TableMove>,
    /// Nodes whose restart somebody asked for (RECOVER NODE) and that have not come back.
    pub recovering: BTreeSet<NodeId>,
    /// Nodes whose replicas `RECOVER NODE` wants to recover in a certain way, until they are in sync.
    pub recovery_orders: BTreeMap<NodeId, RecoveryOrder>,
    /// The newest failovers, oldest first; at most `MAX_FAILOVERS_KEPT`.
    pub failovers: VecDeque<Failover>,
    /// The newest failures, oldest first; at most `MAX_FAILURES_KEPT`.
    pub failures: VecDeque<Failure>,
    /// The last `Failure::failure_id`.
    pub last_failure: u64,
    /// The cluster was made to be restored, and what from is not on record yet.
    pub awaits_restoration: bool,
    /// What the cluster is being restored from; until that is done it serves nobody.
    pub restoration: Option<Restoration>,
    /// The moment of an archived cluster with which this one began, in microseconds since 1970.
    pub restored_micros: Option<i64>,
    /// It follows the archive of another cluster.
    pub standby: Option<Standby>,
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
    /// Asked to hold no primary until it starts anew or rejoins (its pod is about to be stopped).
    pub yields: bool,
    /// Likely to fail soon: it is to hold no primary while that lasts.
    pub endangered: bool,
}

impl NodeInfo {
    /// True when it may keep primaries, and get more.
    pub fn keeps_primaries(&self) -> bool {
        self.state == NodeState::Active && !self.yields && !self.endangered
    }
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

/// A view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Its name; relations have no name in common.
    pub name: String,
    /// Its query, as it was written.
    pub query: String,
    /// Its columns' names and types.
    pub columns: Vec<(String, DataType)>,
    /// The tables that its query reads.
    pub tables: BTreeSet<TableId>,
    /// The views that it reads.
    pub views: BTreeSet<String>,
    /// What its query calls its columns: a `*` may mean more of them by now.
    pub fields: Vec<String>,
    /// How much a statement takes on that reads it.
    pub weight: ViewWeight,
    /// Of a materialized one.
    pub materialized: Option<MaterializedView>,
}

/// What a view's query adds to a statement's, with those of the views that it reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewWeight {
    /// Operators on a way from the top of an expression to its bottom.
    pub depth: usize,
    /// Queries in each other.
    pub queries: usize,
    /// Tables that are read, each as often as it is.
    pub relations: usize,
}

/// What a materialized view has besides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaterializedView {
    /// The table of its rows, which has its name.
    pub table: TableId,
    /// Every partition has made its rows.
    pub is_ready: bool,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReplicationMode {
    /// When every in-sync replica has it.
    Sync,
    /// When the primary and a majority of the in-sync set have it. The set is what majorities are counted of: nobody leaves or
    /// joins it but by the primary, which sees to it that a majority of the new set has all that is committed.
    SemiSync,
    /// When the primary has it. No member of the in-sync set lacks more than a bound.
    Async,
}

impl ReplicationMode {
    /// As SQL and `system.tables` have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::SemiSync => "semi_sync",
            Self::Async => "async",
        }
    }
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
    /// When a write is acknowledged in this reign. Its primary has it become the group's, when all that is committed is as safe as that
    /// says.
    pub mode: ReplicationMode,
    /// It was asynchronous once: who was away since may have what was acknowledged and lost.
    pub was_async: bool,
    /// None: waits for a member of its in-sync set.
    pub primary: Option<NodeId>,
    /// The boot id of the primary's process: a restarted primary is not the primary.
    pub primary_boot: u64,
    /// Replicas that hold every committed effect, the primary among them. With `SemiSync` a majority of them does, with `Async`
    /// they may lack the newest.
    pub in_sync: BTreeSet<NodeId>,
    /// Replicas being filled.
    pub learners: BTreeSet<NodeId>,
    /// Learners whose rows were found to differ from their primary's: each must be filled, whatever its log says.
    pub in_doubt: BTreeSet<NodeId>,
    /// Members that restarted: their boot's replica is in sync only if it is the only one (after a power cut). See `REPLICATION.md`, "A process that restarts is no member".
    pub restarted: BTreeSet<NodeId>,
    /// With `SemiSync`, members that came back without their volume: they count in majorities, and hold nothing of what they
    /// had, until the primary has taken them out.
    pub emptied: BTreeSet<NodeId>,
    /// Somebody asked for this member as the primary; forgotten at the next change of primary.
    pub wanted: Option<NodeId>,
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
    /// What was found.
    pub finding: Finding,
}

impl ClusterMap {
    /// The table with this name; a view is none.
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.rows(name).filter(|table| table.view.is_none())
    }

    /// The table with this name, or the one that has the rows of the materialized view with this name.
    pub fn rows(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.values().find(|table| table.name == name)
    }

    /// The index with this name, and its table.
    pub fn index(&self, name: &str) -> Option<(&Arc<Table>, &Index)> {
        let mut tables = self.tables.values();
        tables.find_map(|table| Some((table, table.index(name)?)))
    }

    /// The sequence with this name.
    pub fn sequence(&self, name: &str) -> Option<&Arc<Sequence>> {
        self.sequences.values().find(|sequence| sequence.name == name)
    }

    /// True when a table, an index, a sequence or a view has this name.
    pub fn has_relation(&self, name: &str) -> bool {
        let has_rows = self.table(name).is_some() || self.views.contains_key(name);
        has_rows || self.index(name).is_some() || self.sequence(name).is_some()
    }

    /// The procedure with this name.
    pub fn procedure(&self, name: &str) -> Option<&Arc<Procedure>> {
        self.procedures.values().find(|procedure| procedure.name == name)
    }

    /// The replication link with this name.
    pub fn link(&self, name: &str) -> Option<&Arc<Link>> {
        self.links.values().find(|link| link.name == name)
    }

    /// True when this map has seen the table dropped. One that it is too old to know may have rows here already.
    pub fn has_dropped(&self, table: TableId) -> bool {
        table < self.next_table && !self.tables.contains_key(&table)
    }

    /// True when the node is known, and not dead.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|info| info.state.is_alive())
    }

    /// True when this process of the node is the one that the map knows.
    pub fn is_current(&self, node: NodeId, boot_id: u64) -> bool {
        self.nodes.get(&node).is_some_and(|info| info.boot_id == boot_id)
    }

    /// The primary, if its node is alive and still the process that was made primary.
    pub fn living_primary(&self, partition: &PartitionInfo) -> Option<NodeId> {
        let primary = partition.primary?;
        let node = self.nodes.get(&primary)?;
        (node.state.is_alive() && node.boot_id == partition.primary_boot).then_some(primary)
    }

    /// The partitions that a scan of all rows of a table goes to: of a replicated table one of them, another for each table.
    pub fn partitions_read(&self, table: &Table) -> Vec<PartitionId> {
        let all = self.groups.get(&table.group).map_or(&[][..], |group| &group.partitions);
        if !table.is_replicated() || all.is_empty() {
            return all.to_vec();
        }
        vec![all[table.id as usize % all.len()]]
    }

    /// Copies of this partition that its replication group asks for.
    pub fn copies_wanted(&self, partition: &PartitionInfo) -> usize {
        self.groups
            .get(&partition.group)
            .map_or(1, |group| group.replication as usize + 1)
    }

    /// Copies of this partition that are there: those in sync, on nodes that live.
    pub fn copies(&self, partition: &PartitionInfo) -> usize {
        let members = self.in_sync(partition);
        members.into_iter().filter(|node| self.is_alive(*node)).count()
    }

    /// Who can be counted on to hold what is committed. Of a set that majorities are counted of, members that died, or
    /// restarted, count in those before its primary has taken them out, and not here, if it lives to do that.
    pub fn in_sync(&self, partition: &PartitionInfo) -> BTreeSet<NodeId> {
        if partition.mode != ReplicationMode::SemiSync || self.living_primary(partition).is_none() {
            return partition.in_sync.clone();
        }
        let sound = partition.sound_members().filter(|node| self.is_alive(*node));
        sound.chain(partition.primary).collect()
    }

    /// How many primaries, backups in sync and learners a node holds.
    pub fn roles(&self, node: NodeId) -> Roles {
        let mut roles = Roles::default();
        for partition in self.partitions.values() {
            match partition.role(node) {
                Some(Role::Primary) => roles.primaries += 1,
                Some(Role::Backup) => roles.backups += 1,
                Some(Role::Learner) => roles.learners += 1,
                None => {}
            }
        }
        roles
    }

    /// Partitions of which it is primary and that another node could take over at once: a living member of the in-sync
    /// set that isn't leaving itself.
    pub fn primaries_to_hand_over(&self, node: NodeId) -> usize {
        let able = |member: &NodeId| {
            let info = self.nodes.get(member);
            *member != node && info.is_some_and(NodeInfo::keeps_primaries)
        };
        let held = self
            .partitions
            .values()
            .filter(|partition| partition.primary == Some(node));
        held.filter(|partition| partition.sound_members().any(|node| able(&node)))
            .count()
    }

    /// Why nobody is served yet, if the cluster is to be, or is being, restored.
    pub fn restoring(&self) -> Option<String> {
        if self.awaits_restoration {
            let uuid = &self.cluster_uuid;
            return Some(format!(
                "the database is to be restored, and what from is not on record yet: repeat `volt-node init --restore` with --uuid {uuid}"
            ));
        }
        self.restoration.as_ref().map(Restoration::to_string)
    }

    /// The largest REPLICATION that a table asks for; 0 without tables.
    pub fn max_replication(&self) -> u32 {
        let groups = self.tables.values().filter_map(|table| self.groups.get(&table.group));
        groups.map(|group| group.replication).max().unwrap_or(0)
    }

    /// The replication group for tables of this kind, if there is one already.
    pub fn group_of(&self, replication: u32, mode: ReplicationMode) -> Option<GroupId> {
        let found = self
            .groups
            .iter()
            .find(|(_, group)| group.replication == replication && group.mode == mode);
        found.map(|(id, _)| *id)
    }

    /// Nodes that may hold replicas: all but those that are draining or drained. The dead among them count,
    /// for they come back.
    pub fn placeable(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|node| match node.state {
            NodeState::Active => true,
            NodeState::Draining | NodeState::Drained => false,
            NodeState::Dead { draining, .. } => !draining,
        })
    }
}

/// What a node is to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its primary.
    Primary,
    /// A member of the in-sync set, not the primary.
    Backup,
    /// Being filled.
    Learner,
}

/// How many replicas of each role a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Primaries.
    pub primaries: u32,
    /// Backups in sync.
    pub backups: u32,
    /// Learners.
    pub learners: u32,
}

impl PartitionInfo {
    /// One that nobody holds.
    #[cfg(test)]
    pub(crate) fn new(partition_id: PartitionId) -> Self {
        Self {
            partition_id,
            group: 1,
            index: 0,
            epoch: 1,
            mode: ReplicationMode::Sync,
            was_async: false,
            primary: None,
            primary_boot: 0,
            in_sync: BTreeSet::new(),
            learners: BTreeSet::new(),
            in_doubt: BTreeSet::new(),
            restarted: BTreeSet::new(),
            emptied: BTreeSet::new(),
            wanted: None,
        }
    }

    /// What a node is to this partition; None: nothing.
    pub fn role(&self, node: NodeId) -> Option<Role> {
        if self.primary == Some(node) {
            return Some(Role::Primary);
        }
        if self.in_sync.contains(&node) {
            return Some(Role::Backup);
        }
        self.learners.contains(&node).then_some(Role::Learner)
    }

    /// Members of the in-sync set that have what they acknowledged for certain.
    pub fn sound_members(&self) -> impl Iterator<Item = NodeId> {
        let members = self.in_sync.difference(&self.restarted).copied();
        members.filter(|node| !self.emptied.contains(node))
    }

    /// Every node that holds a replica, in sync or not.
    pub fn holders(&self) -> BTreeSet<NodeId> {
        self.in_sync.union(&self.learners).copied().collect()
    }
}
