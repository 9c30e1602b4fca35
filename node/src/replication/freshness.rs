//! How old a backup's rows may be: what it knows of how far its primary was, and when.
//!
//! Each answer to a heartbeat says, of every partition that the answering node leads, how far it has committed; only with a lease that
//! still holds after that was read, so that nobody else can have committed more before the heartbeat was sent. A backup that has applied so
//! much, and the same record in that place, is as new as that moment, by its own clock. A table that has moved here is all there
//! only as of a later moment than the catalog that said so. So neither a message that waited somewhere,
//! nor a process that stood still, nor a primary that was deposed and doesn't know it, makes old rows look new.

use std::collections::VecDeque;
use std::time::Duration;

use volt_engine::{Epoch, Lsn, NodeId, PartitionId};
use volt_proto::v1;

use super::replica::{Replica, Role};
use super::{Replicas, lock};
use crate::metadata::map::PartitionInfo;

/// Answers that a backup remembers until it has applied so much; beyond, the oldest are forgotten.
const MAX_HEARD: usize = 64;

/// How far a primary had committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    /// At this moment at least.
    at: Duration,
    committed: Lsn,
    /// Of the record in that place.
    epoch: Epoch,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    heard: VecDeque<Heard>,
    /// All that was committed then has been applied.
    fresh_at: Option<Duration>,
    /// When a table was opened here: its rows were committed before.
    opened_at: Option<Duration>,
}

impl Freshness {
    fn hear(&mut self, heard: Heard) {
        if self.heard.len() >= MAX_HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back(heard);
    }

    /// A table that has moved here is served from now on.
    pub(super) fn opened(&mut self, now: Duration) {
        self.opened_at = Some(now);
    }

    /// The newest moment of which everything has been applied; None: it is too old to be shown.
    fn fresh_at(&mut self, applied: Lsn, epoch_at: impl Fn(Lsn) -> Epoch) -> Option<Duration> {
        let fresh_at = &mut self.fresh_at;
        self.heard.retain(|heard| {
            let reached = heard.committed <= applied;
            if reached && epoch_at(heard.committed) == heard.epoch {
                *fresh_at = (*fresh_at).max(Some(heard.at));
            }
            !reached
        });
        self.fresh_at
            .filter(|at| self.opened_at.is_none_or(|opened| *at >= opened))
    }
}

impl Replica {
    /// How far this primary has committed, and the epoch of that record. None before it has committed a record of its own: what its
    /// predecessor acknowledged may reach further than it knows.
    fn committed_in_reign(&self) -> Option<(Lsn, Epoch)> {
        self.is_of_this_reign(self.committed)
            .then(|| (self.committed, self.history.epoch_at(self.committed)))
    }

    /// How old its rows may be, at most; None: nothing may be read here. Nobody is told of rows that may be undone, so a replica
    /// that led until a moment ago says nothing, and neither does one that is being filled.
    pub(crate) fn staleness(&mut self, now: Duration) -> Option<Duration> {
        let applied = self.engine.applied();
        if !matches!(self.role, Role::Follower { filling: None }) || applied > self.committed || self.lacks_view() {
            return None;
        }
        let history = &self.history;
        let fresh_at = self.freshness.fresh_at(applied, |lsn| history.epoch_at(lsn))?;
        Some(now.saturating_sub(fresh_at))
    }
}

impl Replicas {
    /// How far each partition that this node leads has committed; nothing without a lease.
    pub(crate) fn led(&self) -> Vec<v1::LedPartition> {
        let led = |slot: &super::Slot| {
            let replica = lock(slot);
            let (committed, committed_epoch) = replica.committed_in_reign()?;
            Some(v1::LedPartition {
                partition_id: replica.partition,
                committed,
                committed_epoch,
            })
        };
        let led = self.all().iter().filter_map(led).collect();
        match self.metadata.lease().is_valid() {
            true => led,
            false => Vec::new(),
        }
    }

    /// Another node leads these, and had committed so much when, or after, it was asked.
    pub(crate) fn heard_of(&self, led: &[v1::LedPartition], asked: Duration) {
        for of in led {
            self.with(of.partition_id, |replica| {
                replica.freshness.hear(Heard {
                    at: asked,
                    committed: of.committed,
                    epoch: of.committed_epoch,
                });
            });
        }
    }

    /// How old the rows of the replicas here may be: 0 of a primary, None of one that can't be read. Only members of
    /// the in-sync set are read: a learner or a replica in doubt is none, by this node's map.
    pub(crate) fn stalenesses(&self) -> Vec<(PartitionId, Option<Duration>)> {
        let now = self.world.clock.boot_time();
        let one = |slot: &super::Slot| {
            let mut replica = lock(slot);
            let partition = replica.partition;
            let age = match replica.reign() {
                Some(_) => Some(Duration::ZERO),
                None => replica.staleness(now).filter(|_| self.is_backup_here(partition)),
            };
            (partition, age)
        };
        self.all().iter().map(one).collect()
    }

    /// By this node's map, it has a backup of the partition, in sync and not in doubt.
    pub(crate) fn is_backup_here(&self, partition: PartitionId) -> bool {
        let map = self.metadata.map();
        let info = map.partitions.get(&partition);
        info.is_some_and(|info| is_sound_backup(info, self.node_id))
    }
}

/// A member of the in-sync set that has what it had, and doesn't lead. A learner is none, nor a replica in doubt.
pub(crate) fn is_sound_backup(info: &PartitionInfo, node: NodeId) -> bool {
    let is_sound = info.sound_members().any(|member| member == node);
    is_sound && !info.in_doubt.contains(&node) && info.primary != Some(node)
}

#[cfg(test)]
mod tests {
    use volt_engine::effects::LogPayload;

    use super::*;
    use crate::metadata::map::ReplicationMode;
    use crate::replication::replica::Answer;

    fn heard(at: u64, committed: Lsn, epoch: Epoch) -> Heard {
        Heard {
            at: Duration::from_millis(at),
            committed,
            epoch,
        }
    }

    fn fresh_at(freshness: &mut Freshness, applied: Lsn) -> Option<u64> {
        let at = freshness.fresh_at(applied, |_| 3)?;
        Some(at.as_millis() as u64)
    }

    #[test]
    fn a_backup_is_as_new_as_what_it_has_applied() {
        let mut freshness = Freshness::default();
        assert_eq!(fresh_at(&mut freshness, 100), None);
        freshness.hear(heard(10, 5, 3));
        freshness.hear(heard(20, 8, 3));
        freshness.hear(heard(30, 8, 3));
        freshness.hear(heard(40, 12, 3));
        assert_eq!(fresh_at(&mut freshness, 4), None);
        assert_eq!(fresh_at(&mut freshness, 7), Some(10));
        assert_eq!(fresh_at(&mut freshness, 11), Some(30));
        // Nothing new: it grows older.
        assert_eq!(fresh_at(&mut freshness, 11), Some(30));
        assert_eq!(fresh_at(&mut freshness, 12), Some(40));
    }

    #[test]
    fn what_moved_here_is_shown_when_all_that_was_committed_before_is_there() {
        let mut freshness = Freshness::default();
        freshness.hear(heard(10, 5, 3));
        assert_eq!(fresh_at(&mut freshness, 5), Some(10));
        freshness.opened(Duration::from_millis(30));
        assert_eq!(fresh_at(&mut freshness, 5), None);
        // Asked before, answered after.
        freshness.hear(heard(29, 7, 3));
        freshness.hear(heard(31, 9, 3));
        assert_eq!(fresh_at(&mut freshness, 8), None);
        assert_eq!(fresh_at(&mut freshness, 9), Some(31));
    }

    #[test]
    fn another_record_in_the_same_place_says_nothing() {
        let mut freshness = Freshness::default();
        freshness.hear(heard(10, 5, 3));
        freshness.hear(heard(20, 6, 4));
        assert_eq!(fresh_at(&mut freshness, 6), Some(10));
    }

    fn all_heard(replica: &mut Replica, at: u64) {
        let (committed, epoch) = (replica.committed, replica.history.epoch_at(replica.committed));
        replica.freshness.hear(heard(at, committed, epoch));
    }

    fn age(replica: &mut Replica) -> Option<u64> {
        let age = replica.staleness(Duration::from_millis(100))?;
        Some(age.as_millis() as u64)
    }

    /// A primary of one record that only it has, and one that all have.
    fn primary() -> Replica {
        let mut primary = Replica::new(7);
        primary.reign_in(1, &[2], &[]);
        primary.append(&LogPayload::EpochStart);
        primary.made_durable(1, 1);
        primary
    }

    #[test]
    fn a_primary_says_nothing_before_it_has_committed_a_record_of_its_own() {
        let mut primary = primary();
        assert_eq!(primary.committed_in_reign(), None);
        primary.answered(2, 1, Answer::Accepted { matched: 1 }).unwrap();
        assert_eq!(primary.committed_in_reign(), Some((1, 1)));
        // Deposed, and back: what the other one acknowledged may be more than it knows.
        primary.follow(2);
        primary.reign_in(3, &[2], &[]);
        primary.append(&LogPayload::EpochStart);
        primary.made_durable(3, 2);
        assert_eq!(primary.committed_in_reign(), None);
        primary.answered(2, 3, Answer::Accepted { matched: 2 }).unwrap();
        assert_eq!(primary.committed_in_reign(), Some((2, 3)));
    }

    #[test]
    fn nothing_is_read_of_a_replica_that_is_filled_or_led_or_has_what_may_be_undone() {
        let mut replica = primary();
        all_heard(&mut replica, 40);
        assert_eq!(age(&mut replica), None, "it leads");
        replica.follow(2);
        assert_eq!((replica.engine.applied(), replica.committed), (1, 0));
        assert_eq!(age(&mut replica), None, "its record may be undone");
        let mut replica = primary();
        replica.answered(2, 1, Answer::Accepted { matched: 1 }).unwrap();
        replica.follow(2);
        assert_eq!(age(&mut replica), None, "it has heard nothing");
        all_heard(&mut replica, 40);
        assert_eq!(age(&mut replica), Some(60));
        replica.begin_fill();
        assert_eq!(age(&mut replica), None, "it is filled");
        replica.emptied();
        assert_eq!(age(&mut replica), None, "it has forgotten all");
    }

    #[test]
    fn only_sound_backups_are_read() {
        let set = |nodes: &[NodeId]| nodes.iter().copied().collect();
        let info = PartitionInfo {
            partition_id: 7,
            group: 1,
            index: 0,
            epoch: 4,
            mode: ReplicationMode::SemiSync,
            was_async: false,
            primary: Some(1),
            primary_boot: 9,
            in_sync: set(&[1, 2, 3]),
            learners: set(&[4, 5]),
            in_doubt: set(&[5]),
            restarted: set(&[]),
            emptied: set(&[3]),
            wanted: None,
        };
        let read: Vec<NodeId> = (1..=6).filter(|&node| is_sound_backup(&info, node)).collect();
        assert_eq!(
            read,
            [2],
            "not the primary, one that lost its volume, a learner, one in doubt, a stranger"
        );
    }

    #[test]
    fn who_lags_for_long_forgets_the_oldest_and_seems_no_newer() {
        let mut freshness = Freshness::default();
        for at in 0..2 * MAX_HEARD as u64 {
            freshness.hear(heard(at, at, 3));
        }
        assert_eq!(freshness.heard.len(), MAX_HEARD);
        assert_eq!(fresh_at(&mut freshness, MAX_HEARD as u64 - 1), None);
        assert_eq!(fresh_at(&mut freshness, MAX_HEARD as u64), Some(MAX_HEARD as u64));
    }
}
