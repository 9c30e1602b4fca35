//! Reads at a snapshot, chunk by chunk.

use std::ops::Bound;

use bytes::Bytes;

use super::Partition;
use super::view::entries;
use crate::error::StatementError;
use crate::key::Key;
use crate::plan::eval::{Scope, version};
use crate::plan::{Expr, StatementContext};
use crate::row::{RowRef, encode_row_into};
use crate::transaction::Writes;
use crate::value::Value;
use crate::{Lsn, TableId};

/// A chunk looks at no more entries than this, however few a filter keeps: nobody else can use the partition meanwhile.
const MAX_ENTRIES_SEEN: usize = 8_192;

/// In the place of a column that a scan gives: the row's version, as `Expr::Version`.
pub const VERSION_COLUMN: usize = usize::MAX;

/// What is wanted of each row.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a> {
    /// These columns, in this order.
    pub columns: &'a [usize],
    /// The table's `Table::missing`.
    pub missing: &'a [Value],
    /// The table's `Table::version_base`.
    pub version_base: i64,
}

/// Rows, and where to go on. A chunk may be empty and not the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanChunk {
    /// Encoded rows, in key order.
    pub rows: Vec<Bytes>,
    /// The key to go on after; None: that was all.
    pub next: Option<Vec<u8>>,
}

impl Partition {
    /// The rows of a table that a snapshot at `snapshot` sees, in key order, from beyond `after`, at most about
    /// `max_bytes` of them; those for which `filter` is true, cut down to what `project` says. A transaction's `writes`
    /// stand in the places of what they change.
    #[allow(clippy::too_many_arguments)] // each is one clause of the query
    pub fn scan_at(
        &self,
        table: TableId,
        snapshot: Lsn,
        writes: &Writes,
        after: Option<&[u8]>,
        max_bytes: usize,
        filter: Option<&Expr>,
        parameters: &[Value],
        context: &StatementContext,
        project: Option<Projection<'_>>,
    ) -> Result<ScanChunk, StatementError> {
        let after = after.map(Key::new);
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.check_view(table, snapshot)?;
        let derived = self.view_under(table, writes, snapshot);
        let writes = derived.as_ref().or_else(|| writes.table(table));
        let missing = project.map_or(&[][..], |project| project.missing);
        let entries = entries(self.tables.get(&table), writes, snapshot, from);
        // All rows lie in one buffer, cut up at the end.
        let (mut out, mut ends, mut next) = (Vec::new(), Vec::new(), None);
        for (place, (key, seen)) in entries.enumerate() {
            if let Some(bytes) = seen.row {
                let row = RowRef::new(bytes).with_missing(missing);
                let scope = Scope {
                    row: Some(row),
                    lsn: seen.lsn,
                    parameters,
                    context,
                };
                if filter.map_or(Ok(true), |filter| filter.is_true(&scope))? {
                    match project {
                        Some(Projection {
                            columns, version_base, ..
                        }) => {
                            let value = |&column| match column {
                                VERSION_COLUMN => version(seen.lsn, version_base),
                                column => row.get(column),
                            };
                            encode_row_into(&mut out, columns.iter().map(value));
                        }
                        None => out.extend_from_slice(bytes),
                    }
                    ends.push(out.len());
                }
            }
            if out.len() + ends.len() * size_of::<Bytes>() >= max_bytes || place + 1 >= MAX_ENTRIES_SEEN {
                next = Some(key.as_bytes().to_vec());
                break;
            }
        }
        let all = Bytes::from(out);
        let mut begin = 0;
        let rows = ends
            .into_iter()
            .map(|end| all.slice(std::mem::replace(&mut begin, end)..end))
            .collect();
        Ok(ScanChunk { rows, next })
    }
}
