//! One replica of one partition: its log, its role, and the rules of `REPLICATION.md` as a pure state machine.
//!
//! `primary` and `follower` hold what each of the two roles does, `capture` what a checkpoint takes; what both do is here.
//!
//! Nothing here does I/O or reads a clock; the drivers (`sender`, `receiver`, `fill`, `Replicas`) carry messages and
//! call these functions under the replica's mutex. What must hold:
//! - a primary applies at once and keeps what it replaced until it is committed; a backup applies only what is
//!   committed and holds the rest as log;
//! - `committed` is what the mode says of the members' ends (`commit`), and nothing at or below it is ever cut; of an asynchronous
//!   replica it may be lost with the primary, and who has it is filled anew;
//! - records of an epoch lower than the greatest one seen are refused.

mod appointment;
mod base;
pub(crate) mod capture;
mod commit;
mod follower;
mod late;
mod mode;
mod primary;

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use volt_engine::effects::LogPayload;
use volt_engine::partition::Partition;
use volt_engine::{Epoch, Lsn, NodeId, PartitionId, TableId};

use super::epochs::EpochHistory;
use super::freshness::Freshness;
use super::hold::Hold;
use super::tail::{Record, TAIL_LIMIT_BYTES, Tail};
use crate::config::{DEFAULT_ASYNC_MAX_LAG, DEFAULT_TAIL_MARGIN_BYTES};
use crate::metadata::link::LinkId;
use crate::metadata::map::ReplicationMode;
use crate::world::Planted;
use appointment::Appointment;
pub(crate) use appointment::{Kept, NoAppointment};
pub(crate) use late::{LagLimits, Late, Why};
use primary::Progress;
pub(crate) use primary::{AckError, FillSource, Reign};

/// What this node is to the partition.
#[derive(Debug)]
pub(crate) enum Role {
    /// Runs its transactions.
    Primary(Reign),
    /// A backup or a learner: takes what the primary sends. Which of the two it is, only the primary and the map need to know.
    Follower {
        /// The number of the fill that replaces its state; records are refused until that is done.
        filling: Option<u64>,
    },
    /// No replica any more. Who still has hold of it changes nothing, and the log hears nothing of it again.
    Dropped,
}

/// A batch of records from a primary, as `PartitionBatch` says.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) epoch: Epoch,
    pub(crate) committed: Lsn,
    pub(crate) previous_lsn: Lsn,
    pub(crate) previous_epoch: Epoch,
    pub(crate) records: Vec<Record>,
    /// The receiver must fill before any record can follow.
    pub(crate) fill: bool,
    /// And whatever it holds: its rows are in doubt.
    pub(crate) anew: bool,
}

/// A follower's answer to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It holds everything up to `matched`, like the primary.
    Accepted { matched: Lsn },
    /// It knows a higher epoch.
    Stale { epoch: Epoch },
    /// It doesn't hold the previous record; this is the greatest (LSN, epoch) that could be common.
    Gap { appended: Lsn, last_epoch: Epoch },
    /// It has applied, as committed, records that this primary never got: it must be filled.
    Ahead,
    /// Ask again: it is filling, or doesn't know yet whom it follows.
    NotYet,
}

/// What a batch changed, for the log.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Everything beyond this LSN was cut.
    pub(crate) cut: Option<Lsn>,
    /// New records, in order.
    pub(crate) records: Vec<Record>,
    /// The primary asks this replica to fill.
    pub(crate) fill: bool,
    /// So many records that were acknowledged here the new primary never got; told once.
    pub(crate) lost: Option<Lsn>,
}

/// A replica; see the module.
pub(crate) struct Replica {
    pub(crate) partition: PartitionId,
    /// Its rows, as of `engine.applied()`.
    pub(crate) engine: Partition,
    pub(crate) role: Role,
    pub(crate) hold: Hold,
    pub(crate) history: EpochHistory,
    pub(crate) tail: Tail,
    /// The greatest epoch seen: lower ones are refused.
    pub(crate) epoch: Epoch,
    pub(crate) appended: Lsn,
    pub(crate) durable: Lsn,
    pub(crate) committed: Lsn,
    waiters: BTreeMap<(Lsn, u64), oneshot::Sender<()>>,
    next_waiter: u64,
    /// What the log on disk knows to be committed.
    marked_committed: Lsn,
    /// Followers that copy a snapshot, and the LSN of it: records beyond are kept for them.
    pub(crate) fill_holds: BTreeMap<NodeId, Lsn>,
    /// Of a primary whose records are archived: those beyond are kept for that, as for a learner.
    pub(crate) archived: Option<Lsn>,
    /// Of a primary: how far each replication link is; records beyond are kept for that.
    pub(crate) linked: BTreeMap<LinkId, Lsn>,
    /// Where replicas are to be compared.
    appointment: Option<Appointment>,
    /// Fills begun here, so that each has a number.
    fills: u64,
    /// A segment of the log: the newest fill began in it, or in a later one.
    pub(crate) filling_since: u64,
    /// Rows that a fill may find to be what it brings; nothing else is done with them.
    base: Option<Box<base::Base>>,
    /// It is to be filled, whatever records its primary has: `RECOVER NODE` says so.
    pub(crate) refuses_log: bool,
    /// It was read back from the log, and has not been a learner since.
    pub(crate) is_from_log: bool,
    /// The process that read it back has no role by the map yet: nothing is taken. The one before may have seen an epoch that its disk does not
    /// show, and who was promoted then counts on it that lower ones are refused.
    pub(crate) awaits_role: bool,
    /// As `NodeConfig` says.
    pub(crate) tail_margin_bytes: usize,
    /// When a record is committed, as the map says.
    pub(crate) mode: ReplicationMode,
    /// The mode that it is to take: until the map says that it has, records are committed when both modes say so.
    pub(crate) next_mode: Option<ReplicationMode>,
    /// It is, or was once, asynchronous.
    pub(crate) was_async: bool,
    /// What was committed when it was told that some of it is lost.
    told_lost: Lsn,
    /// Of an asynchronous one: records that a member of the in-sync set may lack of what is committed.
    pub(crate) max_lag: Lsn,
    /// As the node's `World` says.
    pub(crate) planted: Planted,
    /// The catalog version whose indexes the engine has; 0: none yet.
    pub(crate) catalog_version: u64,
    /// Some of its indexes or views lack rows.
    pub(crate) is_building: bool,
    /// The views that may be read.
    pub(crate) ready_views: Vec<TableId>,
    /// Of a backup: how far its primary was, and when.
    pub(crate) freshness: Freshness,
}

impl Replica {
    /// An empty replica.
    pub(crate) fn new(partition: PartitionId) -> Self {
        Self {
            partition,
            engine: Partition::new(),
            role: Role::Follower { filling: None },
            hold: Hold::default(),
            history: EpochHistory::default(),
            tail: Tail::default(),
            epoch: 0,
            appended: 0,
            durable: 0,
            committed: 0,
            waiters: BTreeMap::new(),
            next_waiter: 0,
            marked_committed: 0,
            fill_holds: BTreeMap::new(),
            archived: None,
            linked: BTreeMap::new(),
            appointment: None,
            fills: 0,
            filling_since: 0,
            base: None,
            refuses_log: false,
            is_from_log: false,
            awaits_role: false,
            tail_margin_bytes: DEFAULT_TAIL_MARGIN_BYTES,
            mode: ReplicationMode::Sync,
            next_mode: None,
            was_async: false,
            told_lost: 0,
            max_lag: DEFAULT_ASYNC_MAX_LAG,
            planted: Planted::default(),
            catalog_version: 0,
            is_building: false,
            ready_views: Vec::new(),
            freshness: Freshness::default(),
        }
    }

    /// Before rows are written: what new ones are held to must have all the old ones. Nearly always it has.
    pub(crate) fn complete_unique_indexes(&mut self) {
        if self.is_building {
            self.engine.build_enforced();
        }
    }

    /// A view that may be read is not complete yet, as after a restart. It is built beside other work: whoever needs it
    /// comes again.
    pub(crate) fn lacks_view(&self) -> bool {
        self.is_building && self.ready_views.iter().any(|view| !self.engine.has_built_view(*view))
    }

    /// The reign, if this is the primary.
    pub(crate) fn reign(&self) -> Option<&Reign> {
        match &self.role {
            Role::Primary(reign) => Some(reign),
            Role::Follower { .. } | Role::Dropped => None,
        }
    }

    /// The same, to change.
    pub(crate) fn reign_mut(&mut self) -> Option<&mut Reign> {
        match &mut self.role {
            Role::Primary(reign) => Some(reign),
            Role::Follower { .. } | Role::Dropped => None,
        }
    }

    /// True for a record that this primary appended itself.
    pub(crate) fn is_of_this_reign(&self, lsn: Lsn) -> bool {
        let began = self.reign().map(|reign| reign.began_epoch);
        began.is_some_and(|began| self.history.epoch_at(lsn) >= began)
    }

    /// The node holds the partition no longer. The caller then appends `Dropped`, this replica's last entry in the log.
    pub(crate) fn drop_out(&mut self) {
        self.follow(self.epoch);
        self.role = Role::Dropped;
    }

    /// Waits for `lsn` to be committed: ready at once, or by the receiver; a dropped sender means "not by this primary".
    pub(crate) fn wait_committed(&mut self, lsn: Lsn) -> Option<oneshot::Receiver<()>> {
        if lsn <= self.committed {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.next_waiter += 1;
        self.waiters.insert((lsn, self.next_waiter), sender);
        Some(receiver)
    }

    /// Drops everyone who waits for a commit: its outcome is not this primary's to tell.
    pub(crate) fn fail_waiters(&mut self) {
        self.waiters.clear();
    }

    fn wake_waiters(&mut self) {
        while let Some(entry) = self.waiters.first_entry() {
            if entry.key().0 > self.committed {
                return;
            }
            let _ = entry.remove().send(());
        }
    }

    fn push(&mut self, record: Record) {
        assert_eq!(
            record.lsn,
            self.appended + 1,
            "partition {}: records come without gaps",
            self.partition
        );
        self.history.note(record.epoch, record.lsn);
        self.appended = record.lsn;
        self.tail.push(record);
    }

    fn apply_until(&mut self, lsn: Lsn) {
        self.try_apply_until(lsn).expect("a record that was taken in is sound");
    }

    /// An error: a record fits none before it.
    fn try_apply_until(&mut self, lsn: Lsn) -> Result<(), volt_engine::error::CorruptError> {
        let stop = self.next_stop(lsn);
        self.apply_records_until(stop)?;
        if stop < lsn {
            self.keep_appointment();
            self.apply_records_until(lsn)?;
        }
        self.keep_appointment();
        Ok(())
    }

    fn apply_records_until(&mut self, lsn: Lsn) -> Result<(), volt_engine::error::CorruptError> {
        let applied = self.engine.applied();
        if applied >= lsn {
            return Ok(());
        }
        let records = self.tail.after(applied).expect("what is not applied is in the tail");
        for record in records.take_while(|record| record.lsn <= lsn) {
            self.engine.apply_record(record.lsn, &decode(record))?;
        }
        Ok(())
    }

    fn trim(&mut self) {
        let settled = self.committed.min(self.engine.applied());
        let streaming = self.reign().map(|reign| {
            let acked = reign
                .followers
                .values()
                .filter(|follower| follower.counts || matches!(follower.progress, Progress::Streaming { .. }));
            acked
                .map(|follower| follower.acked)
                .chain(self.fill_holds.values().copied())
                .chain(self.archived)
                .chain(self.linked.values().copied())
                .fold(settled, Lsn::min)
        });
        self.tail.trim(streaming.unwrap_or(settled), self.tail_margin_bytes);
        self.tail.trim(settled, TAIL_LIMIT_BYTES);
    }
}

fn decode(record: &Record) -> LogPayload {
    LogPayload::decode(&record.payload).expect("a record that passed its checksum is sound")
}
