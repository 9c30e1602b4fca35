//! The decision who becomes a primary and who stays in sync, as a function of the map and of what the group's leader
//! knows. It only ever removes members and fills empty thrones; adding members is the primaries' business.
//!
//! Fencing: a partition gets a new primary only when the old one's process is known to have ended, or its lease is over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use volt_engine::{Epoch, Lsn, NodeId, PartitionId};

use super::majority;
use crate::metadata::command::PartitionChange;
use crate::metadata::map::{ClusterMap, NodeState, PartitionInfo, ReplicationMode};
use crate::world::{Planted, PlantedBug};

/// How far a replica's log reaches: greater is longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// The epoch of its last record.
    pub epoch: Epoch,
    /// Its last record.
    pub appended: Lsn,
}

/// What the decision is made from.
pub struct Situation<'a> {
    /// The newest map.
    pub map: &'a ClusterMap,
    /// Those of its partitions that are decided about: `Questions` has them.
    pub partitions: &'a [&'a PartitionInfo],
    /// Nodes whose current process is dead by verdict, though the map may not say so yet; true: known to have ended.
    pub dead: &'a BTreeMap<NodeId, bool>,
    /// Nodes whose current process this leader has heard from.
    pub heard: &'a BTreeSet<NodeId>,
    /// Nodes whose last lease is over.
    pub lease_over: &'a BTreeSet<NodeId>,
    /// Ends of the replicas of the nodes' current processes.
    pub ends: &'a BTreeMap<(NodeId, PartitionId), End>,
    /// The greatest epochs that these replicas have seen: records of lower ones are refused.
    pub seen: &'a BTreeMap<(NodeId, PartitionId), Epoch>,
    /// A process that restarts has all that it acknowledged (`fsync`).
    pub restarts_keep: bool,
    /// How long each partition has been waiting for members that restarted, or for a majority.
    pub waited: &'a BTreeMap<PartitionId, Duration>,
    /// How long to wait for the rest of a set whose members all restarted.
    pub patience: Duration,
    /// Nobody is promoted unless asked for.
    pub manual: bool,
    /// As the node's `World` says.
    pub planted: Planted,
}

/// What is to be done, and what can't be done yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The changes, at most one a partition.
    pub changes: Vec<PartitionChange>,
    /// Partitions without a living primary that must wait, and for what.
    pub waiting: BTreeMap<PartitionId, Wait>,
}

/// What a partition without a living primary waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The old primary's lease.
    Lease(NodeId),
    /// Somebody must ask for a primary: failover is manual.
    Hand,
    /// A member that should be alive has not been heard from yet.
    Members,
    /// All members restarted; the others may have more.
    Restarted,
    /// No member lives.
    Nobody,
    /// So many members that have what they acknowledged are here, and so many are needed to meet every majority.
    Majority {
        /// Here.
        found: usize,
        /// Needed.
        needed: usize,
    },
}

impl std::fmt::Display for Wait {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lease(node) => write!(formatter, "waits until the lease of node {node} is over"),
            Self::Hand => formatter.write_str("failover is manual, and nobody has asked for a primary"),
            Self::Members => formatter.write_str("waits to hear from a member of its in-sync set"),
            Self::Restarted => formatter.write_str("all its members restarted; waits for the rest of them"),
            Self::Nobody => formatter.write_str("no member of its in-sync set is alive"),
            Self::Majority { found, needed } => write!(
                formatter,
                "waits for {needed} members of its in-sync set that have what they acknowledged; {found} are here"
            ),
        }
    }
}

/// Decides for each of the situation's partitions.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let mut decision = Decision::default();
    let is_vacant = |partition: &&PartitionInfo| situation.living_primary(partition).is_none();
    // Only who is to be promoted is compared by them.
    let mut primaries = match situation
        .partitions
        .iter()
        .copied()
        .any(|partition| is_vacant(&partition))
    {
        true => living_primaries(situation),
        false => BTreeMap::new(),
    };
    for partition in situation.partitions.iter().copied() {
        if let Some(primary) = situation.living_primary(partition) {
            decision.changes.extend(trim(situation, partition, primary));
            continue;
        }
        match promote(situation, partition, &primaries) {
            Ok(change) => {
                if let Some(primary) = change.primary {
                    *primaries.entry(primary).or_default() += 1;
                }
                decision.changes.push(change);
            }
            Err(wait) => {
                decision.waiting.insert(partition.partition_id, wait);
            }
        }
    }
    decision
}

impl Situation<'_> {
    pub(super) fn is_dead(&self, node: NodeId) -> bool {
        self.dead.contains_key(&node) || !self.map.is_alive(node)
    }

    fn living_primary(&self, partition: &PartitionInfo) -> Option<NodeId> {
        self.map
            .living_primary(partition)
            .filter(|node| !self.dead.contains_key(node))
    }

    /// True when the one that the map calls primary can't answer anybody any more.
    fn is_fenced(&self, partition: &PartitionInfo) -> Result<(), Wait> {
        let Some(primary) = partition.primary else {
            return Ok(());
        };
        let Some(node) = self.map.nodes.get(&primary) else {
            return Ok(());
        };
        let ended = node.boot_id != partition.primary_boot
            || matches!(
                node.state,
                NodeState::Dead {
                    process_ended: true,
                    ..
                }
            )
            || self.dead.get(&primary) == Some(&true)
            || self.lease_over.contains(&primary);
        if ended { Ok(()) } else { Err(Wait::Lease(primary)) }
    }
}

fn living_primaries(situation: &Situation<'_>) -> BTreeMap<NodeId, u32> {
    let mut counts = BTreeMap::new();
    for partition in situation.map.partitions.values() {
        if let Some(primary) = situation.living_primary(partition) {
            *counts.entry(primary).or_default() += 1;
        }
    }
    counts
}

/// A primary that lives goes on without its dead members; and without those that restarted, once it is sure that it
/// lives itself (after a power cut the map may still call a process alive that has ended).
fn trim(situation: &Situation<'_>, partition: &PartitionInfo, primary: NodeId) -> Option<PartitionChange> {
    if partition.mode == ReplicationMode::SemiSync {
        // Only the primary knows whether the others have all that is committed.
        return None;
    }
    let primary_heard = situation.heard.contains(&primary);
    let gone = |node: &NodeId| {
        *node != primary && (situation.is_dead(*node) || (primary_heard && partition.restarted.contains(node)))
    };
    let stays: BTreeSet<NodeId> = partition.in_sync.iter().copied().filter(|node| !gone(node)).collect();
    (stays.len() < partition.in_sync.len()).then(|| change(partition, primary, stays))
}

pub(super) fn change(partition: &PartitionInfo, primary: NodeId, in_sync: BTreeSet<NodeId>) -> PartitionChange {
    let learners = partition.holders().difference(&in_sync).copied().collect();
    PartitionChange {
        partition: partition.partition_id,
        epoch: partition.epoch,
        primary: Some(primary),
        in_sync,
        learners,
    }
}

fn promote(
    situation: &Situation<'_>,
    partition: &PartitionInfo,
    primaries: &BTreeMap<NodeId, u32>,
) -> Result<PartitionChange, Wait> {
    situation.is_fenced(partition)?;
    if partition.mode == ReplicationMode::SemiSync {
        return majority::promote(situation, partition, primaries);
    }
    let candidates = match situation.planted.has(PlantedBug::StaleReplicaPromoted) {
        true => partition.holders(),
        false => partition.in_sync.clone(),
    };
    let living: BTreeSet<NodeId> = candidates
        .into_iter()
        .filter(|node| !situation.is_dead(*node))
        .collect();
    if living.is_empty() {
        return Err(Wait::Nobody);
    }
    let unbroken: BTreeSet<NodeId> = living.difference(&partition.restarted).copied().collect();
    if situation.manual && partition.wanted.is_none() && !unbroken.is_empty() {
        return Err(Wait::Hand);
    }
    if unbroken.is_empty() {
        let chosen = choose_restarted(situation, partition, &living, primaries)?;
        return Ok(change(partition, chosen, BTreeSet::from([chosen])));
    }
    let heard: Vec<NodeId> = unbroken.intersection(situation.heard).copied().collect();
    if let Some(wanted) = partition.wanted.filter(|node| unbroken.contains(node)) {
        return Ok(change(partition, wanted, unbroken));
    }
    if situation.manual {
        return Err(Wait::Hand);
    }
    let chosen = best(situation, partition, heard, primaries).ok_or(Wait::Members)?;
    Ok(change(partition, chosen, unbroken))
}

/// After a power cut: of the members that are back, the longest log, once all are back or patience is at its end.
fn choose_restarted(
    situation: &Situation<'_>,
    partition: &PartitionInfo,
    living: &BTreeSet<NodeId>,
    primaries: &BTreeMap<NodeId, u32>,
) -> Result<NodeId, Wait> {
    let reported =
        |node: &NodeId| situation.heard.contains(node) && situation.ends.contains_key(&(*node, partition.partition_id));
    let back: Vec<NodeId> = living.iter().copied().filter(reported).collect();
    let all_back = back.len() == partition.in_sync.len();
    let waited = situation
        .waited
        .get(&partition.partition_id)
        .copied()
        .unwrap_or_default();
    if !all_back && waited < situation.patience {
        return Err(Wait::Restarted);
    }
    best(situation, partition, back, primaries).ok_or(Wait::Restarted)
}

/// The longest log; then who isn't leaving; then the fewest primaries; then the lowest number.
pub(super) fn best(
    situation: &Situation<'_>,
    partition: &PartitionInfo,
    candidates: Vec<NodeId>,
    primaries: &BTreeMap<NodeId, u32>,
) -> Option<NodeId> {
    candidates.into_iter().min_by_key(|node| {
        let end = situation
            .ends
            .get(&(*node, partition.partition_id))
            .copied()
            .filter(|_| !situation.planted.has(PlantedBug::StaleReplicaPromoted))
            .unwrap_or_default();
        let info = situation.map.nodes.get(node);
        let leaves = info.is_none_or(|info| !info.keeps_primaries());
        (Reverse(end), leaves, primaries.get(node).copied().unwrap_or(0), *node)
    })
}
