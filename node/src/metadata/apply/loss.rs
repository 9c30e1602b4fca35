//! Nodes that are gone for good with more than the cluster can lose: what is left of each partition goes on.

use std::collections::BTreeSet;

use volt_engine::{NodeId, PartitionId};

use crate::metadata::command::{Applied, CommandResult, Refusal};
use crate::metadata::map::{ClusterMap, NodeState, PartitionInfo, ReplicationMode};

/// What becomes of a partition without these nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// A replica is left that has all that was acknowledged.
    Nothing,
    /// Those that are left may lack the newest of what was acknowledged.
    Newest,
    /// A replica is left that was not in sync: it may lack anything.
    Some,
    /// No replica is left: it becomes empty.
    All,
}

/// What is lost of a partition with these nodes.
pub(crate) fn loss(partition: &PartitionInfo, lost: &BTreeSet<NodeId>) -> Loss {
    let is_left = |node: &NodeId| !lost.contains(node);
    let sound = partition
        .sound_members()
        .chain(partition.primary)
        .collect::<BTreeSet<NodeId>>();
    let left = sound.iter().filter(|node| is_left(node)).count();
    let has_primary = partition.primary.as_ref().is_some_and(is_left);
    match partition.mode {
        _ if left == 0 => match partition.holders().iter().any(is_left) {
            true => Loss::Some,
            false => Loss::All,
        },
        ReplicationMode::Sync => Loss::Nothing,
        _ if has_primary => Loss::Nothing,
        // Of every majority one is left when fewer are gone than a majority.
        ReplicationMode::SemiSync if left > partition.in_sync.len() / 2 => Loss::Nothing,
        ReplicationMode::SemiSync | ReplicationMode::Async => Loss::Newest,
    }
}

/// They are dead; each partition has the members that are left, or else its learners, or else one of the nodes that are left.
pub(super) fn accept_loss(map: &mut ClusterMap, lost: &BTreeSet<NodeId>) -> CommandResult {
    if let Some(unknown) = lost.iter().find(|node| !map.nodes.contains_key(node)) {
        return Err(Refusal::NoSuchNode(*unknown));
    }
    let left: BTreeSet<NodeId> = map.nodes.keys().copied().filter(|node| !lost.contains(node)).collect();
    let Some(heir) = left.first().copied() else {
        return Err(Refusal::NotAllowed("no node would be left".to_owned()));
    };
    for node in lost {
        if let Some(info) = map.nodes.get_mut(node) {
            info.state = NodeState::Dead {
                process_ended: true,
                draining: false,
            };
        }
    }
    let ids: Vec<PartitionId> = map.partitions.keys().copied().collect();
    for id in ids {
        if let Some(partition) = map.partitions.get_mut(&id) {
            go_on_without(partition, lost, heir);
        }
    }
    Ok(Applied::Done)
}

fn go_on_without(partition: &mut PartitionInfo, lost: &BTreeSet<NodeId>, heir: NodeId) {
    if partition.holders().is_disjoint(lost) {
        return;
    }
    let what = loss(partition, lost);
    partition.in_sync.retain(|node| !lost.contains(node));
    partition.learners.retain(|node| !lost.contains(node));
    match what {
        Loss::Nothing | Loss::Newest => {}
        Loss::Some if partition.in_sync.is_empty() => partition.in_sync = std::mem::take(&mut partition.learners),
        Loss::Some => {}
        Loss::All => partition.in_sync = BTreeSet::from([heir]),
    }
    if partition.primary.is_some_and(|primary| lost.contains(&primary))
        || !partition.in_sync.iter().any(|node| partition.primary == Some(*node))
    {
        (partition.primary, partition.primary_boot) = (None, 0);
    }
    // Replicas that differ from the one that is chosen are filled anew, whatever they were told to be committed.
    partition.was_async |= what != Loss::Nothing;
    let (members, learners) = (partition.in_sync.clone(), partition.learners.clone());
    partition.in_doubt.retain(|node| learners.contains(node));
    partition.restarted.retain(|node| members.contains(node));
    partition.emptied.retain(|node| members.contains(node));
    partition.wanted = None;
    partition.epoch += 1;
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::super::tests::{cluster, create};
    use super::*;
    use crate::metadata::command::Command;

    /// Three nodes, with a table of two backups.
    fn map(mode: ReplicationMode) -> ClusterMap {
        let mut map = cluster();
        create(&mut map, "t", 2);
        map.partitions.values_mut().for_each(|partition| partition.mode = mode);
        map
    }

    fn of(mode: ReplicationMode, change: impl Fn(&mut PartitionInfo), lost: &[NodeId]) -> (Loss, PartitionInfo) {
        let mut map = map(mode);
        map.partitions.values_mut().for_each(&change);
        let partition = map.partitions.values().next().expect("a partition").clone();
        let lost: BTreeSet<NodeId> = lost.iter().copied().collect();
        let what = loss(&partition, &lost);
        apply(&mut map, Command::AcceptLoss { lost }).expect("somebody is left");
        (what, map.partitions[&partition.partition_id].clone())
    }

    #[test]
    fn what_is_left_goes_on() {
        use ReplicationMode::{Async, SemiSync, Sync};
        let led_by = |primary: NodeId| {
            move |partition: &mut PartitionInfo| {
                partition.in_sync = [1, 2, 3].into();
                partition.primary = Some(primary);
            }
        };
        let (what, partition) = of(Sync, led_by(1), &[2, 3]);
        assert_eq!((what, partition.primary), (Loss::Nothing, Some(1)));
        assert_eq!(partition.in_sync, [1].into());
        let (what, partition) = of(Sync, led_by(3), &[2, 3]);
        assert_eq!(
            (what, partition.primary, partition.was_async),
            (Loss::Nothing, None, false)
        );
        // Two of three acknowledged; the one that is left may not be among them.
        assert_eq!(of(SemiSync, led_by(3), &[2, 3]).0, Loss::Newest);
        assert_eq!(of(SemiSync, led_by(3), &[3]).0, Loss::Nothing);
        assert_eq!(of(SemiSync, led_by(1), &[2, 3]).0, Loss::Nothing);
        let (what, partition) = of(Async, led_by(3), &[3]);
        assert_eq!((what, partition.was_async), (Loss::Newest, true));
        // Who was being filled is better than nobody.
        let learner = |partition: &mut PartitionInfo| {
            led_by(3)(partition);
            (partition.in_sync, partition.learners) = ([2, 3].into(), [1].into());
        };
        let (what, partition) = of(Sync, learner, &[2, 3]);
        assert_eq!(
            (what, partition.in_sync, partition.was_async),
            (Loss::Some, [1].into(), true)
        );
        let nobody = |partition: &mut PartitionInfo| {
            led_by(3)(partition);
            partition.in_sync = [2, 3].into();
        };
        let (what, partition) = of(Sync, nobody, &[2, 3]);
        assert_eq!((what, partition.in_sync), (Loss::All, [1].into()));
    }

    #[test]
    fn somebody_must_be_left() {
        let mut map = map(ReplicationMode::Sync);
        let lost = map.nodes.keys().copied().collect();
        assert!(apply(&mut map, Command::AcceptLoss { lost }).is_err());
        let unknown = Command::AcceptLoss { lost: [99].into() };
        assert!(apply(&mut map, unknown).is_err());
    }
}
