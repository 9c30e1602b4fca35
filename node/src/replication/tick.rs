//! What is looked after now and then: learners that have caught up, members that hold commits up, leases that ended,
//! marks of what is committed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use volt_engine::{Epoch, Lsn, NodeId, PartitionId};

use super::replica::{LagLimits, Late, Replica, Why};
use super::{Replicas, lock};
use crate::metadata::ProposeError;
use crate::metadata::command::{Command, PartitionChange, Refusal};
use crate::metadata::failure::{Finding, Grounds, Medium, Strategy};
use crate::metadata::map::{ClusterMap, PartitionInfo, ReplicationMode};
use crate::metadata::placement::desired_holders;
use crate::recovery::log::LogEntry;
use crate::recovery::rejoin::in_sync;

/// How often.
const EVERY: Duration = Duration::from_millis(20);
/// Every so many ticks, the log hears what is committed.
const TICKS_PER_MARK: u64 = 5;
/// Every so many ticks, handovers that did not come about are tried again.
const TICKS_PER_HANDOVER: u64 = 50;
/// Commits begin to wait for a learner this close to the end: one small batch.
const CAUGHT_UP_RECORDS: Lsn = 64;
/// Every so many ticks, the mode that a partition is to take is proposed.
const TICKS_PER_MODE: u64 = 10;
/// A member that has acknowledged nothing for so many ticks (2.4 s), though it lacks something, leaves the in-sync set.
/// Longer than it takes to see a death (1.9 s), which one entry settles for all partitions.
const LATE_TICKS: u32 = 120;
/// Longest wait to hear what became of that; then it is decided anew.
const DROP_LIMIT: Duration = Duration::from_secs(2);
/// Pause before a proposal whose outcome is unknown is made again.
const PROPOSE_AGAIN: Duration = Duration::from_millis(100);

impl Replicas {
    pub(super) async fn tick(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = 0_u64;
        loop {
            let on_time = tokio::select! {
                _ = ticks.tick() => true,
                () = self.nudge.notified() => false,
            };
            count += u64::from(on_time);
            if count.is_multiple_of(TICKS_PER_HANDOVER) {
                self.hand_over_where_asked(&self.metadata.map());
                self.end_own_recovery();
            }
            let given_up = self.metadata.lease().is_given_up();
            let in_contact = self.metadata.lease().is_valid();
            for slot in self.all() {
                let mut replica = lock(&slot);
                if given_up {
                    replica.fail_waiters();
                }
                if !in_contact {
                    replica.forgive_late();
                } else if on_time {
                    self.drop_late_members(&mut replica);
                }
                if let Some((mode, epoch)) = replica
                    .mode_to_propose()
                    .filter(|_| on_time && count.is_multiple_of(TICKS_PER_MODE))
                {
                    tokio::spawn(Arc::clone(&self).take_mode(replica.partition, epoch, mode));
                }
                if let Some(node) = replica.learner_to_propose(CAUGHT_UP_RECORDS) {
                    let epoch = replica.epoch;
                    tokio::spawn(Arc::clone(&self).add_member(replica.partition, epoch, node));
                }
                if count.is_multiple_of(TICKS_PER_MARK) && replica.mark_committed() {
                    let (partition, lsn) = (replica.partition, replica.committed);
                    self.log.append(partition, &LogEntry::Committed { lsn });
                }
            }
        }
    }

    /// What `RECOVER NODE` said of this node counts until it is in sync.
    fn end_own_recovery(&self) {
        let (map, node_id) = (self.metadata.map(), self.node_id);
        if map.recovery_orders.contains_key(&node_id) && in_sync(&map, node_id) {
            let metadata = Arc::clone(&self.metadata);
            tokio::spawn(async move { metadata.propose(Command::RecoveryDone { node_id }).await });
        }
    }

    /// Begins to drop the members of a partition led here that hold its commits up.
    fn drop_late_members(self: &Arc<Self>, replica: &mut Replica) {
        // Whoever hears nothing finds everybody silent, and may still be heard: it would be left alone in the set.
        if !self.metadata.lease().is_valid() {
            return;
        }
        let (partition, is_sync) = (replica.partition, replica.mode == ReplicationMode::Sync);
        let gone = gone(&self.metadata.map(), partition);
        let ticks_of = |time: Duration| {
            u32::try_from(time.as_millis() / EVERY.as_millis())
                .unwrap_or(u32::MAX)
                .max(1)
        };
        // A backup of another mode may lag: that is what the mode is for.
        let settings = self.detection.filter(|_| is_sync);
        let limits = LagLimits {
            silent_looks: LATE_TICKS,
            records: settings.map(|settings| (settings.max_lag_records, ticks_of(settings.max_lag_time))),
        };
        let late = replica.members_to_drop(limits, &gone);
        if let Some(reign) = replica.reign().filter(|_| !late.is_empty()) {
            tokio::spawn(Arc::clone(self).drop_members(replica.partition, reign.epoch, late));
        }
    }

    /// Proposes the in-sync set without these, once: who is still late afterwards is proposed again.
    async fn drop_members(self: Arc<Self>, partition: PartitionId, epoch: Epoch, late: Vec<Late>) {
        let nodes: Vec<NodeId> = late.iter().map(|late| late.node).collect();
        let info = self.metadata.map().partitions.get(&partition).cloned();
        if let Some(change) = info.and_then(|info| without(&info, epoch, self.node_id, &nodes)) {
            let grounds = self.lagging(&late);
            let evidence = grounds.as_ref().map(|grounds| grounds.finding.evidence.as_str());
            tracing::warn!(
                partition,
                epoch,
                ?nodes,
                evidence,
                "proposes to go on without these members"
            );
            let command = Command::ChangePartition {
                by: self.node_id,
                boot_id: self.boot_id,
                change,
                grounds: grounds.map(Box::new),
            };
            match tokio::time::timeout(DROP_LIMIT, self.metadata.propose(command)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(partition, epoch, %error, "late members were not dropped"),
                Err(_) => tracing::debug!(partition, epoch, "no answer about late members"),
            }
        }
        self.with(partition, |replica| replica.drop_answered(epoch));
    }

    /// Proposes, once, that a partition led here takes a mode.
    async fn take_mode(self: Arc<Self>, partition: PartitionId, epoch: Epoch, mode: ReplicationMode) {
        let command = Command::TakeMode {
            by: self.node_id,
            boot_id: self.boot_id,
            partition,
            epoch,
            mode,
        };
        match tokio::time::timeout(DROP_LIMIT, self.metadata.propose(command)).await {
            Ok(Ok(_)) => tracing::info!(partition, epoch, mode = mode.name(), "the partition has another mode"),
            Ok(Err(error)) => tracing::debug!(partition, epoch, %error, "the mode was not taken"),
            Err(_) => tracing::debug!(partition, epoch, "no answer about the mode"),
        }
    }

    /// None: nobody failed; they leave for another reason.
    fn lagging(&self, late: &[Late]) -> Option<Grounds> {
        let time_of = |late: &Late| EVERY * late.looks;
        let late: Vec<&Late> = late.iter().filter(|late| late.why != Why::Leaves).collect();
        let evidence: Vec<String> = late.iter().map(|one| evidence(one, time_of(one))).collect();
        let longest = late.iter().map(|late| time_of(late)).max()?;
        let found = (Strategy::DataChange, Medium::Network);
        Some(Grounds {
            finding: Finding::new(found, evidence.join("; "), longest, self.node_id),
            at_micros: self.world.clock.unix_micros(),
            in_doubt: false,
        })
    }

    /// Proposes a learner for the in-sync set until the group has said yes or no.
    async fn add_member(self: Arc<Self>, partition: PartitionId, epoch: Epoch, node: NodeId) {
        loop {
            let map = self.metadata.map();
            let Some(info) = map.partitions.get(&partition).filter(|info| info.epoch <= epoch) else {
                return;
            };
            let (mut in_sync, mut learners) = (info.in_sync.clone(), info.learners.clone());
            in_sync.insert(node);
            learners.remove(&node);
            let change = PartitionChange {
                partition,
                epoch,
                primary: Some(self.node_id),
                in_sync,
                learners,
            };
            let command = Command::ChangePartition {
                by: self.node_id,
                boot_id: self.boot_id,
                change,
                grounds: None,
            };
            match self.metadata.propose(command).await {
                // A stale epoch: this or another change went through, and the map that says so is on its way.
                Ok(_) | Err(ProposeError::Refused(Refusal::StaleEpoch { .. })) => return,
                Err(ProposeError::Refused(refusal)) => {
                    tracing::debug!(partition, epoch, node, %refusal, "a caught-up learner was not added");
                    self.with(partition, |replica| replica.learner_refused(node));
                    return;
                }
                // It may still go through: commits go on waiting for the learner.
                Err(_) => tokio::time::sleep(PROPOSE_AGAIN).await,
            }
        }
    }
}

/// Who should leave a set that only its primary changes. Those who may not have what they acknowledged go together; of those
/// who restarted with it, and are only to be caught up, and of those who are too many, one after the other.
fn gone(map: &ClusterMap, partition: PartitionId) -> BTreeSet<NodeId> {
    let Some(info) = map.partitions.get(&partition) else {
        return BTreeSet::new();
    };
    if info.mode != ReplicationMode::SemiSync {
        return BTreeSet::new();
    }
    let members = info.in_sync.iter().copied().filter(|node| info.primary != Some(*node));
    let lost = |node: &NodeId| !map.is_alive(*node) || info.emptied.contains(node);
    let lost: BTreeSet<NodeId> = members.clone().filter(lost).collect();
    if !lost.is_empty() {
        return lost;
    }
    let desired = desired_holders(map, info);
    let sound: BTreeSet<NodeId> = info.sound_members().chain(info.primary).collect();
    let is_whole = desired.iter().all(|node| sound.contains(node));
    let leaves = |node: &NodeId| info.restarted.contains(node) || (is_whole && !desired.contains(node));
    members.filter(leaves).take(1).collect()
}

fn evidence(late: &Late, time: Duration) -> String {
    let Late { node, missing, .. } = *late;
    let millis = time.as_millis();
    match late.why {
        Why::IsSilent => format!("node {node} has acknowledged nothing for {millis} ms, and lacks {missing} records"),
        Why::Lags => format!("node {node} has been too far behind for {millis} ms, and lacks {missing} records"),
        Why::Leaves => String::new(),
    }
}

/// The partition without its late members, who become learners: they come back when they acknowledge again. None: there
/// is another epoch by now, or nobody to drop. The primary always stays.
pub(super) fn without(info: &PartitionInfo, epoch: Epoch, primary: NodeId, late: &[NodeId]) -> Option<PartitionChange> {
    let dropped: BTreeSet<NodeId> = info
        .in_sync
        .iter()
        .copied()
        .filter(|node| *node != primary && late.contains(node))
        .collect();
    (info.epoch == epoch && info.primary == Some(primary) && !dropped.is_empty()).then(|| PartitionChange {
        partition: info.partition_id,
        epoch,
        primary: Some(primary),
        in_sync: info.in_sync.difference(&dropped).copied().collect(),
        learners: info.learners.union(&dropped).copied().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::apply::apply;
    use crate::metadata::command::Joining;
    use crate::metadata::map::ReplicationGroup;

    fn led_by_1() -> PartitionInfo {
        PartitionInfo {
            partition_id: 7,
            group: 1,
            index: 0,
            epoch: 4,
            mode: ReplicationMode::Sync,
            was_async: false,
            primary: Some(1),
            primary_boot: 10,
            in_sync: BTreeSet::from([1, 2, 3]),
            learners: BTreeSet::from([4]),
            in_doubt: BTreeSet::new(),
            restarted: BTreeSet::new(),
            emptied: BTreeSet::new(),
            wanted: None,
        }
    }

    /// Four nodes, of which three should hold the partition of the majority: 1, 2 and 3, or others with 4.
    fn majority_of_three() -> (ClusterMap, BTreeSet<NodeId>) {
        let mut map = ClusterMap::default();
        let joining = |node_id: NodeId| Joining {
            node_id,
            boot_id: 10,
            ..Joining::default()
        };
        let first = Command::Initialise {
            cluster_uuid: "u".to_owned(),
            partitions: 1,
            node: joining(1),
            awaits_restoration: false,
        };
        for command in [first]
            .into_iter()
            .chain([2, 3, 4].map(|node| Command::Join(joining(node))))
        {
            apply(&mut map, command).unwrap();
        }
        let (replication, mode) = (2, ReplicationMode::SemiSync);
        let partitions = vec![7];
        let group = ReplicationGroup {
            replication,
            mode,
            partitions,
        };
        map.groups.insert(1, group);
        let mut info = led_by_1();
        info.mode = mode;
        let desired: BTreeSet<NodeId> = desired_holders(&map, &info).into_iter().collect();
        (info.in_sync, info.primary) = (desired.clone(), desired.first().copied());
        info.learners.clear();
        map.partitions.insert(7, info);
        (map, desired)
    }

    #[test]
    fn a_majority_loses_the_dead_and_emptied_together_and_others_one_by_one() {
        let (mut map, desired) = majority_of_three();
        assert_eq!(gone(&map, 7), [].into());
        let backups: Vec<NodeId> = desired.iter().copied().skip(1).collect();
        let extra = [1, 2, 3, 4].into_iter().find(|node| !desired.contains(node)).unwrap();
        let partition = |map: &mut ClusterMap, change: &dyn Fn(&mut PartitionInfo)| {
            change(map.partitions.get_mut(&7).unwrap());
        };
        // Who is too many leaves when those who should be there are.
        partition(&mut map, &|info| _ = info.in_sync.insert(extra));
        assert_eq!(gone(&map, 7), [extra].into());
        partition(&mut map, &|info| info.restarted.extend(&backups));
        assert_eq!(gone(&map, 7), [backups[0]].into());
        partition(&mut map, &|info| info.emptied.extend(&backups));
        assert_eq!(gone(&map, 7), backups.iter().copied().collect());
        // Of any other set the leader takes the dead out.
        partition(&mut map, &|info| info.mode = ReplicationMode::Sync);
        assert_eq!(gone(&map, 7), [].into());
    }

    #[test]
    fn the_late_become_learners_and_the_primary_stays() {
        let info = led_by_1();
        let change = without(&info, 4, 1, &[1, 3, 9]).unwrap();
        assert_eq!(change.in_sync, BTreeSet::from([1, 2]));
        assert_eq!(change.learners, BTreeSet::from([3, 4]));
        assert_eq!(without(&info, 4, 1, &[2, 3]).unwrap().in_sync, BTreeSet::from([1]));
        assert_eq!(without(&info, 3, 1, &[3]), None);
        assert_eq!(without(&info, 4, 1, &[9]), None);
        assert_eq!(without(&info, 4, 2, &[3]), None);
    }
}
