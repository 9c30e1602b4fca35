//! Records in, records out: applying, committing, undoing, and what pins keep.

use super::decisions::Decision;
use super::{Partition, Prepared, Touch};
use crate::effects::{Effects, LogPayload, TransactionId};
use crate::error::CorruptError;
use crate::key::Key;
use crate::table::{Replaced, Version};
use crate::{Lsn, TableId};

impl Partition {
    /// Applies the next record. An error changes nothing.
    pub fn apply_record(&mut self, lsn: Lsn, payload: &LogPayload) -> Result<(), CorruptError> {
        assert_eq!(lsn, self.applied + 1, "records are applied in order, without gaps");
        match payload {
            LogPayload::Write(effects) => {
                if self.prepared.is_some() {
                    return Err(CorruptError::OutOfPlace("a write while a transaction is prepared"));
                }
                effects.check()?;
                self.apply_effects(lsn, effects);
            }
            LogPayload::Prepared {
                transaction,
                home,
                effects,
            } => {
                if self.prepared.is_some() {
                    return Err(CorruptError::OutOfPlace("a second prepared transaction"));
                }
                if self.decisions.get(*transaction).is_some() {
                    return Err(CorruptError::OutOfPlace("a transaction that was decided is prepared"));
                }
                effects.check()?;
                self.prepared = Some(Prepared {
                    transaction: *transaction,
                    home: *home,
                    effects: effects.clone(),
                    lsn,
                });
            }
            LogPayload::Commit(transaction) => self.commit(lsn, *transaction)?,
            LogPayload::Abort(transaction) => self.abort(lsn, *transaction)?,
            LogPayload::EpochStart => {}
        }
        self.applied = lsn;
        Ok(())
    }

    fn commit(&mut self, lsn: Lsn, transaction: TransactionId) -> Result<(), CorruptError> {
        let Some(prepared) = self.prepared.take_if(|prepared| prepared.transaction == transaction) else {
            return Err(CorruptError::OutOfPlace("a commit of what is not prepared"));
        };
        self.apply_effects(lsn, &prepared.effects);
        self.decisions.remember(
            Decision {
                lsn,
                transaction,
                committed: true,
            },
            Some(prepared),
        );
        Ok(())
    }

    fn abort(&mut self, lsn: Lsn, transaction: TransactionId) -> Result<(), CorruptError> {
        match self.decisions.get(transaction) {
            Some(true) => return Err(CorruptError::OutOfPlace("an abort of what is committed")),
            Some(false) => return Ok(()),
            None => {}
        }
        let prepared = self.prepared.take_if(|prepared| prepared.transaction == transaction);
        self.decisions.remember(
            Decision {
                lsn,
                transaction,
                committed: false,
            },
            prepared,
        );
        Ok(())
    }

    /// The effects were checked before.
    fn apply_effects(&mut self, lsn: Lsn, effects: &Effects) {
        for effect in effects.iter_checked() {
            match effect.key {
                Some(key) => self.apply_effect(lsn, effect.table, Key::new(key), effect.row),
                None => self.clear(lsn, effect.table),
            }
        }
    }

    fn apply_effect(&mut self, lsn: Lsn, table: TableId, key: Key, row: Option<&[u8]>) {
        if !self.views.has_source(table) {
            return self.write_row(lsn, table, key, row);
        }
        let version = self.tables.get(&table).and_then(|rows| rows.get(&key));
        let before: Option<Box<[u8]>> = version.and_then(Version::row).map(Box::from);
        self.write_row(lsn, table, key.clone(), row);
        self.maintain_views(lsn, table, &key, before.as_deref());
    }

    pub(super) fn write_row(&mut self, lsn: Lsn, table: TableId, key: Key, row: Option<&[u8]>) {
        let rows = self.tables.entry(table).or_default();
        if let Some(replaced) = rows.write(&key, lsn, row) {
            let replaced = replaced == Replaced::Version;
            self.touched.push_back(Touch {
                lsn,
                table,
                key,
                replaced,
            });
        }
    }

    /// Row by row, so that older snapshots, undoing and indexes need to know nothing of it.
    fn clear(&mut self, lsn: Lsn, table: TableId) {
        let Some(rows) = self.tables.get(&table) else { return };
        let live = rows.after(None).filter(|(_, version)| version.row().is_some());
        let keys: Vec<Key> = live.map(|(key, _)| key).collect();
        for key in keys {
            self.write_row(lsn, table, key, None);
        }
        self.clear_views(lsn, table);
    }

    /// Everything up to `committed`, as far as it is applied, is committed: versions that nobody needs any more go.
    pub fn commit_to(&mut self, committed: Lsn) {
        let committed = committed.min(self.applied);
        if committed <= self.committed {
            return;
        }
        self.committed = committed;
        while let Some(touch) = self.touched.pop_front_if(|touch| touch.lsn <= committed) {
            if touch.replaced {
                self.prune(touch.table, touch.key);
            }
        }
        self.settle_decisions();
    }

    /// A dump that began at a pinned snapshot needs what was prepared then.
    fn settle_decisions(&mut self) {
        let oldest_pin = self.pins.keys().next().copied().unwrap_or(Lsn::MAX);
        self.decisions.settle(self.committed.min(oldest_pin));
    }

    fn prune(&mut self, table: TableId, key: Key) {
        let Some(rows) = self.tables.get_mut(&table) else {
            return;
        };
        let mut kept_by = Vec::new();
        rows.prune(&key, self.committed, &self.pins, &mut kept_by);
        for pin in kept_by {
            self.kept.entry(pin).or_default().insert((table, key.clone()));
        }
    }

    /// Takes back what the records beyond `lsn` did, as if they had never been.
    ///
    /// # Panics
    /// When one of them is committed.
    pub fn undo_after(&mut self, lsn: Lsn) {
        assert!(
            lsn >= self.committed,
            "cut to {lsn}: what is committed, up to {}, stays",
            self.committed
        );
        if lsn >= self.applied {
            return;
        }
        self.undo_views_after(lsn);
        while let Some(touch) = self.touched.pop_back_if(|touch| touch.lsn > lsn) {
            if let Some(rows) = self.tables.get_mut(&touch.table) {
                rows.undo_after(&touch.key, lsn);
            }
        }
        self.prepared.take_if(|prepared| prepared.lsn > lsn);
        if let Some(prepared) = self.decisions.undo_after(lsn) {
            self.prepared = Some(prepared);
        }
        self.applied = lsn;
        self.hear_again_after(lsn);
    }

    /// Keeps what a snapshot at `lsn` sees, until as many `unpin`. False: that is gone already, for `lsn` is older than
    /// the newest committed state and was not pinned; the snapshot can't be read.
    pub fn pin(&mut self, lsn: Lsn) -> bool {
        if lsn < self.committed && !self.pins.contains_key(&lsn) {
            return false;
        }
        *self.pins.entry(lsn).or_default() += 1;
        true
    }

    /// Whether what a snapshot at `lsn` sees is kept here.
    pub fn is_pinned(&self, lsn: Lsn) -> bool {
        self.pins.contains_key(&lsn)
    }

    /// A snapshot is no longer needed.
    pub fn unpin(&mut self, lsn: Lsn) {
        let Some(count) = self.pins.get_mut(&lsn) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.pins.remove(&lsn);
        for (table, key) in self.kept.remove(&lsn).unwrap_or_default() {
            self.prune(table, key);
        }
        self.settle_decisions();
    }
}
