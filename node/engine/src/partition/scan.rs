//! Reads at a snapshot, chunk by chunk.

use bytes::Bytes;

use super::Partition;
use crate::error::StatementError;
use crate::plan::eval::Scope;
use crate::plan::{Expr, StatementContext};
use crate::row::{RowRef, encode_row};
use crate::value::{Value, ValueRef};
use crate::{Lsn, TableId};

/// Rows, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanChunk {
    /// Encoded rows, in key order.
    pub rows: Vec<Bytes>,
    /// The key to go on after; None: that was all.
    pub next: Option<Vec<u8>>,
}

impl Partition {
    /// The rows of a table that a snapshot at `snapshot` sees, in key order, from beyond `after`, at most about
    /// `max_bytes` of them; those for which `filter` is true, cut down to the columns of `project`.
    #[allow(clippy::too_many_arguments)] // each is one clause of the query
    pub fn scan_at(
        &self,
        table: TableId,
        snapshot: Lsn,
        after: Option<&[u8]>,
        max_bytes: usize,
        filter: Option<&Expr>,
        parameters: &[Value],
        context: &StatementContext,
        project: Option<&[usize]>,
    ) -> Result<ScanChunk, StatementError> {
        let mut chunk = ScanChunk::default();
        let Some(table) = self.tables.get(&table) else { return Ok(chunk) };
        let (mut bytes, mut seen, mut last) = (0, 0, None);
        for (key, version) in table.after(after) {
            if bytes > max_bytes || seen > max_bytes * 4 {
                chunk.next = last.map(<[u8]>::to_vec);
                return Ok(chunk);
            }
            (seen, last) = (seen + key.len() + 16, Some(key));
            let Some(row) = version.at(snapshot).and_then(|version| version.row.as_deref()) else { continue };
            let read = RowRef::trusted(row).map_err(|error| StatementError::TypeMismatch(error.to_string()))?;
            if let Some(filter) = filter
                && !filter.is_true(&Scope { row: Some(read), parameters, context })?
            {
                continue;
            }
            let out = match project {
                Some(columns) => {
                    let values: Vec<ValueRef<'_>> = columns.iter().map(|&column| read.get(column)).collect();
                    Bytes::from(encode_row(&values))
                }
                None => Bytes::copy_from_slice(row),
            };
            bytes += out.len() + 8;
            chunk.rows.push(out);
        }
        Ok(chunk)
    }
}
