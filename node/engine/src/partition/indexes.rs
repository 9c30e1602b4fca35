//! A partition's secondary indexes: which there are, building them, and reading by one.
//!
//! They hold nothing that rows don't: they are no part of a dump, and a partition that was loaded builds them anew.

use std::collections::BTreeMap;
use std::iter::Peekable;

use super::Partition;
use super::view::Seen;
use crate::catalog::{Index as Definition, IndexShape};
use crate::key::Key;
use crate::span::Span;
use crate::table::{Table, Version, values_of};
use crate::transaction::Written;
use crate::{IndexId, TableId};

/// A row that an index found: its values there, its key, what there is.
pub(super) type Found<'a> = (Key, Key, Seen<'a>);

impl Partition {
    /// A table has these indexes and no others. New ones are to be built; rows that change meanwhile are in them. Of a
    /// partition that is being loaded, to be told when that is done.
    pub fn set_indexes(&mut self, table: TableId, indexes: &[Definition]) {
        self.tables.entry(table).or_default().set_indexes(indexes);
    }

    /// True when a table has these indexes and no others.
    pub fn has_indexes(&self, table: TableId, indexes: &[Definition]) -> bool {
        let table = self.tables.get(&table);
        table.map_or(indexes.is_empty(), |table| table.has_indexes(indexes))
    }

    /// Takes all rows into the indexes that new rows are held to.
    pub fn build_enforced(&mut self) {
        for table in self.tables.values_mut().filter(|table| table.lacks_enforced()) {
            table.build_indexes(usize::MAX);
        }
    }

    /// True when the index is there and has all rows.
    pub fn has_built(&self, table: TableId, index: IndexId) -> bool {
        self.tables
            .get(&table)
            .is_some_and(|table| table.index(index).is_some())
    }

    /// Takes up to `max_rows` rows into each index that is not complete, one table after another; true: all are.
    pub fn build_indexes(&mut self, max_rows: usize) -> bool {
        self.tables.values_mut().all(|table| table.build_indexes(max_rows))
    }
}

/// What an index has of a span of its values, as somebody sees the rows, with a transaction's writes in their places. A row
/// that has other values for him is given without itself: he may have to wait for what changed it.
pub(super) fn by_index<'a, F>(
    table: Option<&'a Table>,
    index: IndexId,
    see: F,
    writes: Option<&'a BTreeMap<Key, Written>>,
    span: &Span,
    backward: bool,
) -> Option<impl Iterator<Item = Found<'a>> + use<'a, F>>
where
    F: Fn(&'a Version) -> Seen<'a> + 'a,
{
    let table = table?;
    let index = table.index(index)?;
    let shape = index.shape();
    let stored = index.entries(span, backward).filter_map(move |(values, key)| {
        if writes.is_some_and(|writes| writes.contains_key(key)) {
            return None;
        }
        let mut seen = see(table.get(key)?);
        seen.row = seen.row.filter(|row| values_of(shape, row).as_ref() == Some(values));
        Some((values.clone(), key.clone(), seen))
    });
    let mut own = own_entries(shape, writes, span);
    if backward {
        own.reverse();
    }
    Some(merge(stored.peekable(), own.into_iter().peekable(), backward))
}

fn own_entries<'a>(shape: &IndexShape, writes: Option<&'a BTreeMap<Key, Written>>, span: &Span) -> Vec<Found<'a>> {
    let entry = |(key, row): (&Key, &'a Written)| {
        let row = row.as_deref()?;
        let values = values_of(shape, row).filter(|values| span.contains(values))?;
        let seen = Seen { lsn: 0, row: Some(row) };
        Some((values, key.clone(), seen))
    };
    let mut own: Vec<Found<'a>> = writes.into_iter().flatten().filter_map(entry).collect();
    own.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
    own
}

fn merge<'a>(
    mut stored: Peekable<impl Iterator<Item = Found<'a>>>,
    mut own: Peekable<impl Iterator<Item = Found<'a>>>,
    backward: bool,
) -> impl Iterator<Item = Found<'a>> {
    std::iter::from_fn(move || {
        let own_is_next = match (stored.peek(), own.peek()) {
            (Some(stored), Some(own)) => ((&own.0, &own.1) < (&stored.0, &stored.1)) != backward,
            (None, _) => true,
            (_, None) => false,
        };
        if own_is_next { own.next() } else { stored.next() }
    })
}

#[cfg(test)]
mod tests;
