//! Reads at a snapshot, chunk by chunk.

use bytes::Bytes;

use super::Partition;
use crate::error::StatementError;
use crate::plan::eval::Scope;
use crate::plan::{Expr, StatementContext};
use crate::row::{RowRef, encode_row_into};
use crate::value::Value;
use crate::{Lsn, TableId};

/// A chunk looks at no more entries than this, however few a filter keeps: nobody else can use the partition meanwhile.
const MAX_ENTRIES_SEEN: usize = 8_192;

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
        let Some(table) = self.tables.get(&table) else { return Ok(ScanChunk::default()) };
        // All rows lie in one buffer, cut up at the end.
        let (mut out, mut ends, mut next) = (Vec::new(), Vec::new(), None);
        for (seen, (key, version)) in table.after(after).enumerate() {
            if let Some((_, bytes)) = version.at(snapshot) {
                let row = RowRef::new(bytes);
                let scope = Scope { row: Some(row), parameters, context };
                if filter.map_or(Ok(true), |filter| filter.is_true(&scope))? {
                    match project {
                        Some(columns) => encode_row_into(&mut out, columns.iter().map(|&column| row.get(column))),
                        None => out.extend_from_slice(bytes),
                    }
                    ends.push(out.len());
                }
            }
            if out.len() + ends.len() * size_of::<Bytes>() >= max_bytes || seen + 1 >= MAX_ENTRIES_SEEN {
                next = Some(key.as_bytes().to_vec());
                break;
            }
        }
        let all = Bytes::from(out);
        let mut begin = 0;
        let rows = ends.into_iter().map(|end| all.slice(std::mem::replace(&mut begin, end)..end)).collect();
        Ok(ScanChunk { rows, next })
    }
}
