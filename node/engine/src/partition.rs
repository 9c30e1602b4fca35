//! A partition: tables of versioned rows, changed only by effects in LSN order, read at any LSN still kept.
//!
//! All of it is pure; the caller holds the partition's mutex. Invariants:
//! - records are applied at consecutive LSNs, and a record that is out of place changes nothing;
//! - a version is dropped only when the one that replaced it is committed and no pinned snapshot sees it, so every
//!   pinned snapshot, the newest state and every state from `committed` on can be read or returned to;
//! - a removed row stays as a tombstone as long, so that a reader who misses it knows which LSN to wait for.
//!
//! `run` executes a row program without applying its effects (see run); `apply_record`, `commit_to`, `undo_after`,
//! `pin` and `unpin` change the state (apply); `call` runs a partitioned procedure (call); `attempt` runs a program for an
//! interactive transaction and `stands` says whether what it read is still so (attempt); `scan_at` reads at a snapshot (scan); `dump_chunk` and `load_chunk`
//! carry the whole state to a learner (dump); `find_kept` and `keep` remember requests with idempotency keys (kept); `set_views` keeps
//! materialized views (materialized); `track` and `incorporate` are what links between clusters need (tracking, incoming); `accept` refuses programs that are older than a column's drop (dropped); `piece`
//! and `to_place` move a table to another partition (moving).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::changes::ConflictRule;
use crate::effects::{Effects, TransactionId};
use crate::idempotency::FIRST_RESERVED_TABLE;
use crate::key::Key;
pub use crate::table::Stats;
use crate::table::{Pins, Table};
use crate::{Lsn, PartitionId, TableId};

mod apply;
mod attempt;
mod call;
mod decisions;
mod dropped;
mod dump;
mod expire;
mod incoming;
mod indexes;
mod kept;
mod materialized;
mod moving;
mod rows;
mod run;
mod scan;
mod tracking;
mod view;

pub use attempt::Attempt;
pub use call::{Called, Home};
use decisions::Decisions;
pub use decisions::MAX_DECISIONS;
pub use dump::{DumpCursor, SnapshotSums, TableSum, with_versions, without_versions};
pub use expire::{Expired, Reached};
pub use incoming::{Conflict, Incorporated, MAX_CONFLICTS_KEPT};
pub use kept::Kept;
use materialized::Views;
pub use moving::{MOVED_WITH_TABLES, Piece, Placing};
pub use rows::RowsCursor;
pub use run::{
    Duplicates, Failed, MAX_ENTRIES_READ, MAX_ENTRIES_TO_WRITE, MAX_KEPT_BYTES, MAX_RETURNED_BYTES, Outcome,
};
pub use scan::{Projection, ScanChunk, VERSION_COLUMN};
pub use tracking::{Forget, Told};

/// This partition's part of a transaction over several, on record and not decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Which.
    pub transaction: TransactionId,
    /// The partition whose log holds the decision.
    pub home: PartitionId,
    /// What it will do here.
    pub effects: Effects,
    /// The LSN of its record.
    pub lsn: Lsn,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Partition {
    tables: BTreeMap<TableId, Table>,
    applied: Lsn,
    committed: Lsn,
    prepared: Option<Prepared>,
    decisions: Decisions,
    pins: Pins,
    /// The keys that records beyond `committed` wrote, in LSN order: to be pruned when committed, or undone.
    touched: VecDeque<Touch>,
    /// The keys that have versions which a pin keeps: to be pruned when it goes.
    kept: BTreeMap<Lsn, BTreeSet<(TableId, Key)>>,
    /// The tables whose rows are made of others.
    views: Views,
    /// Columns that were dropped.
    dropped: dropped::Heard,
    /// The tables whose changes are kept with their versions.
    tracked: BTreeMap<TableId, ConflictRule>,
    /// Tables that are neither read nor written here, and the catalog that said so first.
    closed: BTreeMap<TableId, u64>,
    /// Tables that were, and the catalog that said first that they are not.
    opened: BTreeMap<TableId, u64>,
}

/// A record wrote a key.
#[derive(Debug)]
struct Touch {
    lsn: Lsn,
    table: TableId,
    key: Key,
    /// There is something to prune; a row under a new key replaces nothing.
    replaced: bool,
}

impl Partition {
    /// An empty partition, before any record.
    pub fn new() -> Self {
        Self::default()
    }

    /// The LSN of the last record applied.
    pub fn applied(&self) -> Lsn {
        self.applied
    }

    /// The transaction that was prepared here and is not decided.
    pub fn prepared(&self) -> Option<&Prepared> {
        self.prepared.as_ref()
    }

    /// What was decided of a transaction, if it is remembered: true, committed.
    pub fn decision(&self, transaction: TransactionId) -> Option<bool> {
        self.decisions.get(transaction)
    }

    /// The newest record, not committed yet, that commits a transaction over several partitions: its client may have been
    /// told already, for another partition's record is the decision.
    pub fn uncommitted_decision(&self) -> Option<Lsn> {
        let later = self.decisions.after(self.committed);
        later
            .filter(|decision| decision.committed)
            .last()
            .map(|decision| decision.lsn)
    }

    /// Forgets the tables that are not live.
    pub fn retain_tables(&mut self, live: impl Fn(TableId) -> bool) {
        self.tables.retain(|&table, _| live(table));
        self.dropped.retain(|&table, _| live(table));
        self.opened.retain(|&table, _| live(table));
    }

    /// How much is here, but for what the system keeps for itself. Counted as it changes: costs nothing to ask.
    pub fn stats(&self) -> Stats {
        self.tables
            .range(..FIRST_RESERVED_TABLE)
            .map(|(_, table)| table.stats())
            .fold(Stats::default(), Stats::plus)
    }
}

#[cfg(test)]
mod model_test;
