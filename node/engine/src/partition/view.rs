//! The rows that a program meets: the newest of a partition, or those of a transaction's snapshot with its own writes
//! over them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use super::indexes::{Found, by_index};
use crate::key::Key;
use crate::span::Span;
use crate::table::{Table, Version};
use crate::transaction::{Reads, Written};
use crate::{IndexId, Lsn, TableId};

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
    /// What there is from `from` on, in key order, of which the caller takes what it wants. None: nothing was ever written
    /// there.
    fn range(&mut self, from: &Key) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a, Self>>;
    /// What there is below `to`, from the last to the first; otherwise as `range`.
    fn range_back(&mut self, to: Option<&Key>) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a, Self>>;
    /// All of this was looked at, by `range` or `range_back`.
    fn looked_at(&mut self, range: Span);
    /// What an index has of a span of its values, each with its key; what has other values by now is given without its
    /// row. None: it can't be read by.
    fn by_index(
        &mut self,
        index: IndexId,
        span: &Span,
        backward: bool,
    ) -> Option<impl Iterator<Item = Found<'a>> + use<'a, Self>>;
    /// All of this was looked at, by `by_index`.
    fn looked_at_index(&mut self, index: IndexId, values: Span);
    /// The table as it is stored; None: nothing was ever written to it.
    fn table(&self) -> Option<&'a Table>;
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
    fn range(&mut self, from: &Key) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a>> {
        let entries = self.0?.from(from);
        Some(entries.map(|(key, version)| (key, newest(version))))
    }

    fn range_back(&mut self, to: Option<&Key>) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a>> {
        let entries = self.0?.back(to);
        Some(entries.map(|(key, version)| (key, newest(version))))
    }

    fn looked_at(&mut self, _: Span) {}

    fn by_index(
        &mut self,
        index: IndexId,
        span: &Span,
        backward: bool,
    ) -> Option<impl Iterator<Item = Found<'a>> + use<'a>> {
        by_index(self.0, index, newest, None, span, backward)
    }

    fn looked_at_index(&mut self, _: IndexId, _: Span) {}

    fn table(&self) -> Option<&'a Table> {
        self.0
    }

    fn changes(&mut self, _: &Key, _: Lsn) {}
}

/// A transaction's snapshot under its own writes; what it looks at is noted.
pub(super) struct Own<'a> {
    pub(super) id: TableId,
    pub(super) table: Option<&'a Table>,
    pub(super) snapshot: Lsn,
    pub(super) writes: Option<&'a BTreeMap<Key, Written>>,
    /// The writes are made of what is stored: who reads one has read that too.
    pub(super) derived: bool,
    pub(super) reads: Reads,
}

impl<'a> View<'a> for Own<'a> {
    fn get(&mut self, key: &Key) -> Option<Seen<'a>> {
        let own = self.writes.and_then(|writes| writes.get(key));
        if let Some(row) = own
            && !self.derived
        {
            let row = row.as_deref();
            return Some(Seen { lsn: 0, row });
        }
        let found = self
            .table
            .and_then(|table| table.get(key))
            .and_then(|version| version.at(self.snapshot));
        self.reads
            .note_key(self.id, key.as_bytes(), found.map_or(0, |(lsn, _)| lsn));
        if let Some(row) = own {
            let row = row.as_deref();
            return Some(Seen { lsn: 0, row });
        }
        found.map(|(lsn, row)| Seen { lsn, row: Some(row) })
    }

    fn range(&mut self, from: &Key) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a>> {
        let from = Bound::Included(from);
        Some(entries(self.table, self.writes, self.snapshot, from))
    }

    fn range_back(&mut self, to: Option<&Key>) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a>> {
        Some(entries_back(self.table, self.writes, self.snapshot, to))
    }

    fn looked_at(&mut self, range: Span) {
        let to = range.to.as_ref().map(Key::as_bytes);
        self.reads.note_range(self.id, range.from.as_bytes(), to);
    }

    fn by_index(
        &mut self,
        index: IndexId,
        span: &Span,
        backward: bool,
    ) -> Option<impl Iterator<Item = Found<'a>> + use<'a>> {
        by_index(self.table, index, seen_at(self.snapshot), self.writes, span, backward)
    }

    fn looked_at_index(&mut self, index: IndexId, values: Span) {
        let to = values.to.as_ref().map(Key::as_bytes);
        self.reads.note_index(self.id, index, values.from.as_bytes(), to);
    }

    fn table(&self) -> Option<&'a Table> {
        self.table
    }

    fn changes(&mut self, key: &Key, lsn: Lsn) {
        // Its own rows were noted when it first wrote them.
        if lsn > 0 {
            self.reads.note_key(self.id, key.as_bytes(), lsn);
        }
    }
}

/// The newest state under what a transaction that runs here and now has written so far.
pub(super) struct Serial<'a> {
    pub(super) table: Option<&'a Table>,
    pub(super) writes: Option<&'a BTreeMap<Key, Written>>,
}

impl<'a> View<'a> for Serial<'a> {
    #[inline]
    fn get(&mut self, key: &Key) -> Option<Seen<'a>> {
        if let Some(row) = self.writes.and_then(|writes| writes.get(key)) {
            let row = row.as_deref();
            return Some(Seen { lsn: 0, row });
        }
        self.table?.get(key).map(newest)
    }

    #[inline]
    fn range(&mut self, from: &Key) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a>> {
        let stored = self
            .table
            .map(|table| table.from(from).map(|(key, version)| (key, newest(version))));
        let own = self
            .writes
            .map(|writes| writes.range((Bound::Included(from), Bound::Unbounded)).peekable());
        Some(merge(stored.map(Iterator::peekable), own, |stored, own| {
            stored.cmp(own)
        }))
    }

    fn range_back(&mut self, to: Option<&Key>) -> Option<impl Iterator<Item = (Key, Seen<'a>)> + use<'a>> {
        let entries = |table: &'a Table| table.back(to).map(|(key, version)| (key, newest(version))).peekable();
        let below = to.map_or(Bound::Unbounded, Bound::Excluded);
        let own = self
            .writes
            .map(|writes| writes.range((Bound::Unbounded, below)).rev().peekable());
        Some(merge(self.table.map(entries), own, |stored, own| own.cmp(stored)))
    }

    fn looked_at(&mut self, _: Span) {}

    fn by_index(
        &mut self,
        index: IndexId,
        span: &Span,
        backward: bool,
    ) -> Option<impl Iterator<Item = Found<'a>> + use<'a>> {
        by_index(self.table, index, newest, self.writes, span, backward)
    }

    fn looked_at_index(&mut self, _: IndexId, _: Span) {}

    fn table(&self) -> Option<&'a Table> {
        self.table
    }

    fn changes(&mut self, _: &Key, _: Lsn) {}
}

/// What a snapshot sees of a row.
pub(super) fn seen_at(snapshot: Lsn) -> impl Fn(&Version) -> Seen<'_> + Copy {
    move |version| match version.at(snapshot) {
        Some((lsn, row)) => Seen { lsn, row: Some(row) },
        None => Seen::NOTHING,
    }
}

fn at(snapshot: Lsn) -> impl Fn((Key, &Version)) -> (Key, Seen<'_>) {
    let seen = seen_at(snapshot);
    move |(key, version)| (key, seen(version))
}

/// A table's entries at a snapshot, with the writes of a transaction in their places.
pub(super) fn entries<'a>(
    table: Option<&'a Table>,
    writes: Option<&'a BTreeMap<Key, Written>>,
    snapshot: Lsn,
    from: Bound<&Key>,
) -> impl Iterator<Item = (Key, Seen<'a>)> + use<'a> {
    let stored = table.map(|table| table.range(from).map(at(snapshot)).peekable());
    let own = writes.map(|writes| writes.range((from, Bound::Unbounded)).peekable());
    merge(stored, own, |stored, own| stored.cmp(own))
}

/// The same below a key, from the last to the first.
pub(super) fn entries_back<'a>(
    table: Option<&'a Table>,
    writes: Option<&'a BTreeMap<Key, Written>>,
    snapshot: Lsn,
    to: Option<&Key>,
) -> impl Iterator<Item = (Key, Seen<'a>)> + use<'a> {
    let stored = table.map(|table| table.back(to).map(at(snapshot)).peekable());
    let below = to.map_or(Bound::Unbounded, Bound::Excluded);
    let own = writes.map(|writes| writes.range((Bound::Unbounded, below)).rev().peekable());
    merge(stored, own, |stored, own| own.cmp(stored))
}

/// What is stored and what is written as one, in their common order; where both have a key, what is written counts.
fn merge<'a, 'w: 'a>(
    mut stored: Option<Peekable<impl Iterator<Item = (Key, Seen<'a>)>>>,
    mut written: Option<Peekable<impl Iterator<Item = (&'w Key, &'w Written)>>>,
    compare: impl Fn(&Key, &Key) -> Ordering,
) -> impl Iterator<Item = (Key, Seen<'a>)> {
    std::iter::from_fn(move || {
        // Most readers have written nothing: they pay nothing for those who have.
        let Some(written) = &mut written else {
            return stored.as_mut()?.next();
        };
        let first = stored.as_mut().and_then(Peekable::peek);
        let order = match (first, written.peek()) {
            (Some((stored, _)), Some((own, _))) => compare(stored, own),
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
