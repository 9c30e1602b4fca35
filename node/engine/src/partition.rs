//! A partition: tables of versioned rows, changed only by effects in LSN order, read at any LSN still kept.
//!
//! `run` executes a row program against the newest state and returns its effects without applying them;
//! `apply_record` applies one record at its LSN. Versions that it replaces stay until `commit_to` has passed them and
//! no pinned snapshot needs them; a removed row stays as a tombstone as long, so that a reader who misses it knows.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::effects::{Effects, LogPayload, TransactionId};
use crate::row::CorruptError;
use crate::{Lsn, PartitionId, TableId};

mod dump;
mod run;
mod scan;
mod table;

pub use dump::DumpCursor;
pub use run::{Failed, Outcome};
pub use scan::ScanChunk;
use table::Table;

/// Decisions of transactions over several partitions that are remembered; the oldest go first.
pub const MAX_DECISIONS: usize = 65_536;

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

/// How much a partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows of the newest state.
    pub rows: u64,
    /// Versions, the newest and tombstones included.
    pub versions: u64,
    /// Bytes of keys and rows.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Partition {
    tables: BTreeMap<TableId, Table>,
    applied: Lsn,
    committed: Lsn,
    prepared: Option<Prepared>,
    decisions: BTreeMap<TransactionId, bool>,
    decided: VecDeque<(Lsn, TransactionId)>,
    /// Pinned snapshots and how often each is.
    pins: BTreeMap<Lsn, usize>,
    /// Transactions decided beyond `committed`, as they were prepared: what undoing needs.
    settled: VecDeque<(Lsn, Prepared)>,
    /// What may have older versions or be a tombstone, in LSN order.
    garbage: VecDeque<(Lsn, TableId, Bytes)>,
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
        self.decisions.get(&transaction).copied()
    }

    /// Applies the next record.
    pub fn apply_record(&mut self, lsn: Lsn, payload: &LogPayload) -> Result<(), CorruptError> {
        assert_eq!(lsn, self.applied + 1, "records are applied in order, without gaps");
        match payload {
            LogPayload::Write(effects) => self.apply_effects(lsn, effects)?,
            LogPayload::Prepared { transaction, home, effects } => {
                assert!(self.prepared.is_none(), "a partition has one prepared transaction at a time");
                self.prepared = Some(Prepared { transaction: *transaction, home: *home, effects: effects.clone(), lsn });
            }
            LogPayload::Commit(transaction) => {
                let prepared = self.prepared.take_if(|prepared| prepared.transaction == *transaction);
                if let Some(prepared) = prepared {
                    self.apply_effects(lsn, &prepared.effects)?;
                    self.settled.push_back((lsn, prepared));
                }
                self.decide(lsn, *transaction, true);
            }
            LogPayload::Abort(transaction) => {
                let prepared = self.prepared.take_if(|prepared| prepared.transaction == *transaction);
                self.settled.extend(prepared.map(|prepared| (lsn, prepared)));
                self.decide(lsn, *transaction, false);
            }
            LogPayload::EpochStart => {}
        }
        self.applied = lsn;
        Ok(())
    }

    fn decide(&mut self, lsn: Lsn, transaction: TransactionId, commit: bool) {
        self.decisions.insert(transaction, commit);
        self.decided.push_back((lsn, transaction));
        while self.decided.len() > MAX_DECISIONS {
            if let Some((_, oldest)) = self.decided.pop_front() {
                self.decisions.remove(&oldest);
            }
        }
    }

    fn apply_effects(&mut self, lsn: Lsn, effects: &Effects) -> Result<(), CorruptError> {
        for effect in effects.iter() {
            let effect = effect?;
            let table = self.tables.entry(effect.table).or_default();
            if table.write(effect.key, lsn, effect.row) {
                self.garbage.push_back((lsn, effect.table, Bytes::copy_from_slice(effect.key)));
            }
        }
        Ok(())
    }

    /// Everything up to `committed` is committed: versions that nobody needs any more go.
    pub fn commit_to(&mut self, committed: Lsn) {
        self.committed = self.committed.max(committed.min(self.applied));
        let settled = self.settled.partition_point(|&(lsn, _)| lsn <= self.committed);
        self.settled.drain(..settled);
        let needed = self.pins.keys().next().copied().unwrap_or(Lsn::MAX).min(self.committed);
        while self.garbage.front().is_some_and(|&(lsn, _, _)| lsn <= needed) {
            if let Some((_, table, key)) = self.garbage.pop_front()
                && let Some(table) = self.tables.get_mut(&table)
            {
                table.prune(&key, needed);
            }
        }
    }

    /// Takes back what the records beyond `lsn` did; `payloads` are those records, oldest first.
    pub fn undo_after(&mut self, lsn: Lsn, payloads: &[(Lsn, LogPayload)]) {
        assert!(lsn >= self.committed, "what is committed stays");
        for (at, payload) in payloads.iter().rev() {
            assert_eq!(*at, self.applied, "records are undone newest first, without gaps");
            match payload {
                LogPayload::Write(effects) => self.undo_effects(*at, effects),
                LogPayload::Prepared { .. } => self.prepared = None,
                LogPayload::Commit(transaction) | LogPayload::Abort(transaction) => {
                    self.decisions.remove(transaction);
                    self.decided.retain(|(_, decided)| decided != transaction);
                    let settled = self.settled.pop_back_if(|(settled, _)| settled == at);
                    if let Some((_, prepared)) = settled {
                        if matches!(payload, LogPayload::Commit(_)) {
                            self.undo_effects(*at, &prepared.effects);
                        }
                        self.prepared = Some(prepared);
                    }
                }
                LogPayload::EpochStart => {}
            }
            self.applied = at - 1;
        }
        assert_eq!(self.applied, lsn, "every record beyond the cut is given");
        self.garbage.retain(|&(at, _, _)| at <= lsn);
    }

    fn undo_effects(&mut self, lsn: Lsn, effects: &Effects) {
        for effect in effects.iter().flatten() {
            if let Some(table) = self.tables.get_mut(&effect.table) {
                table.undo(effect.key, lsn);
            }
        }
    }

    /// Keeps what a snapshot at `lsn` needs, until `unpin`.
    pub fn pin(&mut self, lsn: Lsn) {
        *self.pins.entry(lsn).or_default() += 1;
    }

    /// A snapshot is no longer needed.
    pub fn unpin(&mut self, lsn: Lsn) {
        if let Some(count) = self.pins.get_mut(&lsn) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&lsn);
                self.commit_to(self.committed);
            }
        }
    }

    /// Forgets the tables that are not live.
    pub fn retain_tables(&mut self, live: impl Fn(TableId) -> bool) {
        self.tables.retain(|&table, _| live(table));
    }

    /// How much is here.
    pub fn stats(&self) -> Stats {
        self.tables.values().fold(Stats::default(), |stats, table| table.add_to(stats))
    }
}
