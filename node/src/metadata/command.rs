//! What can be asked of the metadata group, and what it answers. A command is a log entry: applying it is a function
//! of the map and the command alone, so every time and every number that it needs comes inside it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use volt_engine::catalog::{Column, ColumnDefault, IndexState};
use volt_engine::changes::ConflictRule;
use volt_engine::procedure::Procedure;
use volt_engine::{Epoch, IndexId, NodeId, PartitionId, ProcedureId, SequenceId, TableId};

pub use super::answer::{Applied, CommandResult, Refusal};
pub use super::bounds::*;
pub use super::definitions::*;
use super::failure::{Finding, Grounds};
use super::link::{LinkId, LinkTarget};
use super::map::{ClusterMap, ReplicationMode, Restoration};
use super::moves::MovePhase;
use super::sequence::Sequence;
use super::standby::StandbyCommand;
use crate::config::RecoveryOrder;

/// A change of the cluster map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The cluster's first entry: its name and its first node.
    Initialise {
        /// The UUID, as text.
        cluster_uuid: String,
        /// Partitions of each replication group, 1 to `MAX_PARTITIONS`.
        partitions: u32,
        /// The first node; its incarnation is 1.
        node: Joining,
        /// Nobody is served, and no catalog made, before `Restore` has said what the cluster begins as.
        awaits_restoration: bool,
    },
    /// A node comes, or comes back.
    Join(Joining),
    /// A node's process is dead, or must be taken for dead; and what that means for its partitions. Only the
    /// group's leader proposes it.
    NodeDead {
        /// The leader's term, in which it must be applied: it rests on leases that only that leader knows.
        term: u64,
        /// The node.
        node_id: NodeId,
        /// The process; a report on another one changes nothing.
        boot_id: u64,
        /// The process has been seen to end, so that it can't hold a lease.
        process_ended: bool,
        /// What was found.
        finding: Finding,
        /// Microseconds since 1970 on the proposer's clock.
        at_micros: i64,
        /// Applied at once with it, each for itself: one that is stale is left out.
        changes: Vec<PartitionChange>,
    },
    /// A node that was taken for dead is heard from again, as the same process.
    NodeAlive {
        /// The node.
        node_id: NodeId,
        /// Its process.
        boot_id: u64,
    },
    /// A cluster that has nothing becomes what an archived one was.
    Restore {
        /// The archived one's map, for its catalog.
        archived: Box<ClusterMap>,
        /// What is restored from where.
        restoration: Restoration,
        /// It goes on as the archived one does, until it is promoted.
        is_standby: bool,
    },
    /// A partition is what it was in the archived cluster.
    PartitionRestored {
        /// Which.
        partition: PartitionId,
        /// The epoch of the primary that says so.
        epoch: Epoch,
    },
    /// Makes a table and, if it is the first of its kind, its replication group.
    CreateTable {
        /// Its `id` and `group` are filled in.
        table: NewTable,
        /// Backups asked for.
        replication: u32,
        /// When a write is acknowledged.
        mode: ReplicationMode,
    },
    /// Changes how many backups a table has, and when its writes are acknowledged. Copies come and go by themselves, and each partition takes
    /// the mode when its primary finds that it may (`TakeMode`).
    SetReplication {
        /// The table.
        table: TableId,
        /// Backups; None: as many as before.
        replication: Option<u32>,
        /// None: as before.
        mode: Option<ReplicationMode>,
    },
    /// Makes a replication link, and has its tables tracked.
    CreateLink {
        /// Its name.
        name: String,
        /// Where to.
        target: LinkTarget,
        /// Whose changes, and which of two concurrent ones stays.
        tables: BTreeMap<TableId, ConflictRule>,
    },
    /// A partition's primary has copied a moving table's rows, or the last changes of them.
    AdvanceMove {
        /// The table.
        table: TableId,
        /// Which of its moves (`TableMove::number`).
        number: u64,
        /// The partition that it leaves.
        partition: PartitionId,
        /// The epoch of whoever copied.
        epoch: Epoch,
        /// As far as which phase goes.
        phase: MovePhase,
    },
    /// Ends a replication link.
    DropLink {
        /// Which.
        link: LinkId,
    },
    /// A replication link rests, or goes on where it stopped.
    PauseLink {
        /// Which.
        link: LinkId,
        /// It rests.
        is_paused: bool,
    },
    /// Has a table tracked, or not any more.
    TrackTable {
        /// Which.
        table: TableId,
        /// Which of two concurrent changes of a row stays; None: it is tracked no more.
        rule: Option<ConflictRule>,
    },
    /// Drops tables, all of them or none.
    DropTables {
        /// Which.
        tables: BTreeSet<TableId>,
    },
    /// Changes a table's columns, all of them or none; no row is touched.
    AlterColumns {
        /// The table.
        table: TableId,
        /// One after the other.
        changes: Vec<ColumnChange>,
        /// What was looked at when it was found that nothing needs what is dropped: nothing is changed in another catalog.
        catalog_version: u64,
    },
    /// Says which rows of a table expire. An index that is new for it is then to be built.
    SetTtl {
        /// The table.
        table: TableId,
        /// None: no row does any more.
        ttl: Option<Box<NewTtl>>,
    },
    /// Makes a secondary index of a table, which is then to be built.
    CreateIndex {
        /// The table.
        table: TableId,
        /// Its number is given to it.
        index: Box<NewIndex>,
    },
    /// An index has come so far.
    SetIndexState {
        /// Its table.
        table: TableId,
        /// Which.
        index: IndexId,
        /// How far.
        state: IndexState,
    },
    /// Drops indexes, all of them or none.
    DropIndexes {
        /// Which.
        indexes: BTreeSet<IndexId>,
    },
    /// Makes a procedure.
    CreateProcedure {
        /// Its `id` is filled in.
        procedure: Box<Procedure>,
        /// One of the same name is replaced.
        replace: bool,
    },
    /// Drops procedures, all of them or none.
    DropProcedures {
        /// Which.
        procedures: BTreeSet<ProcedureId>,
    },
    /// Gives a procedure another name.
    RenameProcedure {
        /// Which.
        procedure: ProcedureId,
        /// The name.
        name: String,
    },
    /// Makes a view.
    CreateView {
        /// What it is.
        view: Box<NewView>,
        /// A view of the same name is replaced; not by, and not for, a materialized one.
        replace: bool,
    },
    /// Every partition has made the rows of a materialized view.
    ViewBuilt {
        /// The table of its rows.
        table: TableId,
    },
    /// Drops views, all of them or none.
    DropViews {
        /// Which.
        views: BTreeSet<String>,
    },
    /// Makes a sequence.
    CreateSequence {
        /// Its `id` and what it has come to are filled in.
        sequence: Box<Sequence>,
    },
    /// Drops sequences, all of them or none.
    DropSequences {
        /// Which.
        sequences: BTreeSet<SequenceId>,
    },
    /// Takes a block of values for a node. Values that nobody hears of are lost.
    TakeSequenceValues {
        /// Whose.
        sequence: SequenceId,
        /// How many; there may be fewer left.
        count: u32,
    },
    /// Starts a sequence again: blocks that were taken before count no more.
    RestartSequence {
        /// Which.
        sequence: SequenceId,
        /// With what.
        value: i64,
        /// It is taken: the next one is the first.
        is_taken: bool,
    },
    /// A primary's wish for its own partition; refused as a whole when stale.
    ChangePartition {
        /// The primary that asks.
        by: NodeId,
        /// Its process.
        boot_id: u64,
        /// What is to be.
        change: PartitionChange,
        /// Why members leave the in-sync set, if any does.
        grounds: Option<Box<Grounds>>,
    },
    /// A primary has its partition take the mode of its group; refused when stale.
    TakeMode {
        /// The primary that asks.
        by: NodeId,
        /// Its process.
        boot_id: u64,
        /// The partition.
        partition: PartitionId,
        /// The epoch that it replaces.
        epoch: Epoch,
        /// What all that is committed is as safe as.
        mode: ReplicationMode,
    },
    /// What the group's leader decided, each change for itself: a stale one is left out.
    ChangePartitions {
        /// The leader's term, in which it must be applied: it rests on leases that only that leader knows.
        term: u64,
        /// What is to be.
        changes: Vec<PartitionChange>,
        /// Set when these end an outage.
        failover: Option<FailoverNote>,
    },
    /// Starts moving a node's replicas away.
    Drain {
        /// The node.
        node_id: NodeId,
    },
    /// A draining node holds nothing any more. Only the group's leader proposes it.
    Drained {
        /// The node.
        node_id: NodeId,
    },
    /// Asks a node to hold no primary (or to hold its share again).
    SetYields {
        /// The node.
        node_id: NodeId,
        /// What is asked.
        yields: bool,
    },
    /// A node is likely to fail soon: primaries move away from it (or it gets its share again). At most one is at a time. Only
    /// the group's leader proposes it.
    SetEndangered {
        /// The node.
        node_id: NodeId,
        /// Whether it is.
        endangered: bool,
    },
    /// A node takes its share of replicas and primaries again.
    Rejoin {
        /// The node.
        node_id: NodeId,
        /// The process that was seen to be left out; None: whichever it is. Refused when the node has another one.
        boot_id: Option<u64>,
    },
    /// Asks for a member as a partition's primary.
    WantPrimary {
        /// The partition.
        partition: PartitionId,
        /// The epoch that the asker saw.
        epoch: Epoch,
        /// The member.
        node_id: NodeId,
    },
    /// Forgets a node that holds nothing.
    RemoveNode {
        /// The node.
        node_id: NodeId,
    },
    /// Asks whoever supervises the node's process to start it, if it is dead.
    RequestRecovery {
        /// The node.
        node_id: NodeId,
        /// How its replicas are to recover.
        order: RecoveryOrder,
    },
    /// These nodes are gone for good, and the rest goes on with what it has: `volt-node recover-quorum` alone says so, in the log of one who is
    /// left.
    AcceptLoss {
        /// Which.
        lost: BTreeSet<NodeId>,
    },
    /// Takes such a request back, or marks it as done.
    RecoveryDone {
        /// The node.
        node_id: NodeId,
    },
    /// Something about a cluster that follows an archive.
    Standby(StandbyCommand),
}

impl Command {
    /// The term in which it was decided, if it counts in no other.
    pub(crate) fn term(&self) -> Option<u64> {
        match self {
            Self::NodeDead { term, .. } | Self::ChangePartitions { term, .. } => Some(*term),
            _ => None,
        }
    }
}

/// A node as it introduces itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Joining {
    /// Its number, not 0.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// host:port of the peer protocol.
    pub address: String,
    /// host:port of SQL.
    pub sql_address: String,
    /// Failure zone; may be empty.
    pub zone: String,
    /// Its process.
    pub boot_id: u64,
    /// What its data directory says; 0: the directory is empty, it needs a new one.
    pub incarnation: u64,
    /// What its data directory says; empty when that is empty.
    pub cluster_uuid: String,
}

/// A partition's next configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionChange {
    /// Which.
    pub partition: PartitionId,
    /// The epoch that it replaces; refused when that is no longer the current one.
    pub epoch: Epoch,
    /// None: it waits for a member.
    pub primary: Option<NodeId>,
    /// The primary among them.
    pub in_sync: BTreeSet<NodeId>,
    /// None of them in `in_sync`.
    pub learners: BTreeSet<NodeId>,
}

/// Why partitions got new primaries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailoverNote {
    /// Whose death.
    pub node_id: NodeId,
    /// What was found of it.
    pub finding: Finding,
    /// Microseconds since 1970 on the proposer's clock.
    pub at_micros: i64,
}

/// A change of a table's columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ColumnChange {
    /// A new one behind the others. The rows that are there lack it, and have its `missing`.
    Add(Column),
    /// The one of this name goes, with its indexes, its CHECK constraints and the sequence that it owns.
    Drop(String),
    /// The one of this name has another default, or none.
    Default(String, Option<ColumnDefault>),
}
