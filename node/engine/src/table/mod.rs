//! A table's rows in one partition: an ordered map from key to versions.
//!
//! Two levels of arrays (leaves.rs) have a place for each leaf (leaf.rs), a packed run of up to 64 rows; a row is one heap block with its
//! LSN and what of its key is not in the leaf (version.rs), behind a pointer of eight bytes (block.rs).

mod block;
mod index;
mod leaf;
mod leaves;
mod version;

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::Lsn;
use crate::key::Key;
use index::Indexes;
pub(crate) use index::{Entry, Index, push_value, unique_values_of, values_of};
use leaf::{Leaf, Rows, RowsBack};
use leaves::{Leaves, Place};
use version::LINK_SIZE;
pub(crate) use version::Version;

/// Pinned snapshots, and how often each is pinned.
pub(crate) type Pins = BTreeMap<Lsn, usize>;

/// How much a partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows of the newest state.
    pub rows: u64,
    /// Versions, the newest and tombstones included.
    pub versions: u64,
    /// Bytes that the allocator was asked for: versions, their links, leaves with their free places, and the entries of
    /// indexes. Left out: what
    /// it rounds up (mimalloc has four sizes a doubling: a tenth or so), the free places of the tree over the leaves (a
    /// byte a row), and the notes on what is not committed or pinned. What a process takes: docs/performance.md.
    pub bytes: u64,
}

impl Stats {
    /// Bytes a row, on average.
    pub fn bytes_per_row(&self) -> f64 {
        if self.rows == 0 {
            0.0
        } else {
            self.bytes as f64 / self.rows as f64
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            versions: self.versions + other.versions,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// What a write found at its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// No entry, and there is one now: undoing must find it, pruning need not.
    Nothing,
    /// A version that stays behind the new one, or the same transaction's own.
    Version,
}

/// Invariants: no leaf is empty; every entry has a version; `stats` counts exactly what `leaves` holds.
#[derive(Debug, Default)]
pub(crate) struct Table {
    leaves: Leaves,
    /// No version is newer; after an undo they may all be older.
    newest: Lsn,
    stats: Stats,
    indexes: Indexes,
}

fn version_mut<'a>(leaves: &'a mut Leaves, key: &Key) -> Option<&'a mut Version> {
    let place = leaves.place(key)?;
    let leaf = leaves.at_mut(place);
    let at = leaf.find(key).ok()?;
    Some(leaf.version_mut(at))
}

impl Table {
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            bytes: self.stats.bytes + self.leaves.bytes() + self.indexes.bytes(),
            ..self.stats
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: &Key) -> Option<&Version> {
        let leaf = self.leaves.at(self.leaves.place(key)?);
        let at = leaf.find(key).ok()?;
        Some(&leaf.entries()[at].version)
    }

    /// The LSN of the newest version, or a greater one.
    pub(crate) fn newest(&self) -> Lsn {
        self.newest
    }

    /// The entries from `from` on, in key order.
    pub(crate) fn from<'t>(&'t self, from: &Key) -> impl Iterator<Item = (Key, &'t Version)> + use<'t> {
        self.range(Bound::Included(from))
    }

    /// The entries after `after`, or all, in key order.
    pub(crate) fn after(&self, after: Option<&[u8]>) -> impl Iterator<Item = (Key, &Version)> + use<'_> {
        let after = after.map(Key::new);
        self.range(after.as_ref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// The entries from a bound on, in key order.
    pub(crate) fn range(&self, from: Bound<&Key>) -> impl Iterator<Item = (Key, &Version)> + use<'_> {
        let first = match from {
            Bound::Included(key) | Bound::Excluded(key) => self.leaves.place(key),
            Bound::Unbounded => self.leaves.first_place(),
        };
        let begun = first.map(|place| self.leaves.at(place));
        let begin = match (begun, from) {
            (Some(leaf), Bound::Included(key)) => leaf.find(key).unwrap_or_else(|at| at),
            (Some(leaf), Bound::Excluded(key)) => leaf.find(key).map_or_else(|at| at, |at| at + 1),
            _ => 0,
        };
        Rows::new(begun.map(|leaf| (leaf, begin)), self.leaves.behind(first))
    }

    /// The entries below a key, or all, from the last to the first.
    pub(crate) fn back(&self, to: Option<&Key>) -> impl Iterator<Item = (Key, &Version)> + use<'_> {
        let last = match to {
            Some(to) => self.leaves.place(to),
            None => self.leaves.last_place(),
        };
        let begun = last.map(|place| self.leaves.at(place));
        let end = match (begun, to) {
            (Some(leaf), Some(to)) => leaf.find(to).unwrap_or_else(|at| at),
            (Some(leaf), None) => leaf.entries().len(),
            (None, _) => 0,
        };
        RowsBack::new(begun.map(|leaf| (leaf, end)), self.leaves.before(last))
    }

    /// Puts a version on top: a row, or a tombstone. None: there was nothing to remove, and nothing is done.
    pub(crate) fn write(&mut self, key: &Key, lsn: Lsn, row: Option<&[u8]>) -> Option<Replaced> {
        if self.keeps_entries(key, row) {
            return self.write_row(key, lsn, row);
        }
        self.indexed(key, |table| table.write_row(key, lsn, row))
    }

    fn write_row(&mut self, key: &Key, lsn: Lsn, row: Option<&[u8]>) -> Option<Replaced> {
        self.newest = self.newest.max(lsn);
        let place = self.leaves.place(key);
        let found = place.map(|place| (place, self.leaves.at(place).find(key)));
        let Some((place, Ok(at))) = found else {
            self.insert(key, Version::new(key.as_bytes(), lsn, Some(row?)));
            return Some(Replaced::Nothing);
        };
        let version = self.leaves.at_mut(place).version_mut(at);
        let had_row = version.row().is_some();
        if !had_row && row.is_none() {
            return None;
        }
        let before = version.size();
        if version.lsn() == lsn {
            version.replace_row(key.as_bytes(), row);
            self.stats.bytes -= before;
        } else {
            version.push(key.as_bytes(), lsn, row);
            self.stats.bytes += LINK_SIZE;
            self.stats.versions += 1;
        }
        self.stats.bytes += version.size();
        self.stats.rows = self.stats.rows + u64::from(row.is_some()) - u64::from(had_row);
        Some(Replaced::Version)
    }

    /// Puts an entry in that is not there.
    fn insert(&mut self, key: &Key, version: Version) {
        if self.leaves.is_empty() {
            self.leaves.begin(Leaf::default());
        }
        let Some(place) = self.leaves.place(key) else { return };
        let leaf = self.leaves.at_mut(place);
        let Err(at) = leaf.find(key) else { return };
        let (before, size) = (leaf.size(), version.size());
        let has_row = version.row().is_some();
        let second = leaf.insert(at, key, version);
        let after = leaf.size();
        self.stats.rows += u64::from(has_row);
        self.stats.versions += 1;
        self.stats.bytes = self.stats.bytes + size + after - before;
        if let Some(second) = second
            && let Some(first) = second.first_key()
        {
            self.stats.bytes += second.size();
            self.leaves.insert_behind(place, first, second);
        }
    }

    /// A row as a dump carries it, into a table that has nothing at this key or the same.
    pub(crate) fn restore(&mut self, key: &[u8], lsn: Lsn, row: &[u8]) {
        let key = Key::new(key);
        self.indexed(&key, |table| {
            table.remove(&key);
            table.insert(&key, Version::new(key.as_bytes(), lsn, Some(row)));
        });
    }

    /// Takes back the versions beyond `lsn`.
    pub(crate) fn undo_after(&mut self, key: &Key, lsn: Lsn) {
        self.indexed(key, |table| table.undo_after_row(key, lsn))
    }

    fn undo_after_row(&mut self, key: &Key, lsn: Lsn) {
        let Some(version) = version_mut(&mut self.leaves, key) else {
            return;
        };
        let had_row = version.row().is_some();
        let (mut undone, mut bytes) = (0, 0);
        let mut emptied = false;
        while version.lsn() > lsn && !emptied {
            let size = version.size();
            emptied = !version.pop();
            if !emptied {
                undone += 1;
                bytes += size + LINK_SIZE;
            }
        }
        let has_row = version.row().is_some();
        self.stats.versions -= undone;
        self.stats.bytes -= bytes;
        self.stats.rows = self.stats.rows + u64::from(has_row) - u64::from(had_row);
        if emptied {
            self.remove(key);
        }
    }

    /// Drops the versions of a key that neither a pinned snapshot nor undoing beyond `committed` needs, and says which
    /// pins keep others, which are to be looked at again when those go.
    pub(crate) fn prune(&mut self, key: &Key, committed: Lsn, pins: &Pins, kept_by: &mut Vec<Lsn>) {
        if self.keeps_entries_when_pruned(key) {
            return self.prune_row(key, committed, pins, kept_by);
        }
        self.indexed(key, |table| table.prune_row(key, committed, pins, kept_by))
    }

    fn prune_row(&mut self, key: &Key, committed: Lsn, pins: &Pins, kept_by: &mut Vec<Lsn>) {
        let Some(version) = version_mut(&mut self.leaves, key) else {
            return;
        };
        let pruned = version.prune(committed, pins, kept_by);
        let hides_nothing = version.row().is_none() && version.is_alone() && version.lsn() <= committed;
        self.stats.versions -= pruned.versions;
        self.stats.bytes -= pruned.bytes;
        if hides_nothing {
            self.remove(key);
        }
    }

    /// Takes an entry with one version out.
    fn remove(&mut self, key: &Key) {
        let Some(place) = self.leaves.place(key) else { return };
        let leaf = self.leaves.at_mut(place);
        let Ok(at) = leaf.find(key) else { return };
        let before = leaf.size();
        let version = leaf.remove(at);
        let freed = before - leaf.size() + version.size();
        let is_empty = leaf.entries().is_empty();
        debug_assert!(version.is_alone(), "only whole entries go");
        self.stats.rows -= u64::from(version.row().is_some());
        self.stats.versions -= 1;
        self.stats.bytes -= freed;
        if is_empty {
            self.remove_leaf(place);
        }
    }

    fn remove_leaf(&mut self, place: Place) {
        let leaf = self.leaves.remove(place);
        self.stats.bytes -= leaf.size();
    }
}

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod tests;
