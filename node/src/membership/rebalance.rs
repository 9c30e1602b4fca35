//! Moving replicas to where placement wants them: first a learner there, and only when everybody who should hold the
//! partition is in sync, away with the surplus. A dead node keeps its place, for it comes back; whoever knows better
//! removes it.

use std::collections::{BTreeMap, BTreeSet};

use volt_engine::NodeId;

use crate::metadata::command::PartitionChange;
use crate::metadata::map::{ClusterMap, NodeState, PartitionInfo, ReplicationMode};
use crate::metadata::placement::Placements;

/// Most learners that a node gets at a time, so that a new node is filled in portions.
pub const MAX_LEARNERS_PER_NODE: u32 = 8;

/// The next steps; none when all is where it belongs. `placements` follow this map.
pub fn rebalance(map: &ClusterMap, placements: &Placements) -> Vec<PartitionChange> {
    let mut learners: BTreeMap<NodeId, u32> = BTreeMap::new();
    for learner in map.partitions.values().flat_map(|partition| &partition.learners) {
        *learners.entry(*learner).or_default() += 1;
    }
    let partitions = map.partitions.values();
    partitions
        .filter_map(|partition| step(map, placements, partition, &mut learners))
        .collect()
}

/// The nodes that were draining and hold nothing any more.
pub fn drained(map: &ClusterMap) -> Vec<NodeId> {
    let holders: BTreeSet<NodeId> = map.partitions.values().flat_map(PartitionInfo::holders).collect();
    let draining = map.nodes.values().filter(|node| node.state == NodeState::Draining);
    draining
        .map(|node| node.node_id)
        .filter(|node| !holders.contains(node))
        .collect()
}

fn step(
    map: &ClusterMap,
    placements: &Placements,
    partition: &PartitionInfo,
    busy: &mut BTreeMap<NodeId, u32>,
) -> Option<PartitionChange> {
    let primary = map.living_primary(partition)?;
    let desired: BTreeSet<NodeId> = placements.of(partition.partition_id).iter().copied().collect();
    let sound: BTreeSet<NodeId> = partition.sound_members().chain([primary]).collect();
    let whole = desired.is_subset(&sound);
    let mut in_sync = partition.in_sync.clone();
    let mut learners = partition.learners.clone();
    if whole {
        // A set of which majorities are counted is its primary's to make smaller.
        if partition.mode != ReplicationMode::SemiSync {
            in_sync.retain(|node| desired.contains(node) || *node == primary);
        }
        learners.clear();
    } else {
        for node in desired.iter().filter(|node| map.is_alive(**node)) {
            let count = busy.entry(*node).or_default();
            if *count < MAX_LEARNERS_PER_NODE && !in_sync.contains(node) && learners.insert(*node) {
                *count += 1;
            }
        }
    }
    let changed = in_sync != partition.in_sync || learners != partition.learners;
    changed.then_some(PartitionChange {
        partition: partition.partition_id,
        epoch: partition.epoch,
        primary: Some(primary),
        in_sync,
        learners,
    })
}
