//! Secondary indexes of a table's rows in one partition: which rows may have which values.
//!
//! An entry is the index's values of a row's version, memcomparable, and the row's key. There is one for every version that is
//! still kept, so that any snapshot finds what it sees; who reads an entry looks the row up and sees whether it has these
//! values there. An entry goes when no version of its row has them any more. An index that comes to rows that are there
//! already is built in steps, while they change; until it has gone through all of them nobody reads by it.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::{Table, Version};
use crate::catalog::{Index as Definition, IndexColumn, IndexShape};
use crate::key::{Key, KeyBuffer};
use crate::plan::StatementContext;
use crate::plan::eval::Scope;
use crate::row::RowRef;
use crate::span::Span;
use crate::value::ValueRef;

/// What an entry takes besides long keys: its own bytes; the free places of the tree are left out.
const ENTRY_BYTES: u64 = size_of::<Entry>() as u64;

/// The index's values, and the row's key.
pub(crate) type Entry = (Key, Key);

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    definition: Definition,
    entries: BTreeSet<Entry>,
    bytes: u64,
    progress: Progress,
}

/// How far it has been built.
#[derive(Debug)]
enum Progress {
    /// The rows up to this key are in; None: none is.
    After(Option<Key>),
    Complete,
}

fn size(entry: &Entry) -> u64 {
    ENTRY_BYTES + (entry.0.heap_size() + entry.1.heap_size()) as u64
}

/// A row's values as an index has them; None: it has no such row. What can't be evaluated is not true.
pub(crate) fn values_of(shape: &IndexShape, row: &[u8]) -> Option<Key> {
    values_of_row(shape, RowRef::new(row).with_missing(&shape.missing))
}

fn values_of_row(shape: &IndexShape, row: RowRef<'_>) -> Option<Key> {
    if let Some(predicate) = &shape.predicate {
        let scope = Scope {
            lsn: 0,
            row: Some(row),
            parameters: &[],
            context: &StatementContext { now_micros: 0 },
        };
        if !predicate.is_true(&scope).unwrap_or(false) {
            return None;
        }
    }
    let mut values = Vec::new();
    for column in &shape.columns {
        push_value(&mut values, row.get(column.place), column.descending);
    }
    Some(Key::new(&values))
}

/// Adds a column's value to an entry's.
pub(crate) fn push_value(values: &mut Vec<u8>, value: ValueRef<'_>, descending: bool) {
    let mut one = KeyBuffer::new();
    one.push_value(value);
    // No value's bytes are the beginning of another's, so that inverted ones sort the other way round.
    let flip = if descending { 0xFF } else { 0 };
    values.extend(one.as_bytes().iter().map(|byte| byte ^ flip));
}

/// A row's values as a unique index compares them; None: nothing is equal to them, for one is NULL, or it has no such row.
pub(crate) fn unique_values_of<'a>(shape: &'a IndexShape, row: RowRef<'a>) -> Option<Key> {
    let row = row.with_missing(&shape.missing);
    let is_null = |column: &IndexColumn| matches!(row.get(column.place), ValueRef::Null);
    if shape.columns.iter().any(is_null) {
        return None;
    }
    values_of_row(shape, row)
}

impl Index {
    fn new(definition: Definition) -> Self {
        Self {
            definition,
            entries: BTreeSet::new(),
            bytes: 0,
            progress: Progress::After(None),
        }
    }

    pub(crate) fn definition(&self) -> &Definition {
        &self.definition
    }

    pub(crate) fn shape(&self) -> &IndexShape {
        &self.definition.shape
    }

    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.progress, Progress::Complete)
    }

    /// The values of all versions of a row.
    fn values(&self, version: Option<&Version>) -> BTreeSet<Key> {
        let rows = version.into_iter().flat_map(Version::rows);
        rows.filter_map(|row| values_of(self.shape(), row)).collect()
    }

    /// True when two rows have the same entry in it, or none.
    fn agree(&self, one: RowRef<'_>, other: RowRef<'_>) -> bool {
        let shape = self.shape();
        let [one, other] = [one, other].map(|row| row.with_missing(&shape.missing));
        let mut places = shape.columns.iter().map(|column| column.place);
        match shape.predicate {
            None => places.all(|place| one.get(place) == other.get(place)),
            Some(_) => values_of_row(shape, one) == values_of_row(shape, other),
        }
    }

    fn add(&mut self, values: BTreeSet<Key>, key: &Key) {
        for values in values {
            let entry = (values, key.clone());
            let size = size(&entry);
            if self.entries.insert(entry) {
                self.bytes += size;
            }
        }
    }

    /// A row's versions have changed.
    fn update(&mut self, key: &Key, before: &BTreeSet<Key>, after: BTreeSet<Key>) {
        for values in before.difference(&after) {
            let entry = (values.clone(), key.clone());
            if self.entries.remove(&entry) {
                self.bytes -= size(&entry);
            }
        }
        self.add(after, key);
    }

    /// The entries whose values lie in a span, in their order or from the last to the first.
    pub(crate) fn entries(&self, span: &Span, backward: bool) -> Entries<'_> {
        let from = Bound::Included((span.from.clone(), Key::least()));
        let to = match &span.to {
            Some(to) => Bound::Excluded((to.clone(), Key::least())),
            None => Bound::Unbounded,
        };
        // An empty range is fine, one the wrong way round is not.
        let range = (!span.is_empty()).then(|| self.entries.range((from, to)));
        Entries { range, backward }
    }

    /// The entries behind this one (None: all) whose values lie below `to`.
    pub(crate) fn entries_after(&self, after: Option<&Entry>, to: Option<&Key>) -> Entries<'_> {
        let is_beyond = |after: &Entry| to.is_some_and(|to| after.0 >= *to);
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let to = to.map_or(Bound::Unbounded, |to| Bound::Excluded((to.clone(), Key::least())));
        // An empty range is fine, one the wrong way round is not.
        let range = (!after.is_some_and(is_beyond)).then(|| self.entries.range((from, to)));
        Entries { range, backward: false }
    }
}

/// A walk over entries.
pub(crate) struct Entries<'a> {
    range: Option<std::collections::btree_set::Range<'a, Entry>>,
    backward: bool,
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a Entry;

    fn next(&mut self) -> Option<Self::Item> {
        let range = self.range.as_mut()?;
        if self.backward { range.next_back() } else { range.next() }
    }
}

/// A table's indexes.
#[derive(Debug, Default)]
pub(super) struct Indexes(Vec<Index>);

impl Indexes {
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|index| index.bytes).sum()
    }

    fn values(&self, version: Option<&Version>) -> Vec<BTreeSet<Key>> {
        self.0.iter().map(|index| index.values(version)).collect()
    }

    /// True when these rows have the same entries as the newest row of a version that stays: most changes of a row are of what
    /// no index has.
    fn agree<'r>(&self, version: Option<&Version>, mut rows: impl Iterator<Item = &'r [u8]>) -> bool {
        let Some(newest) = version.and_then(Version::row).map(RowRef::new) else {
            return false;
        };
        rows.all(|row| self.0.iter().all(|index| index.agree(newest, RowRef::new(row))))
    }
}

impl Table {
    /// Has these indexes and no others; those that it has are kept, new ones are to be built.
    pub(crate) fn set_indexes(&mut self, definitions: &[Definition]) {
        let mut old = std::mem::take(&mut self.indexes.0);
        for definition in definitions {
            let known = old.iter().position(|index| *index.shape() == definition.shape);
            let mut index = known.map_or_else(|| Index::new(definition.clone()), |place| old.swap_remove(place));
            if self.leaves.is_empty() {
                index.progress = Progress::Complete;
            }
            if index.definition != *definition {
                index.definition = definition.clone();
            }
            self.indexes.0.push(index);
        }
    }

    /// Takes up to so many rows into the indexes that are not complete; true: all are.
    pub(crate) fn build_indexes(&mut self, max_rows: usize) -> bool {
        let mut indexes = std::mem::take(&mut self.indexes);
        for index in &mut indexes.0 {
            let Progress::After(after) = &index.progress else {
                continue;
            };
            let mut rows = self.after(after.as_ref().map(Key::as_bytes));
            let mut last = None;
            for (key, version) in rows.by_ref().take(max_rows) {
                let values = index.values(Some(version));
                index.add(values, &key);
                last = Some(key);
            }
            index.progress = match last {
                Some(last) if rows.next().is_some() => Progress::After(Some(last)),
                _ => Progress::Complete,
            };
        }
        self.indexes = indexes;
        self.indexes.0.iter().all(Index::is_complete)
    }

    /// An index that may be read by; None: there is none of this number, or it is not complete.
    pub(crate) fn index(&self, id: u32) -> Option<&Index> {
        let found = self.indexes.0.iter().find(|index| index.shape().id == id);
        found.filter(|index| index.is_complete())
    }

    /// What new rows are held to, built or not.
    pub(crate) fn enforced(&self) -> impl Iterator<Item = &Index> {
        self.indexes.0.iter().filter(|index| index.definition.is_enforced())
    }

    /// True when one of those is not built.
    pub(crate) fn lacks_enforced(&self) -> bool {
        self.enforced().any(|index| !index.is_complete())
    }

    /// True when it has these indexes and no others.
    pub(crate) fn has_indexes(&self, definitions: &[Definition]) -> bool {
        let known = self.indexes.0.iter().map(|index| &index.definition);
        known.eq(definitions)
    }

    /// True when the entries stay as they are if this row becomes the newest.
    pub(super) fn keeps_entries(&self, key: &Key, row: Option<&[u8]>) -> bool {
        self.indexes.0.is_empty() || row.is_some_and(|row| self.indexes.agree(self.get(key), std::iter::once(row)))
    }

    /// True when the entries stay as they are whichever of the older versions go.
    pub(super) fn keeps_entries_when_pruned(&self, key: &Key) -> bool {
        if self.indexes.0.is_empty() {
            return true;
        }
        let version = self.get(key);
        self.indexes.agree(version, version.into_iter().flat_map(Version::rows))
    }

    /// Changes the versions of a row, and its entries with them.
    pub(super) fn indexed<R>(&mut self, key: &Key, change: impl FnOnce(&mut Self) -> R) -> R {
        if self.indexes.0.is_empty() {
            return change(self);
        }
        let before = self.indexes.values(self.get(key));
        let result = change(self);
        let after = self.indexes.values(self.get(key));
        for ((index, before), after) in self.indexes.0.iter_mut().zip(before).zip(after) {
            index.update(key, &before, after);
        }
        result
    }
}
