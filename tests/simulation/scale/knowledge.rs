//! What the leader knows when it decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use volt_engine::{Epoch, NodeId, PartitionId};
use volt_node::membership::promotion::End;
use volt_node::metadata::map::PartitionInfo;

use super::plane::Plane;

/// Of replicas, by their node and partition.
type OfReplicas<T> = BTreeMap<(NodeId, PartitionId), T>;

impl Plane {
    /// Of the partitions that have no living primary, as the leader's loop has it.
    pub(super) fn reached(&self, dead: &BTreeMap<NodeId, bool>) -> (OfReplicas<End>, OfReplicas<Epoch>) {
        let partitions = self.map.partitions.values();
        let leads = |info: &PartitionInfo| self.map.living_primary(info).filter(|node| !dead.contains_key(node));
        let vacant: BTreeSet<PartitionId> = partitions
            .filter(|info| leads(info).is_none())
            .map(|info| info.partition_id)
            .collect();
        if vacant.is_empty() {
            return (BTreeMap::new(), BTreeMap::new());
        }
        let is_current = |node, boot_id| self.map.is_current(node, boot_id);
        let matter = self
            .ends
            .iter()
            .filter(|((node, partition), (boot_id, ..))| vacant.contains(partition) && is_current(*node, *boot_id));
        matter
            .map(|(replica, (_, end, seen))| ((*replica, *end), (*replica, *seen)))
            .unzip()
    }

    pub(super) fn heard(&self, now: Duration) -> BTreeSet<NodeId> {
        let is_heard = |node: NodeId, boot_id| node == self.leader || self.sightings.is_heard(node, boot_id, now);
        let nodes = self.map.nodes.values();
        nodes
            .filter(|node| is_heard(node.node_id, node.boot_id))
            .map(|node| node.node_id)
            .collect()
    }
}
