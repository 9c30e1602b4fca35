//! A table's rows in one partition: by key, the newest version first, older ones behind it while somebody needs them.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Stats;
use crate::Lsn;

/// One version of a row.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) lsn: Lsn,
    /// None: a tombstone.
    pub(super) row: Option<Box<[u8]>>,
    older: Option<Box<Version>>,
}

impl Version {
    /// The version that a snapshot at `lsn` sees.
    pub(super) fn at(&self, lsn: Lsn) -> Option<&Self> {
        let mut version = self;
        while version.lsn > lsn {
            version = version.older.as_deref()?;
        }
        Some(version)
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<Box<[u8]>, Version>,
}

impl Table {
    /// Puts a version on top. True when there is now something to prune some day.
    pub(super) fn write(&mut self, key: &[u8], lsn: Lsn, row: Option<&[u8]>) -> bool {
        let row = row.map(Box::from);
        let Some(newest) = self.rows.get_mut(key) else {
            let tombstone = row.is_none();
            self.rows.insert(key.into(), Version { lsn, row, older: None });
            return tombstone;
        };
        if newest.lsn == lsn {
            // A second effect of the same transaction on the same key.
            newest.row = row;
            return true;
        }
        assert!(newest.lsn < lsn, "versions grow");
        let older = std::mem::replace(newest, Version { lsn, row, older: None });
        newest.older = Some(Box::new(older));
        true
    }

    /// Takes back the version that `lsn` wrote.
    pub(super) fn undo(&mut self, key: &[u8], lsn: Lsn) {
        let Some(newest) = self.rows.get_mut(key).filter(|newest| newest.lsn == lsn) else { return };
        match newest.older.take() {
            Some(older) => *newest = *older,
            None => {
                self.rows.remove(key);
            }
        }
    }

    /// Drops what no reader at `needed` or later can see.
    pub(super) fn prune(&mut self, key: &[u8], needed: Lsn) {
        let Some(newest) = self.rows.get_mut(key) else { return };
        let mut version = newest;
        while version.lsn > needed {
            let Some(older) = version.older.as_deref_mut() else { return };
            version = older;
        }
        version.older = None;
        if let Some(newest) = self.rows.get(key)
            && newest.row.is_none()
            && newest.lsn <= needed
        {
            self.rows.remove(key);
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Version> {
        self.rows.get(key)
    }

    /// The versions of keys beyond `after`, in order.
    pub(super) fn after(&self, after: Option<&[u8]>) -> impl Iterator<Item = (&[u8], &Version)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, version)| (&**key, version))
    }

    /// The versions of keys that begin with `prefix`, in order.
    pub(super) fn with_prefix<'a>(&'a self, prefix: Vec<u8>) -> impl Iterator<Item = (&'a [u8], &'a Version)> {
        self.rows
            .range::<[u8], _>((Bound::Included(&*prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(key, version)| (&**key, version))
    }

    pub(super) fn add_to(&self, mut stats: Stats) -> Stats {
        for (key, newest) in &self.rows {
            stats.rows += u64::from(newest.row.is_some());
            stats.bytes += key.len() as u64;
            let mut version = Some(newest);
            while let Some(at) = version {
                stats.versions += 1;
                stats.bytes += at.row.as_ref().map_or(0, |row| row.len() as u64);
                version = at.older.as_deref();
            }
        }
        stats
    }

    pub(super) fn restore(&mut self, key: &[u8], lsn: Lsn, row: &[u8]) {
        self.rows.insert(key.into(), Version { lsn, row: Some(row.into()), older: None });
    }
}
