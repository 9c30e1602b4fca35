//! What the partitions' primaries do by themselves: learners are filled and become members, and who should lead is handed over to.

use std::collections::BTreeSet;

use volt_engine::{NodeId, PartitionId};
use volt_node::metadata::command::{Command, PartitionChange};
use volt_node::metadata::map::ClusterMap;
use volt_node::metadata::placement::target_primaries;

use super::plane::{Event, FILL_MS, Plane};

impl Plane {
    /// What primaries do about the new map: fill the learners, and hand over what is another's.
    pub(super) fn follow(&mut self, before: &ClusterMap) {
        let boot_of = |map: &ClusterMap, node: NodeId| map.nodes.get(&node).map(|info| info.boot_id);
        let mut learners = Vec::new();
        for info in self.map.partitions.values() {
            let had = before.partitions.get(&info.partition_id);
            let is_new = |node: &NodeId| {
                let is_known = had.is_some_and(|had| had.learners.contains(node));
                let is_same = boot_of(before, *node) == boot_of(&self.map, *node);
                self.map.is_alive(*node) && !(is_known && is_same)
            };
            let new = info.learners.iter().copied().filter(is_new);
            learners.extend(new.map(|node| (info.partition_id, node)));
        }
        for (partition, node) in learners {
            self.at(self.now + FILL_MS, Event::Filled(partition, node));
        }
    }

    pub(super) fn add(&mut self, partition: PartitionId, learner: NodeId) {
        let Some(info) = self.map.partitions.get(&partition) else {
            return;
        };
        let Some(primary) = info.primary.filter(|_| info.learners.contains(&learner)) else {
            return;
        };
        let (mut in_sync, mut learners) = (info.in_sync.clone(), info.learners.clone());
        in_sync.insert(learner);
        learners.remove(&learner);
        self.propose_by(primary, partition, primary, in_sync, learners);
    }

    fn propose_by(
        &mut self,
        by: NodeId,
        partition: PartitionId,
        primary: NodeId,
        in_sync: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) {
        let change = PartitionChange {
            partition,
            epoch: self.map.partitions[&partition].epoch,
            primary: Some(primary),
            in_sync,
            learners,
        };
        let command = Command::ChangePartition {
            by,
            boot_id: self.map.nodes[&by].boot_id,
            change,
            grounds: None,
        };
        self.count(
            "proposals",
            2,
            postcard::to_stdvec(&command).map_or(0, |bytes| bytes.len()) as u64,
        );
        self.propose(command);
    }

    /// Primaries go where they belong, as each primary would have it.
    pub(super) fn handover_all(&mut self) {
        self.placements.follow(&self.map);
        for (partition, to) in target_primaries(&self.map, &self.placements) {
            let info = &self.map.partitions[&partition];
            let (Some(by), in_sync, learners) = (info.primary, info.in_sync.clone(), info.learners.clone()) else {
                continue;
            };
            self.propose_by(by, partition, to, in_sync, learners);
        }
        self.run(20);
    }
}
