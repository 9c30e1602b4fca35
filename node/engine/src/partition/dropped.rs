//! Columns that were dropped, as far as a partition has heard.
//!
//! Rows that are written after a drop have NULL in the column's place, so what was planned before the drop may read none of
//! them. A partition hears of a drop from the catalog, or from a program that was planned with it, whichever comes first;
//! from then on it refuses what doesn't know of it. What the catalog says must have been told before a partition is
//! written to by a new primary: the old one may have heard more.

use std::collections::BTreeMap;

use super::Partition;
use crate::catalog::{Column, Table};
use crate::error::StatementError;
use crate::plan::Program;
use crate::{Lsn, TableId};

/// Of each table that has lost columns: the last record before each drop was heard of, in the order of the drops.
pub(super) type Heard = BTreeMap<TableId, Vec<Lsn>>;

impl Partition {
    /// So many columns of the table were dropped; those that weren't known to be, behind this record. A replica that is not
    /// the primary says 0: its primary may have heard earlier.
    pub fn hear_of_dropped(&mut self, table: TableId, columns: usize, since: Lsn) {
        if columns == 0 {
            return;
        }
        let heard = self.dropped.entry(table).or_default();
        if heard.len() < columns {
            heard.resize(columns, since);
        }
    }

    /// Whether the newest rows are such as a program takes them for; if there are columns dropped that weren't known, they
    /// are now.
    pub fn accept(&mut self, program: &Program) -> Result<(), StatementError> {
        self.check_open(program.table)?;
        let columns = program.dropped_columns();
        self.hear_of_dropped(program.table, columns, self.applied);
        self.check_dropped(program.table, columns, Lsn::MAX)
    }

    /// Records behind this one are gone: what comes in their places may have been written after what was heard behind them.
    pub(super) fn hear_again_after(&mut self, lsn: Lsn) {
        for since in self.dropped.values_mut().flatten() {
            *since = lsn.min(*since);
        }
    }

    /// Whether the rows that a snapshot sees are such as they were when so many columns were dropped.
    pub fn check_dropped(&self, table: TableId, columns: usize, snapshot: Lsn) -> Result<(), StatementError> {
        let next = self.dropped.get(&table).and_then(|heard| heard.get(columns));
        match next {
            Some(&since) if snapshot > since => Err(StatementError::ColumnDropped),
            _ => Ok(()),
        }
    }
}

impl Program {
    /// How many columns its table had lost when it was made.
    pub fn dropped_columns(&self) -> usize {
        dropped(&self.columns)
    }
}

impl Table {
    /// How many columns it has lost.
    pub fn dropped_columns(&self) -> usize {
        dropped(&self.columns)
    }
}

fn dropped(columns: &[Column]) -> usize {
    columns.iter().filter(|column| column.is_dropped).count()
}

#[cfg(test)]
mod tests;
