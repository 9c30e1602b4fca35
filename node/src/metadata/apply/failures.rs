//! The record of failures: begun by a verdict, added to by what is changed for it, ended by whoever comes back.

use volt_engine::{NodeId, PartitionId};

use crate::metadata::failure::{Failure, FailureEnd, Finding, Grounds, MAX_FAILURES_KEPT, SAME_LAG_MICROS};
use crate::metadata::map::ClusterMap;

/// A verdict on a node's process.
pub(super) fn note_node(map: &mut ClusterMap, node: NodeId, finding: Finding, at_micros: i64) {
    end(map, node, FailureEnd::Confirmed);
    push(map, node, None, finding, at_micros);
}

/// A replica left its partition's in-sync set on these grounds.
pub(super) fn note_replica(map: &mut ClusterMap, node: NodeId, partition: PartitionId, grounds: &Grounds) {
    let same = |failure: &&mut Failure| {
        failure.node_id == node
            && failure.partition.is_some()
            && failure.end.is_none()
            && failure.finding.strategy == grounds.finding.strategy
            && (0..SAME_LAG_MICROS).contains(&grounds.at_micros.saturating_sub(failure.at_micros))
    };
    let known = map.failures.iter_mut().rev().find(same);
    if let Some(known) = known.filter(|_| !grounds.in_doubt) {
        known.removed += 1;
        return;
    }
    push(map, node, Some(partition), grounds.finding.clone(), grounds.at_micros);
    if let Some(failure) = map.failures.back_mut() {
        failure.removed = 1;
    }
}

fn push(map: &mut ClusterMap, node_id: NodeId, partition: Option<PartitionId>, finding: Finding, at_micros: i64) {
    while map.failures.len() >= MAX_FAILURES_KEPT {
        map.failures.pop_front();
    }
    map.last_failure += 1;
    map.failures.push_back(Failure {
        failure_id: map.last_failure,
        at_micros,
        node_id,
        partition,
        finding,
        promoted: 0,
        removed: 0,
        end: None,
    });
}

/// The newest verdict on this node's process, if it has not ended.
fn open(map: &mut ClusterMap, node: NodeId) -> Option<&mut Failure> {
    let newest = |failure: &&mut Failure| failure.node_id == node && failure.partition.is_none();
    let failure = map.failures.iter_mut().rev().find(newest)?;
    failure.end.is_none().then_some(failure)
}

/// What was changed because of a verdict on this node.
pub(super) fn add(map: &mut ClusterMap, node: NodeId, promoted: u32, removed: usize) {
    if let Some(failure) = open(map, node) {
        failure.promoted += promoted;
        failure.removed += u32::try_from(removed).unwrap_or(u32::MAX);
    }
}

/// The verdict on this node's process has come to its end.
pub(super) fn end(map: &mut ClusterMap, node: NodeId, how: FailureEnd) {
    if let Some(failure) = open(map, node) {
        failure.end = Some(how);
    }
}

/// A replica is in its partition's in-sync set again.
pub(super) fn in_sync_again(map: &mut ClusterMap, node: NodeId, partition: PartitionId) {
    let lapsed = |failure: &&mut Failure| failure.node_id == node && failure.partition == Some(partition);
    for failure in map.failures.iter_mut().filter(lapsed) {
        failure.end = failure.end.or(Some(FailureEnd::InSync));
    }
}

/// In-sync sets that the node is in.
pub(super) fn memberships(map: &ClusterMap, node: NodeId) -> usize {
    let sets = map.partitions.values();
    sets.filter(|partition| partition.in_sync.contains(&node)).count()
}

#[cfg(test)]
mod tests;
