//! One replica of one partition: its log, its role, and the rules of `REPLICATION.md` as a pure state machine.
//!
//! Nothing here does I/O or reads a clock; the drivers (`sender`, `receiver`, `fill`, `Replicas`) carry messages and
//! call these functions under the replica's mutex. What must hold:
//! - a primary applies at once and keeps what it replaced until it is committed; a backup applies only what is
//!   committed and holds the rest as log;
//! - `committed <= durable` of every counted member, and nothing at or below `committed` is ever cut;
//! - records of an epoch lower than the greatest one seen are refused.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use volt_engine::effects::LogPayload;
use volt_engine::partition::Partition;
use volt_engine::{Epoch, Lsn, NodeId, PartitionId};

use super::epochs::EpochHistory;
use super::hold::Hold;
use super::tail::{Record, TAIL_LIMIT_BYTES, TAIL_MARGIN_BYTES, Tail};

/// What this node is to the partition.
#[derive(Debug)]
pub(crate) enum Role {
    /// Runs its transactions.
    Primary(Reign),
    /// A backup or a learner: takes what the primary sends. Which of the two it is, only the primary and the map need to know.
    Follower {
        /// Its state is being replaced by a fill; records are refused until that is done.
        filling: bool,
    },
}

/// A primary's view of its partition.
#[derive(Debug)]
pub(crate) struct Reign {
    /// The epoch in force.
    pub(crate) epoch: Epoch,
    /// The epoch in which this unbroken reign began: acknowledgements of it and later ones count.
    pub(crate) began_epoch: Epoch,
    /// The backups and learners.
    pub(crate) followers: BTreeMap<NodeId, Follower>,
    /// A planned switch is under way: no new transaction starts.
    pub(crate) relinquishing: bool,
}

/// What a primary knows of one backup or learner.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// How the stream to it stands.
    pub(crate) progress: Progress,
    /// It holds everything up to here, as safely as the cluster's durability asks.
    pub(crate) acked: Lsn,
    /// In the in-sync set, as the map has it.
    pub(crate) member: bool,
    /// A commit waits for it: a member, or a learner that is about to be one.
    pub(crate) counts: bool,
    /// The committed LSN that it was last told.
    pub(crate) told_committed: Lsn,
    /// Proposed for the in-sync set; the answer is awaited.
    pub(crate) proposed: bool,
}

/// How the stream to a follower stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its end is not known: an empty batch asks for it, at this guess of the last common record.
    #[default]
    Probe,
    /// Records from `next` on are sent as they come.
    Streaming {
        /// The first record not sent yet.
        next: Lsn,
    },
    /// It lacks records that are no longer here: it copies a snapshot.
    Filling,
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
    /// Ask again: it is filling.
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
}

impl Replica {
    /// An empty replica.
    pub(crate) fn new(partition: PartitionId) -> Self {
        Self {
            partition,
            engine: Partition::new(),
            role: Role::Follower { filling: false },
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
        }
    }

    /// The reign, if this is the primary.
    pub(crate) fn reign(&self) -> Option<&Reign> {
        match &self.role {
            Role::Primary(reign) => Some(reign),
            Role::Follower { .. } => None,
        }
    }

    /// The same, to change.
    pub(crate) fn reign_mut(&mut self) -> Option<&mut Reign> {
        match &mut self.role {
            Role::Primary(reign) => Some(reign),
            Role::Follower { .. } => None,
        }
    }

    // ---- Primary

    /// Takes the partition in `epoch`, or goes on in a new epoch. Applies all it holds. The caller then appends the
    /// `EpochStart` record. `members` are the other nodes of the in-sync set, `learners` those being filled.
    pub(crate) fn reign_in(&mut self, epoch: Epoch, members: &[NodeId], learners: &[NodeId]) {
        assert!(
            epoch >= self.epoch,
            "partition {}: epoch {epoch} after {}",
            self.partition,
            self.epoch
        );
        self.epoch = epoch;
        if self.reign().is_none() {
            self.apply_until(self.appended);
            let reign = Reign {
                epoch,
                began_epoch: epoch,
                followers: BTreeMap::new(),
                relinquishing: false,
            };
            self.role = Role::Primary(reign);
        }
        let Role::Primary(reign) = &mut self.role else {
            unreachable!("set above")
        };
        // A proposal of an older epoch has been decided: the members say how.
        let decided = reign.epoch != epoch;
        reign.epoch = epoch;
        reign
            .followers
            .retain(|node, _| members.contains(node) || learners.contains(node));
        self.fill_holds.retain(|node, _| reign.followers.contains_key(node));
        for &node in members.iter().chain(learners) {
            let member = members.contains(&node);
            let follower = reign.followers.entry(node).or_default();
            follower.proposed &= !decided && !member;
            follower.member = member;
            follower.counts = member || follower.proposed;
        }
    }

    /// Appends a record of this reign, applied at once. The caller hands it to the log.
    pub(crate) fn append(&mut self, payload: &LogPayload) -> Record {
        let Role::Primary(reign) = &self.role else {
            panic!("partition {}: only a primary appends", self.partition)
        };
        let record = Record {
            lsn: self.appended + 1,
            epoch: reign.epoch,
            payload: payload.encode(),
        };
        self.engine
            .apply_record(record.lsn, payload)
            .expect("a record that was just made is sound");
        self.push(record.clone());
        record
    }

    /// What `node` needs next, at most `max_bytes` of it; None when nothing.
    pub(crate) fn batch_for(&mut self, node: NodeId, max_bytes: usize) -> Option<Batch> {
        let (committed, appended) = (self.committed, self.appended);
        let Role::Primary(reign) = &mut self.role else {
            return None;
        };
        let epoch = reign.epoch;
        let follower = reign.followers.get_mut(&node)?;
        let (previous_lsn, fill) = match follower.progress {
            Progress::Probe => (appended, false),
            Progress::Filling => (appended, true),
            Progress::Streaming { next } => (next - 1, false),
        };
        let mut records = Vec::new();
        if let Progress::Streaming { next } = follower.progress {
            let Some(newer) = self.tail.after(previous_lsn) else {
                follower.progress = Progress::Filling;
                return self.batch_for(node, max_bytes);
            };
            let mut bytes = 0;
            records.extend(
                newer
                    .take_while(|record| {
                        let first = bytes == 0;
                        bytes += record.payload.len() + 32;
                        first || bytes <= max_bytes
                    })
                    .cloned(),
            );
            if records.is_empty() && follower.told_committed >= committed {
                return None;
            }
            follower.progress = Progress::Streaming {
                next: next + records.len() as Lsn,
            };
        }
        follower.told_committed = committed;
        let previous_epoch = self.history.epoch_at(previous_lsn);
        Some(Batch {
            epoch,
            committed,
            previous_lsn,
            previous_epoch,
            records,
            fill,
        })
    }

    /// True when `node` has records to be sent, beyond telling it what is committed.
    pub(crate) fn has_records_for(&self, node: NodeId) -> bool {
        self.reign()
            .and_then(|reign| reign.followers.get(&node))
            .is_some_and(|follower| match follower.progress {
                Progress::Streaming { next } => next <= self.appended,
                Progress::Probe | Progress::Filling => false,
            })
    }

    /// True when a sweep has something to tell `node`: its end is to be asked, or it doesn't know what is committed.
    pub(crate) fn is_behind(&self, node: NodeId) -> bool {
        self.reign()
            .and_then(|reign| reign.followers.get(&node))
            .is_some_and(|follower| match follower.progress {
                Progress::Streaming { next } => next <= self.appended || follower.told_committed < self.committed,
                Progress::Probe | Progress::Filling => true,
            })
    }

    /// A follower's answer. True when more is to be sent to it at once.
    pub(crate) fn answered(&mut self, node: NodeId, epoch: Epoch, answer: Answer) -> bool {
        let appended = self.appended;
        let Role::Primary(reign) = &mut self.role else {
            return false;
        };
        if epoch < reign.began_epoch {
            return false;
        }
        let Some(follower) = reign.followers.get_mut(&node) else {
            return false;
        };
        match answer {
            Answer::Accepted { matched } => {
                assert!(
                    matched <= appended,
                    "partition {}: node {node} acknowledges the future",
                    self.partition
                );
                follower.acked = follower.acked.max(matched);
                let probing = !matches!(follower.progress, Progress::Streaming { .. });
                if probing {
                    follower.progress = Progress::Streaming { next: matched + 1 };
                }
                self.fill_holds.remove(&node);
                self.advance_commit();
                probing
            }
            Answer::Gap {
                appended: theirs,
                last_epoch,
            } => {
                let common = theirs.min(self.history.end_of(last_epoch, appended));
                if follower.acked > common {
                    // It lost what it had acknowledged: another process, or another disk. It counts from nothing.
                    follower.acked = 0;
                }
                follower.progress = if self.tail.covers(common, appended) {
                    Progress::Streaming { next: common + 1 }
                } else {
                    Progress::Filling
                };
                true
            }
            Answer::Stale { .. } => false,
            Answer::NotYet => {
                follower.progress = Progress::Probe;
                false
            }
        }
    }

    /// The stream to `node` broke: what it has must be asked anew.
    pub(crate) fn stream_broke(&mut self, node: NodeId) {
        self.fill_holds.remove(&node);
        if let Some(follower) = self.reign_mut().and_then(|reign| reign.followers.get_mut(&node)) {
            follower.progress = Progress::Probe;
            follower.counts = follower.member || follower.proposed;
        }
        self.advance_commit();
    }

    /// The log has everything up to the record `lsn` of `epoch` on disk. A record that was cut meanwhile says nothing.
    pub(crate) fn made_durable(&mut self, epoch: Epoch, lsn: Lsn) {
        if lsn > self.appended || self.history.epoch_at(lsn) != epoch {
            return;
        }
        self.durable = self.durable.max(lsn);
        self.advance_commit();
    }

    /// Moves `committed` to what every counted member has.
    pub(crate) fn advance_commit(&mut self) {
        let Role::Primary(reign) = &self.role else { return };
        let counted = reign.followers.values().filter(|follower| follower.counts);
        let point = counted.map(|follower| follower.acked).fold(self.durable, Lsn::min);
        if point <= self.committed {
            return;
        }
        self.committed = point;
        self.engine.commit_to(point);
        self.wake_waiters();
        self.trim();
    }

    /// The learner to propose for the in-sync set, if there is one; from then on it is the caller's to propose it.
    ///
    /// First commits begin to wait for a learner within `slack` records of the end; it may be proposed only when it
    /// then has all that is committed, so that no committed record is ever missing on a member.
    pub(crate) fn learner_to_propose(&mut self, slack: Lsn) -> Option<NodeId> {
        let (appended, committed) = (self.appended, self.committed);
        for (&node, follower) in &mut self.reign_mut()?.followers {
            let streaming = matches!(follower.progress, Progress::Streaming { .. });
            if follower.member || follower.proposed || !streaming || follower.acked == 0 {
                continue;
            }
            follower.counts |= follower.acked + slack >= appended;
            if follower.counts && follower.acked >= committed {
                follower.proposed = true;
                return Some(node);
            }
        }
        None
    }

    /// The group refused a learner: commits no longer wait for it.
    pub(crate) fn learner_refused(&mut self, node: NodeId) {
        if let Some(follower) = self.reign_mut().and_then(|reign| reign.followers.get_mut(&node))
            && !follower.member
        {
            (follower.proposed, follower.counts) = (false, false);
        }
        self.advance_commit();
    }

    /// True when the log on disk doesn't know yet what is committed.
    pub(crate) fn mark_committed(&mut self) -> bool {
        std::mem::replace(&mut self.marked_committed, self.committed) < self.committed
    }

    // ---- Follower

    /// Another node reigns in `epoch`, or nobody yet. Whoever waited for this one is told (by being dropped).
    pub(crate) fn follow(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
        if matches!(self.role, Role::Primary(_)) {
            self.role = Role::Follower { filling: false };
            self.fail_waiters();
            self.hold.clear();
            self.fill_holds.clear();
        }
    }

    /// Takes a batch: appends what is new, cuts what contradicts it, applies what is committed.
    pub(crate) fn receive(&mut self, batch: Batch) -> (Answer, Received) {
        let mut received = Received::default();
        if batch.epoch < self.epoch {
            return (Answer::Stale { epoch: self.epoch }, received);
        }
        self.follow(batch.epoch);
        if matches!(self.role, Role::Follower { filling: true }) {
            return (Answer::NotYet, received);
        }
        received.fill = batch.fill;
        let ours = self.history.epoch_at(batch.previous_lsn);
        if batch.previous_lsn > self.appended || ours != batch.previous_epoch {
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
            if record.lsn <= self.appended && self.history.epoch_at(record.lsn) == record.epoch {
                continue;
            }
            if record.lsn <= self.appended {
                self.cut(record.lsn - 1);
                received.cut = Some(record.lsn - 1);
            }
            self.push(record.clone());
            received.records.push(record);
        }
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
        self.tail.cut(lsn);
        self.engine.undo_after(lsn);
        self.appended = lsn;
        self.durable = self.durable.min(lsn);
        self.history.cut(lsn);
    }

    /// Replaces everything by a filled state at `lsn`.
    pub(crate) fn filled(&mut self, engine: Partition, history: EpochHistory, lsn: Lsn) {
        assert_eq!(engine.applied(), lsn, "partition {}: the fill is whole", self.partition);
        self.engine = engine;
        self.history = history;
        self.tail.clear();
        (self.appended, self.durable, self.committed) = (lsn, lsn, lsn);
        self.role = Role::Follower { filling: false };
    }

    /// Forgets everything: a fill failed half-way, and what was here before is no longer on disk.
    pub(crate) fn emptied(&mut self) {
        let epoch = self.epoch;
        *self = Self::new(self.partition);
        self.epoch = epoch;
    }

    /// A record of the log on disk, at a restart: held, applied once it is known to be committed.
    pub(crate) fn replay(&mut self, record: Record) {
        self.epoch = self.epoch.max(record.epoch);
        self.push(record);
        self.durable = self.appended;
        self.trim();
    }

    /// A mark of the log on disk, at a restart: everything up to `lsn` was committed.
    pub(crate) fn replay_committed(&mut self, lsn: Lsn) {
        self.committed = self.committed.max(lsn.min(self.appended));
        self.apply_until(self.committed);
        self.engine.commit_to(self.committed);
    }

    // ---- Both

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
        let applied = self.engine.applied();
        if applied >= lsn {
            return;
        }
        let records = self.tail.after(applied).expect("what is not applied is in the tail");
        for record in records.take_while(|record| record.lsn <= lsn) {
            self.engine
                .apply_record(record.lsn, &decode(record))
                .expect("a record that passed its checksum is sound");
        }
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
                .fold(settled, Lsn::min)
        });
        self.tail.trim(streaming.unwrap_or(settled), TAIL_MARGIN_BYTES);
        self.tail.trim(settled, TAIL_LIMIT_BYTES);
    }
}

fn decode(record: &Record) -> LogPayload {
    LogPayload::decode(&record.payload).expect("a record that passed its checksum is sound")
}
