//! A planned change of primary: the old one stops, lets everything commit, and only then names its successor.
//!
//! Because it has stopped serving before it proposes, the successor may start at once, although the old lease runs on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use volt_engine::{Epoch, NodeId, PartitionId};

use super::{Replicas, lock};
use crate::metadata::ProposeError;
use crate::metadata::command::{Command, PartitionChange};
use crate::metadata::map::ClusterMap;
use crate::metadata::placement::target_primaries;

/// A partition that doesn't come to rest within this keeps its primary; the next map tries again.
const REST_LIMIT: Duration = Duration::from_secs(2);
/// How often to look whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long to learn what became of a proposal before serving again is considered; the epoch decides in the end.
const OUTCOME_LIMIT: Duration = Duration::from_secs(10);

impl Replicas {
    /// Begins to hand over every partition that this node leads and another one should.
    pub(super) fn hand_over_where_asked(self: &Arc<Self>, map: &ClusterMap) {
        for (partition, successor) in target_primaries(map) {
            let Some(info) = map.partitions.get(&partition) else {
                continue;
            };
            let ours = info.primary == Some(self.node_id) && info.primary_boot == self.boot_id;
            if ours && successor != self.node_id && self.stop_serving(partition, info.epoch) {
                let replicas = Arc::clone(self);
                tokio::spawn(replicas.hand_over(partition, info.epoch, successor));
            }
        }
    }

    /// No new transaction starts from here on. False if that is so already, or another epoch reigns.
    fn stop_serving(&self, partition: PartitionId, epoch: Epoch) -> bool {
        let stopped = self.with(partition, |replica| {
            let Some(reign) = replica
                .reign_mut()
                .filter(|reign| reign.epoch == epoch && !reign.relinquishing)
            else {
                return false;
            };
            reign.relinquishing = true;
            true
        });
        stopped == Some(true)
    }

    fn serve_again(&self, partition: PartitionId) {
        self.with(partition, |replica| {
            if let Some(reign) = replica.reign_mut() {
                reign.relinquishing = false;
            }
        });
    }

    async fn hand_over(self: Arc<Self>, partition: PartitionId, epoch: Epoch, successor: NodeId) {
        if !self.comes_to_rest(partition).await {
            tracing::debug!(partition, successor, "not at rest; keeps its primary");
            return self.serve_again(partition);
        }
        let deadline = Instant::now() + OUTCOME_LIMIT;
        loop {
            let map = self.metadata.map();
            let Some(info) = map.partitions.get(&partition).filter(|info| info.epoch == epoch) else {
                // Another epoch: whatever it says is on its way into the role.
                return self.serve_again(partition);
            };
            let change = PartitionChange {
                partition,
                epoch,
                primary: Some(successor),
                in_sync: info.in_sync.clone(),
                learners: info.learners.clone(),
            };
            let command = Command::ChangePartition {
                by: self.node_id,
                boot_id: self.boot_id,
                change,
            };
            match self.metadata.propose(command).await {
                Ok(_) => return tracing::debug!(partition, successor, "handed over"),
                Err(ProposeError::Refused(_)) => return self.serve_again(partition),
                Err(error) if Instant::now() >= deadline => {
                    // Unknown: it may still be committed, so this node must not serve in this epoch any more. The next
                    // epoch, whosever it is, ends that; the metadata group's leader sees a primary that doesn't serve.
                    return tracing::warn!(partition, successor, %error, "a handover's outcome is unknown");
                }
                Err(_) => tokio::time::sleep(LOOK_AGAIN * 10).await,
            }
        }
    }

    /// Waits until nothing is under way: no hold, and all is committed.
    async fn comes_to_rest(&self, partition: PartitionId) -> bool {
        let Some(slot) = self.slot(partition) else { return false };
        let deadline = Instant::now() + REST_LIMIT;
        loop {
            {
                let replica = lock(&slot);
                if replica.reign().is_none() {
                    return false;
                }
                if replica.hold.holder().is_none() && replica.committed == replica.appended {
                    return true;
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
