//! The rows that a program meets: the newest of a partition, or those of a transaction's snapshot with its own writes
//! over them.

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

/// Entries in key order.
pub(super) type Entries<'a> = Box<dyn Iterator<Item = (Key, Seen<'a>)> + 'a>;

/// See the module.
pub(super) trait View<'a> {
    /// What there is at a key.
    fn get(&mut self, key: &Key) -> Option<Seen<'a>>;
    /// What there is at all keys that begin with `prefix`.
    fn range(&mut self, prefix: &[u8]) -> Entries<'a>;
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

    fn range(&mut self, prefix: &[u8]) -> Entries<'a> {
        let from = Key::new(prefix);
        let entries = self.0.into_iter().flat_map(move |table| table.from(&from));
        let prefix = prefix.to_vec();
        let entries = entries.take_while(move |(key, _)| key.as_bytes().starts_with(&prefix));
        Box::new(entries.map(|(key, version)| (key, newest(version))))
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

    fn range(&mut self, prefix: &[u8]) -> Entries<'a> {
        self.reads.note_range(self.id, prefix);
        let entries = entries(
            self.table,
            self.writes,
            self.snapshot,
            Bound::Included(&Key::new(prefix)),
        );
        let prefix = prefix.to_vec();
        Box::new(entries.take_while(move |(key, _)| key.as_bytes().starts_with(&prefix)))
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
    let stored = table.map(|table| table.range(from));
    let stored = stored.into_iter().flatten();
    let stored = stored.map(move |(key, version)| (key, seen(version)));
    let own = writes.map(|writes| writes.range((from, Bound::Unbounded)));
    let own = own.into_iter().flatten().map(|(key, row)| {
        let row = row.as_deref();
        (key.clone(), Seen { lsn: 0, row })
    });
    merge(stored.peekable(), own.peekable())
}

/// Two sequences in key order as one; where both have a key, `over` counts.
fn merge<'a>(
    mut under: Peekable<impl Iterator<Item = (Key, Seen<'a>)>>,
    mut over: Peekable<impl Iterator<Item = (Key, Seen<'a>)>>,
) -> impl Iterator<Item = (Key, Seen<'a>)> {
    std::iter::from_fn(move || match (under.peek(), over.peek()) {
        (Some((below, _)), Some((above, _))) if below < above => under.next(),
        (Some((below, _)), Some((above, _))) => {
            if below == above {
                under.next();
            }
            over.next()
        }
        (Some(_), None) => under.next(),
        (None, _) => over.next(),
    })
}
