//! A group that lost its majority for good can't decide anything, nor that. One member that is left is made the group, by hand, while its
//! node does not run: its log gets an entry that says so, and one that says which nodes are gone.
//!
//! What a majority had and this member never got is lost, of the metadata: which replica was in sync last, a table that was just made. So
//! the member with the greatest place in the log is the one to take.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use openraft::{BasicNode, CommittedLeaderId, Entry, EntryPayload, LogId, Membership, Vote};
use volt_engine::{NodeId, PartitionId};

use super::log::Log;
use super::machine::{Machine, Published};
use super::{MemberId, member, node_of};
use crate::metadata::apply::loss::{Loss, loss};
use crate::metadata::command::Command;
use crate::metadata::identity::{self, Identity};
use crate::metadata::map::ClusterMap;
use crate::world::{Disk, Planted};

/// What one member that is left holds.
pub(crate) struct Remains {
    pub(crate) identity: Identity,
    pub(crate) map: ClusterMap,
    /// The nodes of the group's members.
    pub(crate) voters: BTreeSet<NodeId>,
    log: Log,
}

/// Why a group is not made anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SalvageError {
    #[error("{0}")]
    Disk(#[from] io::Error),
    #[error("this data directory belongs to no cluster yet")]
    NoIdentity,
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    #[error("node {0} is this one")]
    ThisNode(NodeId),
    #[error("of the group's members, nodes {voters}, a majority is left: nodes {left}; start them")]
    MajorityIsLeft { voters: String, left: String },
}

/// The numbers, with commas.
pub(crate) fn list<'n>(nodes: impl IntoIterator<Item = &'n NodeId>) -> String {
    let nodes: Vec<String> = nodes.into_iter().map(NodeId::to_string).collect();
    nodes.join(", ")
}

impl Remains {
    /// Reads them; nothing is changed.
    pub(crate) async fn read(disk: &Arc<dyn Disk>) -> Result<Self, SalvageError> {
        let identity = identity::read(&**disk).await?.ok_or(SalvageError::NoIdentity)?;
        let planted = Planted::default();
        let log = Log::open(Arc::clone(disk), planted).await?;
        let machine = Machine::open(Arc::clone(disk), Arc::<Published>::default(), planted).await?;
        let entries = log.behind(machine.applied());
        let (map, membership) = machine.with_all(entries);
        let voters = membership.membership().voter_ids().map(node_of).collect();
        Ok(Self {
            identity,
            map,
            voters,
            log,
        })
    }

    /// Term and index of its last entry: of several members that are left, the one with the greatest is to be taken.
    pub(crate) fn place(&self) -> (u64, u64) {
        self.log.last().map_or((0, 0), |id| (id.leader_id.term, id.index))
    }

    /// Whether the group can't go on without these nodes, and can with this one.
    pub(crate) fn check(&self, lost: &BTreeSet<NodeId>) -> Result<(), SalvageError> {
        if let Some(unknown) = lost.iter().find(|node| !self.map.nodes.contains_key(node)) {
            return Err(SalvageError::NoSuchNode(*unknown));
        }
        if lost.contains(&self.identity.node_id) {
            return Err(SalvageError::ThisNode(self.identity.node_id));
        }
        let left: BTreeSet<NodeId> = self.voters.difference(lost).copied().collect();
        if left.len() > self.voters.len() / 2 {
            return Err(SalvageError::MajorityIsLeft {
                voters: list(&self.voters),
                left: list(&left),
            });
        }
        Ok(())
    }

    /// The partitions that may lose something, and what.
    pub(crate) fn losses(&self, lost: &BTreeSet<NodeId>) -> Vec<(PartitionId, Loss)> {
        let of = |partition: &crate::metadata::map::PartitionInfo| (partition.partition_id, loss(partition, lost));
        let all = self.map.partitions.values().map(of);
        all.filter(|(_, what)| *what != Loss::Nothing).collect()
    }

    /// Makes this member the group, without these nodes.
    pub(crate) async fn make_group(mut self, disk: &Arc<dyn Disk>, lost: BTreeSet<NodeId>) -> Result<(), SalvageError> {
        self.check(&lost)?;
        let own: MemberId = member(self.identity.node_id, self.identity.incarnation);
        let voted = self.log.vote().map_or(0, |vote| vote.leader_id.term);
        let (last_term, last) = self.place();
        let term = voted.max(last_term) + 1;
        let membership = Membership::new(
            vec![BTreeSet::from([own])],
            std::collections::BTreeMap::<MemberId, BasicNode>::new(),
        );
        let payloads = [
            EntryPayload::Membership(membership),
            EntryPayload::Normal(Command::AcceptLoss { lost }),
        ];
        let entries: Vec<_> = (last + 1..)
            .zip(payloads)
            .map(|(index, payload)| Entry {
                log_id: LogId::new(CommittedLeaderId::new(term, own), index),
                payload,
            })
            .collect();
        // First the vote: a log with a later term than the vote is one that nobody can have written.
        super::log::write_vote(&**disk, &Vote::new(term, own)).await?;
        self.log.append_by_hand(&entries).await?;
        Ok(())
    }
}
