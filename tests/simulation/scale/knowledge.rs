//! What the leader knows when it decides.

use std::collections::BTreeSet;
use std::time::Duration;

use volt_engine::NodeId;

use super::plane::Plane;

impl Plane {
    pub(super) fn heard(&self, now: Duration) -> BTreeSet<NodeId> {
        let is_heard = |node: NodeId, boot_id| node == self.leader || self.sightings.is_heard(node, boot_id, now);
        let nodes = self.map.nodes.values();
        nodes
            .filter(|node| is_heard(node.node_id, node.boot_id))
            .map(|node| node.node_id)
            .collect()
    }
}
