//! Unique indexes: no statement ends with two rows that have the same values in one.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Partition;
use super::super::view::{Newest, View};
use super::Run;
use super::write::duplicate;
use crate::effects::Effects;
use crate::error::StatementError;
use crate::key::Key;
use crate::row::RowRef;
use crate::span::Span;
use crate::table::{Index, Table, unique_values_of};
use crate::{IndexId, Lsn, TableId};

/// Entries of one pair of values, at most: a row that has them, and those that had them and are kept for snapshots.
/// Beyond, the statement fails rather than look on.
const MAX_ENTRIES_OF_VALUES: usize = 65_536;

/// What a statement writes to a table, as its unique indexes see it.
pub(super) struct Uniques<'a> {
    indexes: Vec<New<'a>>,
    /// Rows that are what they were no more: they may have had what others have now.
    changed: BTreeSet<Key>,
}

struct New<'a> {
    index: &'a Index,
    /// Values that rows get which did not have them, with the row's key and itself.
    values: BTreeMap<Key, (Key, Box<[u8]>)>,
}

/// Two rows have the same values: in which index, and one of them.
struct Twice<'a> {
    index: &'a Index,
    row: Box<[u8]>,
}

impl<'a> Uniques<'a> {
    fn of(table: Option<&'a Table>) -> Self {
        let index = |index| New {
            index,
            values: BTreeMap::new(),
        };
        Self {
            indexes: table.map_or_else(Vec::new, |table| table.enforced().map(index).collect()),
            changed: BTreeSet::new(),
        }
    }

    /// A row is removed, or moves away.
    pub(super) fn goes(&mut self, key: &Key) {
        if !self.indexes.is_empty() {
            self.changed.insert(key.clone());
        }
    }

    fn add(&mut self, key: &Key, old: Option<RowRef<'_>>, new: &[u8]) -> Result<(), Twice<'a>> {
        if self.indexes.is_empty() {
            return Ok(());
        }
        self.changed.insert(key.clone());
        for one in &mut self.indexes {
            let shape = one.index.shape();
            let Some(values) = unique_values_of(shape, RowRef::new(new)) else {
                continue;
            };
            // What it had it may keep, but nobody else may take it.
            let is_kept = old.is_some_and(|old| unique_values_of(shape, old).as_ref() == Some(&values));
            let kept = if is_kept { Box::default() } else { Box::from(new) };
            if one.values.insert(values, (key.clone(), kept)).is_some() {
                let row = Box::from(new);
                return Err(Twice { index: one.index, row });
            }
        }
        Ok(())
    }
}

impl<'a, V: View<'a>> Run<'a, V> {
    #[inline]
    pub(super) fn uniques(&self) -> Uniques<'a> {
        Uniques::of(self.view.table())
    }

    /// Whether the rows that stay leave the values free.
    #[inline]
    pub(super) fn check_unique(&mut self, uniques: &Uniques<'a>) -> Result<(), StatementError> {
        if uniques.indexes.is_empty() {
            return Ok(());
        }
        self.check_taken(uniques)
    }

    fn check_taken(&mut self, uniques: &Uniques<'a>) -> Result<(), StatementError> {
        let (observed, taken) = taken(&mut self.view, uniques);
        self.observed = self.observed.max(observed);
        match taken {
            Ok(None) => Ok(()),
            Ok(Some(twice)) => Err(self.twice(&twice)),
            Err(NotBuilt) => Err(StatementError::IndexNotBuilt {
                table: self.program.table_name.clone(),
            }),
        }
    }

    /// A row that the statement writes.
    #[inline]
    pub(super) fn put_unique(
        &self,
        uniques: &mut Uniques<'a>,
        key: &Key,
        old: Option<RowRef<'_>>,
        new: &[u8],
    ) -> Result<(), StatementError> {
        if uniques.indexes.is_empty() {
            return Ok(());
        }
        uniques.add(key, old, new).map_err(|twice| self.twice(&twice))
    }

    fn twice(&self, twice: &Twice<'_>) -> StatementError {
        let row = RowRef::new(&twice.row).with_missing(&twice.index.shape().missing);
        let columns = twice.index.shape().columns.iter().map(|column| column.place);
        let name = twice.index.definition().name.clone();
        duplicate(self.program, name, columns, |place| row.get(place))
    }
}

/// The index has not all rows, or too much would have to be looked at.
struct NotBuilt;

/// What was met, and a row whose values another has.
fn taken<'a>(view: &mut impl View<'a>, uniques: &Uniques<'a>) -> (Lsn, Result<Option<Twice<'a>>, NotBuilt>) {
    let mut observed = 0;
    for one in &uniques.indexes {
        let id = one.index.shape().id;
        for (values, (key, row)) in &one.values {
            if row.is_empty() {
                continue;
            }
            let Some(found) = view.by_index(id, &Span::of_key(values), false) else {
                return (observed, Err(NotBuilt));
            };
            for (place, (_, found, seen)) in found.enumerate() {
                if place >= MAX_ENTRIES_OF_VALUES {
                    return (observed, Err(NotBuilt));
                }
                observed = observed.max(seen.lsn);
                if seen.row.is_some() && found != *key && !uniques.changed.contains(&found) {
                    let row = row.clone();
                    let index = one.index;
                    return (observed, Ok(Some(Twice { index, row })));
                }
            }
        }
    }
    (observed, Ok(None))
}

impl Partition {
    /// Whether these effects may be applied to the newest state without two rows having the same values in a unique
    /// index. An error: such an index is not built.
    pub fn keeps_unique(&self, effects: &Effects) -> Result<bool, StatementError> {
        let mut tables: BTreeMap<TableId, Uniques<'_>> = BTreeMap::new();
        let has_any = |table: &Table| table.enforced().next().is_some();
        if !self.tables.values().any(has_any) {
            return Ok(true);
        }
        for effect in effects.iter() {
            let Ok(effect) = effect else { return Ok(true) };
            let table = self.tables.get(&effect.table);
            let uniques = tables.entry(effect.table).or_insert_with(|| Uniques::of(table));
            // A table that is cleared gets no rows.
            let Some(key) = effect.key.map(Key::new) else { continue };
            let Some(new) = effect.row else {
                uniques.goes(&key);
                continue;
            };
            let old = table.and_then(|table| table.get(&key)?.row()).map(RowRef::new);
            if uniques.add(&key, old, new).is_err() {
                return Ok(false);
            }
        }
        for (table, uniques) in &tables {
            match taken(&mut Newest(self.tables.get(table)), uniques).1 {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(false),
                Err(NotBuilt) => return Err(StatementError::IndexNotBuilt { table: String::new() }),
            }
        }
        Ok(true)
    }

    /// Looks through a unique index, from an entry on, at no more than so many: two rows that have the same values, as text,
    /// or where to go on, or nothing: there are none.
    pub fn find_duplicate(
        &self,
        table: TableId,
        index: IndexId,
        after: Option<&[u8]>,
        max_entries: usize,
    ) -> Result<Duplicates, StatementError> {
        let stored = self.tables.get(&table);
        let not_built = || StatementError::IndexNotBuilt { table: String::new() };
        let found = stored.and_then(|table| table.index(index)).ok_or_else(not_built)?;
        let span = Span {
            from: after.map_or_else(Key::least, Key::new),
            to: None,
        };
        // The values of the last entry, and whether a row has them.
        let (mut last, mut has_row, mut place): (Option<Key>, bool, usize) = (None, false, 0);
        let entries = Newest(stored).by_index(index, &span, false).ok_or_else(not_built)?;
        let shape = found.shape();
        for (values, _, seen) in entries {
            // It stops between two values, so that it can go on there.
            if place >= max_entries && last.as_ref() != Some(&values) {
                return Ok(Duplicates::After(values.as_bytes().to_vec()));
            }
            place += 1;
            has_row &= last.as_ref() == Some(&values);
            last = Some(values);
            let row = seen.row.map(|row| RowRef::new(row).with_missing(&shape.missing));
            let Some(row) = row.filter(|row| unique_values_of(shape, *row).is_some()) else {
                continue;
            };
            if has_row {
                let texts = shape.columns.iter().map(|column| row.get(column.place).to_text());
                return Ok(Duplicates::Found(texts.collect()));
            }
            has_row = true;
        }
        Ok(Duplicates::None)
    }
}

/// What came of looking for rows that have the same values in a unique index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// There are none.
    None,
    /// None so far: go on from here.
    After(Vec<u8>),
    /// The values of two rows, as text.
    Found(Vec<String>),
}

#[cfg(test)]
mod tests;
