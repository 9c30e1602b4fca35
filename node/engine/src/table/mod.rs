//! A table's rows in one partition: an ordered map from key to versions.

mod version;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use crate::Lsn;
use crate::key::Key;
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
    /// Bytes of keys, rows and what holds them, without the allocator's and the tree's own slack.
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

/// Invariant: `stats` counts exactly what `entries` holds; every entry has a version.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<Key, Version>,
    /// No version is newer; after an undo they may all be older.
    newest: Lsn,
    stats: Stats,
}

impl Table {
    pub(crate) fn stats(&self) -> Stats {
        self.stats
    }

    #[inline]
    pub(crate) fn get(&self, key: &Key) -> Option<&Version> {
        self.entries.get(key)
    }

    /// The LSN of the newest version, or a greater one.
    pub(crate) fn newest(&self) -> Lsn {
        self.newest
    }

    /// The entries from `from` on, in key order.
    pub(crate) fn from<'t>(&'t self, from: &Key) -> impl Iterator<Item = (&'t Key, &'t Version)> + use<'t> {
        self.range(Bound::Included(from))
    }

    /// The entries from a bound on, in key order.
    pub(crate) fn range<'t>(&'t self, from: Bound<&Key>) -> impl Iterator<Item = (&'t Key, &'t Version)> + use<'t> {
        self.entries.range((from, Bound::Unbounded))
    }

    /// The entries after `after`, or all, in key order.
    pub(crate) fn after(&self, after: Option<&[u8]>) -> impl Iterator<Item = (&Key, &Version)> {
        let after = after.map(Key::new);
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded))
    }

    /// Puts a version on top: a row, or a tombstone. None: there was nothing to remove, and nothing is done.
    pub(crate) fn write(&mut self, key: Key, lsn: Lsn, row: Option<&[u8]>) -> Option<Replaced> {
        self.newest = self.newest.max(lsn);
        let row = row.map(Box::<[u8]>::from);
        let entry = match self.entries.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let row = row?;
                let heap = entry.key().heap_size();
                let version = entry.insert(Version::new(lsn, Some(row)));
                self.stats.rows += 1;
                self.stats.versions += 1;
                self.stats.bytes += (size_of::<Key>() + heap + version.size()) as u64;
                return Some(Replaced::Nothing);
            }
        };
        match (entry.row().is_some(), row.is_some()) {
            (false, false) => return None,
            (true, false) => self.stats.rows -= 1,
            (false, true) => self.stats.rows += 1,
            (true, true) => {}
        }
        let before = entry.size() as u64;
        if entry.lsn() == lsn {
            entry.replace_row(row);
            self.stats.bytes = self.stats.bytes - before + entry.size() as u64;
        } else {
            entry.push(lsn, row);
            self.stats.versions += 1;
            self.stats.bytes += entry.size() as u64;
        }
        Some(Replaced::Version)
    }

    /// A row as a dump carries it, into a table that has nothing at this key or the same.
    pub(crate) fn restore(&mut self, key: &[u8], lsn: Lsn, row: &[u8]) {
        let key = Key::new(key);
        self.remove(&key);
        self.write(key, lsn, Some(row));
    }

    /// Takes back the versions beyond `lsn`.
    pub(crate) fn undo_after(&mut self, key: &Key, lsn: Lsn) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let had_row = entry.row().is_some();
        let mut emptied = false;
        while entry.lsn() > lsn && !emptied {
            let size = entry.size() as u64;
            emptied = !entry.pop();
            if !emptied {
                self.stats.versions -= 1;
                self.stats.bytes -= size;
            }
        }
        self.stats.rows = self.stats.rows + u64::from(entry.row().is_some()) - u64::from(had_row);
        if emptied {
            self.remove(key);
        }
    }

    /// Drops the versions of a key that neither a pinned snapshot nor undoing beyond `committed` needs, and says which
    /// pins keep others, which are to be looked at again when those go.
    pub(crate) fn prune(&mut self, key: &Key, committed: Lsn, pins: &Pins, kept_by: &mut Vec<Lsn>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let stats = &mut self.stats;
        entry.prune(committed, pins, kept_by, |dropped| {
            stats.versions -= 1;
            stats.bytes -= dropped.size() as u64;
        });
        if entry.row().is_none() && entry.is_alone() && entry.lsn() <= committed {
            self.remove(key);
        }
    }

    /// Takes an entry with one version out.
    fn remove(&mut self, key: &Key) {
        let Some(version) = self.entries.remove(key) else {
            return;
        };
        debug_assert!(version.is_alone(), "only whole entries go");
        self.stats.rows -= u64::from(version.row().is_some());
        self.stats.versions -= 1;
        self.stats.bytes -= (size_of::<Key>() + key.heap_size() + version.size()) as u64;
    }
}

#[cfg(test)]
mod tests;
