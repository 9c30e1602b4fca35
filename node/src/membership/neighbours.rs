//! Who sends heartbeats to whom. In a small cluster everybody to everybody. In a large one that would be the square of the nodes, and
//! most of it in vain: a verdict is the business of the metadata group's leader, who is one of its voters, and how far a partition has
//! committed is told by its primary. So each node talks with the voters, the voters with everybody, and a backup with its primaries: the
//! messages of a node are as many as the voters and its partitions, however many nodes there are. Pure.

use std::collections::BTreeSet;

use volt_engine::NodeId;

use crate::metadata::map::ClusterMap;

/// Up to so many nodes all talk with all.
pub const ALL_WITH_ALL: usize = 16;

/// Those with whom a node talks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// It sends them heartbeats, and watches its connections to them.
    pub asks: BTreeSet<NodeId>,
    /// They send it heartbeats: when they are silent, that says something.
    pub hears: BTreeSet<NodeId>,
}

impl Neighbours {
    /// Of the node `own`, by this map and these voters of the metadata group.
    pub fn new(map: &ClusterMap, own: NodeId, voters: &BTreeSet<NodeId>) -> Self {
        let others: BTreeSet<NodeId> = map.nodes.keys().copied().filter(|node| *node != own).collect();
        let is_small = map.nodes.len() <= ALL_WITH_ALL;
        // Who knows no voters has heard of no group yet, and may hear of it from anybody.
        if is_small || voters.is_empty() || voters.contains(&own) {
            return Self {
                asks: others.clone(),
                hears: others,
            };
        }
        let mut asks: BTreeSet<NodeId> = voters.intersection(&others).copied().collect();
        let mut hears = asks.clone();
        for partition in map.partitions.values() {
            let Some(primary) = partition.primary else { continue };
            if primary == own {
                hears.extend(partition.holders().intersection(&others));
            } else if partition.in_sync.contains(&own) || partition.learners.contains(&own) {
                asks.extend(others.get(&primary));
            }
        }
        Self { asks, hears }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::apply::apply;
    use crate::metadata::command::{Command, Joining};
    use crate::metadata::map::PartitionInfo;

    fn map(nodes: NodeId) -> ClusterMap {
        let mut map = ClusterMap::default();
        let node = |node_id| Joining {
            node_id,
            boot_id: u64::from(node_id) * 10,
            ..Joining::default()
        };
        let init = Command::Initialise {
            cluster_uuid: "u".to_owned(),
            partitions: 1,
            node: node(1),
            awaits_restoration: false,
        };
        apply(&mut map, init).unwrap();
        for other in 2..=nodes {
            apply(&mut map, Command::Join(node(other))).unwrap();
        }
        map.partitions.clear();
        let info = PartitionInfo {
            primary: Some(10),
            in_sync: [10, 11].into(),
            learners: [12].into(),
            ..PartitionInfo::new(1)
        };
        map.partitions.insert(1, info);
        map
    }

    fn of(nodes: NodeId, own: NodeId) -> (Vec<NodeId>, Vec<NodeId>) {
        let Neighbours { asks, hears } = Neighbours::new(&map(nodes), own, &[1, 2, 3].into());
        (asks.into_iter().collect(), hears.into_iter().collect())
    }

    #[test]
    fn a_small_cluster_talks_all_with_all() {
        let all: Vec<NodeId> = (1..=16).filter(|node| *node != 12).collect();
        assert_eq!(of(16, 12), (all.clone(), all));
    }

    #[test]
    fn in_a_large_one_voters_talk_with_all_and_backups_with_their_primary() {
        let others: Vec<NodeId> = (1..=17).filter(|node| *node != 2).collect();
        assert_eq!(of(17, 2), (others.clone(), others));
        assert_eq!(of(17, 17), (vec![1, 2, 3], vec![1, 2, 3]));
        assert_eq!(of(17, 10), (vec![1, 2, 3], vec![1, 2, 3, 11, 12]));
        assert_eq!(of(17, 11), (vec![1, 2, 3, 10], vec![1, 2, 3]));
        assert_eq!(of(17, 12), (vec![1, 2, 3, 10], vec![1, 2, 3]));
    }

    #[test]
    fn whom_one_asks_hears_of_that() {
        for own in 1..=17 {
            for asked in of(17, own).0 {
                assert!(of(17, asked).1.contains(&own), "{own} asks {asked}");
            }
        }
    }
}
