//! Processes that end, and come back with what was on their disks, among the replicas that exchange messages.

use volt_engine::NodeId;

use super::Cluster;
use crate::metadata::map::ReplicationMode;

/// To find where a log ends, to send what it lacks, and to tell what is committed.
const EXCHANGES: u32 = 3;

impl Cluster {
    /// The process ends, and the next one reads its log back: all that it acknowledged, but for a primary's own records that nobody else was
    /// asked to keep yet; and of epochs those that records have. Somebody is quick to find it again, whether he still leads or not.
    pub(super) fn restart(&mut self, node: NodeId, finder: NodeId) {
        if self.changes || self.mode != ReplicationMode::SemiSync {
            return; // another mode's set changes with it
        }
        for other in self.nodes.clone().into_iter().filter(|other| *other != node) {
            self.lose_stream(node, other);
            self.lose_stream(other, node);
        }
        let replica = self.replicas.get_mut(&node).unwrap();
        let kept = match replica.reign() {
            Some(_) => replica.durable.max(replica.committed),
            None => replica.appended,
        };
        replica.follow(replica.epoch);
        replica.cut(kept);
        replica.epoch = replica.history.epoch_at(kept);
        replica.came_back();
        self.restarted.insert(node);
        self.write(finder);
        self.flush(finder);
        (0..EXCHANGES).for_each(|_| self.exchange(finder, node));
    }

    /// The group hears of the new process, if it is one, and takes the partition from the old one.
    pub(super) fn join(&mut self, node: NodeId) {
        if !self.restarted.remove(&node) {
            return;
        }
        self.replicas.get_mut(&node).unwrap().awaits_role = false;
        self.epoch += 1;
        if self.primary == node {
            self.primary = 0;
        }
    }
}
