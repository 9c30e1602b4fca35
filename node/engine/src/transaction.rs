//! What an interactive transaction remembers until it commits: the rows that it has written and not yet applied, and what it
//! has read, to be validated (optimistic concurrency control with backward validation: Kung and Robinson 1981; ranges
//! are remembered against phantoms).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::effects::{Effects, EffectsBuilder};
use crate::error::CorruptError;
use crate::key::Key;
use crate::{IndexId, Lsn, TableId};

/// A row, which lies in the effects that put it, or None: it is removed.
pub(crate) type Written = Option<Bytes>;

/// What a transaction will do to one partition, the last change of each key; it sees them, nobody else does.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    tables: BTreeMap<TableId, BTreeMap<Key, Written>>,
}

impl Writes {
    /// The changes of these effects, in order.
    pub fn of(effects: &Effects) -> Result<Self, CorruptError> {
        let mut writes = Self::default();
        writes.add(effects)?;
        Ok(writes)
    }

    /// These effects come after what there is. An error may leave some of them out.
    pub fn add(&mut self, effects: &Effects) -> Result<(), CorruptError> {
        effects.check()?;
        self.add_checked(effects)
    }

    /// The same of effects that were checked, or made here.
    pub(crate) fn add_checked(&mut self, effects: &Effects) -> Result<(), CorruptError> {
        for effect in effects.iter_checked() {
            // What a statement of a block wants is kept row by row.
            let key = effect
                .key
                .ok_or(CorruptError::OutOfPlace("a table cleared in a block"))?;
            let table = self.tables.entry(effect.table).or_default();
            table.insert(Key::new(key), effect.row.map(|row| effects.0.slice_ref(row)));
        }
        Ok(())
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The tables that they change.
    pub fn tables(&self) -> impl Iterator<Item = TableId> {
        self.tables.keys().copied()
    }

    /// True when they change this key.
    pub fn contains(&self, table: TableId, key: &[u8]) -> bool {
        self.tables
            .get(&table)
            .is_some_and(|rows| rows.contains_key(&Key::new(key)))
    }

    /// All of them as effects, each key once.
    pub fn to_effects(&self) -> Effects {
        self.effects_of(self.tables.iter(), None, 0)
    }

    /// The same, of which it is known that they take so many bytes at most.
    pub(crate) fn to_effects_within(&self, bytes: usize) -> Effects {
        self.effects_of(self.tables.iter(), None, bytes)
    }

    /// Those of one table beyond a key, as effects.
    pub fn of_table(&self, table: TableId, after: Option<&[u8]>) -> Effects {
        self.effects_of(self.tables.get_key_value(&table).into_iter(), after, 0)
    }

    fn effects_of<'a>(
        &self,
        tables: impl Iterator<Item = (&'a TableId, &'a BTreeMap<Key, Written>)>,
        after: Option<&[u8]>,
        bytes: usize,
    ) -> Effects {
        let after = after.map(Key::new);
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut effects = EffectsBuilder::with_capacity(bytes);
        for (&table, rows) in tables {
            for (key, row) in rows.range((from, Bound::Unbounded)) {
                match row {
                    Some(row) => effects.put(table, key.as_bytes(), row),
                    None => effects.remove(table, key.as_bytes()),
                }
            }
        }
        effects.finish()
    }

    pub(crate) fn table(&self, table: TableId) -> Option<&BTreeMap<Key, Written>> {
        self.tables.get(&table)
    }
}

/// A table; the first key; the first beyond, None: none is.
type Range = (TableId, Vec<u8>, Option<Vec<u8>>);

/// What a transaction has read of one partition, at its snapshot there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// Single keys: the LSN of the row that was there; 0, none was.
    keys: BTreeMap<(TableId, Vec<u8>), Lsn>,
    /// All keys from one on, below another.
    ranges: BTreeSet<Range>,
    /// Spans of the values of indexes.
    indexes: BTreeSet<(IndexId, Range)>,
    bytes: usize,
}

/// What an entry takes beyond its key, about, in memory and on its way.
const ENTRY_BYTES: usize = 32;

impl Reads {
    /// A key was looked up; `lsn` wrote the row there, 0: there was none.
    pub fn note_key(&mut self, table: TableId, key: &[u8], lsn: Lsn) {
        if self.keys.insert((table, key.to_vec()), lsn).is_none() {
            self.bytes += key.len() + ENTRY_BYTES;
        }
    }

    /// All keys from `from` on were looked at, those from `to` on left out.
    pub fn note_range(&mut self, table: TableId, from: &[u8], to: Option<&[u8]>) {
        if self.ranges.insert((table, from.to_vec(), to.map(<[u8]>::to_vec))) {
            self.bytes += from.len() + to.map_or(0, <[u8]>::len) + ENTRY_BYTES;
        }
    }

    /// All rows were looked at whose values in an index lie from `from` on, those from `to` on left out.
    pub fn note_index(&mut self, table: TableId, index: IndexId, from: &[u8], to: Option<&[u8]>) {
        let range = (table, from.to_vec(), to.map(<[u8]>::to_vec));
        if self.indexes.insert((index, range)) {
            self.bytes += from.len() + to.map_or(0, <[u8]>::len) + ENTRY_BYTES;
        }
    }

    /// These were read too, at the same snapshot.
    pub fn add(&mut self, others: Self) {
        for ((table, key), lsn) in others.keys {
            self.note_key(table, &key, lsn);
        }
        for (table, from, to) in others.ranges {
            self.note_range(table, &from, to.as_deref());
        }
        for (index, (table, from, to)) in others.indexes {
            self.note_index(table, index, &from, to.as_deref());
        }
    }

    /// Only the keys that are written too: what snapshot isolation validates.
    pub fn written(&self, writes: &Writes) -> Self {
        let mut written = Self::default();
        for ((table, key), &lsn) in &self.keys {
            if writes.contains(*table, key) {
                written.note_key(*table, key, lsn);
            }
        }
        written
    }

    /// Only the keys, without ranges and spans of indexes.
    pub fn keys_only(&self) -> Self {
        let mut only = Self::default();
        for (table, key, lsn) in self.keys() {
            only.note_key(table, key, lsn);
        }
        only
    }

    /// True when nothing was read.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty() && self.indexes.is_empty()
    }

    /// How much they take, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The tables that were read, each once or more.
    pub(crate) fn tables(&self) -> impl Iterator<Item = TableId> {
        let keys = self.keys.keys().map(|(table, _)| *table);
        let indexes = self.indexes.iter().map(|(_, (table, ..))| *table);
        keys.chain(self.ranges.iter().map(|(table, ..)| *table)).chain(indexes)
    }

    /// (table, key, LSN) of each key.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (TableId, &[u8], Lsn)> {
        self.keys
            .iter()
            .map(|((table, key), &lsn)| (*table, key.as_slice(), lsn))
    }

    /// (table, first key, first key beyond) of each range.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (TableId, &[u8], Option<&[u8]>)> {
        let ranges = self.ranges.iter();
        ranges.map(|(table, from, to)| (*table, from.as_slice(), to.as_deref()))
    }

    /// (table, index, first values, first values beyond) of each span of an index.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = (TableId, IndexId, &[u8], Option<&[u8]>)> {
        let spans = self.indexes.iter();
        spans.map(|(index, (table, from, to))| (*table, *index, from.as_slice(), to.as_deref()))
    }
}
