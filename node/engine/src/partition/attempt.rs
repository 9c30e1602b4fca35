//! Statements of interactive transactions: run at a snapshot, applied at the end if what they read still stands.

use super::Partition;
use super::run::Run;
use super::view::Own;
use crate::effects::Effects;
use crate::error::StatementError;
use crate::key::Key;
use crate::plan::{Program, StatementContext};
use crate::span::Span;
use crate::table::{Table, Version};
use crate::transaction::{Reads, Writes};
use crate::value::{Value, ValueRef};
use crate::{IndexId, Lsn, TableId};

/// Validating a range looks at no more entries than this, about a millisecond; a larger one stands only if nothing was
/// written to its table.
const MAX_ENTRIES_VALIDATED: usize = 65_536;

/// What a statement of a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What it looked at, also when it failed: its client is told what it met.
    pub reads: Reads,
    /// Rows returned or changed, and what it wants to do beyond what the transaction has written before (None: nothing).
    pub result: Result<(u64, Option<Effects>), StatementError>,
}

impl Partition {
    /// Runs a program at a snapshot, which must be pinned, as if `writes` were applied; nothing is.
    pub fn attempt(
        &self,
        snapshot: Lsn,
        writes: &Writes,
        program: &Program,
        parameters: &[Value],
        context: &StatementContext,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Attempt {
        let derived = self.view_under(program.table, writes, snapshot);
        let view = Own {
            id: program.table,
            table: self.tables.get(&program.table),
            snapshot,
            derived: derived.is_some(),
            writes: derived.as_ref().or_else(|| writes.table(program.table)),
            reads: Reads::default(),
        };
        let mut run = Run::new(program, view, parameters, context);
        let result = self
            .check_view(program.table, snapshot)
            .and_then(|()| self.check_open(program.table))
            .and_then(|()| self.check_dropped(program.table, program.dropped_columns(), snapshot))
            .and_then(|()| run.perform(sink));
        Attempt {
            reads: run.into_view().reads,
            result,
        }
    }

    /// True when everything that was read at `snapshot` is still so in the newest state. A range stands only while its
    /// snapshot is pinned, for a removal leaves no other trace.
    pub fn stands(&self, reads: &Reads, snapshot: Lsn) -> bool {
        let is_gone = |table| self.check_view(table, snapshot).is_err() || self.check_open(table).is_err();
        if reads.tables().any(is_gone) {
            return false;
        }
        let newest = |table, key: &[u8]| {
            let version = self.tables.get(&table)?.get(&Key::new(key))?;
            version.row().map(|_| version.lsn())
        };
        reads
            .keys()
            .all(|(table, key, lsn)| newest(table, key).unwrap_or(0) == lsn)
            && reads
                .ranges()
                .all(|(table, from, to)| self.range_stands(table, from, to, snapshot))
            && reads
                .indexes()
                .all(|(table, index, from, to)| self.index_stands(table, index, from, to, snapshot))
    }

    /// What had, or has, a value in the span is in the index while the snapshot is pinned.
    fn index_stands(&self, table: TableId, index: IndexId, from: &[u8], to: Option<&[u8]>, snapshot: Lsn) -> bool {
        self.unchanged_since(table, snapshot, |table| {
            let span = Span {
                from: Key::new(from),
                to: to.map(Key::new),
            };
            let entries = table.index(index)?.entries(&span, false);
            Some(entries.filter_map(|(_, key)| table.get(key)))
        })
    }

    fn range_stands(&self, table: TableId, from: &[u8], to: Option<&[u8]>, snapshot: Lsn) -> bool {
        self.unchanged_since(table, snapshot, |table| {
            let entries = table.from(&Key::new(from));
            let within = entries.take_while(move |(key, _)| to.is_none_or(|to| key.as_bytes() < to));
            Some(within.map(|(_, version)| version))
        })
    }

    /// True when none of these rows of a table is newer than a snapshot that is pinned, or nothing in the table is. None:
    /// they can't be looked at.
    fn unchanged_since<'a, I: Iterator<Item = &'a Version>>(
        &'a self,
        table: TableId,
        snapshot: Lsn,
        rows: impl FnOnce(&'a Table) -> Option<I>,
    ) -> bool {
        if !self.is_pinned(snapshot) {
            return false;
        }
        let Some(table) = self.tables.get(&table) else {
            return true;
        };
        if table.newest() <= snapshot {
            return true;
        }
        let Some(mut rows) = rows(table) else {
            return false;
        };
        let mut looked_at = rows.by_ref().take(MAX_ENTRIES_VALIDATED);
        looked_at.all(|version| version.lsn() <= snapshot) && rows.next().is_none()
    }
}

#[cfg(test)]
mod tests;
