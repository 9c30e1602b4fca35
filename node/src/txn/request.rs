//! What nodes ask of each other for transactions and snapshots: the payloads of `Peer.Calls`, postcard-encoded.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use volt_engine::changes::Change;
use volt_engine::effects::{Effects, TransactionId};
use volt_engine::error::StatementError;
use volt_engine::followed::Position;
use volt_engine::idempotency::{KeptRows, Keyed};
use volt_engine::partition::{Conflict, MAX_RETURNED_BYTES};
use volt_engine::plan::{Program, StatementContext};
use volt_engine::procedure::Notice;
use volt_engine::row::RowRef;
use volt_engine::transaction::Reads;
use volt_engine::value::Value;
use volt_engine::{Epoch, IndexId, Lsn, PartitionId, ProcedureId, TableId};

use super::follow::{Destination, FollowWork, Staging};
use crate::error::SqlError;
use crate::links::LinkReport;

/// A request to the primary of one or several partitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A transaction of one partition: run it, commit it, answer.
    Run {
        partition: PartitionId,
        program: Program,
        parameters: Vec<Value>,
        context: StatementContext,
        key: Option<Keyed>,
    },
    /// A call of a partitioned procedure: run it, commit it, answer.
    Call {
        partition: PartitionId,
        procedure: ProcedureId,
        arguments: Vec<Value>,
        context: StatementContext,
        key: Option<Keyed>,
    },
    /// A statement of an interactive transaction.
    Attempt(AttemptRequest),
    /// The end of an interactive transaction in its only partition: if its reads stand, apply it, commit it, answer.
    Apply {
        partition: PartitionId,
        buffered: Buffered,
        key: Option<Keyed>,
    },
    /// Hold these partitions for a transaction; with `pin_for`, keep what they then hold for a snapshot of that name.
    Hold {
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        pin_for: Option<TransactionId>,
    },
    /// Hold each partition and do its part there; nothing is written yet. With a key that one of them keeps: only if it
    /// has not happened before.
    Execute {
        transaction: TransactionId,
        parts: Vec<Part>,
        parameters: Vec<Value>,
        context: StatementContext,
        key: Option<KeyedAt>,
    },
    /// Vote: what was run is on record in every one of these partitions; only the decision ends the hold. With a key that
    /// one of them keeps, and what the whole transaction changes.
    Prepare {
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        home: PartitionId,
        key: Option<(KeyedAt, Changed)>,
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
    /// Run a program that only reads at a backup, if it is not too old.
    ReadBackup(BackupRead),
    /// Keep what backups hold for a snapshot of that name: of those that are not too old.
    PinBackup {
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        max_staleness_ms: u64,
    },
    /// The snapshot is no longer needed.
    Unpin { transaction: TransactionId },
    /// Answered when the node knows this version of the cluster map, or a later one.
    Know { version: u64 },
    /// Changes of another cluster: take what is not known, commit it, answer.
    Incorporate {
        partition: PartitionId,
        /// Which link brings them.
        link: String,
        changes: Vec<Change>,
    },
    /// Rows of a table that moves here: make a range of it so, commit it, answer.
    Place(PlaceRequest),
    /// How far this node has told its partitions over links.
    Links,
    /// The conflicts of the partitions that this node leads.
    Conflicts,
    /// Why tables can't be moved on now from partitions that this node leads.
    Moves,
    /// How far an index is, in a partition that must have heard of it.
    Index(IndexRequest),
    /// Where these partitions of a standby are.
    Positions { partitions: Vec<PartitionId> },
    /// Read from the archive what a partition lacks.
    Stage(Destination),
    /// Write that, while nobody reads the partition.
    Pour(Destination),
    /// Does a transaction that this node coordinates go on? Asked of its coordinator by who is held and has no vote of it.
    IsHolding { transaction: TransactionId },
}

/// The idempotency key of a transaction over several partitions, and which of them keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeyedAt {
    pub(crate) partition: PartitionId,
    pub(crate) keyed: Keyed,
}

/// Rows that are changed, and what is returned of them, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) affected: u64,
    pub(crate) rows: Vec<Bytes>,
}

impl Changed {
    /// More of the same transaction; an error when it returns too much.
    pub(crate) fn add(&mut self, more: Self) -> Result<(), StatementError> {
        self.affected += more.affected;
        self.rows.extend(more.rows);
        check_returned(&self.rows)
    }

    /// The rows as they are kept with an idempotency key.
    pub(crate) fn to_kept(&self) -> KeptRows {
        let mut kept = KeptRows::default();
        for row in &self.rows {
            kept.push(&RowRef::new(row).values().collect::<Vec<_>>());
        }
        kept
    }
}

/// An error when a statement returns more of what it changes than one may.
pub(crate) fn check_returned(rows: &[Bytes]) -> Result<(), StatementError> {
    match rows.iter().map(Bytes::len).sum::<usize>() {
        ..=MAX_RETURNED_BYTES => Ok(()),
        _ => Err(StatementError::TooMuchReturned),
    }
}

/// What a transaction over several partitions does in one of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) partition: PartitionId,
    pub(crate) work: Work,
}

/// The work of a part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Run this.
    Program(Box<Program>),
    /// Do this, if its reads stand.
    Buffered(Buffered),
    /// Follow the archive.
    Follow(FollowWork),
}

/// What an interactive transaction has done in one partition, not applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Buffered {
    pub(crate) snapshot: Lsn,
    pub(crate) reads: Reads,
    pub(crate) effects: Effects,
}

impl Buffered {
    /// What a transaction does where it only keeps its key.
    pub(crate) fn nothing() -> Self {
        Self {
            snapshot: 0,
            reads: Reads::default(),
            effects: Effects::default(),
        }
    }
}

impl Work {
    /// It changes nothing.
    pub(crate) fn is_read_only(&self) -> bool {
        match self {
            Self::Program(program) => program.is_read_only(),
            Self::Buffered(buffered) => buffered.effects == Effects::default(),
            Self::Follow(_) => false,
        }
    }
}

/// A statement of an interactive transaction in one partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AttemptRequest {
    /// Whose snapshot it is.
    pub(crate) transaction: TransactionId,
    pub(crate) partition: PartitionId,
    /// Its snapshot here; None: it has none yet, and takes one of what is committed.
    pub(crate) snapshot: Option<Lsn>,
    /// What it has written to the program's table here.
    pub(crate) writes: Effects,
    pub(crate) program: Program,
    pub(crate) parameters: Vec<Value>,
    pub(crate) context: StatementContext,
}

/// A question about an index, or a materialized view, in one partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IndexRequest {
    pub(crate) partition: PartitionId,
    pub(crate) table: TableId,
    /// None: the table is a view's.
    pub(crate) index: Option<IndexId>,
    /// The catalog that has it in the state asked about.
    pub(crate) catalog_version: u64,
    /// Look for two rows with the same values, from these on.
    pub(crate) duplicates: Option<Vec<u8>>,
}

/// A piece of a table that moves to this partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PlaceRequest {
    pub(crate) partition: PartitionId,
    /// The reign that has the earlier pieces, by the epoch in which it began: another one may lack them. None: there are none.
    pub(crate) reign: Option<Epoch>,
    /// Who moves: the table, in which of its moves, and the epoch of the partition that it leaves.
    pub(crate) moved: TableId,
    pub(crate) number: u64,
    pub(crate) from_epoch: Epoch,
    /// Grows with every piece: an older one that comes late is refused.
    pub(crate) turn: u64,
    /// The table of the rows: the one that moves, or one that goes along.
    pub(crate) table: TableId,
    /// The range of keys: behind this one, up to that.
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) until: Option<Vec<u8>>,
    pub(crate) rows: Effects,
}

/// What came of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placed {
    /// The epoch in which the primary's reign began.
    pub(crate) reign: Epoch,
    /// It is there, and every replica in sync has it.
    pub(crate) is_safe: bool,
    /// All of it; otherwise the rest is to be placed.
    pub(crate) is_whole: bool,
}

/// What there is to say of an index in one partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum IndexProgress {
    /// Ask again.
    NotYet,
    /// No two rows have the same values below these.
    After(Vec<u8>),
    /// It has all rows, and, if that was asked, no two have the same values.
    Done,
    /// Two rows have these values.
    Duplicate(Vec<String>),
}

/// A read of one partition's backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BackupRead {
    pub(crate) partition: PartitionId,
    pub(crate) program: Program,
    pub(crate) parameters: Vec<Value>,
    pub(crate) context: StatementContext,
    /// An older backup says no.
    pub(crate) max_staleness_ms: u64,
}

/// What a backup keeps for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pinned {
    pub(crate) partition: PartitionId,
    pub(crate) lsn: Lsn,
    /// How old that may be.
    pub(crate) staleness_ms: u64,
}

/// One chunk of a scan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ScanRequest {
    pub(crate) transaction: TransactionId,
    pub(crate) partition: PartitionId,
    pub(crate) snapshot: Lsn,
    pub(crate) table: TableId,
    /// What the transaction that asks has written to the table here, beyond `after`.
    pub(crate) writes: Effects,
    pub(crate) after: Option<Vec<u8>>,
    /// What finds the rows that are wanted and gives the columns of `project`, if they are few; else all are walked.
    pub(crate) program: Option<Program>,
    pub(crate) project: Option<Vec<usize>>,
    /// What rows have in columns that they lack (`Table::missing`).
    pub(crate) missing: Vec<Value>,
    /// What rows' versions are beyond their LSNs (`Table::version_base`).
    pub(crate) version_base: i64,
    /// How many columns the table had lost when that was planned.
    pub(crate) dropped_columns: usize,
    pub(crate) context: StatementContext,
}

/// A partition that is held, and its newest record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) partition: PartitionId,
    pub(crate) lsn: Lsn,
    pub(crate) epoch: Epoch,
}

/// What came of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Of `Run`, `Call`, `Apply` and `Incorporate`: encoded rows, how many rows it returned or changed, and what a procedure told.
    Ran {
        rows: Vec<Bytes>,
        affected: u64,
        notices: Vec<Notice>,
    },
    /// Of `Attempt`.
    Attempted(Attempted),
    /// Of `Hold`: the newest record of each partition.
    Held(Vec<Held>),
    /// Of `Execute`: what it changes.
    Executed(Changed),
    /// Of `Execute`: it happened before, and changed this.
    Before(Changed),
    /// Of `Prepare`, `Release`, `Unpin`, `Know`.
    Done,
    /// Of `Decide` and `Resolve`: committed, aborted, or not known yet.
    Decision(Option<bool>),
    /// Of `Scan`: encoded rows, and the key to go on after.
    Chunk { rows: Vec<Bytes>, next: Option<Vec<u8>> },
    /// Of `ReadBackup`: encoded rows, how many there are, and how old they may be.
    BackupRead {
        rows: Vec<Bytes>,
        affected: u64,
        staleness_ms: u64,
    },
    /// Of `PinBackup`.
    Pinned(Vec<Pinned>),
    /// Of `Place`.
    Placed(Placed),
    /// Of `Index`.
    Index(IndexProgress),
    /// Of `Positions`.
    Positions(Vec<(PartitionId, Option<Position>)>),
    /// Of `Stage` and `Pour`.
    Staging(Staging),
    /// Of `Links`.
    Links(LinkReport),
    /// Of `Conflicts`.
    Conflicts(Vec<(PartitionId, Vec<Conflict>)>),
    /// Of `Moves`: the table, the partition that it leaves, why it is refused where it goes.
    Moves(Vec<(TableId, PartitionId, String)>),
    /// Nothing was done.
    Failed(Failure),
    /// Of `IsHolding`.
    Holding(bool),
}

/// What a statement of an interactive transaction came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Attempted {
    /// Its snapshot here.
    pub(crate) snapshot: Lsn,
    /// What it looked at, also when it failed.
    pub(crate) reads: Reads,
    /// Encoded rows, how many rows it returned or changed, and what it wants to write.
    pub(crate) result: Result<(Vec<Bytes>, u64, Option<Effects>), SqlError>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_partitions_return_together_is_bounded() {
        let half = || Changed {
            affected: 1,
            rows: vec![Bytes::from(vec![0; MAX_RETURNED_BYTES / 2])],
        };
        let mut changed = half();
        assert_eq!(changed.add(half()), Ok(()));
        assert_eq!((changed.affected, changed.rows.len()), (2, 2));
        let little = Changed {
            affected: 1,
            rows: vec![Bytes::from_static(b"x")],
        };
        assert_eq!(changed.add(little), Err(StatementError::TooMuchReturned));
    }
}
