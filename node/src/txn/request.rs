//! What nodes ask of each other for transactions and snapshots: the payloads of `Peer.Calls`, postcard-encoded.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use volt_engine::effects::TransactionId;
use volt_engine::plan::{Expr, Program, StatementContext};
use volt_engine::value::Value;
use volt_engine::{Lsn, PartitionId, TableId};

use crate::error::SqlError;

/// A request to the primary of one or several partitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A transaction of one partition: run it, commit it, answer.
    Run {
        partition: PartitionId,
        program: Program,
        parameters: Vec<Value>,
        context: StatementContext,
    },
    /// Hold these partitions for a transaction; with `pin`, for a snapshot of them.
    Hold {
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        pin: bool,
    },
    /// Hold each partition and run its program there; nothing is written yet.
    Execute {
        transaction: TransactionId,
        parts: Vec<Part>,
        parameters: Vec<Value>,
        context: StatementContext,
    },
    /// Vote: what was run is on record in every one of these partitions; only the decision ends the hold.
    Prepare {
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        home: PartitionId,
    },
    /// The decision. In its home partition it is asked for, elsewhere told.
    Decide {
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        commit: bool,
    },
    /// End the holds of a transaction that has not voted. Of a snapshot: answered when what it will read is committed.
    Release {
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        snapshot: Vec<(PartitionId, Lsn)>,
    },
    /// What was decided? Asked of the primary of the transaction's home partition.
    Resolve {
        transaction: TransactionId,
        home: PartitionId,
    },
    /// Rows of a table at a snapshot, from a key on.
    Scan(ScanRequest),
    /// The snapshot is no longer needed.
    Unpin { transaction: TransactionId },
}

/// A program and its partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) partition: PartitionId,
    pub(crate) program: Program,
}

/// One chunk of a scan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ScanRequest {
    pub(crate) transaction: TransactionId,
    pub(crate) partition: PartitionId,
    pub(crate) snapshot: Lsn,
    pub(crate) table: TableId,
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) filter: Option<Expr>,
    pub(crate) project: Option<Vec<usize>>,
    pub(crate) context: StatementContext,
}

/// What came of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Of `Run`: encoded rows, and how many rows it returned or changed.
    Ran { rows: Vec<Bytes>, affected: u64 },
    /// Of `Hold`: the newest LSN of each partition.
    Held(Vec<(PartitionId, Lsn)>),
    /// Of `Execute`: how many rows it changes.
    Executed { affected: u64 },
    /// Of `Prepare`, `Release`, `Unpin`.
    Done,
    /// Of `Decide` and `Resolve`: committed, aborted, or not known yet.
    Decision(Option<bool>),
    /// Of `Scan`: encoded rows, and the key to go on after.
    Chunk { rows: Vec<Bytes>, next: Option<Vec<u8>> },
    /// Nothing was done.
    Failed(Failure),
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// Not the primary, or without a lease, or not ready: ask again, perhaps another node.
    NotPrimary,
    /// An older transaction took a partition away: start again with the same age.
    Wounded,
    /// The partition stayed held for too long: start again.
    Busy,
    /// The statement's own error.
    Sql(SqlError),
}
