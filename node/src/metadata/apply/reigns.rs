//! Reigns of partitions: every change of primary, in-sync set or learners names the epoch that it replaces.

use volt_engine::{Epoch, NodeId, PartitionId};

use super::failures;
use crate::metadata::command::{Applied, Command, CommandResult, FailoverNote, PartitionChange, Refusal};
use crate::metadata::failure::Grounds;
use crate::metadata::map::{ClusterMap, Failover, MAX_FAILOVERS_KEPT, PartitionInfo, ReplicationMode};

/// A primary may add a learner that it has caught up, remove a member, and hand over: then it has stopped serving.
pub(super) fn change_by_primary(
    map: &mut ClusterMap,
    by: NodeId,
    boot_id: u64,
    change: &PartitionChange,
    grounds: Option<&Grounds>,
) -> CommandResult {
    let partition = map
        .partitions
        .get(&change.partition)
        .ok_or(Refusal::NoSuchPartition(change.partition))?;
    check_epoch(partition, change)?;
    if partition.primary != Some(by) {
        return Err(Refusal::NotAllowed(format!(
            "node {by} is not the primary of partition {}",
            change.partition
        )));
    }
    if partition.primary_boot != boot_id || !map.is_current(by, boot_id) {
        return Err(Refusal::StaleBoot(by));
    }
    check_change(map, partition, change)?;
    let left: Vec<NodeId> = partition.in_sync.difference(&change.in_sync).copied().collect();
    let epoch = begin_reign(map, change);
    if let Some(grounds) = grounds {
        for node in left {
            leave(map, change.partition, node, grounds);
        }
    }
    Ok(Applied::Changed { epoch })
}

/// A primary has found that all that is committed is as safe as the group's mode says.
pub(super) fn take_mode(
    map: &mut ClusterMap,
    (by, boot_id): (NodeId, u64),
    id: PartitionId,
    epoch: Epoch,
    mode: ReplicationMode,
) -> CommandResult {
    let partition = map.partitions.get(&id).ok_or(Refusal::NoSuchPartition(id))?;
    if partition.epoch != epoch {
        return Err(Refusal::StaleEpoch {
            partition: id,
            named: epoch,
            current: partition.epoch,
        });
    }
    let refuse = |reason: &str| Err(Refusal::NotAllowed(format!("partition {id}: {reason}")));
    if partition.primary != Some(by) {
        return refuse("only its primary changes its mode");
    }
    if partition.primary_boot != boot_id || !map.is_current(by, boot_id) {
        return Err(Refusal::StaleBoot(by));
    }
    // Somebody has changed his mind; commits follow the mode in force alone then.
    if map.groups.get(&partition.group).is_none_or(|group| group.mode != mode) {
        return refuse("this is not the mode of its group");
    }
    // Who restarted counts in majorities, and in no other set.
    let sound = partition.sound_members().chain(partition.primary).collect();
    if partition.mode == ReplicationMode::SemiSync && partition.in_sync != sound {
        return refuse("a member has restarted");
    }
    let Some(partition) = map.partitions.get_mut(&id) else {
        return Err(Refusal::NoSuchPartition(id));
    };
    partition.mode = mode;
    partition.was_async |= mode == ReplicationMode::Async;
    partition.epoch += 1;
    Ok(Applied::Changed { epoch: partition.epoch })
}

/// A member has left its partition's in-sync set on its primary's grounds.
fn leave(map: &mut ClusterMap, id: PartitionId, node: NodeId, grounds: &Grounds) {
    failures::note_replica(map, node, id, grounds);
    let partition = map.partitions.get_mut(&id).filter(|_| grounds.in_doubt);
    if let Some(partition) = partition.filter(|partition| partition.learners.contains(&node)) {
        partition.in_doubt.insert(node);
    }
}

pub(super) fn change_by_leader(
    map: &mut ClusterMap,
    changes: &[PartitionChange],
    failover: Option<FailoverNote>,
) -> CommandResult {
    let partitions = match failover {
        Some(note) => change_for(map, changes, note),
        None => change_all(map, changes, None),
    };
    Ok(Applied::ManyChanged { partitions })
}

/// The same, because of a node's failure: what becomes of it is added to that.
pub(super) fn change_for(map: &mut ClusterMap, changes: &[PartitionChange], note: FailoverNote) -> Vec<PartitionId> {
    let node = note.node_id;
    let reigned = |map: &ClusterMap| {
        let of_node = |partition: &&PartitionInfo| partition.primary == Some(node);
        map.partitions.values().filter(of_node).count()
    };
    let (memberships, reigns) = (failures::memberships(map, node), reigned(map));
    let changed = change_all(map, changes, Some(note));
    let removed = memberships.saturating_sub(failures::memberships(map, node));
    let promoted = u32::try_from(reigns.saturating_sub(reigned(map))).unwrap_or(u32::MAX);
    failures::add(map, node, promoted, removed);
    changed
}

/// Applies those that are not stale and make sense; says which.
pub(super) fn change_all(
    map: &mut ClusterMap,
    changes: &[PartitionChange],
    note: Option<FailoverNote>,
) -> Vec<PartitionId> {
    let mut changed = Vec::new();
    let mut promoted = 0;
    for change in changes {
        let Some(partition) = map.partitions.get(&change.partition) else {
            continue;
        };
        if check_epoch(partition, change).is_err() || check_leaders_change(map, partition, change).is_err() {
            continue;
        }
        promoted += u32::from(takes_over(partition, change));
        begin_reign(map, change);
        changed.push(change.partition);
    }
    if let Some(note) = note
        && promoted > 0
    {
        note_failover(map, note, promoted);
    }
    changed
}

/// The partition has, or will have, another primary. A semi-synchronous one loses the old one first, and counts then.
fn takes_over(partition: &PartitionInfo, change: &PartitionChange) -> bool {
    let was_fenced = partition.mode == ReplicationMode::SemiSync && partition.primary.is_none();
    change.primary != partition.primary && !was_fenced
}

/// The leader removes, and promotes where no living primary is; it never adds to the in-sync set, and never takes a
/// partition from a primary that the map calls alive.
fn check_leaders_change(map: &ClusterMap, partition: &PartitionInfo, change: &PartitionChange) -> Result<(), Refusal> {
    check_change(map, partition, change)?;
    if !change.in_sync.is_subset(&partition.in_sync) {
        return Err(Refusal::NotAllowed("only a primary adds to the in-sync set".to_owned()));
    }
    if partition.mode == ReplicationMode::SemiSync && change.in_sync != partition.in_sync {
        let reason = "only a primary changes the set that majorities are counted of";
        return Err(Refusal::NotAllowed(reason.to_owned()));
    }
    let living = map.living_primary(partition);
    if living.is_some() && living != change.primary {
        return Err(Refusal::NotAllowed("the primary is alive".to_owned()));
    }
    Ok(())
}

fn check_epoch(partition: &PartitionInfo, change: &PartitionChange) -> Result<(), Refusal> {
    if partition.epoch == change.epoch {
        return Ok(());
    }
    let (partition, current) = (partition.partition_id, partition.epoch);
    Err(Refusal::StaleEpoch {
        partition,
        named: change.epoch,
        current,
    })
}

/// What must hold of every change: members come from the old set or from its learners, the primary is a living member,
/// the set never becomes empty, every node exists.
fn check_change(map: &ClusterMap, partition: &PartitionInfo, change: &PartitionChange) -> Result<(), Refusal> {
    let refuse = |reason: &str| {
        Err(Refusal::NotAllowed(format!(
            "partition {}: {reason}",
            partition.partition_id
        )))
    };
    if change.in_sync.is_empty() {
        return refuse("the in-sync set would be empty");
    }
    if !change.in_sync.is_disjoint(&change.learners) {
        return refuse("a node can't be a member and a learner at once");
    }
    let holders = partition.holders();
    if !change.in_sync.is_subset(&holders) {
        return refuse("a member must have been a learner before");
    }
    let known = |node: &NodeId| map.nodes.contains_key(node);
    if !change.learners.iter().all(known) {
        return refuse("a learner is not a node of the cluster");
    }
    let Some(primary) = change.primary else {
        // Between the old primary's end and the new one's beginning a majority learns of the epoch.
        return match partition.mode {
            ReplicationMode::SemiSync => Ok(()),
            ReplicationMode::Sync | ReplicationMode::Async => refuse("it would have no primary"),
        };
    };
    if !change.in_sync.contains(&primary) {
        return refuse("the primary must be a member of the in-sync set");
    }
    if change.primary != partition.primary && !map.is_alive(primary) {
        return refuse("the new primary is dead");
    }
    Ok(())
}

/// Makes the change, which has been checked, the partition's next reign.
fn begin_reign(map: &mut ClusterMap, change: &PartitionChange) -> Epoch {
    let boot_of = |node: NodeId| map.nodes.get(&node).map_or(0, |info| info.boot_id);
    let boot = change.primary.map_or(0, boot_of);
    let had = map.partitions.get(&change.partition);
    let come: Vec<NodeId> = had.map_or_else(Vec::new, |had| {
        change.in_sync.difference(&had.in_sync).copied().collect()
    });
    for node in come {
        failures::in_sync_again(map, node, change.partition);
    }
    let Some(partition) = map.partitions.get_mut(&change.partition) else {
        return 0;
    };

    if partition.primary != change.primary || partition.primary_boot != boot {
        partition.primary = change.primary;
        partition.primary_boot = boot;
        partition.wanted = None;
    }
    partition.in_sync = change.in_sync.clone();
    partition.learners = change.learners.clone();
    partition.in_doubt.retain(|node| change.learners.contains(node));
    let still = |node: &NodeId| change.in_sync.contains(node) && Some(*node) != change.primary;
    partition.restarted.retain(still);
    partition.emptied.retain(still);
    // A change of the learners alone also takes a number, so that a decision made before it is stale.
    partition.epoch += 1;
    partition.epoch
}

fn note_failover(map: &mut ClusterMap, note: FailoverNote, partitions: u32) {
    while map.failovers.len() >= MAX_FAILOVERS_KEPT {
        map.failovers.pop_front();
    }
    let FailoverNote {
        node_id,
        finding,
        at_micros,
    } = note;
    map.failovers.push_back(Failover {
        node_id,
        at_micros,
        partitions,
        finding,
    });
}

/// For `PlantedBug::StaleReplicaPromoted`: whoever the leader wants to be a member counts as one.
pub(in crate::metadata) fn take_for_members(map: &mut ClusterMap, command: &Command) {
    let (Command::NodeDead { changes, .. } | Command::ChangePartitions { changes, .. }) = command else {
        return;
    };
    for change in changes {
        if let Some(partition) = map.partitions.get_mut(&change.partition) {
            partition.in_sync.extend(&change.in_sync);
        }
    }
}

pub(super) fn want_primary(map: &mut ClusterMap, id: PartitionId, epoch: Epoch, wanted: NodeId) -> CommandResult {
    if !map.is_alive(wanted) {
        return Err(Refusal::NotAllowed(format!("node {wanted} is not alive")));
    }
    let partition = map.partitions.get_mut(&id).ok_or(Refusal::NoSuchPartition(id))?;
    if partition.epoch != epoch {
        return Err(Refusal::StaleEpoch {
            partition: id,
            named: epoch,
            current: partition.epoch,
        });
    }
    if !partition.in_sync.contains(&wanted) {
        return Err(Refusal::NotAllowed(format!(
            "node {wanted} is not in sync with partition {id}"
        )));
    }
    partition.wanted = (partition.primary != Some(wanted)).then_some(wanted);
    Ok(Applied::Changed { epoch: partition.epoch })
}
