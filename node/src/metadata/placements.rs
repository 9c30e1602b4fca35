//! Where placement wants every partition, kept from one map to the next. Every node asks at every change of the map, and to ask for all
//! partitions takes partitions times nodes; but a change of a reign moves nothing, a node that comes takes only its share, and one that goes leaves
//! only its own.

use std::collections::{BTreeMap, BTreeSet};

use volt_engine::placement::place;
use volt_engine::{NodeId, PartitionId};

use super::map::ClusterMap;

/// The nodes that should hold each partition, as `desired_holders` says, of the map that was followed last.
#[derive(Clone, Debug, Default)]
pub struct Placements {
    /// The nodes that may hold partitions, their zones and weights.
    nodes: BTreeMap<NodeId, (String, u32)>,
    /// Copies wanted, and who should hold them, best first.
    desired: BTreeMap<PartitionId, (usize, Vec<NodeId>)>,
}

impl Placements {
    /// Of this map.
    pub fn new(map: &ClusterMap) -> Self {
        let mut placements = Self::default();
        placements.follow(map);
        placements
    }

    /// Who should hold a partition, best first.
    pub fn of(&self, partition: PartitionId) -> &[NodeId] {
        self.desired.get(&partition).map_or(&[], |(_, nodes)| nodes)
    }

    /// From now on of this map.
    pub fn follow(&mut self, map: &ClusterMap) {
        let nodes: BTreeMap<NodeId, (String, u32)> = map
            .placeable()
            .map(|node| (node.node_id, (node.zone.clone(), node.weight)))
            .collect();
        let differs = |one: &BTreeMap<NodeId, (String, u32)>, other: &BTreeMap<NodeId, (String, u32)>| {
            let changed = one.iter().filter(|(node, info)| other.get(node) != Some(info));
            changed.map(|(node, _)| *node).collect::<BTreeSet<NodeId>>()
        };
        let (gone, new) = (differs(&self.nodes, &nodes), differs(&nodes, &self.nodes));
        self.nodes = nodes;
        self.desired
            .retain(|partition, _| map.partitions.contains_key(partition));
        for partition in map.partitions.values() {
            let (number, copies) = (partition.partition_id, map.copies_wanted(partition));
            let kept = self.desired.get(&number).filter(|(had, _)| *had == copies);
            let kept = kept.filter(|(_, nodes)| nodes.iter().all(|node| !gone.contains(node)));
            let holders = match kept {
                Some(_) if new.is_empty() => continue,
                // Those who are new compete with those who were the best of the others: nobody else can be among the best now.
                Some((_, held)) => self.best(number, held.iter().chain(&new), copies),
                None => self.best(number, self.nodes.keys(), copies),
            };
            self.desired.insert(number, (copies, holders));
        }
    }

    fn best<'n>(&self, partition: PartitionId, nodes: impl Iterator<Item = &'n NodeId>, copies: usize) -> Vec<NodeId> {
        let info = |node: &NodeId| {
            self.nodes
                .get(node)
                .map(|(zone, weight)| (*node, zone.as_str(), *weight))
        };
        let candidates: Vec<(NodeId, &str, u32)> = nodes.filter_map(info).collect();
        place(partition, &candidates, copies)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metadata::map::{NodeInfo, NodeState, PartitionInfo, ReplicationGroup, ReplicationMode};
    use crate::metadata::placement::desired_holders;

    fn node(node_id: NodeId, zone: u32, weight: u32) -> NodeInfo {
        NodeInfo {
            node_id,
            name: String::new(),
            address: String::new(),
            sql_address: String::new(),
            zone: if zone == 0 { String::new() } else { format!("z{zone}") },
            incarnation: 1,
            boot_id: 1,
            state: NodeState::Active,
            weight,
            yields: false,
            endangered: false,
        }
    }

    fn map(partitions: u32) -> ClusterMap {
        let mut map = ClusterMap::default();
        for group in 1..=2 {
            let numbers: Vec<PartitionId> = (0..partitions).map(|place| group * 1_000 + place).collect();
            for number in &numbers {
                let info = PartitionInfo {
                    group,
                    ..PartitionInfo::new(*number)
                };
                map.partitions.insert(*number, info);
            }
            map.groups.insert(
                group,
                ReplicationGroup {
                    replication: group,
                    mode: ReplicationMode::Sync,
                    partitions: numbers,
                },
            );
        }
        map
    }

    proptest! {
        /// Whatever comes, goes and changes: what is kept is what all nodes together would give.
        #[test]
        fn what_is_kept_is_what_would_be_found(
            steps in prop::collection::vec((1_u32..9, 0_u32..4, 0_u32..3, any::<bool>()), 1..24),
        ) {
            let mut map = map(12);
            let mut placements = Placements::default();
            for (node_id, zone, weight, goes) in steps {
                match goes {
                    true => _ = map.nodes.remove(&node_id),
                    false => _ = map.nodes.insert(node_id, node(node_id, zone, weight * 50)),
                }
                placements.follow(&map);
                for partition in map.partitions.values() {
                    prop_assert_eq!(placements.of(partition.partition_id), desired_holders(&map, partition));
                }
            }
        }
    }
}
