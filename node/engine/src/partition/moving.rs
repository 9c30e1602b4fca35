//! A table that moves to the partitions of another replication group. What it has here is read piece by piece, and each
//! piece is made so there, whatever it was before; so a piece that is told twice, or again after it has changed, does no harm.
//! Meanwhile the table is *closed* where it is not to be read or written: in the new place until all of it is there, in
//! the old one from a moment before that.

use super::Partition;
use crate::TableId;
use crate::effects::{Effects, EffectsBuilder};
use crate::error::{CorruptError, StatementError};
use crate::idempotency::{FIRST_RESERVED_TABLE, KEYS, KEYS_BY_TIME};
use crate::key::Key;

/// A piece has no more entries than this, however small: nobody else can use the partition meanwhile.
const MAX_ENTRIES: usize = 4_096;

/// What requests with idempotency keys came to goes with every table, for a key may have come with one of its statements.
pub const MOVED_WITH_TABLES: [TableId; 2] = [KEYS, KEYS_BY_TIME];

/// Rows of a table in a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What puts them; in the order of their keys.
    pub rows: Effects,
    /// The range ends with this key; None: with the table.
    pub until: Option<Vec<u8>>,
}

/// What makes a piece so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placing {
    /// What is to be done; None: nothing.
    pub effects: Option<Effects>,
    /// That is all of it. Otherwise the piece is to be placed again.
    pub is_whole: bool,
}

impl Partition {
    /// These tables are neither read nor written here, as a catalog of this version says; all others are.
    pub fn set_closed(&mut self, closed: impl Iterator<Item = TableId>, catalog_version: u64) {
        let before = std::mem::take(&mut self.closed);
        let since = |table: TableId| before.get(&table).copied().unwrap_or(catalog_version);
        self.closed = closed.map(|table| (table, since(table))).collect();
        self.opened.retain(|table, _| !self.closed.contains_key(table));
        let opened = before.keys().filter(|table| !self.closed.contains_key(table));
        self.opened.extend(opened.map(|table| (*table, catalog_version)));
    }

    /// An error if a snapshot that was taken under a catalog of this version does not show the table as it was then: it had been closed
    /// already, or its rows had not all come yet.
    pub fn check_shown(&self, table: TableId, catalog_version: u64) -> Result<(), StatementError> {
        let is_later = |since: Option<&u64>| since.is_none_or(|since| catalog_version < *since);
        let is_earlier = |since: Option<&u64>| since.is_none_or(|since| catalog_version >= *since);
        match is_later(self.closed.get(&table)) && is_earlier(self.opened.get(&table)) {
            true => Ok(()),
            false => Err(StatementError::TableMoved),
        }
    }

    /// The version of the first catalog known here that says that the table is closed; None: it is open.
    pub fn closed_since(&self, table: TableId) -> Option<u64> {
        self.closed.get(&table).copied()
    }

    /// An error if the table is closed.
    pub fn check_open(&self, table: TableId) -> Result<(), StatementError> {
        match self.closed.contains_key(&table) {
            true => Err(StatementError::TableMoved),
            false => Ok(()),
        }
    }

    /// An error if what effects write to is closed.
    pub fn check_all_open(&self, effects: &Effects) -> Result<(), StatementError> {
        if self.closed.is_empty() {
            return Ok(());
        }
        effects
            .iter_checked()
            .try_for_each(|effect| self.check_open(effect.table))
    }

    /// The rows that a table has behind `after`, up to `until`, or to where they are `max_bytes`.
    pub fn piece(&self, table: TableId, after: Option<&[u8]>, until: Option<&[u8]>, max_bytes: usize) -> Piece {
        let (mut rows, mut entries) = (EffectsBuilder::default(), 0);
        let mut end = until.map(<[u8]>::to_vec);
        let here = self.tables.get(&table).into_iter().flat_map(|rows| rows.after(after));
        for (key, version) in here.take_while(|(key, _)| is_within(key, until)) {
            if let Some(row) = version.row() {
                rows.put(table, key.as_bytes(), row);
            }
            entries += 1;
            if rows.len() >= max_bytes || entries >= MAX_ENTRIES {
                end = Some(key.as_bytes().to_vec());
                break;
            }
        }
        Piece {
            rows: rows.finish(),
            until: end,
        }
    }

    /// What makes a table have just these rows behind `after`, up to `until`; of what requests with keys came to, what makes it have
    /// these besides. A step of it: not more than `MAX_ENTRIES` rows.
    pub fn to_place(
        &self,
        table: TableId,
        (after, until): (Option<&[u8]>, Option<&[u8]>),
        rows: &Effects,
    ) -> Result<Placing, CorruptError> {
        let mut wanted = Vec::new();
        for effect in rows.iter() {
            let effect = effect?;
            let (Some(key), Some(row)) = (effect.key, effect.row) else {
                return Err(CorruptError::OutOfPlace("rows of a table that moves are put"));
            };
            let is_next = wanted
                .last()
                .is_none_or(|(last, _): &(Key, &[u8])| last.as_bytes() < key);
            if effect.table != table || !is_next || after.is_some_and(|after| key <= after) || !within(key, until) {
                return Err(CorruptError::OutOfPlace("a row of a table that moves"));
            }
            wanted.push((Key::new(key), row));
        }
        let adds_only = MOVED_WITH_TABLES.contains(&table);
        let (mut effects, mut changes) = (EffectsBuilder::default(), 0);
        let mut put = |effects: &mut EffectsBuilder, key: &Key, row: Option<&[u8]>| {
            match row {
                Some(row) => effects.put(table, key.as_bytes(), row),
                None => effects.remove(table, key.as_bytes()),
            }
            changes += 1;
            changes < MAX_ENTRIES
        };
        let mut goes_on = true;
        let mut wanted = wanted.into_iter().peekable();
        let mut here = self.tables.get(&table).into_iter().flat_map(|rows| rows.after(after));
        let mut own = || here.next().filter(|(key, _)| is_within(key, until));
        let mut next = own();
        while goes_on {
            let is_own = match (wanted.peek(), &next) {
                (None, None) => break,
                (Some((new, _)), Some((key, _))) => key <= new,
                (wanted, _) => wanted.is_none(),
            };
            let Some((key, version)) = next.take_if(|_| is_own) else {
                let Some((new, row)) = wanted.next() else { break };
                goes_on = put(&mut effects, &new, Some(row));
                continue;
            };
            next = own();
            let new = wanted.next_if(|(new, _)| *new == key).map(|(_, row)| row);
            let is_kept = version.row().is_some() && (adds_only || new == version.row());
            if !is_kept && (new.is_some() || version.row().is_some()) {
                goes_on = put(&mut effects, &key, new);
            }
        }
        Ok(Placing {
            effects: effects.finish_if_any(),
            is_whole: goes_on,
        })
    }

    /// Tables of users that have rows here.
    pub fn tables_with_rows(&self) -> Vec<TableId> {
        let tables = self.tables.range(..FIRST_RESERVED_TABLE);
        let with_rows = tables.filter(|(_, rows)| rows.stats().rows > 0);
        with_rows.map(|(&table, _)| table).collect()
    }

    /// What removes the first rows of a table, so many at most; None: it has none.
    pub fn to_empty(&self, table: TableId, max_rows: usize) -> Option<Effects> {
        let mut effects = EffectsBuilder::default();
        let rows = self.tables.get(&table)?.after(None);
        let live = rows.filter(|(_, version)| version.row().is_some());
        live.take(max_rows)
            .for_each(|(key, _)| effects.remove(table, key.as_bytes()));
        effects.finish_if_any()
    }
}

fn within(key: &[u8], until: Option<&[u8]>) -> bool {
    until.is_none_or(|until| key <= until)
}

fn is_within(key: &Key, until: Option<&[u8]>) -> bool {
    within(key.as_bytes(), until)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::effects::LogPayload;

    const TABLE: TableId = 7;

    type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

    fn write(partition: &mut Partition, effects: Effects) {
        let lsn = partition.applied() + 1;
        partition
            .apply_record(lsn, &LogPayload::Write(effects))
            .expect("it is sound");
    }

    fn become_rows(partition: &mut Partition, table: TableId, rows: &Rows) {
        let mut effects = EffectsBuilder::default();
        effects.clear(table);
        rows.iter().for_each(|(key, row)| effects.put(table, key, row));
        write(partition, effects.finish());
    }

    fn rows_of(partition: &Partition, table: TableId) -> Rows {
        let rows = partition
            .tables
            .get(&table)
            .into_iter()
            .flat_map(|rows| rows.after(None));
        rows.filter_map(|(key, version)| Some((key.as_bytes().to_vec(), version.row()?.to_vec())))
            .collect()
    }

    /// Moves a table in pieces of so many bytes; how many there were.
    fn move_all(from: &Partition, to: &mut Partition, table: TableId, max_bytes: usize) -> usize {
        let (mut after, mut pieces) = (None, 0);
        loop {
            let piece = from.piece(table, after.as_deref(), None, max_bytes);
            let range = (after.as_deref(), piece.until.as_deref());
            let placing = to.to_place(table, range, &piece.rows).expect("it is sound");
            assert!(placing.is_whole, "it is small");
            if let Some(effects) = placing.effects {
                write(to, effects);
            }
            pieces += 1;
            match piece.until {
                None => return pieces,
                until => after = until,
            }
        }
    }

    fn rows() -> impl Strategy<Value = Rows> {
        let key = prop::collection::vec(0..4_u8, 1..4);
        let row = (0..3_u8).prop_map(|value| crate::row::encode_row(&[crate::value::ValueRef::Int(value.into())]));
        prop::collection::btree_map(key, row, 0..20)
    }

    proptest! {
        #[test]
        fn what_is_moved_is_there_and_nothing_else(before in rows(), other in rows(), max_bytes in 1..200_usize) {
            let (mut from, mut to) = (Partition::new(), Partition::new());
            become_rows(&mut from, TABLE, &before);
            become_rows(&mut to, TABLE, &other);
            become_rows(&mut to, TABLE + 1, &other);
            move_all(&from, &mut to, TABLE, max_bytes);
            prop_assert_eq!(rows_of(&to, TABLE), before.clone());
            prop_assert_eq!(rows_of(&to, TABLE + 1), other.clone());
            // Once more: there is nothing to do.
            let applied = to.applied();
            move_all(&from, &mut to, TABLE, max_bytes);
            prop_assert_eq!(to.applied(), applied);
        }

        #[test]
        fn of_keys_that_are_kept_none_is_lost(before in rows(), other in rows()) {
            let (mut from, mut to) = (Partition::new(), Partition::new());
            become_rows(&mut from, KEYS, &before);
            become_rows(&mut to, KEYS, &other);
            move_all(&from, &mut to, KEYS, 50);
            let both: Rows = before.into_iter().chain(other).collect();
            prop_assert_eq!(rows_of(&to, KEYS), both);
        }
    }

    #[test]
    fn a_table_is_emptied_in_steps_and_a_piece_placed_in_them() {
        let many: Rows = (0..2 * MAX_ENTRIES as u32 + 1)
            .map(|key| (key.to_be_bytes().to_vec(), crate::row::encode_row(&[])))
            .collect();
        let mut partition = Partition::new();
        become_rows(&mut partition, TABLE, &many);
        let mut steps = 0;
        let nothing = EffectsBuilder::default().finish();
        loop {
            let placing = partition.to_place(TABLE, (None, None), &nothing).expect("it is sound");
            if let Some(effects) = placing.effects {
                write(&mut partition, effects);
            }
            steps += 1;
            if placing.is_whole {
                break;
            }
        }
        assert_eq!((steps, rows_of(&partition, TABLE).len()), (3, 0));
        become_rows(&mut partition, TABLE, &many);
        for left in [MAX_ENTRIES + 1, 1, 0] {
            let effects = partition.to_empty(TABLE, MAX_ENTRIES).expect("there are rows");
            write(&mut partition, effects);
            assert_eq!(rows_of(&partition, TABLE).len(), left);
        }
        assert_eq!(partition.to_empty(TABLE, MAX_ENTRIES), None);
    }

    #[test]
    fn rows_that_are_out_of_their_range_are_refused() {
        let mut rows = EffectsBuilder::default();
        rows.put(TABLE, b"c", &crate::row::encode_row(&[]));
        let rows = rows.finish();
        let partition = Partition::new();
        for range in [(Some(&b"c"[..]), None), (None, Some(&b"b"[..]))] {
            assert!(partition.to_place(TABLE, range, &rows).is_err());
        }
        assert!(partition.to_place(TABLE + 1, (None, None), &rows).is_err());
        assert!(partition.to_place(TABLE, (Some(b"b"), Some(b"c")), &rows).is_ok());
    }

    #[test]
    fn a_closed_table_stays_closed_since_it_was() {
        let mut partition = Partition::new();
        partition.set_closed([TABLE].into_iter(), 5);
        partition.set_closed([TABLE, TABLE + 1].into_iter(), 7);
        assert_eq!(partition.closed_since(TABLE), Some(5));
        assert_eq!(partition.closed_since(TABLE + 1), Some(7));
        assert_eq!(partition.check_open(TABLE), Err(StatementError::TableMoved));
        let shown = |partition: &Partition, catalog| partition.check_shown(TABLE, catalog).is_ok();
        assert!(shown(&partition, 4) && !shown(&partition, 5) && !shown(&partition, 7));
        partition.set_closed([].into_iter(), 8);
        assert_eq!(partition.check_open(TABLE), Ok(()));
        // Its rows came while it was closed: who looks as of then would see some of them.
        assert!(!shown(&partition, 4) && !shown(&partition, 7) && shown(&partition, 8));
        partition.set_closed([].into_iter(), 9);
        assert!(!shown(&partition, 7) && shown(&partition, 8));
        assert_eq!(partition.check_shown(TABLE + 2, 1), Ok(()));
    }
}
