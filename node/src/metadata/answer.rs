//! What applying a command comes to: what it did, or why it changed nothing.

use serde::{Deserialize, Serialize};
use volt_engine::catalog::Table;
use volt_engine::{Epoch, IndexId, NodeId, PartitionId, ProcedureId, SequenceId, TableId};

use super::link::LinkId;
use super::sequence::Block;

/// What applying a command returned.
pub type CommandResult = Result<Applied, Refusal>;

/// What a command did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Applied {
    /// It is done, and nothing more is to be said (also when it had been done before).
    Done,
    /// Nothing was changed: it was known already, or spoke of an older process.
    Unchanged,
    /// The node is a member of this cluster.
    Joined {
        /// The cluster's UUID.
        cluster_uuid: String,
        /// The node's incarnation.
        incarnation: u64,
    },
    /// The table, with its number.
    TableCreated(Table),
    /// The index, with its number.
    IndexCreated(IndexId),
    /// The view; of a materialized one, the number of the table of its rows.
    ViewCreated(Option<TableId>),
    /// The sequence, by its number.
    SequenceCreated(SequenceId),
    /// Values of a sequence.
    SequenceValues(Block),
    /// The partition's new epoch.
    Changed {
        /// The number of the reign that began.
        epoch: Epoch,
    },
    /// Of several changes, those that were applied.
    ManyChanged {
        /// Their partitions.
        partitions: Vec<PartitionId>,
    },
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The first entry must be `Initialise`.
    #[error("the cluster is not initialised")]
    NotInitialised,
    /// There is one cluster already.
    #[error("the cluster is initialised already, as {0}")]
    AlreadyInitialised(String),
    /// Nobody uses it meanwhile.
    #[error("{0}")]
    Restoring(String),
    /// It is as the archived cluster at this URL is, and takes no changes of its own.
    #[error("this cluster is a standby of {0}")]
    Standby(String),
    /// The node's data directory belongs to another cluster.
    #[error("the data directory belongs to cluster {theirs}, this is cluster {ours}")]
    OtherCluster {
        /// This cluster.
        ours: String,
        /// What the directory says.
        theirs: String,
    },
    /// The node's data directory is older than the one it had last.
    #[error("the data directory is incarnation {theirs} of node {node}, the cluster knows incarnation {ours}")]
    OtherIncarnation {
        /// The node.
        node: NodeId,
        /// What the map says.
        ours: u64,
        /// What the directory says.
        theirs: u64,
    },
    /// Somebody lives under this number.
    #[error("node {0} is alive as another process; a node with an empty data directory can't take its place")]
    NodeIsAlive(NodeId),
    /// No such node.
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    /// No such partition.
    #[error("there is no partition {0}")]
    NoSuchPartition(PartitionId),
    /// No such table.
    #[error("there is no table with the number {0}")]
    NoSuchTable(TableId),
    /// The name is taken.
    #[error("relation \"{0}\" already exists")]
    TableExists(String),
    /// The name is taken.
    #[error("column \"{column}\" of relation \"{table}\" already exists")]
    ColumnExists {
        /// The column.
        column: String,
        /// The table.
        table: String,
    },
    /// No such column.
    #[error("column \"{column}\" of relation \"{table}\" does not exist")]
    NoSuchColumn {
        /// The column.
        column: String,
        /// The table.
        table: String,
    },
    /// Decided on a catalog that has changed meanwhile.
    #[error("the catalog was changed by another statement at the same time")]
    StaleCatalog,
    /// No such index.
    #[error("there is no index with the number {0}")]
    NoSuchIndex(IndexId),
    /// It goes with its constraint only.
    #[error("cannot drop index {index} because constraint {index} on table {table} requires it")]
    IndexNeeded {
        /// The index.
        index: String,
        /// Its table.
        table: String,
    },
    /// It goes with the TTL of its table only.
    #[error("cannot drop index {index} because the TTL of table {table} requires it")]
    NeededByTtl {
        /// The index.
        index: String,
        /// Its table.
        table: String,
    },
    /// No row of it expires.
    #[error("table \"{0}\" has no TTL")]
    NoTtl(String),
    /// A view can't become what it would be.
    #[error("{0}")]
    CannotReplace(String),
    /// No such view.
    #[error("view \"{0}\" does not exist")]
    NoSuchView(String),
    /// Something else would be left without what it needs.
    #[error("cannot drop {what} because view {view} depends on it")]
    NeededByView {
        /// What is to go: `table t`, `view v`.
        what: String,
        /// What needs it.
        view: String,
    },
    /// No such procedure.
    #[error("there is no procedure with the number {0}")]
    NoSuchProcedure(ProcedureId),
    /// The name is taken.
    #[error("procedure \"{0}\" already exists")]
    ProcedureExists(String),
    /// Something else would be left without what it needs.
    #[error("cannot drop table {table} because procedure {procedure} depends on it")]
    Needed {
        /// What is to go.
        table: String,
        /// What needs it.
        procedure: String,
    },
    /// No such link.
    #[error("there is no replication link with the number {0}")]
    NoSuchLink(LinkId),
    /// The name is taken.
    #[error("replication link \"{0}\" already exists")]
    LinkExists(String),
    /// It would be left without what it needs.
    #[error("cannot {what} because replication link {link} depends on it")]
    NeededByLink {
        /// What was to be done: `drop table t`.
        what: String,
        /// What needs it.
        link: String,
    },
    /// No such sequence.
    #[error("there is no sequence with the number {0}")]
    NoSuchSequence(SequenceId),
    /// All its values are handed out.
    #[error("sequence {0} has no more values")]
    SequenceUsedUp(SequenceId),
    /// Something takes its values.
    #[error("cannot drop sequence {sequence} because {by} depends on it")]
    SequenceNeeded {
        /// The sequence.
        sequence: String,
        /// What takes them.
        by: String,
    },
    /// It waits until the table has moved.
    #[error("table \"{0}\" is being moved to other partitions")]
    TableMoves(String),
    /// Something needs the table where it is.
    #[error("cannot {what} because {by} depends on it")]
    MoveNeeded {
        /// What was to be done.
        what: String,
        /// What needs it.
        by: String,
    },
    /// Decided on an epoch that has passed.
    #[error("partition {partition} is at epoch {current}, not {named}")]
    StaleEpoch {
        /// The partition.
        partition: PartitionId,
        /// What the command named.
        named: Epoch,
        /// What is.
        current: Epoch,
    },
    /// Decided on a process that is no longer the node's.
    #[error("node {0} has another process by now")]
    StaleBoot(NodeId),
    /// The state doesn't allow it.
    #[error("{0}")]
    NotAllowed(String),
    /// It makes no sense in any state.
    #[error("{0}")]
    Invalid(String),
}
