//! What a replica that must be filled still has: rows that are no state by themselves, but need not come again where they are
//! what they should be.

use bytes::Bytes;
use volt_engine::Lsn;
use volt_engine::partition::{DumpCursor, Partition};

use super::Replica;

/// Such rows.
pub(crate) struct Base {
    rows: Partition,
    /// They have their LSNs.
    has_versions: bool,
}

impl Replica {
    /// Keeps these rows for the next fill, unless there are more already; whether it does.
    pub(crate) fn keep_as_base(&mut self, rows: Partition, has_versions: bool) -> bool {
        let there = self.base.as_ref().map_or(0, |base| base.rows.stats().bytes);
        let is_more = rows.stats().bytes > there;
        if is_more {
            self.base = Some(Box::new(Base { rows, has_versions }));
        }
        is_more
    }

    /// Whether a fill need not bring all.
    pub(crate) fn has_base(&self) -> bool {
        self.base.is_some()
    }

    /// Whether it brings the LSNs of what need not come.
    pub(crate) fn base_lacks_versions(&self) -> bool {
        self.base.as_ref().is_some_and(|base| !base.has_versions)
    }

    /// What the base has between two cursors of a dump at `snapshot`, at most so many bytes.
    pub(crate) fn base_range(
        &self,
        snapshot: Lsn,
        after: &DumpCursor,
        until: Option<&DumpCursor>,
        max_bytes: usize,
    ) -> Option<Bytes> {
        let base = self.base.as_ref()?;
        base.rows.dump_range(snapshot, after, until, max_bytes)
    }
}
