//! The rows that a program meets: the newest of a partition, or those of a transaction's snapshot with its own writes
//! over them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use crate::key::Key;
use crate::table::{Table, Version};
use crate::transaction::{Reads, Written};
use crate::{Lsn, TableId};

/// What there is at a key.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// The record that wrote it; 0: the transaction itself, or nothing is there.
    pub(super) lsn: Lsn,
    /// The row; None: it was removed, or the view doesn't see it.
    pub(super) row: Option<&'a [u8]>,
}

impl Seen<'_> {
    const NOTHING: Self = Self { lsn: 0, row: None };
}

/// See the module.
pub(super) trait View<'a> {
    /// What there is at a key.
    fn get(&mut self, key: &Key) -> Option<Seen<'a>>;
    /// What there is from `prefix` on, in key order, of which the caller takes the keys that begin with it. None: nothing
    /// was ever written there.
    fn range(&mut self, prefix: &Key) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a, Self>>;
    /// A row that a range gave is to be changed.
    fn changes(&mut self, key: &Key, lsn: Lsn);
}

/// The newest state; of a table that nothing was ever written to, nothing.
pub(super) struct Newest<'a>(pub(super) Option<&'a Table>);

fn newest(version: &Version) -> Seen<'_> {
    Seen {
        lsn: version.lsn(),
        row: version.row(),
    }
}

impl<'a> View<'a> for Newest<'a> {
    #[inline]
    fn get(&mut self, key: &Key) -> Option<Seen<'a>> {
        self.0?.get(key).map(newest)
    }

    #[inline]
    fn range(&mut self, prefix: &Key) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a>> {
        let entries = self.0?.from(prefix);
        Some(entries.map(|(key, version)| (key, newest(version))))
    }

    fn changes(&mut self, _: &Key, _: Lsn) {}
}

/// A transaction's snapshot under its own writes; what it looks at is noted.
pub(super) struct Own<'a> {
    pub(super) id: TableId,
    pub(super) table: Option<&'a Table>,
    pub(super) snapshot: Lsn,
    pub(super) writes: Option<&'a BTreeMap<Key, Written>>,
    pub(super) reads: Reads,
}

impl<'a> View<'a> for Own<'a> {
    fn get(&mut self, key: &Key) -> Option<Seen<'a>> {
        if let Some(row) = self.writes.and_then(|writes| writes.get(key)) {
            let row = row.as_deref();
            return Some(Seen { lsn: 0, row });
        }
        let found = self
            .table
            .and_then(|table| table.get(key))
            .and_then(|version| version.at(self.snapshot));
        self.reads
            .note_key(self.id, key.as_bytes(), found.map_or(0, |(lsn, _)| lsn));
        found.map(|(lsn, row)| Seen { lsn, row: Some(row) })
    }

    fn range(&mut self, prefix: &Key) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a>> {
        self.reads.note_range(self.id, prefix.as_bytes());
        let from = Bound::Included(prefix);
        Some(entries(self.table, self.writes, self.snapshot, from))
    }

    fn changes(&mut self, key: &Key, lsn: Lsn) {
        // Its own rows were noted when it first wrote them.
        if lsn > 0 {
            self.reads.note_key(self.id, key.as_bytes(), lsn);
        }
    }
}

/// A table's entries at a snapshot, with the writes of a transaction in their places.
pub(super) fn entries<'a>(
    table: Option<&'a Table>,
    writes: Option<&'a BTreeMap<Key, Written>>,
    snapshot: Lsn,
    from: Bound<&Key>,
) -> impl Iterator<Item = (Key, Seen<'a>)> + use<'a> {
    let seen = move |version: &'a Version| match version.at(snapshot) {
        Some((lsn, row)) => Seen { lsn, row: Some(row) },
        None => Seen::NOTHING,
    };
    let stored = table.map(|table| table.range(from).map(move |(key, version)| (key, seen(version))));
    let own = writes.map(|writes| writes.range((from, Bound::Unbounded)).peekable());
    merge(stored.map(Iterator::peekable), own)
}

/// What is stored and what is written as one, in key order; where both have a key, what is written counts.
fn merge<'a, 'w: 'a>(
    mut stored: Option<Peekable<impl Iterator<Item = (Key, Seen<'a>)>>>,
    mut written: Option<Peekable<impl Iterator<Item = (&'w Key, &'w Written)>>>,
) -> impl Iterator<Item = (Key, Seen<'a>)> {
    std::iter::from_fn(move || {
        // Most readers have written nothing: they pay nothing for those who have.
        let Some(written) = &mut written else {
            return stored.as_mut()?.next();
        };
        let below = stored.as_mut().and_then(Peekable::peek);
        let order = match (below, written.peek()) {
            (Some((below, _)), Some((above, _))) => below.cmp(above),
            (_, None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        if order == Ordering::Less {
            return stored.as_mut()?.next();
        }
        if order == Ordering::Equal {
            stored.as_mut()?.next();
        }
        let (key, row) = written.next()?;
        let row = row.as_deref();
        Some((key.clone(), Seen { lsn: 0, row }))
    })
}
