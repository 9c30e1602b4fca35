//! What is looked after now and then: learners that have caught up, leases that ended, marks of what is committed.

use std::sync::Arc;
use std::time::Duration;

use volt_engine::{Epoch, Lsn, NodeId, PartitionId};

use super::{Replicas, lock};
use crate::metadata::ProposeError;
use crate::metadata::command::{Command, PartitionChange, Refusal};
use crate::recovery::log::LogEntry;

/// How often.
const EVERY: Duration = Duration::from_millis(20);
/// Every so many ticks, the log hears what is committed.
const TICKS_PER_MARK: u64 = 5;
/// Every so many ticks, handovers that did not come about are tried again.
const TICKS_PER_HANDOVER: u64 = 50;
/// Commits begin to wait for a learner this close to the end: one small batch.
const CAUGHT_UP_RECORDS: Lsn = 64;
/// Pause before a proposal whose outcome is unknown is made again.
const PROPOSE_AGAIN: Duration = Duration::from_millis(100);

impl Replicas {
    pub(super) async fn tick(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = 0_u64;
        loop {
            tokio::select! {
                _ = ticks.tick() => count += 1,
                () = self.nudge.notified() => {}
            }
            if count.is_multiple_of(TICKS_PER_HANDOVER) {
                self.hand_over_where_asked(&self.metadata.map());
            }
            let given_up = self.metadata.lease().is_given_up();
            for slot in self.all() {
                let mut replica = lock(&slot);
                if given_up {
                    replica.fail_waiters();
                }
                if let Some(node) = replica.learner_to_propose(CAUGHT_UP_RECORDS) {
                    let epoch = replica.epoch;
                    tokio::spawn(Arc::clone(&self).add_member(replica.partition, epoch, node));
                }
                if count.is_multiple_of(TICKS_PER_MARK) && replica.mark_committed() {
                    let (partition, lsn) = (replica.partition, replica.committed);
                    self.log.append(partition, &LogEntry::Committed { lsn });
                }
            }
        }
    }

    /// Proposes a learner for the in-sync set until the group has said yes or no.
    async fn add_member(self: Arc<Self>, partition: PartitionId, epoch: Epoch, node: NodeId) {
        loop {
            let map = self.metadata.map();
            let Some(info) = map.partitions.get(&partition).filter(|info| info.epoch <= epoch) else {
                return;
            };
            let (mut in_sync, mut learners) = (info.in_sync.clone(), info.learners.clone());
            in_sync.insert(node);
            learners.remove(&node);
            let change = PartitionChange {
                partition,
                epoch,
                primary: Some(self.node_id),
                in_sync,
                learners,
            };
            let command = Command::ChangePartition {
                by: self.node_id,
                boot_id: self.boot_id,
                change,
            };
            match self.metadata.propose(command).await {
                // A stale epoch: this or another change went through, and the map that says so is on its way.
                Ok(_) | Err(ProposeError::Refused(Refusal::StaleEpoch { .. })) => return,
                Err(ProposeError::Refused(refusal)) => {
                    tracing::debug!(partition, epoch, node, %refusal, "a caught-up learner was not added");
                    self.with(partition, |replica| replica.learner_refused(node));
                    return;
                }
                // It may still go through: commits go on waiting for the learner.
                Err(_) => tokio::time::sleep(PROPOSE_AGAIN).await,
            }
        }
    }
}
