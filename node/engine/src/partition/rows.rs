//! A partition's rows as effects: what puts them into another one.

use super::Partition;
use crate::TableId;
use crate::effects::{Effects, EffectsBuilder};

/// Where the next effects go on: behind this key of this table.
pub type RowsCursor = (TableId, Vec<u8>);

impl Partition {
    /// The next of its rows as effects that put them, about `max_bytes` and never more than a row beyond; begin without a cursor; without
    /// a cursor in the answer these were the last. Rows of materialized views are left out: who applies the effects makes its own.
    pub fn rows_as_effects(
        &self,
        after: Option<RowsCursor>,
        max_bytes: usize,
    ) -> (Option<Effects>, Option<RowsCursor>) {
        let mut effects = EffectsBuilder::default();
        let first = after.as_ref().map_or(0, |(table, _)| *table);
        for (&table, rows) in self.tables.range(first..) {
            if self.views.contains(table) {
                continue;
            }
            let after = after.as_ref().filter(|(begun, _)| *begun == table);
            for (key, version) in rows.after(after.map(|(_, key)| key.as_slice())) {
                let Some((_, row)) = version.at(self.applied) else {
                    continue;
                };
                effects.put(table, key.as_bytes(), row);
                if effects.len() >= max_bytes {
                    return (Some(effects.finish()), Some((table, key.as_bytes().to_vec())));
                }
            }
        }
        (effects.finish_if_any(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::LogPayload;

    fn with_rows(rows: u8) -> Partition {
        let mut partition = Partition::new();
        let mut effects = EffectsBuilder::default();
        for row in 0..rows {
            for table in [3, 5] {
                effects.put(table, &[row], &crate::row::encode_row(&[]));
            }
        }
        effects.put(5, b"gone", &crate::row::encode_row(&[]));
        let write = LogPayload::Write(effects.finish());
        partition.apply_record(1, &write).expect("it is sound");
        let mut effects = EffectsBuilder::default();
        effects.remove(5, b"gone");
        let write = LogPayload::Write(effects.finish());
        partition.apply_record(2, &write).expect("it is sound");
        partition
    }

    fn copied(from: &Partition, max_bytes: usize) -> (Partition, usize) {
        let (mut to, mut cursor, mut parts) = (Partition::new(), None, 0);
        loop {
            let (effects, next) = from.rows_as_effects(cursor, max_bytes);
            if let Some(effects) = effects {
                parts += 1;
                to.apply_record(parts, &LogPayload::Write(effects))
                    .expect("it is sound");
            }
            cursor = next;
            if cursor.is_none() {
                return (to, parts as usize);
            }
        }
    }

    #[test]
    fn effects_put_every_row_once_however_they_are_cut() {
        let from = with_rows(20);
        for max_bytes in [1, 50, 1 << 20] {
            let (to, parts) = copied(&from, max_bytes);
            assert_eq!(to.stats().rows, from.stats().rows);
            assert_eq!(to.stats().rows, 40);
            assert!(max_bytes > 1 || parts == 40, "one row a part");
        }
    }

    #[test]
    fn nothing_gives_no_effects() {
        assert_eq!(Partition::new().rows_as_effects(None, 1), (None, None));
    }
}
