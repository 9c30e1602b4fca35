//! A planned change of primary: the old one stops, lets everything commit, and only then names its successor.
//!
//! Because it has stopped serving before it proposes, the successor may start at once, although the old lease runs on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use volt_engine::{Epoch, NodeId, PartitionId};

use super::{Replicas, lock};
use crate::metadata::ProposeError;
use crate::metadata::command::{Applied, Command, PartitionChange, Refusal};
use crate::metadata::failure::Grounds;
use crate::metadata::map::ClusterMap;
use crate::metadata::placement::target_primaries;

/// A partition that doesn't come to rest within this keeps its primary; the next map tries again.
const REST_LIMIT: Duration = Duration::from_secs(2);
/// How often to look whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Pause before a proposal whose outcome is unknown is made again.
const PROPOSE_AGAIN: Duration = Duration::from_millis(20);

/// What follows from an answer to the proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A later epoch is on its way into the role here, and says who serves.
    Done,
    /// It did not happen, and can't any more.
    ServeAgain,
    /// It did not happen, but an earlier try may still be on its way: this node goes on in a new epoch, which makes that stale.
    Stay,
    /// It may have happened: this node can't serve in this epoch.
    AskAgain,
}

/// `unsure`: what became of an earlier try is not known.
fn next(answer: &Result<Applied, ProposeError>, unsure: bool) -> Next {
    match answer {
        // Stale: an earlier try may have been what made it so, and the map here may not say it yet.
        Ok(_) | Err(ProposeError::Refused(Refusal::StaleEpoch { .. })) => Next::Done,
        Err(ProposeError::Refused(_)) if unsure => Next::Stay,
        Err(ProposeError::Refused(_)) => Next::ServeAgain,
        Err(ProposeError::Unavailable(_) | ProposeError::Unknown(_)) => Next::AskAgain,
    }
}

/// Who takes a partition over.
pub(super) struct Successor {
    /// A member of its in-sync set.
    pub(super) node: NodeId,
    /// Set when the old primary is no member afterwards, and why.
    pub(super) grounds: Option<Box<Grounds>>,
}

impl Replicas {
    /// Begins to hand over every partition that this node leads and another one should.
    pub(super) fn hand_over_where_asked(self: &Arc<Self>, map: &ClusterMap) {
        let targets = {
            let mut placements = self.placements.lock().expect("no panic under this lock");
            placements.follow(map);
            target_primaries(map, &placements)
        };
        for (partition, successor) in targets {
            let Some(info) = map.partitions.get(&partition) else {
                continue;
            };
            let ours = info.primary == Some(self.node_id) && info.primary_boot == self.boot_id;
            if ours && successor != self.node_id && self.stop_serving(partition, info.epoch) {
                let replicas = Arc::clone(self);
                let successor = Successor {
                    node: successor,
                    grounds: None,
                };
                tokio::spawn(replicas.hand_over(partition, info.epoch, successor));
            }
        }
    }

    /// No new transaction starts from here on. False if that is so already, or another epoch reigns.
    pub(super) fn stop_serving(&self, partition: PartitionId, epoch: Epoch) -> bool {
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

    /// The handover of this epoch came to nothing. In a later epoch there may be another one under way.
    fn serve_again(&self, partition: PartitionId, epoch: Epoch) {
        self.with(partition, |replica| {
            if let Some(reign) = replica.reign_mut().filter(|reign| reign.epoch == epoch) {
                reign.relinquishing = false;
            }
        });
    }

    pub(super) async fn hand_over(self: Arc<Self>, partition: PartitionId, epoch: Epoch, successor: Successor) {
        let Successor {
            node: successor,
            grounds,
        } = successor;
        if !self.comes_to_rest(partition, successor).await {
            tracing::debug!(partition, successor, "not at rest; keeps its primary");
            return self.serve_again(partition, epoch);
        }
        // Until the group says what became of it: only then is it known who may serve. While the group can't be asked,
        // this node has no lease, so that nobody is kept from anything.
        let (mut primary, mut unsure) = (successor, false);
        loop {
            let map = self.metadata.map();
            let Some(info) = map.partitions.get(&partition).filter(|info| info.epoch == epoch) else {
                // What the other epoch says is on its way into the role, and ends this handover there.
                return tracing::debug!(partition, successor, "a handover ended with its epoch");
            };
            let mut change = PartitionChange {
                partition,
                epoch,
                primary: Some(primary),
                in_sync: info.in_sync.clone(),
                learners: info.learners.clone(),
            };
            let grounds = grounds.clone().filter(|_| primary != self.node_id);
            if grounds.is_some() {
                change.in_sync.remove(&self.node_id);
                change.learners.insert(self.node_id);
            }
            let command = Command::ChangePartition {
                by: self.node_id,
                boot_id: self.boot_id,
                change,
                grounds,
            };
            let answer = self.metadata.propose(command).await;
            tracing::debug!(partition, epoch, primary, ?answer, "hands over");
            match next(&answer, unsure) {
                Next::Done => return,
                Next::ServeAgain => return self.serve_again(partition, epoch),
                // Refused even this: another process is the primary.
                Next::Stay if primary == self.node_id => return,
                Next::Stay => primary = self.node_id,
                Next::AskAgain => tokio::time::sleep(PROPOSE_AGAIN).await,
            }
            unsure |= matches!(answer, Err(ProposeError::Unknown(_)));
        }
    }

    /// Waits until nothing is under way: no hold, all is committed, and the successor has it.
    async fn comes_to_rest(&self, partition: PartitionId, successor: NodeId) -> bool {
        let Some(slot) = self.slot(partition) else { return false };
        let deadline = Instant::now() + REST_LIMIT;
        loop {
            {
                let replica = lock(&slot);
                if replica.reign().is_none() {
                    return false;
                }
                let rests = replica.hold.holder().is_none() && replica.committed == replica.appended;
                if rests && replica.has_all(successor) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_again_only_where_nobody_else_can_have_been_told_to() {
        let dead = || Err(ProposeError::Refused(Refusal::NotAllowed("it is dead".to_owned())));
        let stale = Err(ProposeError::Refused(Refusal::StaleEpoch {
            partition: 7,
            named: 4,
            current: 5,
        }));
        assert_eq!(next(&dead(), false), Next::ServeAgain);
        assert_eq!(next(&dead(), true), Next::Stay);
        for unsure in [false, true] {
            assert_eq!(next(&Ok(Applied::Changed { epoch: 5 }), unsure), Next::Done);
            assert_eq!(next(&stale, unsure), Next::Done);
            for lost in [
                ProposeError::Unknown(String::new()),
                ProposeError::Unavailable(String::new()),
            ] {
                assert_eq!(next(&Err(lost), unsure), Next::AskAgain);
            }
        }
    }
}
