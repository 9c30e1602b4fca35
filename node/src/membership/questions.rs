//! Of which partitions something may have to be decided. The leader looks twenty times a second, and of almost all partitions there is nothing
//! to decide for hours: which those are is known by the map, and found once for each. Pure.

use std::collections::{BTreeMap, BTreeSet};

use volt_engine::{NodeId, PartitionId};

use crate::metadata::map::{ClusterMap, PartitionInfo};

/// Those partitions, by the map that was followed last.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    version: Option<u64>,
    open: BTreeSet<PartitionId>,
}

impl Questions {
    /// Those of this map, whoever else is dead by verdicts that it does not know.
    pub fn of<'a>(&mut self, map: &'a ClusterMap, dead: &BTreeMap<NodeId, bool>) -> Vec<&'a PartitionInfo> {
        if self.version != Some(map.version) {
            let open = map.partitions.values().filter(|partition| is_open(map, partition));
            self.open = open.map(|partition| partition.partition_id).collect();
            self.version = Some(map.version);
        }
        match dead.is_empty() {
            true => self.open.iter().filter_map(|open| map.partitions.get(open)).collect(),
            false => map.partitions.values().collect(),
        }
    }
}

/// Those of them who have no primary that lives, or are about to have none: only who is without one gets one, and the ends of replicas are many.
pub fn vacant(map: &ClusterMap, partitions: &[&PartitionInfo], dead: &BTreeMap<NodeId, bool>) -> BTreeSet<PartitionId> {
    let leads = |partition: &PartitionInfo| map.living_primary(partition).filter(|node| !dead.contains_key(node));
    let without = partitions.iter().filter(|partition| leads(partition).is_none());
    without.map(|partition| partition.partition_id).collect()
}

/// It has no living primary, or a member that is dead, or one that restarted.
fn is_open(map: &ClusterMap, partition: &PartitionInfo) -> bool {
    let mut members = partition.in_sync.iter();
    map.living_primary(partition).is_none()
        || !partition.restarted.is_empty()
        || members.any(|member| !map.is_alive(*member))
}
