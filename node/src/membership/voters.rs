//! Keeps the metadata group's members as `desired_voters` says: every node a member, three or five of them voters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, ChangeMembers};
use tokio::time::{MissedTickBehavior, interval, timeout};
use volt_engine::NodeId;

use super::Membership;
use crate::metadata::raft::voters::desired_voters;
use crate::metadata::raft::{MemberId, member, node_of};

/// The leader looks at the members so often.
const TICK: Duration = Duration::from_millis(200);
/// Longest wait for a change of the members.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);
/// A member that lacks no more than so many entries may vote.
const READY_WITHIN: u64 = 50;

impl Membership {
    pub(super) async fn keep_voters(self: Arc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warned = false;
        loop {
            ticks.tick().await;
            if self.metadata.is_leader()
                && let Some(change) = self.next_change()
            {
                self.change_members(change).await;
            }
            let voters = self.metadata.voters().len();
            if voters == 2 && !warned {
                tracing::warn!("the metadata group has two voters: the loss of either stops the cluster");
            }
            warned = voters == 2;
        }
    }

    /// One step: first everybody a learner, then the right voters, then away with those who are gone.
    fn next_change(&self) -> Option<ChangeMembers<MemberId, BasicNode>> {
        let map = self.metadata.map();
        let metrics = self.metadata.raft()?.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        if map.cluster_uuid.is_empty() {
            return None;
        }
        if let [_, .., wanted] = membership.get_joint_config().as_slice() {
            // Between two sets of voters: the leader that began this is gone, and nobody else ends it.
            return Some(ChangeMembers::ReplaceAllVoters(wanted.clone()));
        }
        let members: BTreeSet<MemberId> = membership.nodes().map(|(id, _)| *id).collect();
        let current: BTreeMap<MemberId, BasicNode> = map
            .nodes
            .values()
            .map(|node| (member(node.node_id, node.incarnation), BasicNode::new(&node.address)))
            .collect();
        let missing: BTreeMap<MemberId, BasicNode> = current
            .iter()
            .filter(|(id, _)| !members.contains(id))
            .map(|(id, node)| (*id, node.clone()))
            .collect();
        if !missing.is_empty() {
            return Some(ChangeMembers::AddNodes(missing));
        }
        let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let has_log = |index: Option<u64>| index.is_some_and(|index| index + READY_WITHIN >= last);
        let progress = metrics.replication.as_ref()?;
        let ready: BTreeSet<MemberId> = progress
            .iter()
            .filter(|(_, at)| has_log(at.map(|id| id.index)))
            .map(|(id, _)| *id)
            .collect();
        let desired = desired_voters(&map, &voters, &ready, &self.dead_for());
        if desired != voters {
            return Some(ChangeMembers::ReplaceAllVoters(desired));
        }
        let gone: BTreeSet<MemberId> = members
            .iter()
            .copied()
            .filter(|id| !current.contains_key(id) && !voters.contains(id))
            .collect();
        (!gone.is_empty()).then_some(ChangeMembers::RemoveNodes(gone))
    }

    fn dead_for(&self) -> BTreeMap<NodeId, Duration> {
        let now = self.now();
        let state = self.lock();
        let Some(reign) = &state.reign else {
            return BTreeMap::new();
        };
        reign
            .dead_since
            .iter()
            .map(|(node, since)| (*node, now.saturating_sub(*since)))
            .collect()
    }

    async fn change_members(&self, change: ChangeMembers<MemberId, BasicNode>) {
        let Some(raft) = self.metadata.raft() else { return };
        tracing::info!(?change, "changing the metadata group");
        match timeout(CHANGE_LIMIT, raft.change_membership(change, true)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::info!(%error, "the metadata group was not changed"),
            Err(_) => tracing::info!("the metadata group was not changed in time"),
        }
    }

    /// The nodes whose members take part in the group, voters or not.
    pub fn members(&self) -> BTreeSet<NodeId> {
        let Some(raft) = self.metadata.raft() else {
            return BTreeSet::new();
        };
        let metrics = raft.metrics();
        metrics
            .borrow()
            .membership_config
            .membership()
            .nodes()
            .map(|(id, _)| node_of(*id))
            .collect()
    }
}
