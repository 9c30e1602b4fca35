//! What a replica that must be filled still has: rows that are no state by themselves, but need not come again where they are
//! what they should be.

use bytes::Bytes;
use volt_engine::Lsn;
use volt_engine::partition::{DumpCursor, Partition};

use super::Replica;

impl Replica {
    /// Keeps these rows for the next fill, unless there are more already.
    pub(crate) fn keep_as_base(&mut self, rows: Partition) {
        let there = self.base.as_ref().map_or(0, |base| base.stats().bytes);
        if rows.stats().bytes > there {
            self.base = Some(Box::new(rows));
        }
    }

    /// Whether a fill need not bring all.
    pub(crate) fn has_base(&self) -> bool {
        self.base.is_some()
    }

    /// What the base has between two cursors of a dump at `snapshot`, at most so many bytes.
    pub(crate) fn base_range(
        &self,
        snapshot: Lsn,
        after: &DumpCursor,
        until: Option<&DumpCursor>,
        max_bytes: usize,
    ) -> Option<Bytes> {
        self.base.as_ref()?.dump_range(snapshot, after, until, max_bytes)
    }
}
