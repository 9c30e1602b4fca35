//! How far a partition of a standby has followed another cluster's archive: one row of a reserved table, changed by the same effects as the
//! rows that it speaks of. So it is replicated, logged and undone with them, and a new primary goes on where the old one was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::effects::{Effects, EffectsBuilder};
use crate::error::CorruptError;
use crate::idempotency::FOLLOWED;
use crate::partition::Partition;
use crate::row::{RowRef, encode_row};
use crate::value::ValueRef;
use crate::{Epoch, Lsn, TableId};

/// The key of the one row.
const KEY: &[u8] = b"";

/// Where a partition is in the archive that it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// It is as it was at the cut of this moment, in microseconds since 1970.
    pub at_micros: i64,
    /// The record of the archived partition up to which it has all.
    pub lsn: Lsn,
    /// An epoch that this record's does not exceed.
    pub epoch: Epoch,
    /// It is on its way to the cut of this moment, and is of no moment meanwhile: nobody reads it.
    pub toward_micros: Option<i64>,
    /// It follows no more: the standby became a cluster of its own.
    pub is_end: bool,
}

impl Position {
    fn put(&self, effects: &mut EffectsBuilder) {
        let values = [
            ValueRef::BigInt(self.at_micros),
            ValueRef::BigInt(self.lsn as i64),
            ValueRef::BigInt(self.epoch as i64),
            self.toward_micros.map_or(ValueRef::Null, ValueRef::BigInt),
            ValueRef::Boolean(self.is_end),
        ];
        effects.put(FOLLOWED, KEY, &encode_row(&values));
    }

    /// What makes it this, and nothing else.
    pub fn as_effects(&self) -> Effects {
        self.after(None)
    }

    /// The same after these effects.
    pub fn after(&self, effects: Option<Effects>) -> Effects {
        let mut all = EffectsBuilder::after(effects);
        self.put(&mut all);
        all.finish()
    }
}

impl Partition {
    /// How far it has followed an archive; None: it never has.
    pub fn followed(&self) -> Option<Position> {
        let row = self.newest_row(FOLLOWED, KEY)?;
        let row = RowRef::parse(row).ok()?;
        let mut values = row.values();
        let number = |value: Option<ValueRef<'_>>| match value {
            Some(ValueRef::BigInt(number)) => Some(number),
            _ => None,
        };
        Some(Position {
            at_micros: number(values.next())?,
            lsn: number(values.next())? as Lsn,
            epoch: number(values.next())? as Epoch,
            toward_micros: number(values.next()),
            is_end: matches!(values.next(), Some(ValueRef::Boolean(true))),
        })
    }
}

/// What some records did to the rows of one partition together: each row once, so that doing it again changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    tables: BTreeMap<TableId, OfTable>,
}

#[derive(Clone, Debug, Default)]
struct OfTable {
    /// What was there before is gone.
    is_cleared: bool,
    /// None: the row is gone.
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Fold {
    /// These effects come after what there is; of the tables that `is_wanted`.
    pub fn add(&mut self, effects: &Effects, is_wanted: impl Fn(TableId) -> bool) -> Result<(), CorruptError> {
        for effect in effects.iter() {
            let effect = effect?;
            if !is_wanted(effect.table) {
                continue;
            }
            let table = self.tables.entry(effect.table).or_default();
            match effect.key {
                Some(key) => drop(table.rows.insert(key.to_vec(), effect.row.map(<[u8]>::to_vec))),
                None => {
                    *table = OfTable {
                        is_cleared: true,
                        ..OfTable::default()
                    }
                }
            }
        }
        Ok(())
    }

    /// All of it as effects, in parts of about `max_bytes`, and never more than a row beyond. They are to be done in order.
    pub fn into_parts(self, max_bytes: usize) -> Vec<Effects> {
        let (mut parts, mut effects) = (Vec::new(), EffectsBuilder::default());
        for (&table, _) in self.tables.iter().filter(|(_, of)| of.is_cleared) {
            effects.clear(table);
        }
        for (table, of) in self.tables {
            for (key, row) in of.rows {
                match row {
                    Some(row) => effects.put(table, &key, &row),
                    None => effects.remove(table, &key),
                }
                if effects.len() >= max_bytes {
                    parts.push(std::mem::take(&mut effects).finish());
                }
            }
        }
        parts.extend(effects.finish_if_any());
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::LogPayload;

    const AT: Position = Position {
        at_micros: 1_700_000_000_000_000,
        lsn: 9,
        epoch: 2,
        toward_micros: None,
        is_end: false,
    };

    fn apply(partition: &mut Partition, effects: Effects) {
        let lsn = partition.applied() + 1;
        partition
            .apply_record(lsn, &LogPayload::Write(effects))
            .expect("it is sound");
    }

    fn row(number: i64) -> Vec<u8> {
        encode_row(&[ValueRef::BigInt(number)])
    }

    fn write(rows: &[(TableId, &[u8], Option<i64>)]) -> Effects {
        let mut effects = EffectsBuilder::default();
        for &(table, key, number) in rows {
            match number {
                Some(number) => effects.put(table, key, &row(number)),
                None => effects.remove(table, key),
            }
        }
        effects.finish()
    }

    fn cleared(table: TableId, then: &[(TableId, &[u8], Option<i64>)]) -> Effects {
        let mut effects = EffectsBuilder::default();
        effects.clear(table);
        effects.put(table, b"z", &row(0));
        for &(table, key, number) in then {
            effects.put(table, key, &row(number.unwrap_or(0)));
        }
        effects.finish()
    }

    #[test]
    fn a_position_is_read_back_and_undone_with_its_record() {
        let mut partition = Partition::new();
        assert_eq!(partition.followed(), None);
        apply(&mut partition, AT.as_effects());
        assert_eq!(partition.followed(), Some(AT));
        let on_its_way = Position {
            toward_micros: Some(AT.at_micros + 1),
            ..AT
        };
        apply(&mut partition, on_its_way.after(Some(write(&[(1, b"a", Some(1))]))));
        assert_eq!((partition.followed(), partition.stats().rows), (Some(on_its_way), 1));
        partition.undo_after(1);
        assert_eq!((partition.followed(), partition.stats().rows), (Some(AT), 0));
        let end = Position { is_end: true, ..AT };
        apply(&mut partition, end.as_effects());
        assert_eq!(partition.followed(), Some(end));
    }

    #[test]
    fn records_come_to_the_same_one_by_one_and_folded_whatever_the_parts_and_twice() {
        let records = [
            write(&[(1, b"a", Some(1)), (1, b"b", Some(2)), (2, b"a", Some(3))]),
            write(&[(1, b"a", None), (1, b"b", Some(4)), (2, b"c", Some(5))]),
            cleared(2, &[(1, b"d", Some(6)), (2, b"c", Some(7))]),
            write(&[(2, b"z", None), (2, b"y", Some(8)), (1, b"a", Some(9))]),
        ];
        let mut direct = Partition::new();
        let before = write(&[(1, b"a", Some(0)), (2, b"old", Some(0))]);
        apply(&mut direct, before.clone());
        records.iter().for_each(|record| apply(&mut direct, record.clone()));
        for max_bytes in [1, 40, 1 << 20] {
            let mut fold = Fold::default();
            let all = |_| true;
            records
                .iter()
                .for_each(|record| fold.add(record, all).expect("it is sound"));
            let mut folded = Partition::new();
            apply(&mut folded, before.clone());
            for _ in 0..2 {
                let parts = fold.clone().into_parts(max_bytes);
                assert!(parts.len() > 1 || max_bytes > 40);
                parts.into_iter().for_each(|part| apply(&mut folded, part));
                for (table, key) in [
                    (1, "a"),
                    (1, "b"),
                    (1, "d"),
                    (2, "a"),
                    (2, "c"),
                    (2, "old"),
                    (2, "y"),
                    (2, "z"),
                ] {
                    let of = |partition: &Partition| partition.newest_row(table, key.as_bytes()).map(<[u8]>::to_vec);
                    assert_eq!(of(&folded), of(&direct), "{table} {key} in parts of {max_bytes}");
                }
            }
        }
    }

    #[test]
    fn tables_that_are_not_wanted_are_left_out() {
        let mut fold = Fold::default();
        let write = write(&[(1, b"a", Some(1)), (2, b"a", Some(2))]);
        fold.add(&write, |table| table == 2).expect("it is sound");
        let mut partition = Partition::new();
        fold.into_parts(1 << 20)
            .into_iter()
            .for_each(|part| apply(&mut partition, part));
        assert_eq!(partition.stats().rows, 1);
    }
}
