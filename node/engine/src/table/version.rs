//! The versions of one row, the newest first.
//!
//! An older version stays while a pinned snapshot sees it, or while the version that replaced it may be undone.

use super::Pins;
use crate::Lsn;

/// The newest version, inline in its table, and the older ones behind it.
#[derive(Debug)]
pub(crate) struct Version {
    lsn: Lsn,
    /// None: a tombstone.
    row: Option<Box<[u8]>>,
    older: Option<Box<Version>>,
}

impl Version {
    pub(crate) fn new(lsn: Lsn, row: Option<Box<[u8]>>) -> Self {
        Self { lsn, row, older: None }
    }

    /// The LSN of the record that wrote it.
    #[inline]
    pub(crate) fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The row; None: it was removed.
    #[inline]
    pub(crate) fn row(&self) -> Option<&[u8]> {
        self.row.as_deref()
    }

    /// Nothing is behind it.
    pub(crate) fn is_alone(&self) -> bool {
        self.older.is_none()
    }

    /// Bytes of this version alone.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.row.as_ref().map_or(0, |row| row.len())
    }

    /// The version that a snapshot at `snapshot` sees: (its LSN, its row). None: no row there.
    #[inline]
    pub(crate) fn at(&self, snapshot: Lsn) -> Option<(Lsn, &[u8])> {
        let mut version = self;
        while version.lsn > snapshot {
            version = version.older.as_deref()?;
        }
        Some((version.lsn, version.row()?))
    }

    pub(super) fn replace_row(&mut self, row: Option<Box<[u8]>>) {
        self.row = row;
    }

    /// A newer version takes its place, and it goes behind it.
    pub(super) fn push(&mut self, lsn: Lsn, row: Option<Box<[u8]>>) {
        assert!(lsn > self.lsn, "versions are written in LSN order");
        let older = std::mem::replace(self, Self::new(lsn, row));
        self.older = Some(Box::new(older));
    }

    /// The one behind it takes its place. False: there is none, and nothing is done.
    pub(super) fn pop(&mut self) -> bool {
        let Some(mut older) = self.older.take() else { return false };
        self.lsn = older.lsn;
        self.row = older.row.take();
        self.older = older.older.take();
        true
    }

    /// Drops the versions behind it that nobody needs; names the pins that keep the others.
    pub(super) fn prune(
        &mut self,
        committed: Lsn,
        pins: &Pins,
        kept_by: &mut Vec<Lsn>,
        mut dropped: impl FnMut(&Self),
    ) {
        let mut newer = self.lsn;
        let mut link = &mut self.older;
        while let Some(version) = link {
            let pinned = pins.range(version.lsn..newer.max(version.lsn)).next();
            if newer <= committed && pinned.is_none() {
                dropped(version);
                *link = version.older.take();
                continue;
            }
            // The newest commits later, which looks here again; a pin has to be waited for.
            if newer <= committed {
                kept_by.extend(pinned.map(|(&pin, _)| pin));
            }
            newer = version.lsn;
            match link {
                Some(version) => link = &mut version.older,
                None => break,
            }
        }
        while let Some(tombstone) = self.take_last_if_tombstone(committed) {
            dropped(&tombstone);
        }
    }

    /// A committed tombstone with nothing behind it says no more than its absence does.
    fn take_last_if_tombstone(&mut self, committed: Lsn) -> Option<Box<Self>> {
        let mut link = &mut self.older;
        while link.as_ref()?.older.is_some() {
            link = &mut link.as_mut()?.older;
        }
        link.take_if(|last| last.row.is_none() && last.lsn <= committed)
    }
}

/// Link by link: a long chain would overflow the stack.
impl Drop for Version {
    fn drop(&mut self) {
        let mut next = self.older.take();
        while let Some(mut version) = next {
            next = version.older.take();
        }
    }
}
