//! The primary's part: it runs transactions, sends its followers what they lack, counts their acknowledgements.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::sync::oneshot;
use volt_engine::effects::LogPayload;
use volt_engine::partition::DumpCursor;
use volt_engine::{Epoch, Lsn, NodeId, PartitionId};

use super::{Answer, Batch, Replica, Role};
use crate::metadata::map::ReplicationMode;
use crate::replication::tail::Record;
use crate::world::PlantedBug;

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
    /// Late members are proposed to leave the in-sync set; the answer is awaited.
    pub(crate) dropping: bool,
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
    /// Proposed to leave the in-sync set: true until another epoch says what became of it, whatever is answered.
    pub(crate) leaving: bool,
    /// It can't be caught up by records, and must be filled; a member leaves the in-sync set first, for one that is being filled
    /// holds nothing.
    pub(crate) to_fill: bool,
    /// Looks in a row that found it without something, and no further than the look before.
    pub(super) late_looks: u32,
    /// Looks in a row that found it behind by more records than it may be.
    pub(super) lagging_looks: u32,
    /// Its rows are in doubt, as the map has it.
    in_doubt: bool,
    /// It has copied a snapshot since, on the stream that there is.
    is_refilled: bool,
    /// What it had acknowledged at the last look.
    pub(super) acked_then: Lsn,
}

impl Follower {
    /// What it holds says nothing: its rows are in doubt, and it has not copied others since.
    fn must_fill(&self) -> bool {
        self.in_doubt && !self.is_refilled
    }

    /// It is filled next, and until then no commit waits for it: the fill waits for commits. A member whose set is not the
    /// leader's to mend waits until it is none, and is looked for meanwhile; so does one that may be a member by now.
    fn await_fill(&mut self, mode: ReplicationMode) {
        self.counts = self.member || self.proposed;
        self.to_fill = self.proposed || self.member && mode != ReplicationMode::Sync;
        self.progress = if self.to_fill {
            Progress::Probe
        } else {
            Progress::Filling
        };
    }
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

/// A follower acknowledged what was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition}: record {matched} is acknowledged, and the last one is {appended}")]
pub(crate) struct AckError {
    partition: PartitionId,
    matched: Lsn,
    appended: Lsn,
}

/// A snapshot that a learner copies, and the unbroken reign that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FillSource {
    /// All that was applied when the fill began; pinned.
    pub(crate) snapshot: Lsn,
    began_epoch: Epoch,
}

impl Replica {
    /// Takes the partition in `epoch`, or goes on in a new epoch. Applies all it holds. The caller then appends the
    /// `EpochStart` record. `members` are the other nodes of the in-sync set, `learners` those being filled.
    pub(crate) fn reign_in(&mut self, epoch: Epoch, members: &[NodeId], learners: &[NodeId]) {
        assert!(
            epoch >= self.epoch,
            "partition {}: epoch {epoch} after {}",
            self.partition,
            self.epoch
        );
        assert!(
            !matches!(self.role, Role::Dropped),
            "partition {}: a dropped replica reigns",
            self.partition
        );
        self.epoch = epoch;
        if self.reign().is_none() {
            self.apply_until(self.appended);
            let reign = Reign {
                epoch,
                began_epoch: epoch,
                followers: BTreeMap::new(),
                relinquishing: false,
                dropping: false,
            };
            self.role = Role::Primary(reign);
        }
        let Role::Primary(reign) = &mut self.role else {
            unreachable!("set above")
        };
        // A proposal of an older epoch has been decided: the members say how.
        let decided = reign.epoch != epoch;
        reign.dropping &= !decided;
        reign.relinquishing &= !decided;
        reign.epoch = epoch;
        reign
            .followers
            .retain(|node, _| members.contains(node) || learners.contains(node));
        self.fill_holds.retain(|node, _| reign.followers.contains_key(node));
        for &node in members.iter().chain(learners) {
            let member = members.contains(&node);
            let follower = reign.followers.entry(node).or_default();
            if follower.member && !member {
                // It was dropped: before commits wait for it again, it must have answered again.
                follower.progress = Progress::Probe;
            }
            if decided {
                (follower.late_looks, follower.lagging_looks) = (0, 0);
                follower.leaving = false;
            }
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
        self.keep_appointment();
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
        let anew = follower.must_fill();
        if anew {
            follower.progress = Progress::Filling;
        }
        let (previous_lsn, fill) = match follower.progress {
            Progress::Probe => (appended, false),
            Progress::Filling => (appended, true),
            Progress::Streaming { next } => (next - 1, false),
        };
        let mut records = Vec::new();
        if let Progress::Streaming { next } = follower.progress {
            let newer = self.tail.after(previous_lsn);
            let Some(newer) = newer.filter(|_| self.tail.covers(previous_lsn, appended)) else {
                follower.await_fill(self.mode);
                self.advance_commit();
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
            anew,
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

    /// A follower's answer. True when more is to be sent to it at once. An error changes nothing.
    pub(crate) fn answered(&mut self, node: NodeId, epoch: Epoch, answer: Answer) -> Result<bool, AckError> {
        let (partition, appended) = (self.partition, self.appended);
        let Role::Primary(reign) = &mut self.role else {
            return Ok(false);
        };
        if epoch < reign.began_epoch {
            return Ok(false);
        }
        let Some(follower) = reign.followers.get_mut(&node) else {
            return Ok(false);
        };
        match answer {
            // What it holds says nothing.
            _ if follower.must_fill() => Ok(false),
            Answer::Accepted { matched } if matched > appended => Err(AckError {
                partition,
                matched,
                appended,
            }),
            // It waits to leave the set; or it has left it.
            Answer::Accepted { .. } | Answer::Gap { .. } if follower.to_fill => {
                follower.await_fill(self.mode);
                Ok(!follower.member)
            }
            Answer::Ahead => {
                follower.await_fill(self.mode);
                let at_once = !follower.member;
                self.advance_commit();
                Ok(at_once)
            }
            Answer::Accepted { matched } => {
                follower.acked = follower.acked.max(matched);
                let (probing, next) = match follower.progress {
                    Progress::Streaming { next } => (false, next.max(matched + 1)),
                    Progress::Probe | Progress::Filling => (true, matched + 1),
                };
                follower.progress = Progress::Streaming { next };
                self.fill_holds.remove(&node);
                self.advance_commit();
                Ok(probing)
            }
            Answer::Gap {
                appended: theirs,
                last_epoch,
            } => {
                let common = theirs.min(self.history.end_of(last_epoch, appended));
                if follower.acked > common && matches!(follower.progress, Progress::Streaming { .. }) {
                    // To an earlier probe: it has answered more on this stream.
                    return Ok(false);
                }
                if follower.acked > common {
                    // It lost what it had acknowledged: another process, or another disk. It counts from nothing.
                    follower.acked = 0;
                }
                if self.tail.covers(common, appended) {
                    follower.progress = Progress::Streaming { next: common + 1 };
                    return Ok(true);
                }
                follower.await_fill(self.mode);
                let at_once = !follower.to_fill;
                self.advance_commit();
                Ok(at_once)
            }
            Answer::Stale { .. } => Ok(false),
            Answer::NotYet => {
                follower.progress = Progress::Probe;
                Ok(false)
            }
        }
    }

    /// The stream to `node` broke: what it has must be asked anew.
    pub(crate) fn stream_broke(&mut self, node: NodeId) {
        self.fill_holds.remove(&node);
        if let Some(follower) = self.reign_mut().and_then(|reign| reign.followers.get_mut(&node)) {
            follower.progress = Progress::Probe;
            follower.is_refilled = false;
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

    /// Moves `committed` to where the mode lets it be.
    pub(crate) fn advance_commit(&mut self) {
        let Role::Primary(reign) = &self.role else { return };
        let forgets = self.planted.has(PlantedBug::LateMemberForgotten);
        let followers = reign.followers.values();
        let followers = followers.filter(|follower| !(forgets && follower.late_looks > 0));
        let of = |mode| self.point_of(mode, reign, followers.clone());
        let point = self.next_mode.map_or(Lsn::MAX, of).min(of(self.mode));
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
    /// then has all that is committed, so that no committed record is ever missing on a member; but for what an asynchronous
    /// one may lack.
    pub(crate) fn learner_to_propose(&mut self, slack: Lsn) -> Option<NodeId> {
        let (appended, committed) = (self.appended, self.must_be_held());
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

    /// What every member must hold of what is committed.
    fn must_be_held(&self) -> Lsn {
        let of = |mode| match mode {
            ReplicationMode::Sync | ReplicationMode::SemiSync => self.committed,
            ReplicationMode::Async => self.committed.saturating_sub(self.max_lag),
        };
        self.next_mode.map_or(0, of).max(of(self.mode))
    }

    /// True when this follower holds all that was appended.
    pub(crate) fn has_all(&self, node: NodeId) -> bool {
        let follower = self.reign().and_then(|reign| reign.followers.get(&node));
        follower.is_some_and(|follower| follower.acked == self.appended)
    }

    // ---- Followers in doubt

    /// The followers whose rows the map says are in doubt: nothing is sent to them but that they must fill.
    pub(crate) fn doubt(&mut self, nodes: &BTreeSet<NodeId>) {
        let followers = self.reign_mut().into_iter().flat_map(|reign| &mut reign.followers);
        for (node, follower) in followers {
            let is_news = !follower.in_doubt && nodes.contains(node);
            follower.in_doubt = nodes.contains(node);
            if is_news {
                (follower.is_refilled, follower.acked) = (false, 0);
            }
        }
    }

    /// A follower is about to hear the end of its fill: what it acknowledges from now on is of that.
    pub(crate) fn fill_ends(&mut self, node: NodeId) {
        if let Some(follower) = self.reign_mut().and_then(|reign| reign.followers.get_mut(&node)) {
            follower.is_refilled = true;
        }
    }

    // ---- Serving a fill

    /// A learner copies the state as it is now: pinned, and the records beyond it kept. The caller unpins it. None: this
    /// is not the primary of that learner.
    pub(crate) fn begin_serving_fill(&mut self, node: NodeId) -> Option<FillSource> {
        let reign = self.reign().filter(|reign| reign.followers.contains_key(&node))?;
        let source = FillSource {
            snapshot: self.engine.applied(),
            began_epoch: reign.began_epoch,
        };
        self.engine.pin(source.snapshot);
        self.fill_holds.insert(node, source.snapshot);
        Some(source)
    }

    /// The next chunk, and where to go on. None: the reign is over, and what the snapshot holds may have been cut.
    pub(crate) fn fill_chunk(
        &self,
        source: FillSource,
        after: Option<DumpCursor>,
        max_bytes: usize,
    ) -> Option<(Bytes, Option<DumpCursor>)> {
        self.serves(source)
            .then(|| self.engine.dump_chunk(source.snapshot, after, max_bytes))
    }

    /// As `wait_committed`, of the snapshot. None: the reign is over.
    pub(crate) fn fill_committed(&mut self, source: FillSource) -> Option<Option<oneshot::Receiver<()>>> {
        self.serves(source).then(|| self.wait_committed(source.snapshot))
    }

    /// A primary never cuts: while the reign is unbroken, what was applied in it stays.
    fn serves(&self, source: FillSource) -> bool {
        self.reign()
            .is_some_and(|reign| reign.began_epoch == source.began_epoch)
    }

    /// True when the log on disk doesn't know yet what is committed.
    pub(crate) fn mark_committed(&mut self) -> bool {
        if matches!(self.role, Role::Dropped) {
            return false;
        }
        std::mem::replace(&mut self.marked_committed, self.committed) < self.committed
    }
}
