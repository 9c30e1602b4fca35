//! The follower's part: a backup or a learner takes what the primary sends, and applies what is committed.

use volt_engine::partition::Partition;
use volt_engine::{Epoch, Lsn};

use super::{Answer, Batch, Received, Replica, Role};
use crate::replication::epochs::EpochHistory;
use crate::replication::tail::Record;
use crate::world::PlantedBug;

impl Replica {
    /// Another node reigns in `epoch`, or nobody yet. Whoever waited for this one is told (by being dropped).
    pub(crate) fn follow(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
        if matches!(self.role, Role::Primary(_)) {
            self.role = Role::Follower { filling: None };
            self.fail_waiters();
            self.hold.clear();
            self.fill_holds.clear();
        }
    }

    /// It was read back from the log, by a process that the map gives no role yet.
    pub(crate) fn came_back(&mut self) {
        self.is_from_log = true;
        self.awaits_role = true;
    }

    /// Takes a batch: appends what is new, cuts what contradicts it, applies what is committed.
    pub(crate) fn receive(&mut self, batch: Batch) -> (Answer, Received) {
        let mut received = Received::default();
        if matches!(self.role, Role::Dropped) || self.awaits_role {
            return (Answer::NotYet, received);
        }
        if batch.epoch < self.epoch && !self.planted.has(PlantedBug::OldEpochTaken) {
            return (Answer::Stale { epoch: self.epoch }, received);
        }
        self.follow(batch.epoch);
        if matches!(self.role, Role::Follower { filling: Some(_) }) {
            return (Answer::NotYet, received);
        }
        received.fill = batch.fill;
        if self.refuses_log && !batch.fill {
            return (Answer::Ahead, received);
        }
        if batch.anew || self.refuses_log {
            let (appended, last_epoch) = (0, 0);
            return (Answer::Gap { appended, last_epoch }, received);
        }
        let keeps_all = self.planted.has(PlantedBug::BackupDoesNotCut);
        let is_same = |ours: Epoch, theirs: Epoch| ours == theirs || keeps_all;
        let ours = self.history.epoch_at(batch.previous_lsn);
        if batch.previous_lsn > self.appended || !is_same(ours, batch.previous_epoch) {
            let appended = self
                .appended
                .min(batch.previous_lsn)
                .min(self.history.end_of(batch.previous_epoch, self.appended));
            return (
                Answer::Gap {
                    appended,
                    last_epoch: self.history.epoch_at(appended),
                },
                received,
            );
        }
        let mut matched = batch.previous_lsn;
        for record in batch.records {
            matched = record.lsn;
            if record.lsn <= self.appended && is_same(self.history.epoch_at(record.lsn), record.epoch) {
                continue;
            }
            if record.lsn <= self.committed && self.was_async {
                // It was acknowledged, and applied here, and the primary that took over never got it.
                let is_news = std::mem::replace(&mut self.told_lost, self.committed) != self.committed;
                received.lost = is_news.then_some(self.committed - record.lsn + 1);
                return (Answer::Ahead, received);
            }
            if record.lsn <= self.appended {
                self.cut(record.lsn - 1);
                received.cut = Some(record.lsn - 1);
            }
            self.push(record.clone());
            received.records.push(record);
        }
        self.base = None;
        self.committed = self.committed.max(batch.committed.min(matched));
        self.apply_until(self.committed);
        self.engine.commit_to(self.committed);
        self.trim();
        (Answer::Accepted { matched }, received)
    }

    /// Cuts the log after `lsn`, undoing what had been applied of the rest (a deposed primary's own records).
    pub(crate) fn cut(&mut self, lsn: Lsn) {
        assert!(
            lsn >= self.committed,
            "partition {}: cut to {lsn} below committed {}",
            self.partition,
            self.committed
        );
        if self.is_appointed_beyond(lsn) {
            self.end_appointment();
        }
        self.tail.cut(lsn);
        self.engine.undo_after(lsn);
        // A view that was completed by what is undone begins anew.
        self.is_building = true;
        self.appended = lsn;
        self.durable = self.durable.min(lsn);
        self.history.cut(lsn);
    }

    /// Begins a fill: records are refused until it ends. What was there is no state any more, only a base. Returns its number.
    pub(crate) fn begin_fill(&mut self) -> u64 {
        self.emptied();
        self.fills += 1;
        self.role = Role::Follower {
            filling: Some(self.fills),
        };
        self.fills
    }

    /// True while this fill goes on: not when the replica was dropped, or took another role, meanwhile.
    pub(crate) fn is_filled_by(&self, fill: u64) -> bool {
        matches!(self.role, Role::Follower { filling: Some(current) } if current == fill)
    }

    /// Replaces everything by a filled state at `lsn`.
    pub(crate) fn filled(&mut self, engine: Partition, history: EpochHistory, lsn: Lsn) {
        assert_eq!(engine.applied(), lsn, "partition {}: the fill is whole", self.partition);
        self.engine = engine;
        self.catalog_version = 0; // it has no indexes yet
        self.history = history;
        self.tail.clear();
        (self.appended, self.durable, self.committed) = (lsn, lsn, lsn);
        self.epoch = self.epoch.max(self.history.epoch_at(lsn));
        self.role = Role::Follower { filling: None };
        (self.base, self.refuses_log) = (None, false);
    }

    /// Holds nothing any more: a fill begins, or failed half-way, and what was here before is no longer in the log. The rows
    /// may serve as a base.
    pub(crate) fn emptied(&mut self) {
        // Also what is not known to be committed, if it can be applied: a base need not be true.
        let _ = self.try_apply_until(self.appended);
        let rows = std::mem::take(&mut self.engine);
        self.keep_as_base(rows, true);
        *self = Self {
            base: self.base.take(),
            refuses_log: self.refuses_log,
            epoch: self.epoch,
            fills: self.fills,
            tail_margin_bytes: self.tail_margin_bytes,
            mode: self.mode,
            next_mode: self.next_mode,
            was_async: self.was_async,
            max_lag: self.max_lag,
            planted: self.planted,
            ..Self::new(self.partition)
        };
    }

    /// A record of the log on disk, at a restart: held, applied once it is known to be committed.
    pub(crate) fn replay(&mut self, record: Record) {
        self.epoch = self.epoch.max(record.epoch);
        self.push(record);
        self.durable = self.appended;
        self.trim();
    }

    /// A mark of the log on disk, at a restart: everything up to `lsn` was committed.
    pub(crate) fn replay_committed(&mut self, lsn: Lsn) -> Result<(), volt_engine::error::CorruptError> {
        self.committed = self.committed.max(lsn.min(self.appended));
        self.try_apply_until(self.committed)?;
        self.engine.commit_to(self.committed);
        Ok(())
    }
}
