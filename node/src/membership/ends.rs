//! How far the nodes' replicas reach, as their heartbeats say. Thirty replicas a node, ten times a second: what is heard is kept as it came,
//! and looked through only when somebody must be promoted. Pure.

use std::collections::{BTreeMap, BTreeSet};

use volt_engine::{Epoch, NodeId, PartitionId};
use volt_proto::v1::ReplicaEnd;

use super::promotion::End;
use crate::metadata::map::ClusterMap;

/// The last word of each node's process.
#[derive(Clone, Debug, Default)]
pub struct Ends(BTreeMap<NodeId, (u64, Vec<ReplicaEnd>)>);

/// Of replicas: how far each reaches, and the greatest epoch that it has seen.
pub type Reached = (
    BTreeMap<(NodeId, PartitionId), End>,
    BTreeMap<(NodeId, PartitionId), Epoch>,
);

impl Ends {
    /// A process says how far all its replicas reach; what it, or another one of the node, said before is over.
    pub fn note(&mut self, node: NodeId, boot_id: u64, ends: &[ReplicaEnd]) {
        let (boot, held) = self.0.entry(node).or_default();
        *boot = boot_id;
        held.clear();
        held.extend_from_slice(ends);
    }

    /// A process that is over says nothing of the next one.
    pub fn keep_current(&mut self, map: &ClusterMap) {
        self.0.retain(|node, (boot_id, _)| map.is_current(*node, *boot_id));
    }

    /// What was said of these partitions.
    pub fn of(&self, partitions: &BTreeSet<PartitionId>) -> Reached {
        let (mut reach, mut seen) = Reached::default();
        if partitions.is_empty() {
            return (reach, seen);
        }
        for (node, (_, ends)) in &self.0 {
            for end in ends.iter().filter(|end| partitions.contains(&end.partition_id)) {
                let replica = (*node, end.partition_id);
                let reaches = End {
                    epoch: end.last_epoch,
                    appended: end.appended,
                };
                reach.insert(replica, reaches);
                seen.insert(replica, end.epoch);
            }
        }
        (reach, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::apply::apply;
    use crate::metadata::command::{Command, Joining};

    fn end(partition_id: PartitionId, appended: u64) -> ReplicaEnd {
        ReplicaEnd {
            partition_id,
            last_epoch: 3,
            appended,
            committed: appended,
            epoch: 4,
        }
    }

    #[test]
    fn the_last_word_of_the_current_process_counts() {
        let mut map = ClusterMap::default();
        let node = Joining {
            node_id: 1,
            boot_id: 10,
            ..Joining::default()
        };
        let first = Command::Initialise {
            cluster_uuid: "u".to_owned(),
            partitions: 1,
            node,
            awaits_restoration: false,
        };
        apply(&mut map, first).unwrap();
        let mut ends = Ends::default();
        ends.note(1, 10, &[end(1, 5), end(2, 6)]);
        ends.note(1, 10, &[end(1, 7), end(3, 8)]);
        ends.note(2, 20, &[end(1, 9)]);
        let (reach, seen) = ends.of(&[1, 2].into());
        let at = |appended| End { epoch: 3, appended };
        assert_eq!(reach, [((1, 1), at(7)), ((2, 1), at(9))].into());
        assert_eq!(seen, [((1, 1), 4), ((2, 1), 4)].into());
        // Node 2 is not in the map, and node 1 is.
        ends.keep_current(&map);
        assert_eq!(ends.of(&[1, 2].into()).0, [((1, 1), at(7))].into());
        ends.note(1, 11, &[end(1, 7)]);
        ends.keep_current(&map);
        assert_eq!(ends.of(&[1, 2].into()), Reached::default());
    }
}
